//! The system-call filter: a small program that the kernel runs before every call.
//! Owns: the table of refused calls for x86_64 and aarch64, and its encoding.
//! Never: looks through a pointer; a filter sees numbers and register values only.
//!
//! Everything is allowed but what stands here, since a tool may be any program: the walls proper are the namespaces and
//! Landlock, and this takes away the kernel's more dangerous corners behind them. A call newer than the table does not
//! exist for the program (`ENOSYS`), nor do the numbers of another calling convention.

use std::io;

use super::check;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The newest call that this table was written with in sight (`mseal`). x32 numbers lie above it.
const NEWEST_KNOWN: u32 = 462;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// Calls that are refused whatever their arguments.
#[rustfmt::skip]
const REFUSED: &[libc::c_long] = &[
    // Other processes' memory, registers and descriptors.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise,
    libc::SYS_process_mrelease, libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_move_pages, libc::SYS_migrate_pages,
    // Keys that belong to the user, not to the process.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // Programs and probes in the kernel; faults handled by user space, which make its races winnable.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    // Mounts, roots and namespaces.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_setns, LISTMOUNT, STATMOUNT,
    // Files by handle reach past every root; watching all of a file system does as well.
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_fanotify_init, libc::SYS_fanotify_mark,
    // The host: kernel, modules, clock, swap, accounting, log, quotas.
    libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module, libc::SYS_finit_module,
    libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_syslog,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_vhangup,
    libc::SYS_lookup_dcookie, libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")] libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")] libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")] libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")] libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")] libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")] libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")] libc::SYS__sysctl,
];

const STATMOUNT: libc::c_long = 457;
const LISTMOUNT: libc::c_long = 458;

/// Calls that do not exist for the program, so that it takes the older way, or that only ever made trouble.
const ABSENT: &[libc::c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_clone3];

/// System V objects are used by number and POSIX queues by name, whoever made them.
#[rustfmt::skip]
const IPC: &[libc::c_long] = &[
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmdt, libc::SYS_shmctl,
    libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl,
    libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_semctl,
    libc::SYS_mq_open, libc::SYS_mq_unlink, libc::SYS_mq_timedsend, libc::SYS_mq_timedreceive, libc::SYS_mq_notify,
    libc::SYS_mq_getsetattr,
];

/// Calls whose first argument is the process that they are about, 0 for the calling one.
const ON_A_PROCESS: &[libc::c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// Namespace flags of clone and unshare: time, mount, cgroup, host name, ipc, user, pid, net.
const NAMESPACE_FLAGS: u32 =
    0x80 | 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
const TERMINAL_IOCTLS: &[u32] = &[0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */, 0x5423 /* TIOCSETD */];

/// What the filter leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// IPv4 and IPv6 stream and datagram sockets.
    pub internet: bool,
    /// System V and POSIX message queues, semaphores and shared memory.
    pub ipc: bool,
    /// Limits and scheduling of other processes. Not where the host's are in sight: a limit needs no more than the same user.
    pub other_processes: bool,
    /// Truncation by path. Not where nothing but Landlock before version 3 keeps a program from a file: that does not look.
    pub truncation: bool,
}

/// Puts the filter on this process and its descendants, for good. Needs no_new_privs.
pub fn restrict_self(allowed: Allowed) -> io::Result<()> {
    let mut program = program(allowed);
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: a valid program that outlives the call; the kernel copies and checks it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC, &filter)
    };
    check(result as libc::c_int).map(drop)
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_ANY_BIT: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn instruction(code: u16, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_true, jf: if_false, k }
}

fn load_argument(index: u32) -> libc::sock_filter {
    // The low half: both architectures are little endian, and the kernel cuts these arguments to 32 bits as well.
    instruction(LOAD, OFFSET_ARGUMENTS + index * 8, 0, 0)
}

fn program(allowed: Allowed) -> Vec<libc::sock_filter> {
    let ret = |verdict: u32| instruction(RETURN, verdict, 0, 0);
    let mut program = vec![
        instruction(LOAD, OFFSET_ARCHITECTURE, 0, 0),
        instruction(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        ret(KILL),
        instruction(LOAD, OFFSET_NUMBER, 0, 0),
        instruction(JUMP_GREATER, NEWEST_KNOWN, 0, 1),
        ret(errno(libc::ENOSYS)),
    ];
    let mut rule = |number: libc::c_long, body: &[libc::sock_filter]| {
        program.push(instruction(JUMP_EQUAL, number as u32, 0, body.len() as u8));
        program.extend_from_slice(body);
    };
    for number in REFUSED {
        rule(*number, &[ret(errno(libc::EPERM))]);
    }
    for number in ABSENT {
        rule(*number, &[ret(errno(libc::ENOSYS))]);
    }
    if !allowed.ipc {
        for number in IPC {
            rule(*number, &[ret(errno(libc::EPERM))]);
        }
    }
    if !allowed.other_processes {
        for number in ON_A_PROCESS {
            rule(*number, &[load_argument(0), instruction(JUMP_EQUAL, 0, 0, 1), ret(ALLOW), ret(errno(libc::EPERM))]);
        }
        // Of processes, groups and users only the calling process.
        for (number, process) in [(libc::SYS_setpriority, libc::PRIO_PROCESS), (libc::SYS_ioprio_set, 1)] {
            rule(
                number,
                &[
                    load_argument(0),
                    instruction(JUMP_EQUAL, process, 0, 3),
                    load_argument(1),
                    instruction(JUMP_EQUAL, 0, 0, 1),
                    ret(ALLOW),
                    ret(errno(libc::EPERM)),
                ],
            );
        }
    }
    if !allowed.truncation {
        rule(libc::SYS_truncate, &[ret(errno(libc::EPERM))]);
        // Its flags stand behind a pointer; the older calls say the same.
        rule(libc::SYS_openat2, &[ret(errno(libc::ENOSYS))]);
        let emptying = |flags: u32| {
            [
                load_argument(flags),
                instruction(AND, (libc::O_ACCMODE | libc::O_TRUNC) as u32, 0, 0),
                instruction(JUMP_EQUAL, (libc::O_RDONLY | libc::O_TRUNC) as u32, 0, 1),
                ret(errno(libc::EPERM)),
                ret(ALLOW),
            ]
        };
        rule(libc::SYS_openat, &emptying(2));
        #[cfg(target_arch = "x86_64")]
        rule(libc::SYS_open, &emptying(1));
    }
    for number in [libc::SYS_clone, libc::SYS_unshare] {
        rule(
            number,
            &[load_argument(0), instruction(JUMP_ANY_BIT, NAMESPACE_FLAGS, 0, 1), ret(errno(libc::EPERM)), ret(ALLOW)],
        );
    }
    rule(
        libc::SYS_personality,
        &[
            load_argument(0),
            instruction(JUMP_EQUAL, 0, 2, 0),
            instruction(JUMP_EQUAL, u32::MAX, 1, 0),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ],
    );
    let mut ioctl = vec![load_argument(1)];
    for request in TERMINAL_IOCTLS {
        ioctl.extend([instruction(JUMP_EQUAL, *request, 0, 1), ret(errno(libc::EPERM))]);
    }
    ioctl.push(ret(ALLOW));
    rule(libc::SYS_ioctl, &ioctl);
    // Of the families only the internet's, and of their types only streams and datagrams.
    let mut socket = vec![load_argument(0)];
    if allowed.internet {
        socket.extend([
            instruction(JUMP_EQUAL, libc::AF_INET as u32, 2, 0),
            instruction(JUMP_EQUAL, libc::AF_INET6 as u32, 1, 0),
            ret(errno(libc::EAFNOSUPPORT)),
            load_argument(1),
            instruction(AND, 0xf, 0, 0),
            instruction(JUMP_EQUAL, libc::SOCK_STREAM as u32, 2, 0),
            instruction(JUMP_EQUAL, libc::SOCK_DGRAM as u32, 1, 0),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ]);
    } else {
        socket.push(ret(errno(libc::EAFNOSUPPORT)));
    }
    rule(libc::SYS_socket, &socket);
    // A pair of unix sockets is a pipe, as long as its ends cannot be pointed elsewhere: a datagram end can, and of a raw
    // pair the kernel makes datagrams.
    rule(
        libc::SYS_socketpair,
        &[
            load_argument(0),
            instruction(JUMP_EQUAL, libc::AF_UNIX as u32, 1, 0),
            ret(errno(libc::EAFNOSUPPORT)),
            load_argument(1),
            instruction(AND, 0xf, 0, 0),
            instruction(JUMP_EQUAL, libc::SOCK_STREAM as u32, 2, 0),
            instruction(JUMP_EQUAL, libc::SOCK_SEQPACKET as u32, 1, 0),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ],
    );
    program.push(ret(ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(allowed: Allowed, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let program = program(allowed);
        let load = |offset: u32| match offset {
            OFFSET_NUMBER => number,
            OFFSET_ARCHITECTURE => architecture,
            offset => arguments[((offset - OFFSET_ARGUMENTS) / 8) as usize] as u32,
        };
        let (mut at, mut value) = (0usize, 0u32);
        loop {
            let step = program[at];
            at += 1;
            let condition = match step.code {
                LOAD => {
                    value = load(step.k);
                    continue;
                }
                AND => {
                    value &= step.k;
                    continue;
                }
                RETURN => return step.k,
                JUMP_EQUAL => value == step.k,
                JUMP_GREATER => value > step.k,
                JUMP_ANY_BIT => value & step.k != 0,
                code => panic!("instruction {code}"),
            };
            at += usize::from(if condition { step.jt } else { step.jf });
        }
    }

    const OPEN: Allowed = Allowed { internet: true, ipc: true, other_processes: true, truncation: true };
    const SHUT: Allowed = Allowed { internet: false, ipc: false, other_processes: false, truncation: false };

    fn call(allowed: Allowed, number: libc::c_long, first: u64, second: u64) -> u32 {
        verdict(allowed, ARCHITECTURE, number as u32, [first, second, 0, 0, 0, 0])
    }

    #[test]
    fn another_calling_convention_kills_and_unknown_calls_do_not_exist() {
        assert_eq!(verdict(OPEN, 0x4000_0003, 0, [0; 6]), KILL);
        for number in [NEWEST_KNOWN + 1, 0x4000_0000, u32::MAX] {
            assert_eq!(verdict(OPEN, ARCHITECTURE, number, [0; 6]), errno(libc::ENOSYS), "{number}");
        }
        assert_eq!(call(OPEN, libc::SYS_read, 0, 0), ALLOW);
    }

    #[test]
    fn every_call_of_the_tables_gets_its_verdict() {
        for number in REFUSED {
            assert_eq!(call(OPEN, *number, 0, 0), errno(libc::EPERM), "{number}");
        }
        for number in ABSENT {
            assert_eq!(call(OPEN, *number, 0, 0), errno(libc::ENOSYS), "{number}");
        }
        for number in IPC {
            assert_eq!(call(OPEN, *number, 0, 0), ALLOW, "{number}");
            assert_eq!(call(SHUT, *number, 0, 0), errno(libc::EPERM), "{number}");
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let new_user = u64::from(libc::CLONE_NEWUSER as u32);
        assert_eq!(call(OPEN, libc::SYS_clone, new_user | 17, 0), errno(libc::EPERM));
        assert_eq!(call(OPEN, libc::SYS_clone, libc::CLONE_VM as u64 | 17, 0), ALLOW);
        assert_eq!(call(OPEN, libc::SYS_unshare, new_user, 0), errno(libc::EPERM));
        assert_eq!(call(OPEN, libc::SYS_unshare, libc::CLONE_FS as u64, 0), ALLOW);
        assert_eq!(call(OPEN, libc::SYS_ioctl, 0, 0x5412), errno(libc::EPERM));
        // The kernel reads 32 bits of a request, so the upper half must not hide it.
        assert_eq!(call(OPEN, libc::SYS_ioctl, 0, 0x1_0000_5412), errno(libc::EPERM));
        assert_eq!(call(OPEN, libc::SYS_ioctl, 0, 0x5413), ALLOW);
        assert_eq!(call(OPEN, libc::SYS_personality, 0xffff_ffff, 0), ALLOW);
        assert_eq!(call(OPEN, libc::SYS_personality, 0x0040_0000, 0), errno(libc::EPERM));
    }

    #[test]
    fn a_process_changes_no_other_ones_limits_where_the_host_is_in_sight() {
        for number in ON_A_PROCESS {
            assert_eq!(call(SHUT, *number, 0, 0), ALLOW, "{number}");
            assert_eq!(call(SHUT, *number, 4_711, 0), errno(libc::EPERM), "{number}");
            assert_eq!(call(OPEN, *number, 4_711, 0), ALLOW, "{number}");
        }
        for (number, process) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
            assert_eq!(call(SHUT, number, process, 0), ALLOW, "{number}");
            assert_eq!(call(SHUT, number, process, 4_711), errno(libc::EPERM), "{number}");
            assert_eq!(call(SHUT, number, 2, 0), errno(libc::EPERM), "a user's: {number}");
        }
    }

    #[test]
    fn nothing_is_truncated_by_path_where_no_wall_looks() {
        let open = |allowed, number: libc::c_long, arguments: [u64; 6]| {
            verdict(allowed, ARCHITECTURE, number as u32, arguments)
        };
        assert_eq!(call(SHUT, libc::SYS_truncate, 0, 0), errno(libc::EPERM));
        assert_eq!(call(SHUT, libc::SYS_openat2, 0, 0), errno(libc::ENOSYS));
        assert_eq!(call(SHUT, libc::SYS_ftruncate, 0, 0), ALLOW);
        for (flags, refused) in [
            (libc::O_RDONLY | libc::O_TRUNC, true),
            (libc::O_RDONLY | libc::O_TRUNC | libc::O_CLOEXEC, true),
            (libc::O_WRONLY | libc::O_TRUNC | libc::O_CREAT, false),
            (libc::O_RDWR | libc::O_TRUNC, false),
            (libc::O_RDONLY, false),
        ] {
            let expected = if refused { errno(libc::EPERM) } else { ALLOW };
            assert_eq!(open(SHUT, libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]), expected, "{flags:o}");
            assert_eq!(open(OPEN, libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]), ALLOW, "{flags:o}");
            #[cfg(target_arch = "x86_64")]
            assert_eq!(open(SHUT, libc::SYS_open, [0, flags as u64, 0, 0, 0, 0]), expected, "{flags:o}");
        }
    }

    #[test]
    fn only_internet_streams_and_datagrams_are_sockets() {
        let nonblocking_stream = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
        for family in [libc::AF_INET, libc::AF_INET6] {
            assert_eq!(call(OPEN, libc::SYS_socket, family as u64, nonblocking_stream), ALLOW);
            assert_eq!(call(OPEN, libc::SYS_socket, family as u64, libc::SOCK_DGRAM as u64), ALLOW);
            assert_eq!(call(OPEN, libc::SYS_socket, family as u64, libc::SOCK_RAW as u64), errno(libc::EPERM));
            assert_eq!(call(SHUT, libc::SYS_socket, family as u64, nonblocking_stream), errno(libc::EAFNOSUPPORT));
        }
        for family in (0..64).filter(|family| ![libc::AF_INET, libc::AF_INET6].contains(family)) {
            assert_eq!(call(OPEN, libc::SYS_socket, family as u64, 1), errno(libc::EAFNOSUPPORT), "{family}");
        }
        let unix = libc::AF_UNIX as u64;
        assert_eq!(call(SHUT, libc::SYS_socketpair, unix, nonblocking_stream), ALLOW);
        assert_eq!(call(SHUT, libc::SYS_socketpair, unix, libc::SOCK_SEQPACKET as u64), ALLOW);
        for kind in (0..16).filter(|kind| ![libc::SOCK_STREAM, libc::SOCK_SEQPACKET].contains(kind)) {
            let kind = (kind | libc::SOCK_CLOEXEC) as u64;
            assert_eq!(call(OPEN, libc::SYS_socketpair, unix, kind), errno(libc::EPERM), "{kind}");
        }
        assert_eq!(call(OPEN, libc::SYS_socketpair, 2, 1), errno(libc::EAFNOSUPPORT));
    }
}
