//! Lists of runs with outputs of several MiB: an answer stays bounded, says that more follows, and loses nothing.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use daemon::{Home, Provider};
use kheish_daemon::limits::LIST_ANSWER_BYTES_MAX;
use serde_json::Value;

fn ids(items: &Value) -> Vec<&str> {
    items.as_array().expect("a list").iter().map(|run| run["run_id"].as_str().expect("an id")).collect()
}

#[test]
fn an_answer_ends_before_the_run_that_would_pass_the_bound_and_the_cursor_goes_on_there() {
    let provider = Provider::start("");
    let home = Home::new("lists", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    // An output has its text twice: two runs fit.
    let text = "x".repeat(LIST_ANSWER_BYTES_MAX / 5);
    let runs: Vec<String> = (0..4).map(|_| daemon.submit("s", &text)).collect();
    assert!(runs.iter().all(|run| daemon.wait_end(run) == "completed"));

    let newest = daemon.get("/v1/runs").json();
    assert_eq!(ids(&newest), runs[2..], "a bare list keeps the newest");

    let (mut found, mut target) = (Vec::new(), "/v1/runs?page=true".to_string());
    loop {
        let page = daemon.get(&target).json();
        found.extend(ids(&page["items"]).into_iter().map(str::to_string));
        assert_eq!(ids(&page["items"]).len(), 2);
        let pagination = &page["pagination"];
        assert_eq!(pagination["has_more"], found.len() < runs.len());
        match pagination["next_cursor"].as_str() {
            Some(cursor) => target = format!("/v1/runs?cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, runs);

    let events = daemon.get("/v1/sessions/s/events").json();
    assert_eq!((ids(&events["daemon_outputs"]), &events["truncated"]), (ids(&newest), &Value::Bool(true)));
    let shown: std::collections::BTreeSet<&str> = ids(&events["run_events"]).into_iter().collect();
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), ids(&newest));
}
