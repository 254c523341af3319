//! What a turn costs the disk, counted where it happens: the kernel's own calls, as strace sees them.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/strace.rs"]
mod strace;

use daemon::{Home, Provider, eventually};
use serde_json::json;

const TURNS: usize = 4;
const CALLS: usize = 9;

/// Each turn asks for nine commands at once.
fn script() -> String {
    let turn = |turn: usize| {
        let call = |n: usize| {
            format!(
                "{{ name = \"bash\", call_id = \"c{turn}-{n}\", arguments = '{{\"command\":\"echo {turn} {n} >> count.txt\"}}' }}"
            )
        };
        format!("[[turn]]\ntool_calls = [{}]\n", (0..CALLS).map(call).collect::<Vec<_>>().join(", "))
    };
    (0..TURNS).map(turn).collect::<String>() + "[default]\ntext = \"all done\"\n"
}

#[test]
fn a_turn_costs_at_most_four_fdatasyncs_of_the_journal() {
    let test = "a_turn_costs_at_most_four_fdatasyncs_of_the_journal";
    if !strace::is_usable(test) {
        return;
    }
    let provider = Provider::start(&script());
    let home = Home::new("syncs", Some(&provider));
    let report = home.join("strace.txt");
    let traced = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-e", "trace=fdatasync", "-o"];
    let mut words: Vec<String> = traced.map(str::to_string).into();
    words.push(report.to_str().expect("a UTF-8 path").to_string());
    let daemon = home.serve().under(&words).segment_bytes(8 * 1024 * 1024).start();
    daemon.create_session("s");
    let mode = json!({"mode": "bypassPermissions"});
    assert_eq!(daemon.post("/v1/sessions/s/permission-mode", &mode).status, 200);
    // strace writes a line when the call has returned; one thread of the daemon makes all of them.
    let syncs = || {
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        text.lines().filter(|line| line.contains("fdatasync(") && line.contains("/journal/")).count()
    };
    let before = eventually("the first syncs", || Some(syncs()).filter(|count| *count > 0));
    let run = daemon.submit("s", "go");
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    // Counted before the stop, which has its own.
    let made = syncs() - before;
    daemon.stop();

    let count = std::fs::read_to_string(home.join("workspace/count.txt")).expect("the commands ran");
    assert_eq!(count.lines().count(), TURNS * CALLS);
    let records = home.records(&home.root(), &[]);
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((of("tool_call.started"), of("tool_call.finished")), (TURNS * CALLS, TURNS * CALLS));
    // Beside the turns: the acceptance, the request after the last results, the end; and seals by the clock.
    let accepted = records.iter().position(|record| record["kind"] == "run.accepted").expect("it was accepted");
    let others = records[accepted..].iter().filter(|record| record["run"].is_null()).count();
    assert!(made >= TURNS, "nothing was counted: {made}");
    assert!(made <= 4 * TURNS + 3 + others, "{made} syncs for {TURNS} turns and {others} other records");
}
