//! How much memory all processes of a worker hold together.
//! Owns: the sum: a cheap one that is never too low, and an exact one where that passes the bound.
//! May touch: `/proc`, for reading.
//! Never: ends a worker for a page that its processes share and that was counted for each of them, where the kernel tells.

use std::fs;

use crate::tools::process::descendants;

/// Whether this process sees what its descendants hold.
///
/// # Errors
/// What is missing.
pub(super) fn is_countable() -> std::io::Result<()> {
    let own = held_bytes(std::process::id());
    own.map(drop).ok_or_else(|| std::io::Error::other("/proc does not tell how much memory a process holds"))
}

/// Bytes that the descendants of process `ancestor` hold together when these are more than `bytes_max`.
pub(super) fn beyond(ancestor: u32, bytes_max: u64) -> Option<u64> {
    let family = family(ancestor);
    // What two of them share counts twice here, so this is never too low, and it costs one small read for each.
    let held: u64 = family.iter().filter_map(|pid| held_bytes(*pid)).sum();
    if held <= bytes_max {
        return None;
    }
    let shares: u64 = family.iter().filter_map(|pid| share_bytes(*pid)).sum();
    (shares > bytes_max).then_some(shares)
}

/// All living descendants. Every thread lists the children that it made; a kernel without those lists is asked the long way.
fn family(ancestor: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![ancestor];
    while let Some(pid) = next.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            match fs::read_to_string(thread.path().join("children")) {
                Ok(children) => {
                    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
                    let before = found.len();
                    found.extend(children);
                    next.extend_from_slice(&found[before..]);
                }
                // The thread has ended, or the kernel has no such lists.
                Err(_) if pid == ancestor => return descendants(ancestor),
                Err(_) => {}
            }
        }
    }
    found
}

/// Its anonymous and shared memory. Pages of files do not count: the kernel drops them at any time. `None` when the process has
/// ended.
fn held_bytes(pid: u32) -> Option<u64> {
    sum(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, ["RssAnon", "RssShmem"])
}

/// The same with each page that several processes have divided among them, where the kernel tells that: not for a process that
/// shut its memory off.
fn share_bytes(pid: u32) -> Option<u64> {
    let shares = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    shares.and_then(|text| sum(&text, ["Pss_Anon", "Pss_Shmem"])).or_else(|| held_bytes(pid))
}

/// The sum of the lines with these names, in bytes. `None` unless all are there.
fn sum(text: &str, names: [&str; 2]) -> Option<u64> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((value(names[0])? + value(names[1])?) * 1_024)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_descendants_hold_is_counted_however_deep_they_are() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' 'x'); (y=$x; echo ready; read end)"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let (own, grown) = (std::process::id(), child.id());
        assert!(family(own).contains(&grown));
        // Its subshell has the same pages: each of both holds them, and has a share of them.
        assert!(held_bytes(grown).unwrap() > 20_000_000);
        assert!(share_bytes(grown).unwrap() <= held_bytes(grown).unwrap());
        assert!(beyond(own, 20_000_000).is_some_and(|bytes| bytes > 20_000_000));
        assert_eq!(beyond(own, 1 << 40), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
