//! `make bench`: what the release binary does per second, beside Redis and PostgreSQL in the same run.
//! Owns: the order of the measurements, the settings and the report in `target/bench/report.json`.
//! Never: fails on a slow figure (speed is read, not asserted) or leaves loopback.
//!
//! Settings by environment: BENCH_SECONDS (per measurement, 3), BENCH_ROUNDS (3), BENCH_CLIENTS (`1,16,64,256`),
//! BENCH_ONLY (a comma list of accepts, status, fanout, startup, memory, executed, providers, events, deadtargets, backup, strace, workers, turns),
//! BENCH_DEAD (targets, 1000),
//! BENCH_RECORDS (`0,100000,1000000`), BENCH_REDIS_KEYS (`new` for each SET, or `same` per connection), BENCH_DIR (work folder), BENCH_STRACE=1 (adds the strace sample).

mod backup;
mod connectors;
mod daemon;
mod exchange;
mod fanout;
mod histogram;
mod load;
mod peers;
mod process;
mod providers;
mod report;
mod scenarios;
mod turns;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::load::Load;
use crate::peers::{Postgres, Redis};
use crate::report::{Accepts, Point, mebibytes, rounded};
use crate::scenarios::Folder;

struct Settings {
    duration: Duration,
    rounds: usize,
    clients: Vec<usize>,
    records: Vec<u64>,
    dead: usize,
    only: Vec<String>,
    redis_new_keys: bool,
    folder: PathBuf,
    report: PathBuf,
}

impl Settings {
    fn from_environment() -> Self {
        let text = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_string());
        let number = |name: &str, default: u64| text(name, "").parse().unwrap_or(default);
        let list = |name: &str, default: &str| -> Vec<String> {
            text(name, default).split(',').map(|part| part.trim().to_string()).filter(|part| !part.is_empty()).collect()
        };
        let default_folder = target_folder().join("bench");
        let mut only = list("BENCH_ONLY", "accepts,status,fanout,startup,memory,executed,providers,events,deadtargets");
        if std::env::var_os("BENCH_STRACE").is_some() {
            only.push("strace".to_string());
        }
        Self {
            duration: Duration::from_secs(number("BENCH_SECONDS", 3)),
            rounds: number("BENCH_ROUNDS", 3) as usize,
            clients: list("BENCH_CLIENTS", "1,16,64,256").iter().filter_map(|part| part.parse().ok()).collect(),
            records: list("BENCH_RECORDS", "0,100000,1000000").iter().filter_map(|part| part.parse().ok()).collect(),
            dead: number("BENCH_DEAD", 1_000) as usize,
            only,
            redis_new_keys: text("BENCH_REDIS_KEYS", "new") != "same",
            folder: std::env::var_os("BENCH_DIR").map_or_else(|| default_folder.join("work"), PathBuf::from),
            report: default_folder.join("report.json"),
        }
    }

    fn wants(&self, what: &str) -> bool {
        self.only.iter().any(|wanted| wanted == what)
    }
}

/// The build folder: this program stands in `<target>/release/deps/`.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

fn main() -> ExitCode {
    match run(&Settings::from_environment()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> io::Result<()> {
    // A thousand streams need more descriptors than most shells allow; the hard limit usually has them.
    let files = kheish_daemon::sys::raise_open_files_limit()?;
    println!("kheish-daemon bench: {} rounds of {:?}, {files} descriptors", settings.rounds, settings.duration);
    println!("work folder {}", settings.folder.display());
    let mut out = Map::new();
    out.insert("seconds".to_string(), json!(settings.duration.as_secs()));
    out.insert("rounds".to_string(), json!(settings.rounds));
    type Section = fn(&Settings) -> io::Result<Value>;
    let sections: [(&str, Section); 13] = [
        ("accepts", accepts),
        ("status", status),
        ("executed", executed),
        ("fanout", fan_out),
        ("startup", start_up),
        ("memory", memory),
        ("providers", providers),
        ("events", events),
        ("deadtargets", dead_targets),
        ("backup", backups),
        ("strace", strace),
        ("workers", workers),
        ("turns", turns),
    ];
    let mut failed = Vec::new();
    for (name, section) in sections {
        if settings.wants(name) {
            match section(settings) {
                Ok(value) => drop(out.insert(name.to_string(), value)),
                Err(error) => {
                    println!("\n{name}: failed: {error}");
                    failed.push(name);
                }
            }
        }
    }
    if let Some(folder) = settings.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&settings.report, format!("{:#}\n", Value::Object(out)))?;
    println!("\nreport: {}", settings.report.display());
    if failed.is_empty() { Ok(()) } else { Err(io::Error::other(format!("failed: {}", failed.join(", ")))) }
}

/// The systems take turns within each round, so that a slow minute of the machine hits all of them.
fn accepts(settings: &Settings) -> io::Result<Value> {
    let with_redis = Redis::is_installed();
    let with_postgres = Postgres::programs().is_some();
    for (name, installed) in [("redis-server", with_redis), ("PostgreSQL", with_postgres)] {
        if !installed {
            println!("{name} is not installed: measured without it");
        }
    }
    let mut rows: Vec<Accepts> = settings
        .clients
        .iter()
        .map(|clients| Accepts { clients: *clients, daemon: Vec::new(), redis: Vec::new(), postgres: Vec::new() })
        .collect();
    for round in 1..=settings.rounds {
        for row in &mut rows {
            let load = Load::time(row.clients, settings.duration);
            let (sample, cpu_us) = scenarios::accepts(&settings.folder, load)?;
            println!("round {round}, {} clients: daemon {:.0}/s", row.clients, sample.rate());
            row.daemon.push(Point::new(&sample, cpu_us));
            if with_redis {
                let folder = Folder::new(&settings.folder, "redis")?;
                let redis = Redis::start(folder.path())?;
                let (sample, cpu_us) = redis.measure(load, settings.redis_new_keys)?;
                redis.stop()?;
                println!("round {round}, {} clients: redis {:.0}/s", row.clients, sample.rate());
                row.redis.push(Point::new(&sample, cpu_us));
            }
        }
        if with_postgres {
            let folder = Folder::new(&settings.folder, "postgres")?;
            let postgres = Postgres::start(folder.path())?;
            for row in &mut rows {
                postgres.reset()?;
                let (rate, mean_us) = postgres.measure(row.clients, settings.duration)?;
                println!("round {round}, {} clients: postgres {rate:.0}/s", row.clients);
                row.postgres.push(Point { p50_us: mean_us, ..Point::rate(rate) });
            }
            postgres.stop()?;
        }
    }
    Ok(report::accepts(&rows, settings.duration.as_secs_f64()))
}

fn status(settings: &Settings) -> io::Result<Value> {
    println!("\nGET /v1/status, with {} runs", scenarios::STATUS_RUNS);
    let mut rows = Vec::new();
    for clients in &settings.clients {
        let mut points = Vec::new();
        for _ in 0..settings.rounds {
            let sample = scenarios::status(&settings.folder, Load::time(*clients, settings.duration))?;
            points.push(Point::new(&sample, 0));
        }
        if let Some(point) = report::median(&points) {
            println!(
                "{clients:>7} clients: {:>8.0}/s, p50 {:.0} us, p99 {:.0} us",
                point.rate, point.p50_us, point.p99_us
            );
            rows.push(json!({ "clients": clients, "daemon": report::point(point) }));
        }
    }
    Ok(Value::Array(rows))
}

fn executed(settings: &Settings) -> io::Result<Value> {
    let mut rates = Vec::new();
    for _ in 0..settings.rounds {
        let executed = scenarios::executed(&settings.folder, 2_000)?;
        rates.push(Point::rate(executed.runs as f64 / executed.seconds));
    }
    let rate = report::median(&rates).map_or(0.0, |point| point.rate);
    println!("\nRuns executed against the scripted provider: {rate:.0}/s (2,000 runs, model answers at once)");
    Ok(json!({ "runs_per_second": rounded(rate) }))
}

fn providers(settings: &Settings) -> io::Result<Value> {
    const RUNS: usize = 300;
    let middle = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
    };
    let rounds: Vec<providers::Parsing> = (0..settings.rounds).map(|_| providers::parsing()).collect();
    let framing = middle(rounds.iter().map(|round| round.framing).collect());
    let framing_large = middle(rounds.iter().map(|round| round.framing_large).collect());
    println!("\nProvider streams, MB/s on one core (median of the rounds)");
    println!("  framing alone: {framing:.0} with frames of about 250 bytes, {framing_large:.0} with frames of 4 KiB");
    let mut decoding = Map::new();
    for (index, (driver, _)) in rounds.first().map_or(&[][..], |round| &round.decoding[..]).iter().enumerate() {
        let rate = middle(rounds.iter().map(|round| round.decoding[index].1).collect());
        println!("  framing and JSON, {driver}: {rate:.0}");
        decoding.insert((*driver).to_string(), json!(rounded(rate)));
    }
    let delta = providers::first_delta(&settings.folder, RUNS)?;
    let (p50, p99) = (delta.quantile_us(0.5) / 1_000.0, delta.quantile_us(0.99) / 1_000.0);
    println!("  first delta, provider's write to client's read: p50 {p50:.2} ms, p99 {p99:.2} ms ({RUNS} runs)");
    Ok(json!({
        "framing_mb_per_second": rounded(framing),
        "framing_large_mb_per_second": rounded(framing_large),
        "decoding_mb_per_second": decoding,
        "first_delta_ms": {"p50": rounded(p50), "p99": rounded(p99)},
    }))
}

fn events(settings: &Settings) -> io::Result<Value> {
    println!("\nSigned webhook events, each durable as a run before its answer");
    let mut rows = Vec::new();
    for clients in &settings.clients {
        let mut points = Vec::new();
        for _ in 0..settings.rounds {
            let (sample, cpu_us) = connectors::events(&settings.folder, Load::time(*clients, settings.duration))?;
            points.push(Point::new(&sample, cpu_us));
        }
        if let Some(point) = report::median(&points) {
            println!(
                "{clients:>7} clients: {:>8.0}/s, p50 {:.0} us, p99 {:.0} us",
                point.rate, point.p50_us, point.p99_us
            );
            rows.push(json!({ "clients": clients, "daemon": report::point(point) }));
        }
    }
    Ok(Value::Array(rows))
}

fn dead_targets(settings: &Settings) -> io::Result<Value> {
    const RUNS: usize = 200;
    let result = connectors::dead_targets(&settings.folder, settings.dead, RUNS)?;
    let ms = |histogram: &histogram::Histogram, share: f64| histogram.quantile_us(share) / 1_000.0;
    println!(
        "\nA healthy target beside {} that refuse and {} that never answer, from submission to arrival ({RUNS} runs)",
        result.refusing, result.silent
    );
    let mut rows = Map::new();
    for (name, histogram) in [("alone", &result.alone), ("beside", &result.beside)] {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| ms(histogram, share));
        println!("  {name}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
        rows.insert(name.to_string(), json!({"p50_ms": rounded(p50), "p99_ms": rounded(p99), "max_ms": rounded(max)}));
    }
    Ok(Value::Object(rows))
}

fn fan_out(settings: &Settings) -> io::Result<Value> {
    const CLIENTS: usize = 1_000;
    let seconds = settings.duration.as_secs().max(3);
    let result = scenarios::fan_out(&settings.folder, CLIENTS, seconds)?;
    let quantiles = |histogram: &histogram::Histogram| {
        (
            histogram.quantile_us(0.5) / 1_000.0,
            histogram.quantile_us(0.99) / 1_000.0,
            histogram.quantile_us(1.0) / 1_000.0,
        )
    };
    let (since_submission, since_reply) = (quantiles(&result.since_submission), quantiles(&result.since_reply));
    println!(
        "\nEvent streams: {} clients, {} events at 10/s, one more client never reads",
        result.clients, result.events
    );
    println!("  frames received: {} of {}", result.received, result.events * result.clients as u64);
    for (what, (p50, p99, max)) in [("submission sent", since_submission), ("reply read", since_reply)] {
        println!("  from {what} to frame read: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
    }
    println!("  resident memory per stream: {:.1} KiB", result.resident_bytes_per_client as f64 / 1_024.0);
    println!(
        "  threads before and after: {:?}; the client that never reads: {}",
        result.thread_counts, result.stuck_client
    );
    let milliseconds =
        |(p50, p99, max): (f64, f64, f64)| json!({ "p50": rounded(p50), "p99": rounded(p99), "max": rounded(max) });
    Ok(json!({
        "clients": result.clients,
        "events": result.events,
        "frames_received": result.received,
        "since_submission_ms": milliseconds(since_submission),
        "since_reply_ms": milliseconds(since_reply),
        "samples": result.since_submission.total(),
        "resident_bytes_per_client": result.resident_bytes_per_client,
        "thread_counts": [result.thread_counts.0, result.thread_counts.1],
        "stuck_client": result.stuck_client,
    }))
}

fn start_up(settings: &Settings) -> io::Result<Value> {
    println!("\nStart-up, from process start to the first 200 of /readyz");
    println!(
        "{:>9} {:>9} {:>10} {:>11} {:>11} {:>9} {:>9}",
        "records", "finished", "journal", "snapshot", "replay", "resident", "anonymous"
    );
    let mut rows = Vec::new();
    let mut empty_bytes = None;
    for records in &settings.records {
        let row = scenarios::start_up(&settings.folder, *records)?;
        println!(
            "{:>9} {:>9} {:>6.0} MiB {:>8.0} ms {:>8.0} ms {:>5.1} MiB {:>5.1} MiB",
            row.records,
            row.finished_runs,
            mebibytes(row.journal_bytes),
            row.with_snapshot.as_secs_f64() * 1_000.0,
            row.without_snapshot.as_secs_f64() * 1_000.0,
            mebibytes(row.resident.0),
            mebibytes(row.resident.1)
        );
        let empty = *empty_bytes.get_or_insert(row.resident.0);
        let per_run = row.resident.0.saturating_sub(empty).checked_div(row.finished_runs);
        if let Some(per_run) = per_run {
            println!("{:>9} resident bytes per finished run, against the first row: {per_run}", "");
        }
        rows.push(json!({
            "records": row.records,
            "finished_runs": row.finished_runs,
            "journal_bytes": row.journal_bytes,
            "with_snapshot_ms": rounded(row.with_snapshot.as_secs_f64() * 1_000.0),
            "without_snapshot_ms": rounded(row.without_snapshot.as_secs_f64() * 1_000.0),
            "resident_bytes": row.resident.0,
            "anonymous_bytes": row.resident.1,
            "resident_bytes_per_finished_run": per_run,
        }));
    }
    Ok(Value::Array(rows))
}

/// Only when asked for: it fills a gigabyte.
fn backups(settings: &Settings) -> io::Result<Value> {
    let how = backup::Settings::from_environment();
    let clients = settings.clients.iter().copied().filter(|clients| *clients <= 64).max().unwrap_or(64);
    println!("\nAccepts per second with {} runs held, alone and beside backups ({clients} clients)", how.runs);
    let (mut costs, mut rounds) = (Vec::new(), Vec::new());
    for number in 1..=settings.rounds {
        let round = backup::cost(&settings.folder, &how, clients, settings.duration)?;
        let cost = 100.0 * (1.0 - round.beside / round.alone);
        println!(
            "round {number}: alone {:.0}/s, beside {:.0}/s: {cost:.1} % less; {} backups of {:.0} MiB",
            round.alone,
            round.beside,
            round.backups,
            mebibytes(round.backup_bytes)
        );
        costs.push(cost);
        rounds.push(
            json!({"alone": rounded(round.alone), "beside": rounded(round.beside), "cost_percent": rounded(cost),
            "backups": round.backups, "backup_bytes": round.backup_bytes}),
        );
    }
    costs.sort_by(f64::total_cmp);
    let median = costs.get(costs.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
    println!("median: {median:.1} % less");
    let restore = backup::restore(&settings.folder, &how)?;
    println!(
        "restore of {:.0} MiB ({:.0} MiB of it journal): create {:.1} s, verify {:.1} s, restore with its verification {:.1} s, \
         ready after {:.1} s",
        mebibytes(restore.backup_bytes),
        mebibytes(restore.journal_bytes),
        restore.create_s,
        restore.verify_s,
        restore.restore_s,
        restore.ready_s
    );
    Ok(json!({
        "runs": how.runs,
        "clients": clients,
        "cost_percent_median": rounded(median),
        "rounds": rounds,
        "restore": {
            "backup_bytes": restore.backup_bytes,
            "journal_bytes": restore.journal_bytes,
            "create_s": rounded(restore.create_s),
            "verify_s": rounded(restore.verify_s),
            "restore_s": rounded(restore.restore_s),
            "ready_s": rounded(restore.ready_s),
        },
    }))
}

fn memory(settings: &Settings) -> io::Result<Value> {
    let memory = scenarios::memory(&settings.folder, settings.duration)?;
    println!("\nMemory and size");
    println!("  idle: {:.1} MiB resident, {:.1} MiB anonymous", mebibytes(memory.idle.0), mebibytes(memory.idle.1));
    println!(
        "  after load, {} runs queued: {:.1} MiB resident, {:.1} MiB anonymous",
        memory.queued_runs,
        mebibytes(memory.loaded.0),
        mebibytes(memory.loaded.1)
    );
    println!("  binary: {:.2} MiB", mebibytes(memory.binary_bytes));
    Ok(json!({
        "idle_resident_bytes": memory.idle.0,
        "idle_anonymous_bytes": memory.idle.1,
        "loaded_resident_bytes": memory.loaded.0,
        "loaded_anonymous_bytes": memory.loaded.1,
        "loaded_queued_runs": memory.queued_runs,
        "binary_bytes": memory.binary_bytes,
    }))
}

fn workers(settings: &Settings) -> io::Result<Value> {
    let sample = scenarios::workers(&settings.folder, 200)?;
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let ratio = sample.start_p50.as_secs_f64() / sample.plain_p50.as_secs_f64().max(f64::MIN_POSITIVE);
    println!("\nTool workers, sandbox {}", sample.strength);
    println!("  start until its walls stand: p50 {:.2} ms, p99 {:.2} ms", ms(sample.start_p50), ms(sample.start_p99));
    println!("  end until all is gone: p50 {:.2} ms", ms(sample.end_p50));
    println!(
        "  a plain process started and awaited: p50 {:.2} ms; a worker takes {ratio:.1} times that",
        ms(sample.plain_p50)
    );
    Ok(json!({
        "strength": sample.strength,
        "start_p50_ms": rounded(ms(sample.start_p50)),
        "start_p99_ms": rounded(ms(sample.start_p99)),
        "end_p50_ms": rounded(ms(sample.end_p50)),
        "plain_process_p50_ms": rounded(ms(sample.plain_p50)),
        "start_to_plain_process_ratio": rounded(ratio),
    }))
}

fn turns(settings: &Settings) -> io::Result<Value> {
    let sample = crate::turns::turns(&settings.folder)?;
    let quantiles = |histogram: &histogram::Histogram| {
        (histogram.quantile_us(0.5) / 1_000.0, histogram.quantile_us(0.99) / 1_000.0)
    };
    let ((memory_p50, memory_p99), (disk_p50, disk_p99)) = (quantiles(&sample.in_memory), quantiles(&sample.on_disk));
    let place =
        if sample.has_memory { "in memory, where a sync costs nothing" } else { "on disk, for want of /dev/shm" };
    println!(
        "\nA turn with one tool call: from the model's last byte to the next request, {} turns",
        sample.on_disk.total()
    );
    println!("  journal {place}: p50 {memory_p50:.2} ms, p99 {memory_p99:.2} ms");
    println!("  journal on disk: p50 {disk_p50:.2} ms, p99 {disk_p99:.2} ms");
    println!("  fdatasyncs a turn: {:.2}", sample.syncs_per_turn);
    Ok(json!({
        "turns": sample.on_disk.total(),
        "in_memory": sample.has_memory,
        "own_ms": {"p50": rounded(memory_p50), "p99": rounded(memory_p99)},
        "on_disk_ms": {"p50": rounded(disk_p50), "p99": rounded(disk_p99)},
        "syncs_per_turn": rounded(sample.syncs_per_turn),
    }))
}

fn strace(settings: &Settings) -> io::Result<Value> {
    let sample = scenarios::strace(&settings.folder)?;
    println!(
        "\nstrace: {} of {} replies were written after their fdatasync returned",
        sample.after_sync, sample.replies
    );
    for line in &sample.lines {
        println!("  {line}");
    }
    Ok(json!({ "replies": sample.replies, "after_sync": sample.after_sync, "lines": sample.lines }))
}
