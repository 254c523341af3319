//! Child processes of the bench: started on free loopback ports, watched, and always ended.
//! Owns: every process that the bench starts; each is killed when its guard is dropped.
//! Never: touches a process that it did not start.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kheish_daemon::sys::{self, Epoll};

/// A child process that ends with its guard.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
        })?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes, and the anonymous part of it.
    pub fn resident_bytes(&self) -> io::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
        };
        Ok((field("VmRSS:"), field("RssAnon:")))
    }

    /// Processor time used so far, in microseconds, in steps of 10 ms.
    pub fn cpu_us(&self) -> io::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The name in parentheses may hold blanks; user and system time are the 12th and 13th field behind it.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        Ok(ticks.sum::<u64>() * 10_000)
    }

    /// Threads now.
    pub fn thread_count(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.id()))?.count())
    }

    /// Waits until `probe` succeeds.
    ///
    /// # Errors
    /// The process ended, or 120 s passed; the end of its log is in the error.
    pub fn wait_until(&mut self, mut probe: impl FnMut() -> bool) -> io::Result<Duration> {
        let started = Instant::now();
        loop {
            if probe() {
                return Ok(started.elapsed());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || started.elapsed() > Duration::from_secs(120) {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let tail = &log[log.len().saturating_sub(1_500)..];
                return Err(io::Error::new(ErrorKind::TimedOut, format!("not ready ({ended:?}): {tail}")));
            }
            pause(Duration::from_millis(1))?;
        }
    }

    /// Asks it to stop and waits; after 60 s it is killed.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        sys::kill(self.id(), sys::SIGTERM)?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            pause(Duration::from_millis(2))?;
        }
        Err(io::Error::new(ErrorKind::TimedOut, format!("pid {} did not stop within 60 s", self.id())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then both calls have nothing to do.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Lets the other processes run for `duration`: an epoll with nothing in it times out.
pub fn pause(duration: Duration) -> io::Result<()> {
    Epoll::new()?.wait(&mut Vec::new(), duration.as_millis() as i32)
}

/// A loopback address that nobody listens on now.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Whether something accepts connections at `address`.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// The program `name` in PATH or in one of `more` folders.
pub fn find_program(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(more.iter().cloned()).map(|folder| folder.join(name)).find(|file| file.is_file())
}
