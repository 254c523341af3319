//! What the bench prints, and the same as JSON.
//! Owns: medians, ratios and the table layout.

use serde_json::{Value, json};

use crate::load::Sample;

/// One measured figure of one round.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Replies per second.
    pub rate: f64,
    /// Median latency in microseconds; for PostgreSQL the mean, as pgbench reports it.
    pub p50_us: f64,
    /// 99th percentile in microseconds; 0 where it was not reported.
    pub p99_us: f64,
    /// Processor time of the server per reply in microseconds; 0 where it was not measured.
    pub cpu_us: f64,
}

impl Point {
    /// The figures of `sample`, in which the server used `cpu_us` of processor time.
    pub fn new(sample: &Sample, cpu_us: u64) -> Self {
        Self {
            rate: sample.rate(),
            p50_us: sample.latency.quantile_us(0.5),
            p99_us: sample.latency.quantile_us(0.99),
            cpu_us: cpu_us as f64 / sample.replies_with_warm_up.max(1) as f64,
        }
    }

    /// A rate alone.
    pub fn rate(rate: f64) -> Self {
        Self { rate, p50_us: 0.0, p99_us: 0.0, cpu_us: 0.0 }
    }
}

/// The round with the median rate; of an even number the lower one of the two in the middle.
pub fn median(points: &[Point]) -> Option<Point> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|left, right| left.rate.total_cmp(&right.rate));
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Durable accepts at one number of clients, all rounds.
pub struct Accepts {
    /// Connections.
    pub clients: usize,
    /// The daemon.
    pub daemon: Vec<Point>,
    /// Redis SET with `appendfsync always`; empty when not installed.
    pub redis: Vec<Point>,
    /// PostgreSQL single-row commits; empty when not installed.
    pub postgres: Vec<Point>,
}

/// Prints the table of accepts and returns it as JSON.
pub fn accepts(rows: &[Accepts], seconds: f64) -> Value {
    println!(
        "\nDurable accepts per second (median of the rounds, {seconds:.0} s each, one request in flight per client)"
    );
    println!(
        "{:>7} | {:>9} {:>8} {:>8} {:>6} | {:>9} {:>8} {:>8} {:>6} {:>6} | {:>9} {:>8} {:>6}",
        "clients",
        "daemon/s",
        "p50 us",
        "p99 us",
        "cpu us",
        "redis/s",
        "p50 us",
        "p99 us",
        "cpu us",
        "ratio",
        "pg/s",
        "mean us",
        "ratio"
    );
    let mut out = Vec::new();
    for row in rows {
        let Some(daemon) = median(&row.daemon) else { continue };
        let mut line = format!(
            "{:>7} | {:>9.0} {:>8.0} {:>8.0} {:>6.1}",
            row.clients, daemon.rate, daemon.p50_us, daemon.p99_us, daemon.cpu_us
        );
        let mut value = json!({ "clients": row.clients, "daemon": point(daemon), "daemon_rounds": rates(&row.daemon) });
        match median(&row.redis) {
            Some(redis) => {
                let ratio = daemon.rate / redis.rate;
                line.push_str(&format!(
                    " | {:>9.0} {:>8.0} {:>8.0} {:>6.1} {ratio:>6.2}",
                    redis.rate, redis.p50_us, redis.p99_us, redis.cpu_us
                ));
                value["redis"] = point(redis);
                value["redis_rounds"] = rates(&row.redis);
                value["ratio_to_redis"] = json!(rounded(ratio));
            }
            None => line.push_str(&format!(" | {:>9} {:>8} {:>8} {:>6} {:>6}", "-", "-", "-", "-", "-")),
        }
        match median(&row.postgres) {
            Some(postgres) => {
                let ratio = daemon.rate / postgres.rate;
                line.push_str(&format!(" | {:>9.0} {:>8.0} {ratio:>6.2}", postgres.rate, postgres.p50_us));
                value["postgres"] =
                    json!({ "per_second": rounded(postgres.rate), "mean_us": rounded(postgres.p50_us) });
                value["postgres_rounds"] = rates(&row.postgres);
                value["ratio_to_postgres"] = json!(rounded(ratio));
            }
            None => line.push_str(&format!(" | {:>9} {:>8} {:>6}", "-", "-", "-")),
        }
        println!("{line}");
        out.push(value);
    }
    Value::Array(out)
}

/// Two decimals are all that a measurement on shared cores can claim.
pub fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A point as JSON.
pub fn point(point: Point) -> Value {
    json!({ "per_second": rounded(point.rate), "p50_us": rounded(point.p50_us), "p99_us": rounded(point.p99_us), "cpu_us": rounded(point.cpu_us) })
}

fn rates(points: &[Point]) -> Value {
    points.iter().map(|point| rounded(point.rate)).collect()
}

/// `bytes` in MiB for reading.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
