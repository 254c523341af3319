//! Commands that reach for files of the host: the state root above all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use kheish_daemon::sandbox::Feature;

use crate::stage::{Outside, Stage, is_root};

/// Either of these shuts files off; the tests hold with one of them.
const FILES: &[Feature] = &[Feature::Landlock];
/// What Landlock does not see: modes, owners, attributes, times.
const ROOT: &[Feature] = &[Feature::PrivateRoot];

fn refused(test: &'static str, needs: &[Feature], outside: Outside, script: &str) {
    let Some(mut stage) = Stage::new(test, needs) else { return };
    stage.refused(outside, script);
    stage.assert_state_untouched();
}

#[test]
fn state_root_is_not_read_by_its_path() {
    refused("state_root_is_not_read_by_its_path", FILES, Outside::Works, r#"cat "$S/secret""#);
}

#[test]
fn state_root_is_not_read_by_dots() {
    refused("state_root_is_not_read_by_dots", FILES, Outside::Works, "cat ../state/secret");
}

#[test]
fn state_root_is_not_read_by_a_link_made_inside() {
    let script = r#"ln -s "$S" link; cat link/secret; rm link"#;
    refused("state_root_is_not_read_by_a_link_made_inside", FILES, Outside::Works, script);
}

#[test]
fn state_root_is_not_read_by_a_link_that_lay_there() {
    let Some(mut stage) = Stage::new("state_root_is_not_read_by_a_link_that_lay_there", FILES) else { return };
    symlink(stage.state(), stage.workspace().join("link")).expect("a link");
    stage.refused(Outside::Works, "cat link/secret");
}

#[test]
fn state_root_is_not_read_by_a_hard_link() {
    let script = r#"ln "$S/secret" hard && cat hard; rm -f hard"#;
    refused("state_root_is_not_read_by_a_hard_link", FILES, Outside::Works, script);
}

#[test]
fn state_root_is_not_read_through_the_root_of_a_process() {
    let script = r#"for p in self 1 2; do cat "/proc/$p/root$S/secret"; done"#;
    refused("state_root_is_not_read_through_the_root_of_a_process", FILES, Outside::Works, script);
}

#[test]
fn state_root_is_not_read_through_the_directory_of_a_process() {
    let script = "for p in self 1 2; do cat /proc/$p/cwd/../state/secret; done";
    refused("state_root_is_not_read_through_the_directory_of_a_process", FILES, Outside::Works, script);
}

#[test]
fn state_root_is_not_bound_into_the_workspace() {
    let script = r#"mkdir -p mnt; mount --bind "$S" mnt && cat mnt/secret; umount mnt 2>/dev/null; rmdir mnt"#;
    refused("state_root_is_not_bound_into_the_workspace", FILES, Outside::WorksForRoot, script);
}

#[test]
fn state_root_is_not_bound_in_namespaces_of_ones_own() {
    let script =
        r#"mkdir -p mnt; unshare --user --map-root-user --mount sh -c 'mount --bind "$0" mnt && cat mnt/secret' "$S""#;
    let outside = if offers_user_namespaces() { Outside::Works } else { Outside::NotTried };
    refused("state_root_is_not_bound_in_namespaces_of_ones_own", FILES, outside, script);
}

fn offers_user_namespaces() -> bool {
    let report = crate::stage::offer().report();
    report.features.iter().any(|feature| feature.name == Feature::UserNamespace && feature.active)
}

#[test]
fn state_root_is_not_listed() {
    refused("state_root_is_not_listed", FILES, Outside::Works, r#"ls "$S" | grep -q secret && echo ESCAPED"#);
}

#[test]
fn state_root_is_not_opened_by_handle() {
    let code = r#"
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128), 136)
mount_id = ctypes.c_int()
path = os.path.join(STATE, 'secret').encode()
call('name_to_handle_at', -100, ctypes.c_char_p(path), handle, ctypes.byref(mount_id), 0)
directory = os.open(WORKSPACE, os.O_RDONLY)
print(os.read(call('open_by_handle_at', directory, handle, os.O_RDONLY), 100).decode())
"#;
    let Some(mut stage) = Stage::new("state_root_is_not_opened_by_handle", &[Feature::Seccomp]) else { return };
    stage.refused_with(Outside::WorksForRoot, "EPERM", code);
}

#[test]
fn state_root_is_not_written_by_its_path() {
    let script = r#"echo x > "$S/new" && echo ESCAPED; rm -f "$S/new""#;
    refused("state_root_is_not_written_by_its_path", FILES, Outside::Works, script);
}

#[test]
fn state_root_is_not_truncated() {
    let script = r#"cp "$S/secret" kept 2>/dev/null; : > "$S/secret" && echo ESCAPED; [ -f kept ] && cp kept "$S/secret"; rm -f kept"#;
    refused("state_root_is_not_truncated", FILES, Outside::Works, script);
}

#[test]
fn nothing_is_moved_out_of_the_workspace() {
    let script = r#"echo x > mine; mv mine "$S/mine" && echo ESCAPED; rm -f "$S/mine" mine"#;
    refused("nothing_is_moved_out_of_the_workspace", FILES, Outside::Works, script);
}

#[test]
fn nothing_is_exchanged_with_a_file_outside() {
    let code = r#"
open('mine', 'w').write('x')
ours, theirs = os.path.join(WORKSPACE, 'mine').encode(), os.path.join(STATE, 'secret').encode()
swap = lambda: call('renameat2', -100, ctypes.c_char_p(ours), -100, ctypes.c_char_p(theirs), 2)
swap()
escaped(open('mine').read())
swap()
"#;
    let Some(mut stage) = Stage::new("nothing_is_exchanged_with_a_file_outside", FILES) else { return };
    stage.refused_python(Outside::Works, code);
    stage.assert_state_untouched();
}

#[test]
fn nothing_outside_is_removed() {
    let script = r#"cp "$S/secret" kept 2>/dev/null; rm "$S/secret" && echo ESCAPED; [ -f kept ] && cp kept "$S/secret"; rm -f kept"#;
    refused("nothing_outside_is_removed", FILES, Outside::Works, script);
}

#[test]
fn mode_of_the_state_root_stays() {
    let script = r#"chmod 0777 "$S" && echo ESCAPED; chmod 0777 "$S/secret" && echo ESCAPED"#;
    refused("mode_of_the_state_root_stays", ROOT, Outside::Works, script);
}

#[test]
fn owner_of_the_state_root_stays() {
    let script = r#"chown "$(id -u)" "$S" && echo ESCAPED; chgrp "$(id -g)" "$S/secret" && echo ESCAPED"#;
    refused("owner_of_the_state_root_stays", ROOT, Outside::Works, script);
}

#[test]
fn attributes_of_the_state_root_stay() {
    let Some(mut stage) = Stage::new("attributes_of_the_state_root_stay", ROOT) else { return };
    let code = "os.setxattr(os.path.join(STATE, 'secret'), 'user.x', b'x')\nescaped()";
    let outside = if supports_attributes(&stage.state()) { Outside::Works } else { Outside::NotTried };
    stage.refused_with(outside, "ENOENT", code);
}

fn supports_attributes(path: &Path) -> bool {
    let code = "import os, sys; os.setxattr(sys.argv[1], 'user.y', b'y'); os.removexattr(sys.argv[1], 'user.y')";
    let tried = std::process::Command::new("python3").args(["-c", code]).arg(path).output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn times_of_the_state_root_stay() {
    let script = r#"touch -c -d 2001-01-01 "$S/secret" && [ -e "$S/secret" ] && echo ESCAPED"#;
    refused("times_of_the_state_root_stay", ROOT, Outside::Works, script);
}

#[test]
fn metadata_of_the_state_root_is_not_seen() {
    let script = r#"stat "$S/secret" >/dev/null && echo ESCAPED"#;
    refused("metadata_of_the_state_root_is_not_seen", ROOT, Outside::Works, script);
}

#[test]
fn password_hashes_are_not_read() {
    let script = "cat /etc/shadow >/dev/null && echo ESCAPED; cat /etc/gshadow >/dev/null && echo ESCAPED";
    refused("password_hashes_are_not_read", FILES, Outside::WorksForRoot, script);
}

#[test]
fn names_of_the_hosts_users_are_not_read() {
    // `sync` is a user of every Debian and of no worker.
    let script = "grep -q '^sync:\\|^daemon:' /etc/passwd && echo ESCAPED";
    refused("names_of_the_hosts_users_are_not_read", ROOT, Outside::NotTried, script);
}

#[test]
fn private_keys_of_the_host_are_not_read() {
    let script = "for d in /etc/ssl/private /etc/ssh /var/lib /var/log /run /boot /sys /srv; do ls $d >/dev/null 2>&1 && \
                  echo ESCAPED $d; done";
    refused("private_keys_of_the_host_are_not_read", FILES, Outside::Works, script);
}

#[test]
fn home_directories_are_not_seen() {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/home".to_string());
    let script = format!("ls -A '{home}' >/dev/null && echo ESCAPED");
    let outside = if fs::read_dir(&home).is_ok() { Outside::Works } else { Outside::NotTried };
    refused("home_directories_are_not_seen", FILES, outside, &script);
}

#[test]
fn temp_directory_of_the_host_is_neither_read_nor_written() {
    let Some(mut stage) = Stage::new("temp_directory_of_the_host_is_neither_read_nor_written", FILES) else { return };
    let name = format!("kheish-escape-{}", std::process::id());
    let ours = Path::new("/tmp").join(&name);
    fs::write(&ours, "x").expect("a file in /tmp");
    stage.refused(Outside::Works, &format!("[ -r /tmp/{name} ] && cat /tmp/{name} >/dev/null && echo ESCAPED"));
    fs::remove_file(&ours).expect("a file of ours");
    stage.inside(&format!("echo x > /tmp/{name}"));
    assert!(!ours.exists(), "a worker writes into the host's /tmp");
}

#[test]
fn system_paths_are_not_written() {
    for place in ["/usr", "/usr/bin", "/usr/lib", "/etc", "/", "/dev", "/proc", "/bin"] {
        let script = format!("touch {place}/kheish-escape && echo ESCAPED; rm -f {place}/kheish-escape");
        refused("system_paths_are_not_written", FILES, Outside::NotTried, &script);
    }
}

/// Each file is given the mode and owner that it has: where a wall is missing, the host must not pay for it.
#[test]
fn system_files_keep_their_modes() {
    let Some(mut stage) = Stage::new("system_files_keep_their_modes", ROOT) else { return };
    let modes =
        || ["/usr/bin/env", "/dev/null", "/dev/zero"].map(|path| fs::metadata(path).expect("it is there").mode());
    let before = modes();
    stage.refused(
        Outside::NotTried,
        "for f in /usr/bin/env /dev/null /dev/zero; do chmod $(stat -c %a $f) $f && echo ESCAPED; \
         chown $(stat -c %u $f) $f && echo ESCAPED; done",
    );
    assert_eq!(modes(), before);
}

/// Opened for writing and not written, for the same reason.
#[test]
fn libraries_are_not_preloaded_into_the_daemon() {
    let script = "(exec 9>>/etc/ld.so.cache) 2>/dev/null && echo ESCAPED; [ -w /etc ] && echo ESCAPED";
    refused("libraries_are_not_preloaded_into_the_daemon", FILES, Outside::NotTried, script);
}

#[test]
fn daemons_own_program_is_not_overwritten() {
    let Some(mut stage) = Stage::new("daemons_own_program_is_not_overwritten", FILES) else { return };
    let before = fs::metadata(crate::stage::BINARY).expect("it is there");
    let code = r#"
for process in ('self', '1', '2'):
    try:
        os.open('/proc/%s/exe' % process, os.O_WRONLY)
        escaped(process)
    except OSError:
        pass
for process in ('1', '2'):
    try:
        os.open('/proc/%s/exe' % process, os.O_RDONLY)
        escaped('read ' + process)
    except OSError:
        pass
"#;
    stage.refused_python(Outside::NotTried, code);
    let after = fs::metadata(crate::stage::BINARY).expect("it is there");
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
}

#[test]
fn device_files_are_not_made() {
    let code = "import stat\npath = os.path.join(WORKSPACE, 'disk').encode()\n\
                call('mknodat', -100, ctypes.c_char_p(path), stat.S_IFBLK | 0o600, os.makedev(8, 0))\nescaped()\nos.unlink(path)";
    let Some(mut stage) = Stage::new("device_files_are_not_made", &[Feature::CapabilitiesDropped]) else { return };
    let outside = if may_make_devices() { Outside::WorksForRoot } else { Outside::NotTried };
    let said = stage.refused_python(outside, code);
    assert!(["", "refused EPERM", "refused EACCES"].contains(&said.as_str()), "{said}");
}

fn may_make_devices() -> bool {
    // A container's root has no CAP_MKNOD where it was taken away.
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set & (1 << 27) != 0)
    })
}

#[test]
fn device_files_that_lie_in_the_workspace_do_not_work() {
    let test = "device_files_that_lie_in_the_workspace_do_not_work";
    let Some(mut stage) = Stage::new(test, ROOT) else { return };
    let made = std::process::Command::new("mknod").arg(stage.workspace().join("zero")).args(["c", "1", "5"]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        crate::skip::skip(test, "only root can put a device file there");
        return;
    }
    stage.refused(Outside::Works, "head -c 1 zero >/dev/null && echo ESCAPED");
}

#[test]
fn no_device_of_the_host_is_there() {
    let script = "for d in mem kmem port kmsg sda vda nvme0n1 tty tty0 console ptmx kvm fuse loop-control net/tun uinput; \
                  do [ -e /dev/$d ] && echo ESCAPED $d; done";
    refused("no_device_of_the_host_is_there", ROOT, Outside::NotTried, script);
}

#[test]
fn a_set_user_id_program_gives_nothing() {
    let test = "a_set_user_id_program_gives_nothing";
    let Some(mut stage) = Stage::new(test, &[Feature::NoNewPrivileges]) else { return };
    if !is_root() {
        crate::skip::skip(test, "only root can put a program of another user there");
        return;
    }
    let program = stage.workspace().join("other");
    fs::copy("/usr/bin/id", &program).expect("a copy");
    std::os::unix::fs::chown(&program, Some(65_534), Some(65_534)).expect("root may");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("root may");
    // The test's own mount may be nosuid, then there is nothing to show outside.
    let outside = stage.outside("./other -u").stdout;
    assert!(outside.starts_with("65534") || outside.starts_with('0'), "{outside}");
    let inside = stage.inside("./other -u").stdout;
    assert_eq!(inside.lines().next(), Some("1000"), "{inside}");
}

#[test]
fn a_read_only_workspace_is_not_written() {
    let test = "a_read_only_workspace_is_not_written";
    let Some(mut stage) = Stage::with(test, FILES, |spec| spec.workspace_read_only = true) else { return };
    fs::write(stage.workspace().join("kept"), "x").expect("a scratch file");
    let script = "cat kept >/dev/null || echo ESCAPED unreadable; echo y > kept && echo ESCAPED; echo y > new && echo ESCAPED; \
                  rm kept && echo ESCAPED; mkdir d && echo ESCAPED; mv kept other && echo ESCAPED";
    stage.refused(Outside::NotTried, script);
    assert_eq!(fs::read_to_string(stage.workspace().join("kept")).expect("it is there"), "x");
}

#[test]
fn a_granted_path_is_read_and_not_written() {
    let test = "a_granted_path_is_read_and_not_written";
    let Some(mut stage) = Stage::with(test, FILES, |spec| {
        let granted = spec.workspace.parent().expect("a parent").join("granted");
        fs::create_dir_all(&granted).expect("a scratch folder");
        fs::write(granted.join("tool"), "text of a tool").expect("a scratch file");
        spec.read_only_paths.push(granted);
    }) else {
        return;
    };
    let ran =
        stage.refused(Outside::NotTried, r#"cat "$W/../granted/tool"; echo x > "$W/../granted/tool" && echo ESCAPED"#);
    assert!(ran.stdout.starts_with("text of a tool"), "{ran:?}");
}
