//! The process as the kernel sees it.
//! Owns: reading `/proc/self`.
//! Never: fails: what cannot be read is zero, and the rest of the answer stands.

use std::fs;

/// Clock ticks a second of `/proc/self/stat`: the kernel's interface has this one on every architecture that is supported.
const TICKS_PER_SECOND: f64 = 100.0;
/// Page size of `/proc/self/statm` where nothing else is said.
const PAGE_BYTES: f64 = 4096.0;

/// Figures of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: f64,
    /// Address space.
    pub virtual_bytes: f64,
    /// Threads.
    pub threads: f64,
    /// Open descriptors.
    pub open_fds: f64,
    /// Descriptors that may be open.
    pub max_fds: f64,
}

impl Figures {
    /// Reads them now.
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { open_fds: open_fds as f64, max_fds: max_fds(&limits), ..Self::parse(&stat) }
    }

    fn parse(stat: &str) -> Self {
        // The second field is the name in parentheses, and may itself hold blanks and parentheses.
        let Some((_, rest)) = stat.rsplit_once(") ") else { return Self::default() };
        let fields: Vec<f64> = rest.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect();
        // Counted from the third field of the page proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
        Self {
            cpu_seconds: (field(14) + field(15)) / TICKS_PER_SECOND,
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24) * PAGE_BYTES,
            ..Self::default()
        }
    }
}

fn max_fds(limits: &str) -> f64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let rest = "S 1 1 1 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 7 0 100 8192 3 18446744073709551615";
        let expected = Figures {
            cpu_seconds: 2.0,
            threads: 7.0,
            virtual_bytes: 8192.0,
            resident_bytes: 3.0 * 4096.0,
            ..Figures::default()
        };
        for name in ["kheish-daemon", "a) S (b", ") ) )"] {
            assert_eq!(Figures::parse(&format!("4242 ({name}) {rest}\n")), expected, "{name}");
        }
        assert_eq!(Figures::parse(""), Figures::default());
        assert_eq!(
            max_fds("Limit Soft\nMax open files            1024                 4096                 files\n"),
            1024.0
        );
    }

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read();
        assert!(figures.threads >= 1.0 && figures.resident_bytes > 0.0 && figures.open_fds >= 3.0, "{figures:?}");
        assert!(figures.max_fds >= figures.open_fds, "{figures:?}");
    }
}
