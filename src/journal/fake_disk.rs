//! The simulation's disk: it loses what was not synced, tears writes, and fails on order.
//! Owns: two directories in memory (`journal`, `snapshots`) that crash together.
//! Never: touches the real file system, except to dump an image for a person to look at.
//!
//! What a crash may do: of every write that was not synced, any subset of its 512-byte sectors is on the medium;
//! any subset of the unsynced size changes; any subset (half of the time: a prefix) of the unsynced directory
//! operations, each of which is atomic. What a failed sync does: any part of the unsynced data reaches the
//! medium, the rest never will although reads still show it, and the next sync succeeds without it. A failed
//! write leaves a part of its bytes, or all of them.
//!
//! ```
//! use kheish_daemon::journal::fake_disk::{FakeDisk, FaultMode};
//! let disk = FakeDisk::new(7);
//! let file = disk.handle().create("a", 0).unwrap();
//! disk.fail_at(1, 28, FaultMode::Once);
//! assert_eq!(file.write_at(b"refused", 0).unwrap_err().raw_os_error(), Some(28));
//! file.write_at(b"perhaps lost", 0).unwrap();
//! disk.crash();
//! assert!(file.sync_data().is_err(), "handles of before the crash are dead");
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Access, Disk, DiskFile, Identity};

mod medium;

pub use medium::Random;
use medium::{Directory, DirectoryOp, FileOp, FileState, apply, apply_entry, persist_some, persist_some_entries};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const TRACED_CALLS: usize = 64;

/// A call that changes the disk. Reads are not counted and never fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::allocate`].
    Allocate,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`DiskFile::truncate`].
    Truncate,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultMode {
    /// One call fails.
    Once,
    /// That call and every later one of the affected operations fails, until [`FakeDisk::heal`].
    ForGood,
}

#[derive(Debug, Clone)]
struct Fault {
    countdown: u64,
    errno: i32,
    mode: FaultMode,
    ops: Option<Vec<Op>>,
}

/// A machine with a disk. Clones are the same machine.
#[derive(Clone)]
pub struct FakeDisk(Arc<Mutex<Machine>>);

#[derive(Clone)]
struct Machine {
    random: Random,
    directories: BTreeMap<String, Directory>,
    files: BTreeMap<u64, FileState>,
    inode_last: u64,
    calls: u64,
    trace: Vec<String>,
    fault: Option<Fault>,
    crash_at: Option<u64>,
    /// Off until [`FakeDisk::crash`]: every call fails.
    off: bool,
    /// Handles of an earlier boot are dead.
    boot: u64,
    capacity_bytes: Option<u64>,
}

impl FakeDisk {
    /// An empty disk; everything random about it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let directory = |inode| Directory {
            identity: Identity { device: 1, inode, born_ns: Some(1) },
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
        };
        Self(Arc::new(Mutex::new(Machine {
            random: Random(seed ^ 0x9e37_79b9_7f4a_7c15),
            directories: [("journal".to_string(), directory(2)), ("snapshots".to_string(), directory(3))].into(),
            files: BTreeMap::new(),
            inode_last: 3,
            calls: 0,
            trace: Vec::new(),
            fault: None,
            crash_at: None,
            off: false,
            boot: 0,
            capacity_bytes: None,
        })))
    }

    /// The journal directory.
    pub fn handle(&self) -> Box<dyn Disk> {
        self.directory("journal")
    }

    /// The snapshots directory of the same machine.
    pub fn snapshots(&self) -> Box<dyn Disk> {
        self.directory("snapshots")
    }

    fn directory(&self, name: &str) -> Box<dyn Disk> {
        Box::new(DirectoryHandle { disk: self.clone(), name: name.to_string(), boot: self.lock().boot })
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("no thread panics while it holds the machine")
    }

    /// Cuts the power and boots again: unsynced work is lost or torn, old handles are dead, pending faults and
    /// a pending [`FakeDisk::crash_at`] are forgotten.
    pub fn crash(&self) {
        let mut machine = self.lock();
        machine.settle();
        machine.restart();
        machine.off = false;
        machine.crash_at = None;
        machine.fault = None;
    }

    /// Ends the process without a power cut: what was written stays readable, synced or not. Old handles are
    /// dead; pending faults stay.
    pub fn restart(&self) {
        self.lock().restart();
    }

    /// The `n`-th call from now (1 is the next one), whatever it does, fails with `errno`.
    pub fn fail_at(&self, n: u64, errno: i32, mode: FaultMode) {
        self.lock().fault = Some(Fault { countdown: n, errno, mode, ops: None });
    }

    /// The `n`-th call from now among `ops` fails with `errno`; others are not counted.
    pub fn fail_ops_at(&self, ops: &[Op], n: u64, errno: i32, mode: FaultMode) {
        self.lock().fault = Some(Fault { countdown: n, errno, mode, ops: Some(ops.to_vec()) });
    }

    /// Ends a fault.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// The power fails in the `n`-th call from now (1 is the next one); every later call fails too, until
    /// [`FakeDisk::crash`].
    pub fn crash_at(&self, n: u64) {
        let mut machine = self.lock();
        machine.crash_at = Some(machine.calls + n);
    }

    /// Whether a [`FakeDisk::crash_at`] has struck.
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Calls so far that change the disk.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The last calls, oldest first, for a failing test's message.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Sets the disk's size; growing beyond it fails with ENOSPC. `None` is unlimited.
    pub fn limit_bytes(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// A restored copy on another machine: same files as read now, all durable, other identities.
    pub fn copied(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        let from = self.lock();
        let mut to = copy.lock();
        to.inode_last = 1_000 + from.inode_last;
        for (name, directory) in &from.directories {
            let mut entries = BTreeMap::new();
            for (file_name, file) in &directory.seen {
                let bytes = from.files[file].seen.clone();
                let inode = to.new_file();
                to.files.insert(inode, FileState { seen: bytes.clone(), durable: bytes, unsynced: Vec::new() });
                entries.insert(file_name.clone(), inode);
            }
            let inode = to.next_inode();
            let directory = to.directories.get_mut(name).expect("both machines have the same directories");
            directory.identity = Identity { device: 1, inode, born_ns: Some(inode) };
            directory.seen = entries.clone();
            directory.durable = entries;
        }
        drop(to);
        copy
    }

    /// The bytes of a file as read now, `directory/name`.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let machine = self.lock();
        let (directory, name) = path.split_once('/')?;
        let file = machine.directories.get(directory)?.seen.get(name)?;
        Some(machine.files[file].seen.clone())
    }

    /// Puts a durable file at `directory/name`, keeping the identity of one that is there.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut machine = self.lock();
        let (directory, name) = path.split_once('/').expect("directory/name");
        let existing = machine.directories.get(directory).and_then(|entries| entries.seen.get(name)).copied();
        let file = existing.unwrap_or_else(|| machine.new_file());
        let state = FileState { seen: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        machine.files.insert(file, state);
        let entries = machine.directories.get_mut(directory).expect("journal or snapshots");
        entries.seen.insert(name.to_string(), file);
        entries.durable.insert(name.to_string(), file);
    }

    /// Writes what is readable now to a real directory, for a person to look at.
    ///
    /// # Errors
    /// The real file system refused.
    pub fn dump(&self, target: &Path) -> io::Result<()> {
        let machine = self.lock();
        for (name, directory) in &machine.directories {
            std::fs::create_dir_all(target.join(name))?;
            for (file_name, file) in &directory.seen {
                std::fs::write(target.join(name).join(file_name), &machine.files[file].seen)?;
            }
        }
        Ok(())
    }
}

/// What the call at hand has to do.
enum Turn {
    Proceed,
    /// Do a part of it, then report the error.
    Fail(io::Error),
}

impl Machine {
    fn next_inode(&mut self) -> u64 {
        self.inode_last += 1;
        self.inode_last
    }

    fn new_file(&mut self) -> u64 {
        let inode = self.next_inode();
        self.files.insert(inode, FileState::default());
        inode
    }

    fn restart(&mut self) {
        self.forget_unreachable();
        self.boot += 1;
    }

    fn turn(&mut self, boot: u64, op: Op, what: &str) -> Turn {
        let off = || Turn::Fail(io::Error::other("the machine is off"));
        if self.off || boot != self.boot {
            return off();
        }
        self.calls += 1;
        if self.trace.len() == TRACED_CALLS {
            self.trace.remove(0);
        }
        self.trace.push(format!("{} {op:?} {what}", self.calls));
        if self.crash_at.is_some_and(|at| self.calls >= at) {
            self.off = true;
            return off();
        }
        let Some(fault) = &mut self.fault else { return Turn::Proceed };
        if fault.ops.as_ref().is_some_and(|ops| !ops.contains(&op)) {
            return Turn::Proceed;
        }
        fault.countdown = fault.countdown.saturating_sub(1);
        if fault.countdown > 0 {
            return Turn::Proceed;
        }
        let error = io::Error::from_raw_os_error(fault.errno);
        if fault.mode == FaultMode::Once {
            self.fault = None;
        }
        Turn::Fail(error)
    }

    fn used_bytes(&self) -> u64 {
        let named = self.directories.values().flat_map(|directory| directory.seen.values());
        named.map(|file| self.files[file].seen.len() as u64).sum()
    }

    fn room_for(&self, file: u64, bytes: u64) -> io::Result<()> {
        let grows = bytes.saturating_sub(self.files[&file].seen.len() as u64);
        match self.capacity_bytes {
            Some(capacity) if grows > 0 && self.used_bytes() + grows > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, file: u64, op: FileOp) {
        let state = self.files.get_mut(&file).expect("open files exist");
        apply(&mut state.seen, &op);
        state.unsynced.push(op);
    }

    fn change_directory(&mut self, directory: &str, op: DirectoryOp) {
        let entries = self.directories.get_mut(directory).expect("journal or snapshots");
        apply_entry(&mut entries.seen, &op);
        entries.unsynced.push(op);
    }

    /// Power is gone: decides what the medium holds.
    fn settle(&mut self) {
        for file in self.files.values_mut() {
            let unsynced = std::mem::take(&mut file.unsynced);
            persist_some(&mut file.durable, &unsynced, &mut self.random);
            file.seen = file.durable.clone();
        }
        for directory in self.directories.values_mut() {
            let unsynced = std::mem::take(&mut directory.unsynced);
            persist_some_entries(&mut directory.durable, &unsynced, &mut self.random);
            directory.seen = directory.durable.clone();
        }
    }

    /// Files without a name end with the last handle.
    fn forget_unreachable(&mut self) {
        let names = |entries: &Directory| -> Vec<u64> {
            let unsynced = entries.unsynced.iter().map(DirectoryOp::file);
            entries.seen.values().chain(entries.durable.values()).copied().chain(unsynced).collect()
        };
        let named: Vec<u64> = self.directories.values().flat_map(names).collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

struct DirectoryHandle {
    disk: FakeDisk,
    name: String,
    boot: u64,
}

struct FileHandle {
    disk: FakeDisk,
    file: u64,
    label: String,
    boot: u64,
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl DirectoryHandle {
    /// A live handle's machine; reading needs power too.
    fn powered(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.disk.lock();
        if machine.off || machine.boot != self.boot { Err(io::Error::other("the machine is off")) } else { Ok(machine) }
    }

    fn file(&self, inode: u64, name: &str) -> Arc<dyn DiskFile> {
        let label = format!("{}/{name}", self.name);
        Arc::new(FileHandle { disk: self.disk.clone(), file: inode, label, boot: self.boot })
    }

    fn entry(machine: &Machine, directory: &str, name: &str) -> io::Result<u64> {
        machine.directories[directory].seen.get(name).copied().ok_or_else(not_found)
    }
}

impl Disk for DirectoryHandle {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.powered()?.directories[&self.name].seen.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.disk.lock();
        if let Turn::Fail(error) = machine.turn(self.boot, Op::Create, &format!("{}/{name} {bytes}", self.name)) {
            return Err(error);
        }
        if machine.directories[&self.name].seen.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = machine.new_file();
        if let Err(error) = machine.room_for(file, bytes) {
            machine.files.remove(&file);
            return Err(error);
        }
        machine.change(file, FileOp::Grow { bytes });
        machine.change_directory(&self.name, DirectoryOp::Link { name: name.to_string(), file });
        drop(machine);
        Ok(self.file(file, name))
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = Self::entry(&*self.powered()?, &self.name, name)?;
        Ok(self.file(file, name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.disk.lock();
        if let Turn::Fail(error) = machine.turn(self.boot, Op::Rename, &format!("{}/{from} to {to}", self.name)) {
            return Err(error);
        }
        let file = Self::entry(&machine, &self.name, from)?;
        let op = DirectoryOp::Rename { from: from.to_string(), to: to.to_string(), file };
        machine.change_directory(&self.name, op);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.disk.lock();
        if let Turn::Fail(error) = machine.turn(self.boot, Op::Remove, &format!("{}/{name}", self.name)) {
            return Err(error);
        }
        let file = Self::entry(&machine, &self.name, name)?;
        machine.change_directory(&self.name, DirectoryOp::Unlink { name: name.to_string(), file });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut machine = self.disk.lock();
        let turn = machine.turn(self.boot, Op::SyncDir, &self.name);
        if machine.off || machine.boot != self.boot {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut random = machine.random;
        let directory = machine.directories.get_mut(&self.name).expect("journal or snapshots");
        let unsynced = std::mem::take(&mut directory.unsynced);
        match turn {
            Turn::Proceed => unsynced.iter().for_each(|op| apply_entry(&mut directory.durable, op)),
            Turn::Fail(error) => {
                persist_some_entries(&mut directory.durable, &unsynced, &mut random);
                machine.random = random;
                return Err(error);
            }
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.powered()?.directories[&self.name].identity)
    }

    fn available_bytes(&self) -> io::Result<u64> {
        let machine = self.powered()?;
        Ok(machine.capacity_bytes.map_or(1 << 40, |capacity| capacity.saturating_sub(machine.used_bytes())))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.name).join(name)
    }
}

impl FileHandle {
    fn state<T>(&self, look: impl FnOnce(&FileState) -> T) -> io::Result<T> {
        let machine = self.disk.lock();
        if machine.off || machine.boot != self.boot {
            return Err(io::Error::other("the machine is off"));
        }
        machine.files.get(&self.file).map(look).ok_or_else(not_found)
    }

    fn resize(&self, op: Op, bytes: u64, change: FileOp) -> io::Result<()> {
        let mut machine = self.disk.lock();
        if let Turn::Fail(error) = machine.turn(self.boot, op, &format!("{} {bytes}", self.label)) {
            return Err(error);
        }
        machine.room_for(self.file, bytes)?;
        machine.change(self.file, change);
        Ok(())
    }
}

impl DiskFile for FileHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.state(|state| {
            let available = state.seen.get(offset as usize..).unwrap_or_default();
            let count = available.len().min(buffer.len());
            buffer[..count].copy_from_slice(&available[..count]);
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.disk.lock();
        if machine.off || machine.boot != self.boot {
            return Err(io::Error::other("the machine is off"));
        }
        let label = format!("{} {}+{}", self.label, offset, bytes.len());
        let turn = machine.turn(self.boot, Op::Write, &label);
        let outcome = match turn {
            Turn::Fail(error) => Err(error),
            Turn::Proceed => machine.room_for(self.file, offset + bytes.len() as u64),
        };
        let part = match outcome {
            Ok(()) => bytes.len(),
            // All of it is as likely as a part: it may have been on its way when the error or the cut came.
            Err(_) if machine.random.below(2) == 0 => bytes.len(),
            Err(_) => machine.random.below(bytes.len() as u64) as usize,
        };
        if part > 0 {
            machine.change(self.file, FileOp::Write { offset, bytes: bytes[..part].to_vec() });
        }
        outcome
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.disk.lock();
        let turn = machine.turn(self.boot, Op::Sync, &self.label);
        if machine.off || machine.boot != self.boot {
            return Err(io::Error::other("the machine is off"));
        }
        let mut random = machine.random;
        let Some(state) = machine.files.get_mut(&self.file) else { return Err(not_found()) };
        let unsynced = std::mem::take(&mut state.unsynced);
        match turn {
            Turn::Proceed => {
                unsynced.iter().for_each(|op| apply(&mut state.durable, op));
                Ok(())
            }
            Turn::Fail(error) => {
                persist_some(&mut state.durable, &unsynced, &mut random);
                machine.random = random;
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.state(|state| state.seen.len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Op::Allocate, bytes, FileOp::Grow { bytes })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.resize(Op::Truncate, bytes, FileOp::Cut { bytes })
    }

    fn identity(&self) -> io::Result<Identity> {
        self.state(|_| Identity { device: 1, inode: self.file, born_ns: Some(self.file) })
    }
}
