//! After SIGKILL no session stays blocked by what its run was at: every run goes on, waits for a person who is asked, or ends
//! with its reason, and the session's next run follows.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use daemon::{Daemon, Home, Place, Provider, eventually};
use serde_json::{Value, json};

/// Within this a recovery has led to a record of its own, or has ended.
const BOUND: Duration = Duration::from_secs(60);

fn submit(daemon: &Daemon, session: &str, body: &Value) -> String {
    let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), body);
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["run_id"].as_str().expect("an id").to_string()
}

fn routes(provider: &Provider, names: &[&str]) -> String {
    let route = |name: &&str| {
        format!(
            "[routes.{name}]\ndriver = \"openai\"\nbase_url = \"http://{}/v1\"\ndefault_model = \"scripted\"\nmodel_support = \"any\"\n",
            provider.address
        )
    };
    format!("version = 1\ndefault_route = \"main\"\n{}", names.iter().map(route).collect::<String>())
}

#[test]
fn no_session_is_held_by_a_recovery_that_cannot_go_on() {
    let hang =
        |text: &str| format!("[[turn]]\nmatch = \"{text}\"\ntimes = 1\ntext = \"x\"\nfault = {{ kind = \"hang\" }}\n");
    let tool = "[[turn]]\nmatch = \"use the tool\"\ntimes = 1\ntool_calls = [{ name = \"bash\", arguments = \
        '{\"command\":\"touch begun; sleep 6171\",\"timeout_ms\":170000}' }]\n";
    let asks = "[[turn]]\nmatch = \"needs a person\"\ntimes = 1\ntool_calls = [{ name = \"bash\", arguments = \
        '{\"command\":\"touch allowed\"}' }]\n";
    let script =
        hang("model call") + &hang("lost route") + &hang("lost file") + tool + asks + "[default]\ntext = \"done\"\n";
    let provider = Provider::start(&script);
    let place = Place::new("recovery_bound");
    let home = Home::with_routes(place, &routes(&provider, &["main", "lost"]));
    let daemon = home.start();
    let sessions = ["model", "route", "file", "tool", "person"];
    for session in sessions {
        daemon.create_session(session);
    }
    let mode = json!({"mode": "bypassPermissions"});
    assert_eq!(daemon.post("/v1/sessions/tool/permission-mode", &mode).status, 200);
    let png = BASE64_STANDARD.encode(b"\x89PNG\r\n\x1a\na picture of a test");
    let file = json!({"type": "inline_asset", "file_name": "a.png", "content_base64": png});
    let first = [
        submit(&daemon, "model", &json!({"content": "model call"})),
        submit(&daemon, "route", &json!({"content": "lost route", "provider": "lost"})),
        submit(&daemon, "file", &json!({"input_items": [{"type": "text", "text": "lost file"}, file]})),
        submit(&daemon, "tool", &json!({"content": "use the tool"})),
        submit(&daemon, "person", &json!({"content": "needs a person"})),
    ];
    let next: Vec<String> = sessions.iter().map(|session| daemon.submit(session, "what comes next")).collect();
    for text in ["model call", "lost route", "lost file"] {
        provider.wait_asked(text, 1);
    }
    eventually("the tool", || home.join("workspace/begun").exists().then_some(()));
    eventually("a question", || (daemon.status_of(&first[4]) == "waiting_for_approval").then_some(()));
    daemon.kill();

    // What two of them need is gone.
    std::fs::write(home.join("routes.toml"), routes(&provider, &["main"])).expect("our own routes");
    std::fs::remove_dir_all(home.root().join("blobs")).expect("the file's bytes");
    let daemon = home.start();
    for (session, run) in sessions.iter().zip(&next).take(4) {
        assert_eq!(daemon.wait_end(run), "completed", "{session}: {}", daemon.run(run));
    }
    let ended: Vec<String> = first[..4].iter().map(|run| daemon.status_of(run)).collect();
    assert_eq!(ended, ["completed", "failed", "failed", "completed"]);
    let code = |run: &String| daemon.run(run)["error"]["code"].as_str().unwrap_or_default().to_string();
    assert_eq!((code(&first[1]), code(&first[2])), ("route_unknown".to_string(), "journal_read".to_string()));
    // A person is still asked, and the answer lets both go on.
    assert_eq!(daemon.status_of(&first[4]), "waiting_for_approval");
    assert_eq!(daemon.status_of(&next[4]), "queued");
    let id = daemon.run(&first[4])["pending_approval_ids"][0].as_str().expect("an id").to_string();
    let allow = json!({"resolutions": [{"request_id": id, "behavior": "allow"}]});
    let reply = daemon.post(&format!("/v1/runs/{}/approvals", first[4]), &allow);
    assert!(reply.status < 300, "{reply:?}");
    assert_eq!(daemon.wait_end(&next[4]), "completed");
    assert!(home.join("workspace/allowed").exists());
    daemon.stop();

    // What each recovery did first came within the bound.
    for run in &first[..4] {
        let records = home.records(&home.root(), &["--run-id", run]);
        let resumed = records.iter().position(|record| record["kind"] == "run.resumed").expect("it is told");
        let at = |place: usize| records[place]["at_ms"].as_u64().expect("a time");
        let took = Duration::from_millis(at(resumed + 1) - at(resumed));
        assert!(took < BOUND, "{run}: nothing for {took:?} after {}", records[resumed]);
    }
    home.assert_journal_verifies(&home.root());
}
