//! Commands that reach for other processes: a victim of the same user, the daemon itself, the worker, the reaper.

use std::process::Command;

use kheish_daemon::sandbox::Feature;

use crate::stage::{BINARY, ESCAPED, Outside, SECRET, Stage, Victim};

const PIDS: &[Feature] = &[Feature::PidNamespace];
const FILTER: &[Feature] = &[Feature::Seccomp];

/// A script that attacks the victim `$V`.
fn attack(test: &'static str, needs: &[Feature], outside: Outside, script: &str) {
    let Some(mut stage) = Stage::new(test, needs) else { return };
    let mut victim = stage.victim();
    stage.refused(outside, &format!("V={}\n{script}", victim.pid()));
    victim.assert_alive();
}

/// The same in Python; `V` is the victim.
fn attack_python(test: &'static str, needs: &[Feature], outside: Outside, error: &str, code: &str) {
    let Some(mut stage) = Stage::new(test, needs) else { return };
    let mut victim = stage.victim();
    stage.refused_with(outside, error, &format!("V = {}\n{code}", victim.pid()));
    victim.assert_alive();
}

#[test]
fn environment_of_another_process_is_not_read() {
    let script = "tr '\\0' '\\n' < /proc/$V/environ";
    attack("environment_of_another_process_is_not_read", PIDS, Outside::Works, script);
}

#[test]
fn no_process_of_the_host_is_listed() {
    let script = "[ -d /proc/$V ] && echo ESCAPED; [ $(ls /proc | grep -c '^[0-9]') -gt 8 ] && echo ESCAPED; true";
    attack("no_process_of_the_host_is_listed", PIDS, Outside::Works, script);
}

#[test]
fn command_lines_of_the_host_are_not_read() {
    let script = "cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 's[l]eep 600' && echo ESCAPED";
    attack("command_lines_of_the_host_are_not_read", PIDS, Outside::Works, script);
}

#[test]
fn memory_of_another_process_is_not_read() {
    let code = "start = int(open('/proc/%d/maps' % V).readline().split('-')[0], 16)\n\
                f = open('/proc/%d/mem' % V, 'rb'); f.seek(start); f.read(16)\nescaped()";
    attack_python("memory_of_another_process_is_not_read", PIDS, Outside::Works, "ENOENT", code);
}

#[test]
fn descriptors_of_another_process_are_not_opened() {
    attack("descriptors_of_another_process_are_not_opened", PIDS, Outside::Works, "cat /proc/$V/fd/0");
}

#[test]
fn directory_of_another_process_is_not_entered() {
    attack("directory_of_another_process_is_not_entered", PIDS, Outside::Works, "cat /proc/$V/cwd/secret");
}

#[test]
fn another_process_is_not_traced() {
    let code = "call('ptrace', 16, V, 0, 0); escaped(); os.waitpid(V, 0x40000000); call('ptrace', 17, V, 0, 0)";
    // Yama and containers may refuse it outside.
    attack_python("another_process_is_not_traced", FILTER, Outside::NotTried, "EPERM", code);
}

#[test]
fn ones_own_child_is_not_traced_either() {
    attack_python(
        "ones_own_child_is_not_traced_either",
        FILTER,
        Outside::Works,
        "EPERM",
        "call('ptrace', 0, 0, 0, 0)\nescaped()",
    );
}

#[test]
fn memory_of_another_process_is_not_copied() {
    let code = r#"
start = 0x400000
buffer = ctypes.create_string_buffer(16)
vector = (ctypes.c_void_p * 2)(ctypes.cast(buffer, ctypes.c_void_p), 16)
try:
    start = int(open('/proc/%d/maps' % V).readline().split('-')[0], 16)
except OSError:
    pass
remote = (ctypes.c_void_p * 2)(start, 16)
call('process_vm_readv', V, vector, 1, remote, 1, 0)
escaped()
"#;
    attack_python("memory_of_another_process_is_not_copied", FILTER, Outside::WorksForRoot, "EPERM", code);
}

#[test]
fn descriptors_of_another_process_are_not_taken_over() {
    let code = "fd = os.pidfd_open(os.getpid())\nprint(call('pidfd_getfd', fd, 0, 0))\nescaped()";
    attack_python("descriptors_of_another_process_are_not_taken_over", FILTER, Outside::Works, "EPERM", code);
}

#[test]
fn processes_are_not_compared() {
    let code = "call('kcmp', os.getpid(), os.getpid(), 2, 0, 0)\nescaped()";
    attack_python("processes_are_not_compared", FILTER, Outside::NotTried, "EPERM", code);
}

#[test]
fn another_process_is_not_signalled() {
    // Signal 0 asks whether it could be.
    attack("another_process_is_not_signalled", PIDS, Outside::Works, "kill -0 $V && { echo ESCAPED; }");
    attack("another_process_is_not_signalled", PIDS, Outside::NotTried, "kill -9 $V && echo ESCAPED");
}

/// A condition for scripts that would end every process they reach: the victim is out of reach. Where a wall is missing,
/// the machine that runs the tests must not pay for it; the test fails all the same.
fn unseen(victim: &Victim) -> String {
    format!("! kill -0 {} 2>/dev/null", victim.pid())
}

#[test]
fn everybody_is_signalled_and_nobody_of_the_host_notices() {
    let Some(mut stage) = Stage::new("everybody_is_signalled_and_nobody_of_the_host_notices", PIDS) else { return };
    let mut victim = stage.victim();
    // It may end its own worker at worst, never anything else.
    let hidden = unseen(&victim);
    let input = serde_json::json!({"command": format!("{hidden} && kill -9 -1; echo still here")});
    let _answer_or_death = stage.call("bash", &input);
    victim.assert_alive();
    assert!(!stage.inside(&format!("{hidden} || echo ESCAPED")).escaped());
    assert!(!stage.inside("echo next").escaped());
}

#[test]
fn a_range_of_process_ids_is_signalled_and_nobody_of_the_host_notices() {
    let test = "a_range_of_process_ids_is_signalled_and_nobody_of_the_host_notices";
    let Some(mut stage) = Stage::new(test, PIDS) else { return };
    let mut victim = stage.victim();
    let me = std::process::id();
    let hidden = unseen(&victim);
    let command =
        format!("{hidden} && for p in {} {me} $(seq 3 400); do [ $p = $$ ] || kill -9 $p; done", victim.pid());
    let _answer_or_death = stage.call("bash", &serde_json::json!({ "command": command }));
    victim.assert_alive();
    assert!(!stage.inside(&format!("{hidden} || echo ESCAPED")).escaped());
}

#[test]
fn the_reaper_is_not_ended() {
    let Some(mut stage) = Stage::new("the_reaper_is_not_ended", PIDS) else { return };
    // Where the victim can be reached, process 1 is the host's.
    let victim = stage.victim();
    for signal in ["KILL", "TERM", "STOP", "SEGV"] {
        let ran = stage.inside(&format!("if {}; then kill -{signal} 1; else echo {ESCAPED}; fi", unseen(&victim)));
        assert!(!ran.escaped(), "{ran:?}");
    }
    assert_eq!(stage.inside("echo alive").stdout, "alive\nTRIED\n");
}

#[test]
fn the_worker_is_not_ended_or_stopped_by_a_command() {
    let test = "the_worker_is_not_ended_or_stopped_by_a_command";
    let Some(mut stage) = Stage::new(test, &[Feature::LandlockScope]) else { return };
    for signal in ["KILL", "TERM", "STOP"] {
        let ran = stage.inside(&format!("kill -{signal} $PPID && echo {ESCAPED}"));
        assert!(!ran.escaped(), "{ran:?}");
    }
    assert_eq!(stage.inside("echo alive").stdout, "alive\nTRIED\n");
}

#[test]
fn the_workers_memory_and_descriptors_are_shut_off() {
    let script = "for p in 1 $PPID; do for f in environ mem maps fd/0 fd/3 exe root cwd; do \
                  (exec 9< /proc/$p/$f) 2>/dev/null && echo ESCAPED $p $f; done; done";
    attack("the_workers_memory_and_descriptors_are_shut_off", &[Feature::PrivateProc], Outside::NotTried, script);
}

/// The daemon has a secret in its environment and leaks a descriptor of a file in the state root.
#[test]
fn neither_environment_nor_descriptors_of_the_daemon_are_inherited() {
    let test = "neither_environment_nor_descriptors_of_the_daemon_are_inherited";
    let Some(mut stage) = Stage::with(test, &[], |spec| {
        let place = spec.workspace.parent().expect("a parent");
        let leaky = place.join("leaky-daemon");
        let script = format!(
            "#!/bin/sh\nexec 7< '{0}/state/secret' 9< '{0}/state/secret'\nLEAKED={SECRET} KHEISH_TOKEN={SECRET} exec {BINARY} \"$@\"\n",
            place.display()
        );
        // Written by a process of its own: one that this process has open for writing while another test forks cannot be run.
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let written = Command::new("sh").args(["-c", write, "sh", &script]).arg(&leaky).status();
        assert!(written.expect("a shell").success());
        spec.program = leaky;
    }) else {
        return;
    };
    let script = "cat <&7; cat <&9; ls -l /proc/self/fd | grep -q secret && echo ESCAPED; env";
    let ran = stage.refused(Outside::NotTried, script);
    let mut names: Vec<&str> = ran.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "_"], "{ran:?}");
}

#[test]
fn only_standard_descriptors_are_open() {
    let script =
        "for f in /proc/self/fd/*; do n=${f##*/}; [ $n -gt 2 ] && [ -e /proc/$$/fd/$n ] && echo ESCAPED $n; done; true";
    attack("only_standard_descriptors_are_open", &[Feature::PrivateProc], Outside::NotTried, script);
}

#[test]
fn namespaces_of_others_are_not_joined() {
    let code = "call('setns', os.open('/proc/self/ns/uts', os.O_RDONLY), 0)\nescaped()";
    attack_python("namespaces_of_others_are_not_joined", FILTER, Outside::WorksForRoot, "EPERM", code);
}

#[test]
fn namespaces_are_not_nested() {
    let flags = [0x1000_0000, 0x2_0000, 0x2000_0000, 0x4000_0000, 0x0800_0000, 0x0400_0000, 0x0200_0000, 0x80];
    for flag in flags {
        let code = format!("call('unshare', {flag})\nescaped()");
        attack_python("namespaces_are_not_nested", FILTER, Outside::NotTried, "EPERM", &code);
    }
    attack("namespaces_are_not_nested", FILTER, Outside::NotTried, "unshare -U true && echo ESCAPED");
}

#[test]
fn children_in_new_namespaces_are_not_made() {
    let code = "pid = call('clone', 0x10000000 | 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nescaped()";
    attack_python("children_in_new_namespaces_are_not_made", FILTER, Outside::NotTried, "EPERM", code);
    let code = "arguments = ctypes.create_string_buffer(struct.pack('Q', 0x10000000) + bytes(80))\n\
                pid = call('clone3', arguments, 88)\nif pid == 0: os._exit(0)\nescaped()";
    attack_python("children_in_new_namespaces_are_not_made", FILTER, Outside::NotTried, "ENOSYS", code);
}

#[test]
fn nobody_has_a_capability_or_can_gain_one() {
    let script = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | grep -v '0000000000000000$' && echo ESCAPED; \
                  grep -q '^NoNewPrivs:.*1$' /proc/self/status || echo ESCAPED; \
                  grep -q '^Seccomp:.*2$' /proc/self/status || echo ESCAPED";
    let needs = [Feature::CapabilitiesDropped, Feature::PrivateProc, Feature::Seccomp];
    attack("nobody_has_a_capability_or_can_gain_one", &needs, Outside::Works, script);
}

#[test]
fn another_user_id_is_not_taken() {
    let code = "os.setuid(0)\nescaped()";
    attack_python("another_user_id_is_not_taken", &[Feature::UserNamespace], Outside::WorksForRoot, "EINVAL", code);
}

#[test]
fn addresses_are_not_made_predictable() {
    let code = "call('personality', 0x0040000)\nescaped()";
    attack_python("addresses_are_not_made_predictable", FILTER, Outside::Works, "EPERM", code);
}

#[test]
fn core_pattern_and_other_settings_of_the_kernel_are_not_opened() {
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/vm/drop_caches \
                  /proc/kcore /proc/kmsg /proc/kallsyms /proc/keys /sys/kernel/uevent_helper; do [ -e $f ] && echo ESCAPED $f; done";
    attack(
        "core_pattern_and_other_settings_of_the_kernel_are_not_opened",
        &[Feature::PrivateRoot],
        Outside::Works,
        script,
    );
}

#[test]
fn control_groups_are_not_touched() {
    let script = "[ -d /sys ] && echo ESCAPED; mkdir /sys/fs/cgroup/escape && rmdir /sys/fs/cgroup/escape && echo ESCAPED; \
                  find / -name cgroup.procs 2>/dev/null | grep -q . && echo ESCAPED";
    attack("control_groups_are_not_touched", &[Feature::PrivateRoot], Outside::NotTried, script);
}

#[test]
fn the_kernels_choice_of_victims_is_not_changed() {
    let script =
        "echo -1000 > /proc/self/oom_score_adj && echo ESCAPED; echo -1000 > /proc/$PPID/oom_score_adj && echo ESCAPED";
    attack("the_kernels_choice_of_victims_is_not_changed", &[Feature::Landlock], Outside::NotTried, script);
}

#[test]
fn a_real_time_priority_is_not_taken() {
    let code = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))\nescaped()";
    attack_python(
        "a_real_time_priority_is_not_taken",
        &[Feature::CapabilitiesDropped],
        Outside::NotTried,
        "EPERM",
        code,
    );
}

/// A 32-bit call slips past a filter that only looks at numbers.
#[test]
fn a_call_by_another_convention_ends_the_process() {
    if !cfg!(target_arch = "x86_64") {
        crate::skip::skip("a_call_by_another_convention_ends_the_process", "x86_64 only");
        return;
    }
    // mov eax, 26 (ptrace); xor of the arguments; int 0x80; ret
    let code = r#"
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('b81a00000031db31c931d231f6cd80c3'))
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
pid = os.fork()
if pid == 0:
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    os._exit(7)
status = os.waitpid(pid, 0)[1]
if os.WIFEXITED(status): escaped()
else: raise ValueError(os.WTERMSIG(status))
"#;
    attack_python("a_call_by_another_convention_ends_the_process", FILTER, Outside::NotTried, "ValueError 31", code);
    let code = "call(0x40000000 + 101, 0, 0, 0, 0)\nescaped()";
    attack_python("a_call_by_another_convention_ends_the_process", FILTER, Outside::NotTried, "ENOSYS", code);
}

#[test]
fn no_terminal_is_typed_into() {
    let code = "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\nescaped()";
    attack_python("no_terminal_is_typed_into", FILTER, Outside::NotTried, "EPERM", code);
    // The kernel reads 32 bits of the request; a filter that compares 64 lets this one through.
    let code = "call(16 if x86 else 29, 0, 0x1_0000_5412, 0)\nescaped()";
    attack_python("no_terminal_is_typed_into", FILTER, Outside::NotTried, "EPERM", code);
    attack("no_terminal_is_typed_into", &[], Outside::NotTried, "(exec 9<>/dev/tty) 2>/dev/null && echo ESCAPED");
}
