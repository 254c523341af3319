//! The root that a worker sees: workspace, temp directory, chosen system paths, and nothing else of the host.
//! Owns: the list of what is in it and the order in which it is put together.
//! May touch: the mounts of its own mount namespace.
//! Never: shows a place of the host writable but for the workspace, or any place that is not on the list.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::policy::Policy;
use crate::limits::{SANDBOX_ROOT_BYTES_MAX, SANDBOX_SCRATCH_FILES_MAX};
use crate::sys::namespaces::{self, MountFlags};

/// Where the new root is put together. It must exist everywhere, and nothing else sees this mount namespace.
const BASE: &str = "/usr";

/// Programs and libraries: whole trees.
pub const PROGRAM_TREES: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What programs need of /etc: where libraries lie, which program an alternative means, public certificates.
pub const ETC_ENTRIES: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
];

/// Device files: they hold nothing and reach nothing.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

const READ_ONLY: MountFlags = MountFlags { read_only: true, no_devices: true, no_exec: false };
/// Read-only keeps owner and mode of the host's device file as they are; writing to the device works all the same.
const DEVICE: MountFlags = MountFlags { read_only: true, no_devices: false, no_exec: true };

/// One piece of the host that will be seen.
struct Piece {
    mount: OwnedFd,
    target: PathBuf,
    is_directory: bool,
}

/// Puts the root together and enters it. The process must be alone in a fresh mount namespace, in which it is
/// privileged, and in the pid namespace that /proc is to show. Returns why there is no /proc, if so.
pub fn enter(policy: &Policy, wants_proc: bool) -> io::Result<Option<String>> {
    namespaces::make_mounts_private().map_err(at("/"))?;
    // Copies of everything first: from the next mount on, the host's paths are hidden.
    let mut links = Vec::new();
    let mut system = Vec::new();
    for path in PROGRAM_TREES.iter().chain(ETC_ENTRIES) {
        collect(Path::new(path), READ_ONLY, &mut system, &mut links)?;
    }
    for path in DEVICES {
        collect(Path::new(path), DEVICE, &mut system, &mut links)?;
    }
    for path in &policy.read_only_paths {
        collect(path, READ_ONLY, &mut system, &mut links)?;
    }
    let flags = MountFlags { read_only: policy.workspace_read_only, no_devices: true, no_exec: false };
    let workspace = namespaces::clone_mount(&policy.workspace, flags).map_err(at(&policy.workspace))?;
    if let Some(expected) = policy.workspace_identity {
        let found = fs::File::from(workspace.try_clone()?).metadata()?;
        if (found.dev(), found.ino()) != expected {
            let cause = io::Error::other("another directory was put in its place");
            return Err(at(&policy.workspace)(cause));
        }
    }
    let names = if policy.network { network_names() } else { Vec::new() };

    let base = Path::new(BASE);
    namespaces::mount_new("tmpfs", base, &format!("mode=0755,size={SANDBOX_ROOT_BYTES_MAX}"), false)
        .map_err(at(BASE))?;
    for folder in ["etc", "dev", "tmp", "proc"] {
        make_folder(&base.join(folder))?;
    }
    for piece in &system {
        attach(base, piece)?;
    }
    for (target, link) in &links {
        let path = below(base, target);
        make_parent(&path)?;
        symlink(link, &path).map_err(at(target))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp"),
    ] {
        symlink(target, base.join("dev").join(name)).map_err(at(name))?;
    }
    for (name, text) in USERS.iter().map(|(name, text)| (*name, (*text).to_string())) {
        write_file(&base.join("etc").join(name), text.as_bytes())?;
    }
    if policy.network {
        for (name, bytes) in &names {
            write_file(&base.join("etc").join(name), bytes)?;
        }
    } else {
        write_file(&base.join("etc/hosts"), b"127.0.0.1 localhost\n::1 localhost\n")?;
    }
    let scratch = format!("mode=0700,size={},nr_inodes={SANDBOX_SCRATCH_FILES_MAX}", policy.scratch_bytes);
    namespaces::mount_new("tmpfs", &base.join("tmp"), &scratch, true).map_err(at("/tmp"))?;
    let proc_missing = wants_proc.then(|| mount_proc(&base.join("proc")).err()).flatten();
    let piece = Piece { mount: workspace, target: policy.workspace.clone(), is_directory: true };
    attach(base, &piece)?;
    let shut = MountFlags { read_only: true, no_devices: true, no_exec: true };
    namespaces::restrict_mount(base, shut).map_err(at("/"))?;
    namespaces::change_root(base).map_err(at("/"))?;
    Ok(proc_missing.map(|error| error.to_string()))
}

/// Who a worker is. Names of the host's users are none of its business.
const USERS: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\nworker:x:1000:1000:worker:/tmp:/bin/bash\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nworker:x:1000:\nnogroup:x:65534:\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"),
];

/// The files that name look-ups need; as copies, since they are often links into places that a worker does not see.
fn network_names() -> Vec<(&'static str, Vec<u8>)> {
    let read = |name: &'static str| fs::read(Path::new("/etc").join(name)).ok().map(|bytes| (name, bytes));
    ["hosts", "resolv.conf"].into_iter().filter_map(read).collect()
}

/// Takes a copy of the mount at `path`, or notes where a symbolic link points. What does not exist is left out.
fn collect(
    path: &Path,
    flags: MountFlags,
    pieces: &mut Vec<Piece>,
    links: &mut Vec<(PathBuf, PathBuf)>,
) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A place that the daemon itself cannot look at is not shown.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(at(path)(error)),
    };
    if metadata.is_symlink() {
        links.push((path.to_path_buf(), fs::read_link(path).map_err(at(path))?));
        return Ok(());
    }
    let mount = namespaces::clone_mount(path, flags).map_err(at(path))?;
    pieces.push(Piece { mount, target: path.to_path_buf(), is_directory: metadata.is_dir() });
    Ok(())
}

fn attach(base: &Path, piece: &Piece) -> io::Result<()> {
    let target = below(base, &piece.target);
    if piece.is_directory {
        make_folder(&target)?;
    } else if !target.exists() {
        make_parent(&target)?;
        write_file(&target, b"")?;
    }
    namespaces::attach_mount(&piece.mount, &target).map_err(at(&piece.target))
}

/// A fresh /proc: processes only. A host that hides parts of its own /proc (a container) does not let us have one.
fn mount_proc(target: &Path) -> io::Result<()> {
    namespaces::mount_new("proc", target, "subset=pid", false)
}

fn below(base: &Path, path: &Path) -> PathBuf {
    let names = path.components().filter(|component| matches!(component, Component::Normal(_)));
    names.fold(base.to_path_buf(), |path, name| path.join(name))
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(at(path))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), make_folder)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(at(path))
}

fn at(path: impl AsRef<Path>) -> impl Fn(io::Error) -> io::Error {
    let path = path.as_ref().to_path_buf();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
