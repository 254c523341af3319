//! The real binary and the outside: a cut-off daemon dials its own provider and nothing else, a page is fetched only as a
//! recorded action, and settings that contradict each other end the start.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
mod net_raw_server;
#[path = "support/strace.rs"]
mod strace;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

use daemon::{Daemon, Home, Provider};
use net_raw_server::{RawServer, read_request};
use serde_json::{Value, json};

/// A place outside that no test may ever reach; its documentation address goes nowhere either.
const OUTSIDE: &str = "\n[routes.outside]\ndriver = \"openai\"\nbase_url = \"https://api.outside.example/v1\"\n\
                       default_model = \"m\"\nmodel_support = \"any\"\nauth_ref = \"outside.key\"\n";

/// The network addresses in strace's report that something was sent to or connected to: `address:port`.
fn addresses(report: &str) -> BTreeSet<String> {
    let between = |text: &str, before: &str, after: &str| {
        text.split(before).nth(1).and_then(|rest| rest.split(after).next()).map(str::to_string)
    };
    let inet = report.lines().filter(|line| line.contains("sa_family=AF_INET"));
    let found = inet.map(|line| {
        let port = between(line, "_port=htons(", ")");
        let address = between(line, "inet_addr(\"", "\"").or_else(|| between(line, "inet_pton(AF_INET6, \"", "\""));
        format!("{}:{}", address.unwrap_or_else(|| panic!("{line}")), port.unwrap_or_else(|| panic!("{line}")))
    });
    found.collect()
}

fn tool_turn(matched: &str, url: &str) -> String {
    format!(
        "[[turn]]\nmatch = \"{matched}\"\nmatch_result = \"{{\"\ntext = \"seen\"\n\
         [[turn]]\nmatch = \"{matched}\"\ntool_calls = [{{ name = \"web_fetch\", arguments = '{{\"url\":\"{url}\"}}' }}]\n"
    )
}

#[test]
fn an_air_gapped_daemon_dials_its_local_provider_and_nothing_else() {
    let test = "an_air_gapped_daemon_dials_its_local_provider_and_nothing_else";
    if !strace::is_usable(test) {
        return;
    }
    let provider = Provider::start(&tool_turn("fetch", "http://api.outside.example/"));
    let home = Home::new("egress-air-gapped", Some(&provider));
    let routes = fs::read_to_string(home.join("routes.toml")).expect("routes");
    let with_default = routes.replacen("version = 1", "version = 1\ndefault_route = \"main\"", 1);
    fs::write(home.join("routes.toml"), with_default + OUTSIDE).expect("routes");
    let base = routes.split("base_url = \"http://").nth(1).and_then(|rest| rest.split('/').next()).expect("a base URL");
    let report = home.join("strace.txt");
    let mut wrapper: Vec<String> =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-o"].map(str::to_string).into();
    wrapper.push(report.display().to_string());
    wrapper.extend(["-e", "trace=connect,sendto,sendmsg,sendmmsg"].map(str::to_string));
    let daemon = home.serve().options(&["--air-gapped"]).under(&wrapper).start();
    daemon.create_session("s");
    for (text, answer) in [("hello", "hello"), ("fetch the outside", "seen")] {
        let run = daemon.submit("s", text);
        assert_eq!((daemon.wait_end(&run).as_str(), output_of(&daemon, &run).as_str()), ("completed", answer));
    }
    let request = json!({"content": "x", "provider": "outside"});
    let refused = daemon.post("/v1/sessions/s/runs", &request);
    assert_eq!(refused.refusal(), (400, "route_not_ready".to_string()), "{refused:?}");
    let status = daemon.get("/v1/status").json();
    let expected = json!({"mode": "air_gapped", "allow": [], "private_networks": ["provider"], "web_fetch": false,
                          "refused_count": 0});
    assert_eq!(status["egress"], expected);
    let warnings = status["health"]["warnings"].as_array().expect("warnings");
    let warned: Vec<&Value> = warnings.iter().filter(|warning| warning["code"] == "route_egress_refused").collect();
    assert_eq!((warned.len(), warned[0]["related_id"].as_str()), (1, Some("outside")));
    daemon.stop();
    let report = fs::read_to_string(report).expect("strace's report");
    assert_eq!(addresses(&report), BTreeSet::from([base.to_string()]), "{report}");
    // A look-up would have asked the name service cache before any server.
    assert!(!report.contains("nscd"), "{report}");
}

fn output_of(daemon: &Daemon, run: &str) -> String {
    daemon.run(run)["outputs"][0]["content"].as_str().expect("a text").to_string()
}

/// What became of the run's first call.
fn result_of(home: &Home, run: &str) -> (String, Value) {
    let records = home.records(&home.root(), &["--run-id", run, "--kind", "tool_call.finished"]);
    let body = &records[0]["body"];
    let content = body["content"].as_str().expect("a text");
    (body["outcome"].as_str().expect("an outcome").to_string(), serde_json::from_str(content).expect("JSON"))
}

#[test]
fn each_request_of_a_fetch_is_a_signed_action_before_its_bytes_leave() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = heard.clone();
    let site = RawServer::start(move |mut stream| {
        let request = String::from_utf8_lossy(&read_request(&mut stream)).into_owned();
        log.lock().expect("unpoisoned").push(request.clone());
        let answer = if request.starts_with("GET /first") {
            "HTTP/1.1 302 Found\r\nlocation: /second?token=query\r\ncontent-length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>hello."
        };
        let _client_may_be_gone = stream.write_all(answer.as_bytes());
    });
    let script = tool_turn("fetch it", &format!("{}/first?a=query", site.url()))
        + &tool_turn("metadata", "http://169.254.169.254/latest/meta-data/")
        + &tool_turn("elsewhere", "http://127.0.0.1:9/");
    let provider = Provider::start(&script);
    let home = Home::new("egress-fetch", Some(&provider));
    let address = site.addr.to_string();
    let options = ["--web-fetch", "on", "--egress-allow-private", "web", "--egress-allow", &address];
    let daemon = home.serve().options(&options).start();
    daemon.create_session("s");
    let run = daemon.submit("s", "fetch it");
    assert_eq!((daemon.wait_end(&run).as_str(), output_of(&daemon, &run).as_str()), ("completed", "seen"));
    let refused = daemon.submit("s", "metadata");
    assert_eq!(daemon.wait_end(&refused), "completed");
    let unlisted = daemon.submit("s", "elsewhere");
    assert_eq!(daemon.wait_end(&unlisted), "completed");
    let actions = daemon.get(&format!("/v1/runs/{run}/external-actions")).json();
    let status = daemon.get("/v1/status").json();
    assert_eq!((&status["egress"]["mode"], &status["egress"]["refused_count"]), (&json!("listed"), &json!(2)));
    daemon.stop();

    let (outcome, page) = result_of(&home, &run);
    assert_eq!((outcome.as_str(), &page["status"], &page["redirects"]), ("ok", &json!(200), &json!(1)));
    assert_eq!((&page["body"], &page["bytes_read"]), (&json!("<p>hello."), &json!(9)));
    assert_eq!(page["final_url"], json!(format!("{}/second?token=query", site.url())));
    for (run, code) in [(&refused, "egress_refused"), (&unlisted, "egress_refused")] {
        let (outcome, error) = result_of(&home, run);
        assert_eq!((outcome.as_str(), &error["code"]), ("error", &json!(code)));
    }
    let heard = heard.lock().expect("unpoisoned");
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|request| !request.to_ascii_lowercase().contains("authorization")), "{heard:?}");

    // Started and durable, then each hop's request before its answer, then the result; the model's own calls around it.
    let records = home.records(&home.root(), &["--run-id", &run]);
    let short = |record: &Value| {
        let kind = record["kind"].as_str().expect("a kind");
        match (&record["body"]["kind"], kind.strip_prefix("external_action.")) {
            (Value::String(what), Some(phase)) => format!("{what} {phase}"),
            _ => kind.to_string(),
        }
    };
    let order: Vec<String> = records.iter().map(short).filter(|kind| !kind.starts_with("run.")).collect();
    let expected = [
        "model_provider request",
        "model_provider response",
        "message.appended",
        "permission.decided",
        "tool_call.started",
        "web_fetch request",
        "web_fetch response",
        "web_fetch request",
        "web_fetch response",
        "tool_call.finished",
        "model_provider request",
        "model_provider response",
        "message.appended",
    ];
    assert_eq!(order, expected);
    let fetches: Vec<&Value> =
        records.iter().map(|record| &record["body"]).filter(|body| body["kind"] == "web_fetch").collect();
    let told = |at: usize, name: &str| fetches[at][name].clone();
    assert_eq!(told(0, "target"), json!(format!("GET {}/first", site.url())));
    assert_eq!(told(2, "target"), json!(format!("GET {}/second", site.url())));
    assert_eq!((told(1, "http_status"), told(3, "http_status")), (json!(302), json!(200)));
    assert_eq!((told(0, "is_redirect"), told(2, "is_redirect")), (json!(false), json!(true)));
    assert_eq!(told(0, "action_id"), told(1, "action_id"));
    assert_ne!(told(0, "action_id"), told(2, "action_id"));
    assert!(told(0, "signature").is_string() && told(3, "response_digest").is_string());
    assert_eq!(actions.as_array().map(Vec::len), Some(8), "{actions}");

    // What is refused before anything leaves is no action.
    let records = home.records(&home.root(), &["--run-id", &refused, "--kind", "external_action.request"]);
    assert!(records.iter().all(|record| record["body"]["kind"] == "model_provider"), "{records:?}");
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_fetch_that_a_kill_cut_off_has_no_known_outcome_and_is_made_again_as_another_action() {
    let (started, begun) = crossbeam_channel::bounded(1);
    let first = Mutex::new(true);
    let site = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        if std::mem::take(&mut *first.lock().expect("unpoisoned")) {
            started.send(()).expect("the test listens");
            // The kill ends it.
            let _closed = std::io::Read::read(&mut stream, &mut [0; 1]);
            return;
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nagain";
        let _client_may_be_gone = stream.write_all(answer.as_bytes());
    });
    let provider = Provider::start(&tool_turn("fetch", &site.url()));
    let home = Home::new("egress-kill", Some(&provider));
    let address = site.addr.to_string();
    let options = ["--web-fetch", "on", "--egress-allow-private", "web", "--egress-allow", &address];
    let daemon = home.serve().options(&options).start();
    daemon.create_session("s");
    let run = daemon.submit("s", "fetch");
    begun.recv_timeout(http::PATIENCE).expect("the fetch began");
    daemon.kill();
    let daemon = home.serve().options(&options).start();
    assert_eq!((daemon.wait_end(&run).as_str(), output_of(&daemon, &run).as_str()), ("completed", "seen"));
    daemon.stop();
    let (outcome, page) = result_of(&home, &run);
    assert_eq!((outcome.as_str(), &page["body"]), ("ok", &json!("again")));
    let records = home.records(&home.root(), &["--run-id", &run]);
    let fetches: Vec<&Value> =
        records.iter().map(|record| &record["body"]).filter(|body| body["kind"] == "web_fetch").collect();
    let told: Vec<(&str, &str)> = fetches
        .iter()
        .map(|body| (body["phase"].as_str().unwrap_or_default(), body["outcome"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told, [("request", ""), ("response", "unknown"), ("request", ""), ("response", "succeeded")]);
    assert_eq!(fetches[0]["action_id"], fetches[1]["action_id"]);
    assert_ne!(fetches[1]["action_id"], fetches[2]["action_id"]);
    // Tool calls were open, not a model call.
    let resumed = records.iter().find(|record| record["kind"] == "run.resumed").expect("a resumption");
    assert_eq!(resumed["body"]["found"], json!("tool_calls_open"));
}

#[test]
fn a_redirect_to_another_host_is_followed_only_where_the_rules_let_the_model_go_there_by_itself() {
    // Nobody listens on the discard service; a redirect that is followed fails to connect, and is an action.
    let next = "http://127.0.0.2:9/there?with=query";
    let site = RawServer::answering(format!("HTTP/1.1 302 Found\r\nlocation: {next}\r\ncontent-length: 0\r\n\r\n"));
    let provider = Provider::start(&tool_turn("fetch", &site.url()));
    let home = Home::new("egress-redirect", Some(&provider));
    let address = site.addr.to_string();
    let open =
        ["--web-fetch", "on", "--egress-allow-private", "web", "--egress-allow", "127.0.0.2:9", "--egress-allow"];
    let daemon = home.serve().options(&open).options(&[&address]).start();
    let rule = |behavior: &str| {
        json!({"rules": [{"scope": "session", "tool_name_pattern": "web_fetch", "argument": {"host": "127.0.0.2"},
                          "behavior": behavior}]})
    };
    let mut runs = Vec::new();
    for behavior in ["deny", "ask", "allow"] {
        daemon.create_session(behavior);
        let target = format!("/v1/sessions/{behavior}/permission-rules");
        let set = daemon.client().request("PUT", &target, &[], &rule(behavior).to_string()).expect("an answer");
        assert_eq!(set.status, 200, "{set:?}");
        let run = daemon.submit(behavior, "fetch");
        assert_eq!(daemon.wait_end(&run), "completed", "{behavior}");
        runs.push((behavior, run));
    }
    daemon.stop();
    for (behavior, run) in runs {
        let (outcome, result) = result_of(&home, &run);
        let requests = home.records(&home.root(), &["--run-id", &run, "--kind", "external_action.request"]);
        let sent = requests.iter().filter(|record| record["body"]["kind"] == "web_fetch").count();
        if behavior == "allow" {
            assert_eq!((outcome.as_str(), &result["code"], sent), ("error", &json!("connect_failed"), 2));
        } else {
            let told = (outcome.as_str(), &result["status"], &result["redirect_to"], sent);
            assert_eq!(told, ("ok", &json!(0), &json!(next), 1), "{behavior}");
        }
    }
}

#[test]
fn a_model_without_the_operators_word_is_offered_no_pages() {
    let provider = Provider::start(&tool_turn("fetch", "http://example.com/"));
    let home = Home::new("egress-off", Some(&provider));
    let daemon = home.start();
    daemon.create_session("s");
    let run = daemon.submit("s", "fetch");
    assert_eq!(daemon.wait_end(&run), "completed");
    assert!(provider.requests().iter().all(|(_, body)| !body.contains("\"name\":\"web_fetch\",\"description\"")));
    daemon.stop();
    let (outcome, error) = result_of(&home, &run);
    assert_eq!((outcome.as_str(), &error["code"]), ("error", &json!("unknown_tool")), "{error}");
}

#[test]
fn settings_that_contradict_each_other_end_the_start() {
    let home = Home::new("egress-settings", None);
    for (options, flag) in [
        (&["--air-gapped", "--web-fetch", "on"][..], "--web-fetch"),
        (&["--web-fetch", "maybe"], "--web-fetch"),
        (&["--air-gapped", "--sandbox-network"], "--sandbox-network"),
        (&["--egress-allow", "api.example.com", "--sandbox-network"], "--sandbox-network"),
        (&["--egress-allow", "https://api.example.com/"], "--egress-allow"),
        (&["--egress-allow", "10.0.0.1/8"], "--egress-allow"),
        (&["--egress-allow-private", "everything"], "--egress-allow-private"),
    ] {
        let (code, log) = home.serve().options(options).refused();
        assert_eq!(code, Some(1), "{options:?}: {log}");
        assert!(log.contains(&format!("settings: {flag}: ")) && log.contains("; next: "), "{options:?}: {log}");
    }
}
