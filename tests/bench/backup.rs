//! What a backup costs the daemon that is copied, and how long a restore takes.
//! Owns: the two measurements and their settings.
//! Never: keeps a backup; asserts a figure.
//!
//! Settings: BENCH_BACKUP_RUNS (100000: runs that the daemon holds), BENCH_BACKUP_MIB (1024: size of the state root that is
//! restored), BENCH_CLIENTS' last number of clients but at most 64, BENCH_BACKUP_RATE (`backup create --rate-mib-s`).

use std::fs;
use std::io::{self, Error, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use crate::daemon::{Daemon, Start, binary};
use crate::load::Load;
use crate::scenarios::Folder;

/// How large.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Runs that the daemon holds.
    pub runs: u64,
    /// Bytes of the state root that is restored.
    pub bytes: u64,
    /// MiB a second, where it is not the command's own default.
    pub rate: Option<String>,
}

impl Settings {
    /// From the environment.
    pub fn from_environment() -> Self {
        let number =
            |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        Self {
            runs: number("BENCH_BACKUP_RUNS", 100_000),
            bytes: number("BENCH_BACKUP_MIB", 1_024) * 1_024 * 1_024,
            rate: std::env::var("BENCH_BACKUP_RATE").ok(),
        }
    }
}

/// One round: accepts of one daemon, first alone and then while backups are made one after the other.
pub struct Round {
    /// Accepts per second without a backup.
    pub alone: f64,
    /// The same with one.
    pub beside: f64,
    /// Backups that ended within the measured time.
    pub backups: u64,
    /// Bytes of the last one's directory.
    pub backup_bytes: u64,
}

/// Measures [`Round`].
pub fn cost(base: &Path, settings: &Settings, clients: usize, duration: Duration) -> io::Result<Round> {
    let folder = Folder::new(base, "backup")?;
    let root = folder.path().join("state");
    let daemon = Daemon::start(&Start { state_root: &root, hold: true, provider_url: None })?;
    daemon.create_sessions()?;
    daemon.submit(0, Load::count(64, settings.runs))?;
    let alone = daemon.submit(settings.runs, Load::time(clients, duration))?;
    let first = settings.runs + alone.replies_with_warm_up;

    let (stop, made, bytes) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0), AtomicU64::new(0));
    let url = format!("http://{}", daemon.address);
    let beside = std::thread::scope(|scope| {
        let copying = scope.spawn(|| -> io::Result<()> {
            while !stop.load(Ordering::SeqCst) {
                let out = folder.path().join("out");
                let mut command = create(&root, &out, settings);
                command.arg("--base-url").arg(&url).arg("--token-file").arg(folder.path().join("admin-token"));
                // What runs when the load ends is ended too.
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
                let status = loop {
                    if let Some(status) = child.try_wait()? {
                        break status;
                    }
                    if stop.load(Ordering::SeqCst) {
                        child.kill()?;
                        child.wait()?;
                        return Ok(());
                    }
                    crate::process::pause(Duration::from_millis(5))?;
                };
                if !status.success() {
                    let mut told = String::new();
                    if let Some(mut stderr) = child.stderr.take() {
                        io::Read::read_to_string(&mut stderr, &mut told)?;
                    }
                    return Err(Error::other(format!("backup create: {status}: {told}")));
                }
                made.fetch_add(1, Ordering::SeqCst);
                bytes.store(size_of(&out)?, Ordering::SeqCst);
                fs::remove_dir_all(&out)?;
            }
            Ok(())
        });
        let sample = daemon.submit(first, Load::time(clients, duration));
        stop.store(true, Ordering::SeqCst);
        let copied = copying.join().unwrap_or_else(|_| Err(Error::other("the copying thread panicked")));
        copied.and(sample)
    })?;
    daemon.process.stop()?;
    Ok(Round {
        alone: alone.rate(),
        beside: beside.rate(),
        backups: made.into_inner(),
        backup_bytes: bytes.into_inner(),
    })
}

fn create(root: &Path, out: &Path, settings: &Settings) -> Command {
    let mut command = Command::new(binary());
    command.args(["backup", "create"]).arg("--state-root").arg(root).arg("--out").arg(out);
    if let Some(rate) = &settings.rate {
        command.arg("--rate-mib-s").arg(rate);
    }
    command.stdin(Stdio::null());
    command
}

/// A restore of a state root of a given size.
pub struct Restore {
    /// Bytes of the journal in it; the rest are blobs.
    pub journal_bytes: u64,
    /// Bytes of the backup.
    pub backup_bytes: u64,
    /// Seconds of `backup create --offline` without a limit of its rate.
    pub create_s: f64,
    /// Seconds of `backup verify`.
    pub verify_s: f64,
    /// Seconds of `backup restore`, which verifies first.
    pub restore_s: f64,
    /// Seconds until a daemon on the restored root is ready.
    pub ready_s: f64,
}

/// Measures [`Restore`].
pub fn restore(base: &Path, settings: &Settings) -> io::Result<Restore> {
    let folder = Folder::new(base, "restore")?;
    let root = folder.path().join("state");
    let start = Start { state_root: &root, hold: true, provider_url: None };
    let daemon = Daemon::start(&start)?;
    daemon.create_sessions()?;
    daemon.submit(0, Load::count(64, settings.runs))?;
    daemon.process.stop()?;
    let journal_bytes = size_of(&root.join("journal"))?;
    fill(&root.join("blobs"), settings.bytes.saturating_sub(size_of(&root)?))?;

    let out = folder.path().join("out");
    let mut command = create(&root, &out, &Settings { rate: Some("0".to_string()), ..settings.clone() });
    let create_s = timed(command.arg("--offline"))?;
    let verify_s = timed(Command::new(binary()).args(["backup", "verify"]).arg(&out))?;
    let restored = folder.path().join("restored");
    let restore_s = timed(
        Command::new(binary())
            .args(["backup", "restore", "--from"])
            .arg(&out)
            .arg("--state-root")
            .arg(&restored)
            .env("KHEISH_AUTH_STORE_MASTER_KEY_FILE", folder.path().join("master-key")),
    )?;
    let daemon = Daemon::start(&Start { state_root: &restored, ..start })?;
    let ready_s = daemon.ready_after.as_secs_f64();
    daemon.process.stop()?;
    Ok(Restore { journal_bytes, backup_bytes: size_of(&out)?, create_s, verify_s, restore_s, ready_s })
}

fn timed(command: &mut Command) -> io::Result<f64> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::other(format!("{command:?}: {told}")));
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Blobs of 4 MiB that nothing compresses or shares, named by their digests.
fn fill(blobs: &Path, bytes: u64) -> io::Result<()> {
    const BLOB_BYTES: u64 = 4 * 1024 * 1024;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(BLOB_BYTES) as usize;
        let mut content = Vec::with_capacity(length + 8);
        while content.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        content.truncate(length);
        let name: String = digest(&SHA256, &content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::File::create(blobs.join(name))?.write_all(&content)?;
        left -= length as u64;
    }
    Ok(())
}

/// Bytes below `path`, without the journal's reserve, which no backup holds.
fn size_of(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == "spare" {
            continue;
        }
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
