//! The daemon under measure: started with a state root of its own, bearer tokens and, where asked, execution held.
//! Owns: its command line, its tokens and the small requests that set up a measurement.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::exchange::{Http, SESSIONS, http_reply_length};
use crate::load::{self, Load, Sample};
use crate::process::{self, Process};

/// The admin token of every measured daemon; it protects nothing and lives as long as the bench.
pub const TOKEN: &str = "bench-admin-token-0123456789abcdef";

/// A running daemon.
pub struct Daemon {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process to the first 200 of `/readyz`.
    pub ready_after: Duration,
    state_root: PathBuf,
}

/// How a daemon is started.
pub struct Start<'a> {
    /// The state root; its folder exists.
    pub state_root: &'a Path,
    /// Accept runs but execute none.
    pub hold: bool,
    /// Base URL of the provider, when runs are executed.
    pub provider_url: Option<String>,
}

/// The release binary that was built with this bench.
pub fn binary() -> PathBuf {
    std::env::var_os("BENCH_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kheish-daemon")), PathBuf::from)
}

impl Daemon {
    /// Starts the daemon and waits until `/readyz` answers 200.
    pub fn start(start: &Start<'_>) -> io::Result<Self> {
        Self::start_with(start, |_| {})
    }

    /// The same, with what `change` makes of its command.
    pub fn start_with(start: &Start<'_>, change: impl FnOnce(&mut Command)) -> io::Result<Self> {
        // The daemon makes its state root itself, readable by nobody else.
        let beside = start.state_root.parent().unwrap_or(start.state_root);
        let token_file = beside.join("admin-token");
        write_private(&token_file, TOKEN)?;
        let key_file = beside.join("master-key");
        // Any 32 bytes: the store holds nothing worth a secret.
        write_private(&key_file, "YmVuY2gtbWFzdGVyLWtleS0wMTIzNDU2Nzg5YWJjZGU=")?;

        let address = process::free_address()?;
        let mut command = Command::new(binary());
        command.arg("serve").arg("--bind").arg(address.to_string());
        command.arg("--state-root").arg(start.state_root);
        command.arg("--workspace-root").arg(beside.join("workspace"));
        command.arg("--http-auth-mode").arg("bearer").arg("--http-admin-token-file").arg(&token_file);
        if start.hold {
            command.arg("--hold");
        }
        let routes_file = beside.join("routes.toml");
        std::fs::write(&routes_file, routes(start.provider_url.as_deref()))?;
        command.arg("--routes-file").arg(&routes_file);
        command.args(["--log-level", "warn"]).env("KHEISH_AUTH_STORE_MASTER_KEY_FILE", &key_file);

        change(&mut command);

        let started = Instant::now();
        let mut process = Process::start(&mut command, &beside.join("daemon.log"))?;
        process.wait_until(|| is_ready(address))?;
        Ok(Self { process, address, ready_after: started.elapsed(), state_root: start.state_root.to_path_buf() })
    }

    /// Creates the sessions over which submissions are spread.
    pub fn create_sessions(&self) -> io::Result<()> {
        load::run(self.address, Load::count(16, SESSIONS), &mut Http::create_session(TOKEN)).map(drop)
    }

    /// Submits runs numbered from `first`.
    pub fn submit(&self, first: u64, load: Load) -> io::Result<Sample> {
        load::run(self.address, load, &mut Http::submit_run(TOKEN).starting_at(first))
    }

    /// Ends every session, which cancels all runs that wait in them.
    pub fn end_sessions(&self) -> io::Result<()> {
        load::run(self.address, Load::count(16, SESSIONS), &mut Http::end_session(TOKEN)).map(drop)
    }

    /// The first sequence number of the oldest journal segment: a cursor before everything.
    pub fn first_seq(&self) -> io::Result<u64> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.state_root.join("journal"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let seqs = names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok());
        seqs.min().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no journal segment"))
    }
}

/// One request on a connection of its own; the whole reply.
pub fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let (mut reply, mut buffer) = (Vec::new(), [0u8; 16 * 1024]);
    loop {
        if let Some(length) = http_reply_length(&reply).map_err(|text| io::Error::new(ErrorKind::InvalidData, text))? {
            reply.truncate(length);
            return Ok(String::from_utf8_lossy(&reply).into_owned());
        }
        match socket.read(&mut buffer)? {
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{path}: closed without a reply"))),
            count => reply.extend_from_slice(&buffer[..count]),
        }
    }
}

fn is_ready(address: SocketAddr) -> bool {
    request(address, "GET", "/readyz", "").is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
}

/// A held daemon never calls its route, but submissions need one that exists.
fn routes(provider_url: Option<&str>) -> String {
    let base_url = provider_url.unwrap_or("http://127.0.0.1:9/v1");
    format!(
        "version = 1\n\n[routes.main]\ndriver = \"openai\"\ndefault_model = \"gpt-5.4\"\nbase_url = \"{base_url}\"\n"
    )
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}
