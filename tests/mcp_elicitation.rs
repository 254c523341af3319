//! Questions of MCP servers to people, while a call of a run is under way: durable, checked against the server's form, answered,
//! declined, withdrawn, and survived by a daemon that was killed. The server is a shell script.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
mod mcp_support;

use daemon::{Daemon, Home, Place, Provider, eventually};
use mcp_support::{call, connected, provider, serve_with};
use serde_json::{Value, json};

/// Asks people in several ways; what it was told comes back in results, with `'` for `"`.
const SCRIPT: &str = r#"#!/bin/bash
say() { printf '%s\n' "$1"; }
tool() { printf '{"name":"%s","inputSchema":{"type":"object"}}' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"${2//\"/\'}\"}]}}"; }
ask() { say "{\"jsonrpc\":\"2.0\",\"id\":\"e-1\",\"method\":\"elicitation/create\",\"params\":$1}"; }
FORM='{"message":"Which one?","requestedSchema":{"type":"object","properties":{"name":{"type":"string","minLength":2},"count":{"type":"integer","default":3}},"required":["name"]}}'
heard=
opened=
while IFS= read -r line; do
  heard+=$line
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
  *'"method":"initialize"'*)
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"asks\",\"version\":\"1\"}}}" ;;
  *'"method":"tools/list"'*)
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"tools\":[$(tool ask),$(tool secret),$(tool link),$(tool hold),$(tool heard)]}}" ;;
  *'"name":"ask"'*) ask "$FORM"
    while IFS= read -r reply; do heard+=$reply; [[ $reply == *'"e-1"'* ]] && break; done
    result "$id" "$reply" ;;
  *'"name":"secret"'*) ask '{"message":"m","requestedSchema":{"type":"object","properties":{"password":{"type":"string"}}}}'
    IFS= read -r reply; result "$id" "$reply" ;;
  *'"name":"link"'*)
    if [[ $opened ]]; then result "$id" "opened"; else opened=1
      say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32042,\"message\":\"open it\",\"data\":{\"elicitations\":[{\"mode\":\"url\",\"message\":\"Agree there\",\"url\":\"https://agree.example/x\",\"elicitationId\":\"l\"}]}}}"
    fi ;;
  *'"name":"hold"'*) ;;
  *'"name":"heard"'*) result "$id" "$heard" ;;
  esac
done
"#;

const CONFIG: &str = "[mcp_servers.local]\ncommand = 'bash'\nargs = ['server.sh']\ntool_timeout_sec = 60\n";

struct World {
    daemon: Daemon,
    provider: Provider,
    home: Home,
    workspace: Place,
}

fn world(name: &str, calls: &[(&str, &str, Value)]) -> World {
    let provider = provider(calls);
    let home = Home::new(name, Some(&provider));
    let workspace = Place::new(&format!("{name}_workspace"));
    let daemon = serve_with(&home, &workspace, SCRIPT, CONFIG);
    connected(&daemon, "local");
    daemon.create_session("s");
    World { daemon, provider, home, workspace }
}

impl World {
    fn question(&self) -> Value {
        eventually("a question is open", || {
            let open = self.daemon.get("/v1/questions").json();
            open.as_array().expect("a list").first().cloned()
        })
    }

    fn say(&self, run: &str, question: &Value, more: Value) -> http::Reply {
        let mut resolution = json!({"request_id": question["request"]["id"]});
        resolution.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.daemon.post(&format!("/v1/runs/{run}/questions"), &json!({"resolution": resolution}))
    }

    /// What the model was told last.
    fn told(&self) -> String {
        self.provider.requests().last().expect("a request").1.clone()
    }
}

#[test]
fn a_person_answers_a_form_of_a_server_and_only_as_the_form_allows() {
    let world = world("mcp_asks", &[("ask me", "mcp__local__ask", json!({}))]);
    let run = world.daemon.submit("s", "ask me");
    let question = world.question();
    let request = &question["request"];
    assert_eq!((&request["server"], &question["run_id"]), (&json!("local"), &json!(run)));
    assert!(request["questions"][0]["question"].as_str().unwrap().contains("nobody has checked"), "{request}");
    assert_eq!(request["questions"][1]["id"], "name");
    assert_eq!(
        request["questions"][1]["form"],
        json!({"required": true, "schema": {"type": "string", "minLength": 2}})
    );
    let code = |more: Value| world.say(&run, &question, more).refusal().1;
    let name = |text: &str| json!({"answers": [{"question_id": "name", "freeform_answer": text}]});
    assert_eq!(code(name("x")), "question_answer_invalid");
    assert_eq!(code(json!({"answers": []})), "question_answer_missing");
    let wrong = json!({"answers": [{"question_id": "name", "freeform_answer": "yes"}, {"question_id": "count", "freeform_answer": "2.5"}]});
    assert_eq!(code(wrong), "question_answer_invalid");
    assert_eq!(world.daemon.status_of(&run), "waiting_for_user_question");
    assert_eq!(world.say(&run, &question, name("left one")).status, 202);
    assert_eq!(world.daemon.wait_end(&run), "completed", "{}", world.daemon.run(&run));
    // What was left out has the form's default.
    let told = world.told();
    assert!(told.contains("'action':'accept'") && told.contains("'content':{'count':3,'name':'left one'}"), "{told}");
    world.daemon.stop();
    let root = world.home.root();
    world.home.assert_journal_verifies(&root);
    // The call was started once and has one result, with the question in between.
    let records = world.home.records(&root, &[]);
    let of_run = records.iter().filter_map(|record| record["kind"].as_str());
    let kinds: Vec<&str> =
        of_run.filter(|kind| kind.starts_with("tool_call.") || kind.starts_with("question.")).collect();
    assert_eq!(kinds, ["tool_call.started", "question.asked", "question.resolved", "tool_call.finished"]);
}

#[test]
fn a_refusal_a_secret_and_a_stopped_run_are_told_to_the_server_as_what_they_are() {
    let calls = [("ask me", "mcp__local__ask", json!({})), ("a secret", "mcp__local__secret", json!({}))];
    let world = world("mcp_refuses", &calls);
    let run = world.daemon.submit("s", "ask me");
    let question = world.question();
    assert_eq!(world.say(&run, &question, json!({"declined": true})).status, 202);
    assert_eq!(world.daemon.wait_end(&run), "completed");
    assert!(world.told().contains("'result':{'action':'decline'}"), "{}", world.told());
    // Nobody is even asked.
    let run = world.daemon.submit("s", "a secret");
    assert_eq!(world.daemon.wait_end(&run), "completed");
    assert!(world.told().contains("'result':{'action':'decline'}"), "{}", world.told());
    // The run is stopped with its question open.
    let run = world.daemon.submit("s", "ask me");
    world.question();
    assert_eq!(world.daemon.post(&format!("/v1/runs/{run}/cancel"), &json!({})).status / 100, 2);
    assert_eq!(world.daemon.wait_end(&run), "cancelled");
    let heard = eventually("the server was told", || {
        let reply = call(&world.daemon, "local", "heard", json!({}));
        (reply.status == 200).then(|| reply.json().to_string()).filter(|heard| heard.contains("'action':'cancel'"))
    });
    assert!(heard.contains("notifications/cancelled"), "{heard}");
    world.daemon.stop();
}

#[test]
fn a_question_survives_the_daemon_and_the_call_behind_it_is_not_repeated() {
    let world = world("mcp_asks_kill", &[("ask me", "mcp__local__ask", json!({}))]);
    let run = world.daemon.submit("s", "ask me");
    let before = world.question();
    let World { daemon, provider, home, workspace } = world;
    daemon.kill();
    let daemon = serve_with(&home, &workspace, SCRIPT, CONFIG);
    let world = World { daemon, provider, home, workspace };
    let question = world.question();
    assert_eq!(question["request"]["id"], before["request"]["id"]);
    let name = json!({"answers": [{"question_id": "name", "freeform_answer": "left one"}]});
    assert_eq!(world.say(&run, &question, name).status, 202);
    assert_eq!(world.daemon.wait_end(&run), "completed");
    assert!(world.told().contains("UNKNOWN"), "{}", world.told());
    let heard = call(&world.daemon, "local", "heard", json!({})).json().to_string();
    assert!(!heard.contains("'name':'ask'"), "{heard}");
    world.daemon.stop();
}

#[test]
fn an_address_is_opened_by_agreement_before_the_call_is_made_again() {
    let world = world("mcp_links", &[("a link", "mcp__local__link", json!({}))]);
    let run = world.daemon.submit("s", "a link");
    let question = world.question();
    let shown = question["request"]["questions"][0]["question"].as_str().unwrap().to_string();
    assert!(shown.contains("https://agree.example/x") && shown.contains("host agree.example"), "{shown}");
    let agreed = json!({"answers": [{"question_id": "answer", "selected_option_ids": ["done"]}]});
    assert_eq!(world.say(&run, &question, agreed).status, 202);
    assert_eq!(world.daemon.wait_end(&run), "completed");
    assert!(world.told().contains("opened"), "{}", world.told());
    world.daemon.stop();
}

#[test]
fn with_two_calls_under_way_nobody_is_asked_for_a_call_that_may_be_another() {
    let calls = [("ask me", "mcp__local__ask", json!({})), ("hold on", "mcp__local__hold", json!({}))];
    let world = world("mcp_asks_two", &calls);
    world.daemon.create_session("other");
    let held = world.daemon.submit("other", "hold on");
    // The server has the first call when it answers a later one.
    eventually("the first call is there", || {
        let heard = call(&world.daemon, "local", "heard", json!({})).json().to_string();
        heard.contains("'name':'hold'").then_some(())
    });
    let run = world.daemon.submit("s", "ask me");
    assert_eq!(world.daemon.wait_end(&run), "completed");
    assert!(world.told().contains("'result':{'action':'cancel'}"), "{}", world.told());
    assert_eq!(world.daemon.post(&format!("/v1/runs/{held}/cancel"), &json!({})).status / 100, 2);
    assert_eq!(world.daemon.wait_end(&held), "cancelled");
    world.daemon.stop();
}
