//! The scene of an escape: a workspace, a state root beside it with a secret, a victim process, and the same command
//! run once outside and once inside a worker.
//! Owns: the folders, processes and workers of one test.
//! Never: takes a command that did not run for one that was refused: every script says that it came to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kheish_daemon::net::Cancel;
use kheish_daemon::sandbox::{Feature, Level, Sandbox, SandboxSettings, SandboxSpec, ToolWorker, Walls, WorkerError};
use kheish_daemon::sys;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::skip::skip;

pub const BINARY: &str = env!("CARGO_BIN_EXE_kheish-daemon");
/// What nobody in the jail may ever see.
pub const SECRET: &str = "canary-5f1d7c9e2b";
/// What a script prints when an attempt came through.
pub const ESCAPED: &str = "ESCAPED";
/// What every script prints at its end.
const TRIED: &str = "TRIED";
/// A call that takes longer is stuck; the slowest takes some seconds.
const PATIENCE_MS: u64 = 30_000;
const PYTHON: &str = "/usr/bin/python3";

/// What this machine offers, probed once.
pub fn offer() -> &'static Sandbox {
    static OFFER: OnceLock<Sandbox> = OnceLock::new();
    OFFER.get_or_init(|| {
        let workspace = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&workspace).expect("a scratch folder");
        Sandbox::probe(SandboxSettings {
            level: Level::Auto,
            workspace: &workspace,
            read_only_paths: Vec::new(),
            network: false,
            program: PathBuf::from(BINARY),
        })
    })
}

pub fn is_root() -> bool {
    sys::effective_user_id() == 0
}

/// When the same attempt must come through outside, to show that it is an attempt at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// For everybody.
    Works,
    /// For root; others are stopped by the kernel anyway.
    WorksForRoot,
    /// It is not tried: it would harm the host, or the host may lack what it takes.
    NotTried,
}

pub struct Stage {
    place: PathBuf,
    test: &'static str,
    worker: Option<ToolWorker>,
    change: fn(&mut SandboxSpec),
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn escaped(&self) -> bool {
        self.stdout.contains(ESCAPED) || self.stdout.contains(SECRET) || self.stderr.contains(SECRET)
    }
}

impl Stage {
    /// A scene, unless this machine cannot build the walls that the test is about: then it says so.
    pub fn new(test: &'static str, needs: &[Feature]) -> Option<Self> {
        Self::with(test, needs, |_| {})
    }

    /// A scene whose workers differ from the usual.
    pub fn with(test: &'static str, needs: &[Feature], change: fn(&mut SandboxSpec)) -> Option<Self> {
        let report = offer().report();
        for feature in needs {
            let found = report.features.iter().find(|found| found.name == *feature).expect("every wall is reported");
            if !found.active {
                skip(test, &format!("no {feature:?} here: {}", found.reason));
                return None;
            }
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("escape-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(place.join("workspace")).expect("a scratch folder");
        fs::create_dir_all(place.join("state")).expect("a scratch folder");
        let place = place.canonicalize().expect("it exists");
        fs::write(place.join("state/secret"), SECRET).expect("a scratch file");
        Some(Self { place, test, worker: None, change })
    }

    pub fn workspace(&self) -> PathBuf {
        self.place.join("workspace")
    }

    pub fn state(&self) -> PathBuf {
        self.place.join("state")
    }

    /// `KHEISH_ESCAPE_WITHOUT=private_root,landlock` takes walls down, to see which tests notice. Never as root.
    pub fn spec(&self) -> SandboxSpec {
        let mut spec = offer().spec(&self.workspace()).expect("a usable sandbox");
        (self.change)(&mut spec);
        let without = std::env::var("KHEISH_ESCAPE_WITHOUT").unwrap_or_default();
        // An attempt that comes through as root does to the host what it was made for.
        assert!(without.is_empty() || !is_root(), "walls are taken down only by a user without rights");
        let is_down = |wall: &Feature| {
            let name = serde_json::to_value(wall).expect("a name");
            without.split(',').any(|down| name == down)
        };
        if let Walls::Probed(walls) = &mut spec.walls {
            walls.retain(|wall| !is_down(wall));
        }
        spec
    }

    fn worker(&mut self) -> &mut ToolWorker {
        if self.worker.is_none() {
            self.worker = Some(ToolWorker::start(&self.spec()).expect("a worker"));
        }
        self.worker.as_mut().expect("just started")
    }

    /// Runs a tool in the worker.
    pub fn call(&mut self, tool: &str, input: &Value) -> Result<(Value, bool), WorkerError> {
        let input = RawValue::from_string(input.to_string()).expect("JSON");
        let output = self.worker().call(tool, &input, PATIENCE_MS, &Cancel::new());
        if output.is_err() {
            self.worker = None;
        }
        let output = output?;
        Ok((serde_json::from_str(&output.content).expect("tools answer in JSON"), output.is_error))
    }

    /// Runs a file tool that must fail; its whole answer.
    pub fn refused_tool(&mut self, tool: &str, input: &Value) -> Value {
        let (content, is_error) = self.call(tool, input).expect("an answer");
        assert!(is_error, "{tool} {input}: {content}");
        assert!(!content.to_string().contains(SECRET), "{content}");
        content
    }

    /// Runs a shell command in the worker.
    pub fn inside(&mut self, script: &str) -> Ran {
        let script = self.complete(script);
        let (content, _) = self.call("bash", &serde_json::json!({ "command": script })).expect("an answer");
        let text = |name: &str| content[name].as_str().unwrap_or_default().to_string();
        let ran = Ran { stdout: text("stdout"), stderr: text("stderr") };
        assert!(ran.stdout.contains(TRIED), "{}: the script did not come to its end: {content}", self.test);
        ran
    }

    /// Runs the same command outside.
    pub fn outside(&self, script: &str) -> Ran {
        let output = Command::new("bash")
            .arg("-c")
            .arg(self.complete(script))
            .current_dir(self.workspace())
            .stdin(Stdio::null())
            .output()
            .expect("bash is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn complete(&self, script: &str) -> String {
        let (state, workspace) = (self.state(), self.workspace());
        format!("S='{}'; W='{}'\n{script}\necho {TRIED}", state.display(), workspace.display())
    }

    /// The attempt comes through outside, as far as it may be tried, and not inside.
    pub fn refused(&mut self, outside: Outside, script: &str) -> Ran {
        if outside == Outside::Works || outside == Outside::WorksForRoot && is_root() {
            let ran = self.outside(script);
            assert!(ran.escaped(), "{}: no attempt at all, it fails outside as well: {ran:?}", self.test);
        }
        let ran = self.inside(script);
        assert!(!ran.escaped(), "{}: {ran:?}", self.test);
        ran
    }

    /// The same for a Python script; its functions are those of [`PRELUDE`]. What it said instead of escaping.
    pub fn refused_python(&mut self, outside: Outside, code: &str) -> String {
        if !Path::new(PYTHON).exists() {
            skip(self.test, "no /usr/bin/python3 to make raw system calls with");
            return String::new();
        }
        let code = format!("{PRELUDE}\ndef attempt():\n{}\n\nmain()\n", indent(code));
        fs::write(self.workspace().join("attempt.py"), code).expect("a scratch file");
        let script = format!("{PYTHON} attempt.py \"$S\" \"$W\"");
        let ran = self.refused(outside, &script);
        ran.stdout.lines().find(|line| line.starts_with("refused ")).unwrap_or(&format!("{ran:?}")).to_string()
    }

    /// A Python attempt that this error number must end.
    pub fn refused_with(&mut self, outside: Outside, error: &str, code: &str) {
        let said = self.refused_python(outside, code);
        assert!(said.is_empty() || said == format!("refused {error}"), "{}: {said}", self.test);
    }

    /// A process of the same user with a secret in its environment.
    pub fn victim(&self) -> Victim {
        let child = Command::new("sleep")
            .arg("600")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("VICTIM", SECRET)
            .current_dir(self.state())
            .stdin(fs::File::open(self.state().join("secret")).expect("a scratch file"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sleep is there");
        Victim(child)
    }

    /// The state root is as it was.
    pub fn assert_state_untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        let secret = fs::read_to_string(self.state().join("secret")).expect("it is there");
        let names: Vec<_> = fs::read_dir(self.state()).expect("it is there").flatten().map(|e| e.file_name()).collect();
        let metadata = fs::metadata(self.state().join("secret")).expect("it is there");
        assert_eq!((secret.as_str(), names.len(), metadata.nlink()), (SECRET, 1, 1), "{}", self.test);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.worker = None;
        // What cannot be removed is below the build's own folder and hurts nobody.
        let _left_behind = fs::remove_dir_all(&self.place);
    }
}

/// A process that is attacked. It is killed with its guard.
pub struct Victim(Child);

impl Victim {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn assert_alive(&mut self) {
        assert!(self.0.try_wait().expect("a child of ours").is_none(), "the victim was ended");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn indent(code: &str) -> String {
    code.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// `call(name, …)` makes a system call by its number on this machine and raises what it answers; `main` runs `attempt`
/// and tells how it ended.
const PRELUDE: &str = r#"
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
NUMBERS = {
    'ptrace': (101, 117), 'process_vm_readv': (310, 270), 'pidfd_open': (434, 434), 'pidfd_getfd': (438, 438),
    'kcmp': (312, 272), 'setns': (308, 268), 'unshare': (272, 97), 'clone': (56, 220), 'clone3': (435, 435),
    'personality': (135, 92), 'io_uring_setup': (425, 425), 'bpf': (321, 280), 'perf_event_open': (298, 241),
    'userfaultfd': (323, 282), 'keyctl': (250, 219), 'add_key': (248, 217), 'request_key': (249, 218),
    'mount': (165, 40), 'umount2': (166, 39), 'pivot_root': (155, 41), 'chroot': (161, 51), 'fsopen': (430, 430),
    'open_tree': (428, 428), 'mount_setattr': (442, 442), 'init_module': (175, 105), 'kexec_load': (246, 104),
    'reboot': (169, 142), 'swapon': (167, 224), 'quotactl': (179, 60), 'fanotify_init': (300, 262),
    'name_to_handle_at': (303, 264), 'open_by_handle_at': (304, 265), 'clock_settime': (227, 112),
    'sethostname': (170, 161), 'syslog': (103, 116), 'acct': (163, 89), 'mq_open': (240, 180),
    'statmount': (457, 457), 'move_pages': (279, 239), 'mknodat': (259, 33), 'renameat2': (316, 276),
}
def call(name, *arguments):
    number = NUMBERS[name][0 if x86 else 1] if isinstance(name, str) else name
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def escaped(what=''):
    print('ESCAPED', what)
STATE, WORKSPACE = sys.argv[1], sys.argv[2]
def main():
    try:
        attempt()
    except OSError as error:
        print('refused', errno.errorcode.get(error.errno, error.errno))
    except Exception as error:
        print('refused', type(error).__name__, error)
"#;
