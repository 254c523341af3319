//! Child processes that flood, change their minds and do not read: each costs the call at hand one error at most, and no other server
//! notices. They are shell scripts.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
mod mcp_support;

use daemon::{Daemon, Home, Place, eventually};
use mcp_support::{call, connected, processes_with, provider, serve_with, server};
use serde_json::{Value, json};

/// Its tools are named after what they do; `OTHER=1` makes it a good one.
const SCRIPT: &str = r#"#!/bin/bash
say() { printf '%s\n' "$1"; }
tool() { printf '{"name":"%s","description":"%s","inputSchema":{"type":"object"}}' "$1" "$words"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"${2//\"/\'}\"}]}}"; }
words=first
heard=
lists=0
while IFS= read -r line; do
  heard+=$line
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
  *'"method":"initialize"'*)
    [[ $HANGS ]] && sleep 1000
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{\"listChanged\":true}},\"serverInfo\":{\"name\":\"h\",\"version\":\"1\"}}}" ;;
  *'"method":"tools/list"'*)
    lists=$((lists + 1))
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"tools\":[$(tool add),$(tool noise),$(tool asks),$(tool sample),$(tool again),$(tool change),$(tool heard),$(tool token),$(tool deaf)]}}" ;;
  *'"name":"add"'*) result "$id" "sum" ;;
  *'"name":"noise"'*)
    printf '\xff\xfe\x00{"jsonrpc"\n'
    printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"\xc3\x28"}}\n'
    say '[{"jsonrpc":"2.0","id":1,"method":"ping"}]'
    say '{"jsonrpc":"2.0","id":999999,"result":{"content":[]}}'
    say "{\"jsonrpc\":\"2.0\",\"id\":\"$id\",\"result\":{\"content\":[]}}"
    say "{\"jsonrpc\":\"2.0\",\"id\":$id.0,\"result\":{\"content\":[]}}"
    say '{"jsonrpc":"2.0","id":{},"method":"ping"}'
    say '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"nobody","progress":1}}'
    say '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"nobody"}}'
    result "$id" "the first answer counts"
    result "$id" "the second does not" ;;
  *'"name":"asks"'*) for n in {1..2000}; do
      case $((n % 3)) in 0) m=sampling/createMessage ;; 1) m=roots/list ;; *) m=elicitation/create ;; esac
      say "{\"jsonrpc\":\"2.0\",\"id\":$n,\"method\":\"$m\",\"params\":{\"message\":\"m\"}}"
    done ;;
  *'"name":"sample"'*)
    say '{"jsonrpc":"2.0","id":"s-1","method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}'
    IFS= read -r reply; result "$id" "$reply" ;;
  *'"name":"again"'*) for n in {1..200}; do say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'; done
    result "$id" "said" ;;
  *'"name":"change"'*) words=second; say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'; result "$id" "changed" ;;
  *'"name":"heard"'*) result "$id" "lists $lists, $heard" ;;
  *'"name":"token"'*) result "$id" "$TOKEN" ;;
  *'"name":"deaf"'*) sleep 1000 ;;
  esac
done
"#;

fn bash(name: &str) -> String {
    format!(
        "[mcp_servers.{name}]\ncommand = 'bash'\nargs = ['server.sh', 'kheish_hostile_{name}']\ntool_timeout_sec = 60\n"
    )
}

fn detail(reply: &http::Reply) -> String {
    reply.json()["detail"].as_str().unwrap_or_default().to_string()
}

fn text(reply: &http::Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["result"]["content"][0]["text"].as_str().unwrap_or_default().to_string()
}

#[test]
fn nonsense_between_messages_costs_nothing_and_the_first_answer_counts() {
    let home = Home::new("mcp_noise", None);
    let workspace = Place::new("mcp_noise_workspace");
    let daemon = serve_with(&home, &workspace, SCRIPT, &bash("local"));
    connected(&daemon, "local");
    assert_eq!(text(&call(&daemon, "local", "noise", json!({}))), "the first answer counts");
    assert_eq!(text(&call(&daemon, "local", "add", json!({}))), "sum");
    // Nobody has granted it samples of a model.
    let told = text(&call(&daemon, "local", "sample", json!({})));
    assert!(told.contains("'code':-32601"), "{told}");
    assert_eq!(server(&daemon, "local")["connect_count"], 1);
    daemon.stop();
}

#[test]
fn a_flood_of_requests_ends_the_connection_and_a_flood_of_changes_does_not_make_anybody_look_as_often() {
    let home = Home::new("mcp_floods", None);
    let workspace = Place::new("mcp_floods_workspace");
    let daemon = serve_with(&home, &workspace, SCRIPT, &format!("{}{}", bash("local"), bash("other")));
    connected(&daemon, "local");
    connected(&daemon, "other");
    let refused = detail(&call(&daemon, "local", "asks", json!({})));
    assert!(refused.contains("more requests than are answered"), "{refused}");
    eventually("it is connected anew", || (server(&daemon, "local")["connect_count"] == 2).then_some(()));
    assert_eq!(text(&call(&daemon, "local", "add", json!({}))), "sum");
    for _ in 0..5 {
        assert_eq!(text(&call(&daemon, "other", "again", json!({}))), "said");
    }
    let lists = eventually("its tools were looked at again", || {
        let heard = text(&call(&daemon, "other", "heard", json!({})));
        let count: u32 = heard.strip_prefix("lists ")?.split(',').next()?.parse().ok()?;
        (count > 1).then_some(count)
    });
    // A thousand changes within moments; the bound leaves room for a machine that takes half a minute for them.
    assert!(lists <= 32, "{lists} looks");
    assert_eq!(server(&daemon, "other")["connect_count"], 1);
    daemon.stop();
}

#[test]
fn a_tool_that_changes_between_the_decision_and_the_call_is_asked_about_again() {
    let provider = provider(&[("add them", "mcp__local__add", json!({}))]);
    let home = Home::new("mcp_changes", Some(&provider));
    let workspace = Place::new("mcp_changes_workspace");
    let daemon = serve_with(&home, &workspace, SCRIPT, &bash("local"));
    let reply = daemon.post("/v1/runtime/permission-mode", &json!({"mode": "default"}));
    assert_eq!(reply.status, 200, "{reply:?}");
    connected(&daemon, "local");
    daemon.create_session("s");
    let run = daemon.submit("s", "add them");
    let approval = |but: &Value| {
        eventually("somebody is asked", || {
            let open = daemon.get("/v1/approvals").json();
            let first = open.as_array().expect("a list").first()?["id"].clone();
            (first != *but).then_some(first)
        })
    };
    let first = approval(&Value::Null);
    let digest = |daemon: &Daemon| daemon.get("/v1/mcp/servers/local/tools").json()[0]["digest"].clone();
    let before = digest(&daemon);
    assert_eq!(text(&call(&daemon, "local", "change", json!({}))), "changed");
    eventually("the change is seen", || (digest(&daemon) != before).then_some(()));
    let allow = |id: &Value| {
        let body = json!({"resolutions": [{"request_id": id, "behavior": "allow"}]});
        let reply = daemon.post(&format!("/v1/runs/{run}/approvals"), &body);
        assert_eq!(reply.status / 100, 2, "{reply:?}");
    };
    allow(&first);
    let second = approval(&first);
    allow(&second);
    assert_eq!(daemon.wait_end(&run), "completed");
    daemon.stop();
}

#[test]
fn a_secret_of_a_childs_environment_is_rotated_by_a_new_child_and_the_old_one_is_gone() {
    let home = Home::with_slot("mcp_child_secret", None);
    let workspace = Place::new("mcp_child_secret_workspace");
    let config = format!("{}env_secret_refs = {{ TOKEN = 'mcp.local.TOKEN' }}\n{}", bash("local"), bash("other"));
    let daemon = serve_with(&home, &workspace, SCRIPT, &config);
    connected(&daemon, "other");
    let set = |value: &str| {
        let state = json!({"slot_id": "mcp.local.TOKEN", "provider": "generic", "mode": "opaque_secret", "state": {"value": value}});
        assert_eq!(daemon.post("/v1/runtime/secrets", &state).status, 200);
    };
    set("child-canary-one");
    connected(&daemon, "local");
    // The secret itself is redacted wherever it is shown; the child tells that it has one.
    let shown = text(&call(&daemon, "local", "token", json!({})));
    assert!(!shown.is_empty() && !shown.contains("child-canary"), "{shown}");
    let first = processes_with("kheish_hostile_local");
    assert!(!first.is_empty());
    set("child-canary-two");
    eventually("another child runs, and the first one does not", || {
        let now = processes_with("kheish_hostile_local");
        (!now.is_empty() && now.iter().all(|pid| !first.contains(pid))).then_some(())
    });
    let seen = connected(&daemon, "local");
    assert_eq!(seen["connect_count"], 2);
    let environments: Vec<String> = processes_with("kheish_hostile_local")
        .into_iter()
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    assert!(environments.iter().all(|environment| !environment.contains("child-canary-one")));
    assert_eq!(server(&daemon, "other")["connect_count"], 1);
    // What names the slot keeps it.
    let refused = daemon.client().request("DELETE", "/v1/runtime/secrets/mcp.local.TOKEN", &[], "").expect("an answer");
    assert!(refused.status == 409 && detail(&refused).contains("one or more MCP servers (local)"), "{refused:?}");
    // Revoked, the child is gone, and only it.
    let revoked = daemon.post("/v1/runtime/auth/slots/mcp.local.TOKEN/revoke", &json!({"reason": "leak"}));
    assert_eq!(revoked.status, 200, "{revoked:?}");
    eventually("the child is gone", || processes_with("kheish_hostile_local").is_empty().then_some(()));
    assert_eq!(text(&call(&daemon, "other", "add", json!({}))), "sum");
    let log = daemon.stop();
    assert!(!log.contains("child-canary"));
    home.assert_journal_verifies(&home.root());
}

#[test]
fn other_programs_servers_are_used_only_when_that_is_asked_for_and_what_is_wrong_with_them_stops_nothing() {
    let home = Home::new("mcp_discovery", None);
    let workspace = Place::new("mcp_discovery_workspace");
    let folder = workspace.join(".codex");
    std::fs::create_dir(&folder).unwrap();
    let file = format!(
        "model = 'of another program'\n{}[mcp_servers.odd]\ncommand = 'x'\nsecret_key = 'of another program'\n",
        bash("found")
    );
    std::fs::write(folder.join("config.toml"), file).unwrap();
    std::fs::write(workspace.join("server.sh"), SCRIPT).unwrap();
    let place = workspace.join("");
    let names = |options: &[&str]| {
        let daemon =
            home.serve().workspace(&place).options(options).variables(&[("HOME", place.to_str().unwrap())]).start();
        let servers = daemon.get("/v1/mcp/servers").json();
        let names =
            servers.as_array().expect("a list").iter().map(|server| server["server"].clone()).collect::<Vec<_>>();
        if !names.is_empty() {
            connected(&daemon, "found");
        }
        let log = daemon.stop();
        assert!(!log.contains("of another program"), "{log}");
        names
    };
    assert_eq!(names(&[]), [Value::Null; 0]);
    assert_eq!(names(&["--mcp-discovery", "disabled"]), [Value::Null; 0]);
    assert_eq!(names(&["--mcp-discovery", "auto"]), [json!("found")]);
}

#[test]
fn a_child_that_does_not_read_costs_the_call_that_finds_out_and_its_time() {
    let home = Home::new("mcp_deaf", None);
    let workspace = Place::new("mcp_deaf_workspace");
    let daemon = serve_with(&home, &workspace, SCRIPT, &format!("{}{}", bash("local"), bash("other")));
    connected(&daemon, "local");
    connected(&daemon, "other");
    let body = json!({"tool": "deaf", "arguments": {}, "timeout_ms": 100});
    let reply = daemon.post("/v1/mcp/servers/local/tools/call", &body);
    assert!(detail(&reply).contains("no answer to tools/call within"), "{reply:?}");
    // More than fits between the two.
    let reply = call(&daemon, "local", "add", json!({"pad": "x".repeat(900_000)}));
    assert!(detail(&reply).contains("does not read its input"), "{reply:?}");
    eventually("it is connected anew", || (server(&daemon, "local")["connect_count"] == 2).then_some(()));
    assert_eq!(text(&call(&daemon, "other", "add", json!({}))), "sum");
    daemon.stop();
}

#[test]
fn a_server_that_is_switched_off_while_it_starts_is_gone_at_once() {
    let home = Home::new("mcp_starting", None);
    let workspace = Place::new("mcp_starting_workspace");
    let config = format!("{}startup_timeout_sec = 3600\nenv = {{ HANGS = '1' }}\n", bash("slow"));
    let daemon = serve_with(&home, &workspace, SCRIPT, &config);
    eventually("it is being started", || (!processes_with("kheish_hostile_slow").is_empty()).then_some(()));
    assert_eq!(daemon.post("/v1/mcp/servers/slow/disable", &json!({})).status, 200);
    eventually("nothing is left of it", || processes_with("kheish_hostile_slow").is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn a_server_is_shown_no_file_that_the_daemon_trusts_whatever_link_leads_there() {
    let home = Home::new("mcp_readable", None);
    let place = Place::new("mcp_readable_place");
    let link = place.join("link");
    std::os::unix::fs::symlink(home.token_file().parent().expect("a folder"), &link).expect("a link");
    let config = format!("{}read_only_paths = ['{}']\n", bash("local"), link.display());
    let file = place.file("mcp.toml", &config);
    let (code, log) = home.serve().options(&["--mcp-config", file.to_str().unwrap()]).refused();
    assert!(code == Some(1) && log.contains("`read_only_paths` shows it what"), "{log}");
}

#[test]
fn an_agent_with_a_part_of_the_workspace_has_no_server_that_reaches_all_of_it() {
    let provider = provider(&[("add them", "mcp__local__add", json!({}))]);
    let home = Home::new("mcp_confined", Some(&provider));
    let workspace = Place::new("mcp_confined_workspace");
    std::fs::create_dir(workspace.join("part")).unwrap();
    let daemon = serve_with(&home, &workspace, SCRIPT, &bash("local"));
    connected(&daemon, "local");
    daemon.create_session("s");
    let body = json!({"workspace": "part", "subtask": {"content": "add them"}});
    let reply = daemon.post("/v1/agents/agent-1/sidechains", &body);
    assert_eq!(reply.status / 100, 2, "{reply:?}");
    let told = eventually("the model was told", || {
        provider.requests().iter().map(|(_, body)| body.clone()).find(|body| body.contains("mcp_not_granted"))
    });
    assert!(told.contains("reaches the whole workspace"), "{told}");
    daemon.stop();
}
