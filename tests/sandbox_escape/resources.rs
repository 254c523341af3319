//! Commands that try to exhaust the host.

use kheish_daemon::sandbox::{Feature, WorkerError};

use crate::stage::Stage;

const MIB: u64 = 1024 * 1024;
/// Processes and threads that a worker of these tests may have.
const PROCESSES: u64 = 60;
/// A pid namespace gives out this many ids before the bounded range begins.
const FIRST_IDS: u64 = 300;

#[test]
fn a_fork_bomb_is_bounded_and_ends_with_the_call() {
    let test = "a_fork_bomb_is_bounded_and_ends_with_the_call";
    let Some(mut stage) = Stage::with(test, &[Feature::ProcessLimit], |spec| spec.limits.processes = PROCESSES) else {
        return;
    };
    let mark = format!("84{:05}", std::process::id());
    let bomb = format!(
        "cat > bomb.py <<'P'\nimport os\nn = 0\nwhile True:\n    try:\n        if os.fork() == 0:\n            \
         os.execv('/bin/sleep', ['sleep', '{mark}'])\n        n += 1\n    except OSError as e:\n        break\n    \
         if n > 5000: break\nprint('MADE', n)\nP\n/usr/bin/python3 bomb.py"
    );
    let answer = stage.call("bash", &serde_json::json!({ "command": bomb }));
    // Where processes are only counted, the worker ends with them; otherwise the bomb sees its limit.
    if let Ok((content, _)) = answer {
        let text = content["stdout"].as_str().unwrap_or_default();
        let made: u64 =
            text.trim().strip_prefix("MADE ").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{content}"));
        assert!(made > 0 && made <= FIRST_IDS + PROCESSES, "{made}");
    }
    let left = std::process::Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output();
    assert!(left.is_ok_and(|output| output.stdout.is_empty()), "the bomb lives on");
    assert_eq!(stage.inside("echo next").stdout, "next\nTRIED\n");
}

#[test]
fn a_shell_that_forks_itself_ends_with_the_call() {
    let test = "a_shell_that_forks_itself_ends_with_the_call";
    let Some(mut stage) = Stage::with(test, &[Feature::ProcessLimit], |spec| spec.limits.processes = PROCESSES) else {
        return;
    };
    if std::env::var_os("KHEISH_ESCAPE_WITHOUT").is_some() {
        crate::skip::skip(test, "not without its wall: it would be a fork bomb");
        return;
    }
    let input = serde_json::json!({"command": "b() { b | b & }; b; sleep 1", "timeout_ms": 3000});
    let _answer_or_death = stage.call("bash", &input);
    assert_eq!(stage.inside("echo next").stdout, "next\nTRIED\n");
}

#[test]
fn threads_count_as_processes() {
    let test = "threads_count_as_processes";
    let Some(mut stage) = Stage::with(test, &[Feature::ProcessLimit], |spec| spec.limits.processes = PROCESSES) else {
        return;
    };
    let code = "import threading\nstop = threading.Event()\nn = 0\ntry:\n    while n < 5000:\n        \
                threading.Thread(target=stop.wait, daemon=True).start()\n        n += 1\nexcept RuntimeError:\n    pass\nprint('MADE', n, flush=True)\nimport os\nos._exit(0)\n";
    std::fs::write(stage.workspace().join("threads.py"), code).expect("a scratch file");
    let answer = stage.call("bash", &serde_json::json!({"command": "/usr/bin/python3 threads.py"}));
    if let Ok((content, _)) = answer {
        let text = content["stdout"].as_str().unwrap_or_default();
        let made: u64 =
            text.trim().strip_prefix("MADE ").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{content}"));
        assert!(made > 0 && made <= FIRST_IDS + PROCESSES, "{made}");
    }
}

#[test]
fn the_temp_directory_is_bounded_in_bytes_and_files() {
    let test = "the_temp_directory_is_bounded_in_bytes_and_files";
    let Some(mut stage) = Stage::with(test, &[Feature::PrivateRoot], |spec| spec.scratch_bytes = 4 * MIB) else {
        return;
    };
    let ran = stage.inside("head -c 64M /dev/zero > /tmp/fill; stat -c %s /tmp/fill; rm /tmp/fill; echo again > /tmp/small && cat /tmp/small");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].parse::<u64>().expect("a size") <= 4 * MIB, "{ran:?}");
    assert_eq!(lines[1], "again", "{ran:?}");
    let code = "n = 0\ntry:\n    while n < 100000:\n        open('/tmp/f%d' % n, 'w').close()\n        n += 1\nexcept OSError:\n    pass\nprint(n)\n";
    std::fs::write(stage.workspace().join("inodes.py"), code).expect("a scratch file");
    let made: u64 =
        stage.inside("/usr/bin/python3 inodes.py").stdout.lines().next().and_then(|n| n.parse().ok()).expect("a count");
    assert!(made < 70_000, "{made}");
}

#[test]
fn no_file_grows_beyond_its_bound() {
    let test = "no_file_grows_beyond_its_bound";
    let Some(mut stage) = Stage::with(test, &[], |spec| spec.limits.file_bytes = MIB) else { return };
    let ran = stage
        .inside("head -c 8M /dev/zero > fill; stat -c %s fill; truncate -s 1G sparse; stat -c %s sparse 2>/dev/null");
    for size in ran.stdout.lines().filter_map(|line| line.parse::<u64>().ok()) {
        assert!(size <= MIB, "{ran:?}");
    }
    // A file in memory is a file as well.
    let code = "import os\nf = os.memfd_create('m')\ntry:\n    os.ftruncate(f, 1 << 30)\n    print('ESCAPED')\nexcept OSError:\n    print('refused')\n";
    std::fs::write(stage.workspace().join("memfd.py"), code).expect("a scratch file");
    let ran = stage.inside("/usr/bin/python3 memfd.py");
    assert!(!ran.escaped(), "{ran:?}");
}

#[test]
fn a_process_does_not_take_more_memory_than_its_bound() {
    let test = "a_process_does_not_take_more_memory_than_its_bound";
    let Some(mut stage) = Stage::with(test, &[], |spec| spec.limits.memory_bytes = 256 * MIB) else { return };
    let code = "try:\n    b = bytearray(1 << 30)\n    print('ESCAPED')\nexcept MemoryError:\n    print('refused')\n";
    std::fs::write(stage.workspace().join("memory.py"), code).expect("a scratch file");
    let ran = stage.inside("/usr/bin/python3 memory.py");
    assert!(ran.stdout.starts_with("refused"), "{ran:?}");
}

/// Twelve processes, each well below the bound of one: together they are ended, and the model is told why.
#[test]
fn many_processes_do_not_take_more_memory_together_than_their_bound() {
    let test = "many_processes_do_not_take_more_memory_together_than_their_bound";
    let Some(mut stage) = Stage::with(test, &[Feature::MemoryLimit], |spec| {
        spec.limits.memory_bytes = 256 * MIB;
        spec.limits.total_memory_bytes = 200 * MIB;
    }) else {
        return;
    };
    // Each touches what it takes, hides from its shell and stays.
    let code = "import os, time\nfor n in range(12):\n    if os.fork() == 0:\n        os.setsid()\n        \
                b = bytearray(40 << 20)\n        b[::4096] = b'x' * len(b[::4096])\n        open('held%d' % n, 'w')\n        \
                time.sleep(600)\nfor n in range(12): os.wait()\n";
    std::fs::write(stage.workspace().join("family.py"), code).expect("a scratch file");
    let command = serde_json::json!({"command": "/usr/bin/python3 family.py", "timeout_ms": 30_000});
    let told = stage.call("bash", &command).expect_err("ended");
    assert!(matches!(told, WorkerError::Memory { bytes_max } if bytes_max == 200 * MIB), "{told}");
    assert_eq!(told.code(), "tool_memory_exceeded");
    // What they share counts once: these six are large and of one piece.
    let code = "import os, time\nb = bytearray(100 << 20)\nb[::4096] = b'x' * len(b[::4096])\nfor n in range(6):\n    \
                if os.fork() == 0:\n        time.sleep(2)\n        os._exit(0)\nfor n in range(6): os.wait()\nprint('LIVES')\n";
    std::fs::write(stage.workspace().join("shared.py"), code).expect("a scratch file");
    assert_eq!(stage.inside("/usr/bin/python3 shared.py").stdout, "LIVES\nTRIED\n");
}

#[test]
fn open_files_are_bounded_and_no_limit_is_raised() {
    let test = "open_files_are_bounded_and_no_limit_is_raised";
    let Some(mut stage) = Stage::with(test, &[], |spec| spec.limits.open_files = 64) else { return };
    let ran = stage.inside(
        "ulimit -n; ulimit -Hn; ulimit -n 4096 && echo ESCAPED; ulimit -c unlimited && echo ESCAPED; ulimit -c",
    );
    assert_eq!(ran.stdout, "64\n64\n0\nTRIED\n", "{ran:?}");
}

#[test]
fn no_core_file_is_written() {
    let Some(mut stage) = Stage::new("no_core_file_is_written", &[]) else { return };
    let ran = stage.inside("sh -c 'kill -SEGV $$'; ls | grep -c core");
    assert_eq!(ran.stdout.lines().next(), Some("0"), "{ran:?}");
}

#[test]
fn memory_is_neither_locked_nor_queued() {
    let Some(mut stage) = Stage::new("memory_is_neither_locked_nor_queued", &[Feature::CapabilitiesDropped]) else {
        return;
    };
    let ran = stage.inside("ulimit -l; ulimit -q");
    assert_eq!(ran.stdout, "0\n0\nTRIED\n", "{ran:?}");
}
