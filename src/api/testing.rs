//! What the front's own tests share.
//! Owns: a seeded random source.
//! Never: is compiled into the binary.

/// xorshift64*: good enough to vary inputs, and replayable from its seed.
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A directory that goes away with its owner.
pub(crate) struct TempDir(std::path::PathBuf);

impl TempDir {
    /// A new directory with mode 0700; `name` tells whose it is.
    pub(crate) fn new(name: &str) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kheish-{name}-{}-{number}", std::process::id()));
        // A leftover of an earlier process with the same id.
        drop(std::fs::remove_dir_all(&path));
        std::fs::DirBuilder::new().mode(0o700).create(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A leftover in the temporary directory harms nobody.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Waits until `holds`, at most ten seconds, without sleeping.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::yield_now();
    }
}
