//! Secrets of every class are planted in a daemon that is put through its scenarios; then everything that it wrote, sent,
//! logged or started is searched for them, in every encoding. What holds a plaintext by design is named here and nothing
//! else: the key files and the workspace file of the test itself.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;
#[path = "support/needles.rs"]
mod needles;

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use daemon::{Daemon, Home, MASTER_KEY, Provider, SLOT, TOKEN, eventually};
use needles::{Needles, assert_processes_are_clean};
use serde_json::{Value, json};

const KEY_ONE: &str = "sk-canary-ONE-q7Zr2LxW9vBn4KtY";
const KEY_TWO: &str = "sk-canary-TWO-h3Jd8MsP1cFg6RuA";
const GENERIC: &str = "canary \"generic\" \u{e4}/+?&=% Wk5TqXz0Vb";
const ACCESS: &str = "canary-access-7YhN2bGt5VfR";
const REFRESH: &str = "canary-refresh-4EdC9xSw1ZaQ";
const CLIENT: &str = "canary-client-8UjM3kIo6LpP";
const IMPORTED: &str = "sk-canary-imported-5TgB7nHy2MjU";
const FROM_ENV: &str = "sk-canary-from-env-3WsX6eDc9RfV";

/// What is planted; name and value.
const PLANTED: [(&str, &str); 10] = [
    ("route key", KEY_ONE),
    ("rotated route key", KEY_TWO),
    ("generic secret", GENERIC),
    ("access token", ACCESS),
    ("refresh token", REFRESH),
    ("client secret", CLIENT),
    ("imported key", IMPORTED),
    ("key from the environment", FROM_ENV),
    ("admin token", TOKEN),
    ("master key", MASTER_KEY),
];

fn script() -> String {
    let b64 = STANDARD_NO_PAD.encode(KEY_ONE);
    let hex: String = KEY_ONE.bytes().map(|byte| format!("{byte:02x}")).collect();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let call = |name: &str, arguments: Value| {
        format!("{{ name = \"{name}\", arguments = {} }}", quoted(&arguments.to_string()))
    };
    let tools = [
        call("read_file", json!({"path": "leak.txt"})),
        call("bash", json!({"command": format!("env; cat leak.txt; echo {KEY_ONE}; cat /proc/self/environ")})),
    ];
    let wait =
        call("bash", json!({"command": format!("touch begun; until test -e go; do sleep 0.1; done # {KEY_ONE}")}));
    format!(
        "[[turn]]\nmatch = \"sleep\"\ntimes = 1\ntool_calls = [{wait}]\n[[turn]]\nmatch = \"sleep\"\ntext = \"done\"\n\
         [[turn]]\nmatch = \"repeat\"\nchunk_chars = 3\ntext = {}\n\
         [[turn]]\nmatch = \"error\"\nerror = {{ status = 401, code = \"invalid_api_key\", message = {} }}\n\
         [[turn]]\nmatch = \"tools\"\ntimes = 1\ntext = {}\ntool_calls = [{}]\n\
         [[turn]]\nmatch = \"tools\"\ntext = \"done\"\n\
         [[turn]]\nmatch = \"hang\"\ntext = \"abcdef\"\nchunk_chars = 3\nfault = {{ kind = \"hang\", after_frames = 5 }}\n",
        quoted(&format!("raw {KEY_ONE} base64 {b64} hex {hex} generic {GENERIC} access {ACCESS}")),
        quoted(&format!("Incorrect API key provided: {KEY_ONE}")),
        quoted(&format!("I shall look at {KEY_ONE}")),
        tools.join(", "),
    )
}

#[test]
fn no_planted_secret_is_found_outside_the_encrypted_store() {
    let needles = Needles::new(&PLANTED);
    let provider = Provider::start(&script());
    let home = Home::with_slot("canaries", Some(&provider));
    let mut shown: Vec<(String, String)> = Vec::new();
    let daemon = home.start();
    fs::write(home.join("workspace").join("leak.txt"), format!("KEY={KEY_ONE}\nGENERIC={GENERIC}\n")).unwrap();

    // Planted by every way in.
    let mut post = |daemon: &Daemon, path: &str, body: Value| {
        let reply = daemon.post(path, &body);
        shown.push((format!("POST {path}"), String::from_utf8_lossy(&reply.body).into_owned()));
        reply
    };
    daemon.set_key(KEY_ONE);
    let generic = json!({"slot_id": "sidecars.hook", "provider": "generic", "mode": "opaque_secret", "state": {"value": GENERIC}});
    assert_eq!(post(&daemon, "/v1/runtime/secrets", generic).status, 200);
    let account = json!({"slot_id": "mcp.oauth.docs", "server_name": "docs", "resource": "https://mcp.example/mcp",
        "issuer": "https://issuer.example", "authorization_endpoint": "https://issuer.example/a",
        "token_endpoint": "http://127.0.0.1:9/token", "client_id": "client", "client_secret": CLIENT,
        "access_token": ACCESS, "refresh_token": REFRESH, "expires_at_ms": 1, "scopes": ["read"]});
    assert_eq!(post(&daemon, "/v1/runtime/auth/accounts/mcp-oauth", account).status, 200);
    let import = json!({"slots": [{"slot_id": "xai.prod", "provider": "xai", "mode": "api_key", "state": {"api_key": IMPORTED}}]});
    assert_eq!(post(&daemon, "/v1/runtime/secret-imports", import).status, 200);
    // Malformed ones, whose refusals must not repeat them.
    for body in [
        json!({"slot_id": "a b", "provider": "openai", "mode": "api_key", "state": {"api_key": KEY_ONE}}),
        json!({"slot_id": KEY_TWO, "provider": KEY_TWO, "mode": "api_key", "state": {"api_key": KEY_ONE}}),
        json!({"slot_id": "a", "provider": "openai", "mode": "api_key", "state": {"api_key": [KEY_ONE]}}),
    ] {
        assert_eq!(post(&daemon, "/v1/runtime/secrets", body).status, 400);
    }
    // Nobody listens there, so the refresh fails and says so.
    assert_eq!(post(&daemon, "/v1/runtime/auth/accounts/mcp.oauth.docs/refresh", Value::Null).status, 503);
    assert_eq!(post(&daemon, "/v1/runtime/permission-mode", json!({"mode": "bypassPermissions"})).status, 200);

    // Runs that succeed, fail, use tools, hang and are revoked; watched all the while.
    let mut stream = daemon.stream("/v1/events/stream?cursor=0");
    let mut frames = String::new();
    daemon.create_session("s");
    for (text, ends) in [("repeat", "completed"), ("error", "failed"), ("tools", "completed")] {
        let run = daemon.submit("s", text);
        stream.until("the end of a run", |frame| {
            frames.push_str(&format!("{frame:?}\n"));
            frame
                .run_status()
                .is_some_and(|(id, status)| id == run && ["completed", "failed"].contains(&status.as_str()))
        });
        assert_eq!(daemon.status_of(&run), ends, "{text}: {}", daemon.run(&run));
    }
    // While a tool's process is at work.
    let sleeping = daemon.submit("s", "sleep");
    eventually("a tool at work", || home.join("workspace").join("begun").exists().then_some(()));
    let processes = assert_processes_are_clean(daemon.pid(), &PLANTED, |_, _| false);
    assert!(processes >= 3, "the daemon, its worker and the worker's shell: {processes}");
    fs::write(home.join("workspace").join("go"), "").unwrap();
    assert_eq!(daemon.wait_end(&sleeping), "completed");
    let run = daemon.submit("s", "hang");
    provider.wait_asked("hang", 1);
    daemon.set_key(KEY_TWO);
    assert_eq!(post(&daemon, &format!("/v1/runtime/auth/slots/{SLOT}/revoke"), json!({"reason": "test"})).status, 200);
    assert_eq!(post(&daemon, "/v1/runtime/auth/subjects/session%3As/revoke", Value::Null).status, 200);
    eventually("the revoked run's end", || {
        ["failed", "completed"].contains(&daemon.status_of(&run).as_str()).then_some(())
    });

    // Everything that can be looked at.
    for path in [
        "/v1/status",
        "/v1/runtime",
        "/v1/runs",
        "/v1/sessions/s/events",
        "/v1/runtime/secrets",
        "/v1/runtime/auth/accounts",
        "/v1/runtime/auth/subjects",
        "/v1/runtime/auth/leases?all=true",
        "/v1/openapi.json",
        "/v1/runtime/secrets/none",
    ] {
        shown.push((format!("GET {path}"), String::from_utf8_lossy(&daemon.get(path).body).into_owned()));
    }
    for run in daemon.all_runs() {
        let id = run["run_id"].as_str().expect("an id").to_string();
        for path in
            [format!("/v1/runs/{id}"), format!("/v1/runs/{id}/events"), format!("/v1/runs/{id}/external-actions")]
        {
            shown.push((format!("GET {path}"), String::from_utf8_lossy(&daemon.get(&path).body).into_owned()));
        }
    }
    for args in [
        vec!["secrets", "list"],
        vec!["secrets", "get", SLOT],
        vec!["runtime", "auth", "accounts", "list"],
        vec!["runtime", "auth", "leases", "--all"],
        vec!["status"],
        vec!["runs", "list"],
        vec!["secrets", "set", "a b", "--provider", "openai", "--value", KEY_ONE],
        vec!["secrets", "set", SLOT, "--provider", "openai", "--value", KEY_ONE],
        vec!["secrets", "set", SLOT, "--provider", "openai", "--valeu", KEY_TWO],
    ] {
        let (_, stdout, stderr) = home.cli(&daemon, &args);
        shown.push((format!("{args:?}").replace(KEY_ONE, "…").replace(KEY_TWO, "…"), stdout + &stderr));
    }
    let set = Command::new(env!("CARGO_BIN_EXE_kheish-daemon"))
        .env_clear()
        .env("SOURCE", FROM_ENV)
        .args(["--base-url", &daemon.base_url(), "--token-file"])
        .arg(home.token_file())
        .args(["secrets", "set", "xai.env", "--provider", "xai", "--from-env", "SOURCE"])
        .output()
        .unwrap();
    assert!(set.status.success(), "{set:?}");
    shown.push((
        "secrets set --from-env".to_string(),
        String::from_utf8_lossy(&[set.stdout, set.stderr].concat()).into(),
    ));
    shown.push(("the event stream".to_string(), frames));
    shown.push(("the log before the kill".to_string(), daemon.log()));
    daemon.kill();
    let daemon = home.start();
    let run = daemon.submit("s", "repeat");
    eventually("a run after the restart", || {
        ["failed", "completed"].contains(&daemon.status_of(&run).as_str()).then_some(())
    });
    shown.push(("the log after the restart".to_string(), daemon.stop()));
    let root = home.root().display().to_string();
    for args in [
        vec!["journal", "show", "--offline", "--state-root", &root],
        vec!["journal", "verify", "--offline", "--state-root", &root],
    ] {
        shown.push((format!("{args:?}"), home.command(&args).1));
    }

    // The scenarios did what they should: tools read the secrets, and the model repeated them.
    let journal = &shown[shown.len() - 2].1;
    for trace in [
        "KEY=<redacted>",
        "GENERIC=<redacted>",
        "I shall look at <redacted>",
        "raw <redacted> base64 <redacted> hex <redacted>",
    ] {
        assert!(journal.contains(trace), "no {trace:?} in the journal:\n{journal}");
    }
    assert!(shown.len() > 30);
    for (place, text) in &shown {
        needles.assert_absent(place, text.as_bytes());
    }
    let files = needles.assert_absent_below(&home.root());
    assert!(files >= 8, "{files} files were searched");
    // The search finds what is there.
    let text = format!("x{}y", STANDARD_NO_PAD.encode(format!("ab{KEY_ONE}c")));
    assert!(std::panic::catch_unwind(|| Needles::new(&PLANTED).assert_absent("a text", text.as_bytes())).is_err());
}
