//! Commands that reach for the kernel's more dangerous corners, by number.

use kheish_daemon::sandbox::Feature;

use crate::stage::{Outside, Stage};

fn refused(test: &'static str, outside: Outside, error: &str, code: &str) {
    let Some(mut stage) = Stage::new(test, &[Feature::Seccomp]) else { return };
    stage.refused_with(outside, error, code);
}

#[test]
fn io_uring_is_not_there() {
    let code = "call('io_uring_setup', 4, ctypes.create_string_buffer(120))\nescaped()";
    refused("io_uring_is_not_there", Outside::NotTried, "ENOSYS", code);
}

#[test]
fn programs_are_not_loaded_into_the_kernel() {
    let code =
        "call('bpf', 0, ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 4, 1) + bytes(112)), 128)\nescaped()";
    refused("programs_are_not_loaded_into_the_kernel", Outside::NotTried, "EPERM", code);
}

#[test]
fn performance_counters_are_not_opened() {
    let code = "call('perf_event_open', ctypes.create_string_buffer(struct.pack('II', 1, 112) + bytes(104)), 0, -1, -1, 0)\nescaped()";
    refused("performance_counters_are_not_opened", Outside::NotTried, "EPERM", code);
}

#[test]
fn page_faults_are_not_handled_in_user_space() {
    refused(
        "page_faults_are_not_handled_in_user_space",
        Outside::WorksForRoot,
        "EPERM",
        "call('userfaultfd', 0)\nescaped()",
    );
}

#[test]
fn keys_of_the_user_are_not_reached() {
    let add = "call('add_key', ctypes.c_char_p(b'user'), ctypes.c_char_p(b'escape'), ctypes.c_char_p(b'x'), 1, -2)\nescaped()";
    refused("keys_of_the_user_are_not_reached", Outside::NotTried, "EPERM", add);
    refused("keys_of_the_user_are_not_reached", Outside::NotTried, "EPERM", "call('keyctl', 0, -5, 0)\nescaped()");
    let request = "call('request_key', ctypes.c_char_p(b'user'), ctypes.c_char_p(b'escape'), 0, 0)\nescaped()";
    refused("keys_of_the_user_are_not_reached", Outside::NotTried, "EPERM", request);
}

#[test]
fn nothing_is_mounted_the_old_way() {
    let code = "call('mount', ctypes.c_char_p(b'none'), ctypes.c_char_p(WORKSPACE.encode()), ctypes.c_char_p(b'tmpfs'), 0, 0)\nescaped()";
    refused("nothing_is_mounted_the_old_way", Outside::NotTried, "EPERM", code);
}

#[test]
fn nothing_is_mounted_the_new_way() {
    let test = "nothing_is_mounted_the_new_way";
    refused(test, Outside::WorksForRoot, "EPERM", "call('fsopen', ctypes.c_char_p(b'tmpfs'), 0)\nescaped()");
    refused(test, Outside::Works, "EPERM", "call('open_tree', -100, ctypes.c_char_p(b'/'), 0)\nescaped()");
    let code = "call('mount_setattr', -100, ctypes.c_char_p(b'/'), 0, ctypes.create_string_buffer(32), 32)\nescaped()";
    refused(test, Outside::NotTried, "EPERM", code);
}

#[test]
fn read_only_mounts_are_not_made_writable() {
    let code = "call('mount', 0, ctypes.c_char_p(b'/usr'), 0, 0x1020, 0)\nescaped()";
    refused("read_only_mounts_are_not_made_writable", Outside::NotTried, "EPERM", code);
}

#[test]
fn mounts_are_not_taken_away() {
    let code = "call('umount2', ctypes.c_char_p(b'/tmp'), 2)\nescaped()";
    refused("mounts_are_not_taken_away", Outside::NotTried, "EPERM", code);
    refused("mounts_are_not_taken_away", Outside::NotTried, "EPERM", "call('statmount', 0, 0, 0, 0)\nescaped()");
}

#[test]
fn another_root_is_not_taken() {
    let test = "another_root_is_not_taken";
    refused(test, Outside::NotTried, "EPERM", "call('chroot', ctypes.c_char_p(WORKSPACE.encode()))\nescaped()");
    let code = "call('pivot_root', ctypes.c_char_p(b'.'), ctypes.c_char_p(b'.'))\nescaped()";
    refused(test, Outside::NotTried, "EPERM", code);
}

#[test]
fn kernels_and_modules_are_not_loaded() {
    let test = "kernels_and_modules_are_not_loaded";
    refused(test, Outside::NotTried, "EPERM", "call('init_module', 0, 0, 0)\nescaped()");
    refused(test, Outside::NotTried, "EPERM", "call('kexec_load', 0, 0, 0, 0)\nescaped()");
}

#[test]
fn the_host_is_not_restarted() {
    // Wrong magic numbers: even without the wall nothing would happen but another error.
    refused("the_host_is_not_restarted", Outside::NotTried, "EPERM", "call('reboot', 0, 0, 0, 0)\nescaped()");
}

#[test]
fn swap_quotas_and_accounting_are_not_changed() {
    let test = "swap_quotas_and_accounting_are_not_changed";
    refused(test, Outside::NotTried, "EPERM", "call('swapon', ctypes.c_char_p(b'/nowhere'), 0)\nescaped()");
    refused(test, Outside::NotTried, "EPERM", "call('quotactl', 0, 0, 0, 0)\nescaped()");
    refused(test, Outside::NotTried, "EPERM", "call('acct', 0)\nescaped()");
}

#[test]
fn clock_and_name_of_the_host_stay() {
    let test = "clock_and_name_of_the_host_stay";
    refused(test, Outside::NotTried, "EPERM", "call('clock_settime', 0, ctypes.create_string_buffer(16))\nescaped()");
    refused(test, Outside::NotTried, "EPERM", "call('sethostname', ctypes.c_char_p(b'escaped'), 7)\nescaped()");
}

#[test]
fn the_kernels_log_is_not_read() {
    let code = "call('syslog', 3, ctypes.create_string_buffer(64), 64)\nescaped()";
    refused("the_kernels_log_is_not_read", Outside::NotTried, "EPERM", code);
}

#[test]
fn files_are_not_watched_by_file_system() {
    refused(
        "files_are_not_watched_by_file_system",
        Outside::NotTried,
        "EPERM",
        "call('fanotify_init', 0, 0)\nescaped()",
    );
}

#[test]
fn pages_of_others_are_not_moved() {
    refused(
        "pages_of_others_are_not_moved",
        Outside::NotTried,
        "EPERM",
        "call('move_pages', 1, 0, 0, 0, 0, 0)\nescaped()",
    );
}

#[test]
fn calls_of_a_newer_kernel_do_not_exist() {
    let code = "call(463, 0, 0, 0, 0)\nescaped()";
    refused("calls_of_a_newer_kernel_do_not_exist", Outside::NotTried, "ENOSYS", code);
    let code = "call(467, -100, ctypes.c_char_p(b'/'), 0, 0, 0)\nescaped()";
    refused("calls_of_a_newer_kernel_do_not_exist", Outside::NotTried, "ENOSYS", code);
}

/// System V shared memory is found by a number, whoever made it.
#[test]
fn shared_memory_of_the_host_is_not_found() {
    let test = "shared_memory_of_the_host_is_not_found";
    let Some(mut stage) = Stage::new(test, &[Feature::IpcNamespace]) else { return };
    let key = 0x4b48_0000 + (std::process::id() & 0xffff);
    let control = format!(
        "import ctypes, sys\nl = ctypes.CDLL(None)\ni = l.shmget({key}, 4096, 0o1600 if sys.argv[1] == 'make' else 0)\n\
         print('FOUND' if i >= 0 else 'NOT')\nif sys.argv[1] == 'remove': l.shmctl(i, 0, None)\n"
    );
    std::fs::write(stage.workspace().join("shm.py"), control).expect("a scratch file");
    if !stage.outside("python3 shm.py make").stdout.contains("FOUND") {
        crate::skip::skip(test, "no System V shared memory here");
        return;
    }
    let (outside, inside) = (stage.outside("python3 shm.py look"), stage.inside("/usr/bin/python3 shm.py look"));
    stage.outside("python3 shm.py remove");
    assert!(outside.stdout.contains("FOUND"), "{outside:?}");
    assert!(inside.stdout.contains("NOT"), "{inside:?}");
}
