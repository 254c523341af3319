//! The systems measured beside the daemon, in the same run and on the same disk: Redis and PostgreSQL.
//! Owns: their configuration (each at full durability, otherwise as they come) and their folders.
//! Never: touches an installed cluster or a running server.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kheish_daemon::sys::effective_user_id;

use crate::exchange::{RedisSet, TEXT_BYTES};
use crate::load::{self, Load, Sample};
use crate::process::{self, Process};

/// PostgreSQL refuses to run as root; as root the bench runs it as `nobody`.
const NOBODY: u32 = 65_534;

/// A redis-server with `appendfsync always`: each reply to SET follows its fsync.
pub struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    /// Whether redis-server is installed.
    pub fn is_installed() -> bool {
        process::find_program("redis-server", &[]).is_some()
    }

    /// Starts a server in an empty `folder`.
    pub fn start(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = process::free_address()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        // A rewrite in the middle of a measurement would be noise.
        command.args(["--auto-aof-rewrite-percentage", "0", "--dir"]).arg(folder);
        let mut process = Process::start(&mut command, &folder.join("redis.log"))?;
        process.wait_until(|| process::accepts(address))?;
        Ok(Self { process, address })
    }

    /// SETs by the same client code that submits runs to the daemon. With the processor time of the server in
    /// microseconds.
    pub fn measure(&self, load: Load, new_keys: bool) -> io::Result<(Sample, u64)> {
        let before = self.process.cpu_us()?;
        let sample = load::run(self.address, load, &mut RedisSet::new(new_keys))?;
        Ok((sample, self.process.cpu_us()? - before))
    }

    /// Ends the server.
    pub fn stop(self) -> io::Result<()> {
        self.process.stop().map(drop)
    }
}

/// A PostgreSQL cluster of our own: one single-row INSERT per commit, prepared, driven by pgbench.
pub struct Postgres {
    process: Process,
    address: SocketAddr,
    programs: PathBuf,
    folder: PathBuf,
}

impl Postgres {
    /// The folder of initdb, postgres and pgbench, where all three are installed.
    pub fn programs() -> Option<PathBuf> {
        let mut folders = Vec::new();
        if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
            folders.extend(versions.filter_map(|version| Some(version.ok()?.path().join("bin"))));
        }
        folders.sort();
        folders.reverse();
        let all_in =
            |folder: &PathBuf| ["initdb", "postgres", "pgbench", "psql"].iter().all(|name| folder.join(name).is_file());
        folders.into_iter().find(all_in).or_else(|| {
            let initdb = process::find_program("initdb", &[])?;
            initdb.parent().map(Path::to_path_buf).filter(all_in)
        })
    }

    /// Creates a cluster in `folder` and starts it.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let programs =
            Self::programs().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "PostgreSQL is not installed"))?;
        std::fs::create_dir_all(folder)?;
        if effective_user_id() == 0 {
            chown(folder, Some(NOBODY), Some(NOBODY))?;
        }
        let data = folder.join("data");
        let mut initdb = unprivileged(programs.join("initdb"), folder);
        initdb
            .args(["--auth", "trust", "--username", "bench", "--no-sync", "--encoding", "UTF8", "--pgdata"])
            .arg(&data);
        run(&mut initdb)?;

        let address = process::free_address()?;
        let mut server = unprivileged(programs.join("postgres"), folder);
        server.arg("-D").arg(&data).args(["-p", &address.port().to_string(), "-h", "127.0.0.1", "-k"]).arg(folder);
        for setting in
            ["fsync=on", "synchronous_commit=on", "max_connections=320", "max_wal_size=8GB", "checkpoint_timeout=1h"]
        {
            server.arg("-c").arg(setting);
        }
        let mut process = Process::start(&mut server, &folder.join("postgres.log"))?;
        process.wait_until(|| process::accepts(address))?;

        let cluster = Self { process, address, programs, folder: folder.to_path_buf() };
        cluster.retry_sql(
            "CREATE TABLE accepts (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), body text NOT NULL)",
        )?;
        let insert = format!("INSERT INTO accepts (body) VALUES (repeat('x', {TEXT_BYTES}));\n");
        std::fs::write(cluster.folder.join("insert.sql"), insert)?;
        Ok(cluster)
    }

    /// Commits per second and latency at `clients` connections, as pgbench reports them.
    pub fn measure(&self, clients: usize, duration: Duration) -> io::Result<(f64, f64)> {
        let seconds = duration.as_secs().max(1);
        let mut command = unprivileged(self.programs.join("pgbench"), &self.folder);
        command.args(["-n", "-M", "prepared", "-h", "127.0.0.1", "-U", "bench", "-j", "1"]);
        command.args(["-p", &self.address.port().to_string(), "-c", &clients.to_string(), "-T", &seconds.to_string()]);
        command.arg("-f").arg(self.folder.join("insert.sql")).arg("postgres");
        let report = run(&mut command)?;
        let number_after = |text: &str| -> io::Result<f64> {
            let rest = report.split(text).nth(1).unwrap_or_default().trim_start();
            let number = rest.split_whitespace().next().unwrap_or_default();
            number.parse().map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("pgbench said: {report}")))
        };
        Ok((number_after("tps = ")?, number_after("latency average = ")? * 1_000.0))
    }

    /// Empties the table, so that every measurement starts alike.
    pub fn reset(&self) -> io::Result<()> {
        self.sql("TRUNCATE accepts; CHECKPOINT").map(drop)
    }

    /// Ends the server.
    pub fn stop(self) -> io::Result<()> {
        self.process.stop().map(drop)
    }

    fn sql(&self, text: &str) -> io::Result<String> {
        let mut command = unprivileged(self.programs.join("psql"), &self.folder);
        command.args([
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "bench",
            "-p",
            &self.address.port().to_string(),
            "-d",
            "postgres",
        ]);
        for statement in text.split(';') {
            command.args(["-c", statement]);
        }
        run(&mut command)
    }

    /// A server that accepts connections may still be starting up for some milliseconds.
    fn retry_sql(&self, text: &str) -> io::Result<()> {
        for _ in 0..200 {
            if self.sql(text).is_ok() {
                return Ok(());
            }
            process::pause(Duration::from_millis(25))?;
        }
        self.sql(text).map(drop)
    }
}

fn unprivileged(program: PathBuf, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C").env("HOME", folder);
    if effective_user_id() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        return Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
