//! Pictures and documents as input, from the command line and the API to every vendor's request.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/http.rs"]
mod http;

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use daemon::{Daemon, Home, Place, Provider};
use kheish_daemon::hex::to_hex;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

const DRIVERS: [(&str, &str); 6] = [
    ("openai", "/v1"),
    ("openai_compatible", "/v1"),
    ("anthropic", ""),
    ("google", "/v1beta"),
    ("openrouter", "/v1"),
    ("xai", "/v1"),
];

const PNG: &[u8] = b"\x89PNG\r\n\x1a\na picture of a test";
const PDF: &[u8] = b"%PDF-1.7 a document of a test";

fn world(test: &str, provider: &Provider) -> Home {
    let mut routes = "version = 1\ndefault_route = \"openai\"\n".to_string();
    for (driver, path) in DRIVERS {
        let address = provider.address;
        routes.push_str(&format!(
            "[routes.{driver}]\ndriver = \"{driver}\"\ndefault_model = \"m\"\nmodel_support = \"any\"\n\
             base_url = \"http://{address}{path}\"\n"
        ));
    }
    routes.push_str(&format!(
        "[routes.text]\ndriver = \"openai\"\ndefault_model = \"m\"\nmodel_support = \"any\"\n\
         base_url = \"http://{}/v1\"\nmultimodal_input = false\n",
        provider.address
    ));
    Home::with_routes(Place::new(test), &routes)
}

fn asset(name: &str, bytes: &[u8]) -> Value {
    json!({"type": "inline_asset", "file_name": name, "content_base64": BASE64_STANDARD.encode(bytes)})
}

fn submit(daemon: &Daemon, session: &str, body: &Value) -> String {
    daemon.create_session(session);
    let reply = daemon.post(&format!("/v1/sessions/{session}/runs"), body);
    assert_eq!(reply.status, 202, "{reply:?}");
    let run = reply.json()["run_id"].as_str().expect("an id").to_string();
    assert_eq!(daemon.wait_end(&run), "completed", "{}", daemon.run(&run));
    run
}

fn last(provider: &Provider) -> String {
    provider.requests().pop().expect("a request").1
}

#[test]
fn files_of_the_input_reach_every_vendor_and_are_shown_again_in_the_next_run() {
    let provider = Provider::start("[default]\ntext = \"seen\"\n");
    let home = world("files", &provider);
    let daemon = home.start();
    let (png, pdf) = (BASE64_STANDARD.encode(PNG), BASE64_STANDARD.encode(PDF));
    for (driver, _) in DRIVERS {
        let items = json!([{"type": "text", "text": "first-words"}, asset("a.png", PNG), asset("b.pdf", PDF),
            asset("c.md", b"# heading"), {"type": "text", "text": "what is it?"}]);
        let run = submit(&daemon, driver, &json!({"input_items": items, "provider": driver}));
        let body = last(&provider);
        for part in ["first-words", &png, &pdf, "# heading", "what is it?"] {
            assert_eq!(body.matches(part).count(), 1, "{driver}: {part} in {body}");
        }
        let place = |part: &str| body.find(part).expect("it is there");
        assert!(place("first-words") < place(&png) && place(&png) < place("what is it?"), "{driver}: {body}");
        let view = daemon.run(&run);
        let sha256 = to_hex(digest(&SHA256, PNG).as_ref());
        let shown = json!({"file_name": "a.png", "media_type": "image/png", "sha256": sha256, "bytes": PNG.len()});
        assert_eq!(view["input_attachments"][0], shown);
        assert_eq!(view["input_attachments"].as_array().map(Vec::len), Some(2), "text is text");

        submit(&daemon, driver, &json!({"content": "and again?", "provider": driver}));
        assert!(last(&provider).contains(&png), "{driver}: an earlier picture is shown again");
    }
    // Not to a route that takes none, which is told what it was.
    submit(&daemon, "openai", &json!({"content": "and here?", "provider": "text"}));
    let body = last(&provider);
    assert!(!body.contains(&png) && body.contains("[a.png, image/png, is not shown again]"), "{body}");
    daemon.stop();
    let journal = home.records(&home.root(), &[]).iter().map(Value::to_string).collect::<String>();
    assert!(!journal.contains(&png), "the journal names files by their digest");
    home.assert_journal_verifies(&home.root());
}

#[test]
fn a_kept_file_is_referred_to_by_its_id_and_is_the_same_input_as_the_file_itself() {
    let provider = Provider::start("[default]\ntext = \"seen\"\n");
    let home = world("files-assets", &provider);
    let daemon = home.start();
    let (picture, notes) = (home.join("a.png"), home.join("notes.txt"));
    fs::write(&picture, PNG).expect("written");
    fs::write(&notes, "remember the milk and sk-proj-abcdefghijklmnopqrstuvwxyz0123").expect("written");
    let import = |path: &std::path::Path| home.cli_json(&daemon, &["assets", "import", path.to_str().expect("UTF-8")]);
    let kept = import(&picture);
    let sha256 = to_hex(digest(&SHA256, PNG).as_ref());
    let id = format!("asset-{sha256}");
    let expected = json!({"asset_id": id, "file_name": "a.png", "media_type": "image/png", "sha256": sha256,
        "byte_length": PNG.len()});
    assert_eq!(kept, expected);
    assert_eq!(import(&picture), expected, "twice is once");
    let shown = home.cli_json(&daemon, &["assets", "get", &id]);
    assert_eq!((&shown["media_type"], shown.get("file_name")), (&json!("image/png"), None));
    let text = import(&notes);
    daemon.kill();
    let daemon = home.start();
    // The same conversation, with the bytes and by reference, on every vendor's route.
    for (driver, _) in DRIVERS {
        let items = |picture: Value| json!([{"type": "text", "text": "look at it"}, picture]);
        let inline = submit(
            &daemon,
            &format!("{driver}-a"),
            &json!({"input_items": items(asset("a.png", PNG)), "provider": driver}),
        );
        let with_bytes = last(&provider);
        let by_id = items(json!({"type": "asset_reference", "asset_id": id, "file_name": "a.png"}));
        let named = submit(&daemon, &format!("{driver}-b"), &json!({"input_items": by_id, "provider": driver}));
        assert_eq!(last(&provider), with_bytes, "{driver}");
        let files = |run: &str| daemon.run(run)["input_attachments"].clone();
        assert_eq!(files(&named), files(&inline));
    }
    // By the command line, with words or alone; a text is shown as text, and was kept without what nobody should see.
    daemon.create_session("s");
    let text_id = text["asset_id"].as_str().expect("an id");
    let view = home.cli_json(&daemon, &["sessions", "input", "s", "--asset", &sha256, "--asset", text_id, "--wait"]);
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["input_attachments"][0]["file_name"], "asset.png", "without a name it has its type's");
    let body = last(&provider);
    assert!(body.contains(&BASE64_STANDARD.encode(PNG)) && body.contains("remember the milk and <redacted>"), "{body}");
    // The same key with the bytes and with the reference is the same request.
    let twice = |item: Value| {
        let body = json!({"content": "x", "attachments": [item], "idempotency_key": "k"});
        daemon.post("/v1/sessions/s/runs", &body).json()["run_id"].clone()
    };
    let first = twice(asset("a.png", PNG));
    assert_eq!(twice(json!({"type": "asset_reference", "asset_id": id, "file_name": "a.png"})), first);
    for (item, expected) in [
        (json!({"type": "asset_reference"}), (404, "asset_not_found")),
        (json!({"type": "asset_reference", "asset_id": "asset-../../auth"}), (404, "asset_not_found")),
        (json!({"type": "asset_reference", "asset_id": "a".repeat(64)}), (404, "asset_not_found")),
        (json!({"type": "asset_reference", "asset_id": id, "content_base64": "eA=="}), (400, "bad_request")),
        (json!({"type": "asset_reference", "asset_id": id, "media_type": "image/gif"}), (400, "bad_request")),
    ] {
        let reply = daemon.post("/v1/sessions/s/runs", &json!({"content": "x", "attachments": [item]}));
        assert_eq!(reply.refusal(), (expected.0, expected.1.to_string()), "{item}");
    }
    let many = vec![json!({"type": "asset_reference", "asset_id": id}); 64];
    let reply = daemon.post("/v1/sessions/s/runs", &json!({"content": "x", "attachments": many}));
    assert!([400, 413].contains(&reply.status), "{reply:?}");
    let executable = json!({"file_name": "a.exe", "content_base64": BASE64_STANDARD.encode(b"MZ\0")});
    assert_eq!(daemon.post("/v1/assets", &executable).refusal(), (400, "bad_request".to_string()));
    assert_eq!(daemon.get("/v1/assets/asset-none").refusal(), (404, "asset_not_found".to_string()));
    daemon.stop();
    let acts = home.records(&home.root(), &["--kind", "control.intent"]);
    assert!(
        acts.iter().any(|record| record["body"]["act"] == "asset.put" && record["by"]["role"] == "admin"),
        "{acts:?}"
    );
}

#[test]
fn the_command_line_attaches_files_and_a_restart_finds_them() {
    let provider = Provider::start(
        "[[turn]]\nmatch = \"hold\"\ntimes = 1\ntext = \"x\"\nfault = { kind = \"hang\" }\n[default]\ntext = \"seen\"\n",
    );
    let home = world("files-cli", &provider);
    let daemon = home.start();
    let (picture, notes) = (home.join("a.png"), home.join("notes.txt"));
    fs::write(&picture, PNG).expect("written");
    fs::write(&notes, "remember the milk").expect("written");
    let (picture, notes) = (picture.to_str().expect("UTF-8"), notes.to_str().expect("UTF-8"));
    daemon.create_session("s");
    let view = home.cli_json(&daemon, &["sessions", "input", "s", "hold", "--file", picture, "--file", notes]);
    let run = view["run_id"].as_str().expect("an id").to_string();
    provider.wait_asked("hold", 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(daemon.wait_end(&run), "completed");
    let requests = provider.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].1, requests[1].1, "the restart asks the same");
    assert!(requests[1].1.contains(&BASE64_STANDARD.encode(PNG)) && requests[1].1.contains("remember the milk"));

    // A picture alone is input, too; what is no such file is refused.
    let alone = home.cli_json(&daemon, &["sessions", "input", "s", "--file", picture, "--wait"]);
    assert_eq!(alone["status"], "completed");
    fs::write(home.join("a.exe"), b"MZ\x90\x00").expect("written");
    let (code, _, stderr) =
        home.cli(&daemon, &["sessions", "input", "s", "--file", home.join("a.exe").to_str().expect("UTF-8")]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("a.exe: neither of the files that are taken"), "{stderr}");

    // A file that has gone fails its run by name; nothing is sent without it.
    let asked = provider.requests().len();
    assert_eq!(daemon.post("/v1/runtime/hold", &json!({"held": true})).status, 200);
    daemon.create_session("s2");
    let view = home.cli_json(&daemon, &["sessions", "input", "s2", "gone", "--file", picture]);
    let gone = view["run_id"].as_str().expect("an id").to_string();
    let blob = home.root().join("blobs").join(to_hex(digest(&SHA256, PNG).as_ref()));
    fs::remove_file(&blob).expect("the picture's blob");
    assert_eq!(daemon.post("/v1/runtime/hold", &json!({"held": false})).status, 200);
    assert_eq!(daemon.wait_end(&gone), "failed");
    assert!(daemon.run(&gone)["error"]["message"].as_str().expect("a text").contains("blob: none is named"));
    assert_eq!(provider.requests().len(), asked);
}

#[test]
fn what_a_route_or_the_daemon_cannot_take_is_refused_before_anything_is_kept() {
    let provider = Provider::start("[default]\ntext = \"seen\"\n");
    let home = world("files-refused", &provider);
    let daemon = home.start();
    daemon.create_session("s");
    let refusal = |body: Value| daemon.post("/v1/sessions/s/runs", &body).refusal();
    let of = |status: u16, code: &str| (status, code.to_string());
    let body = json!({"content": "x", "provider": "text", "attachments": [asset("a.png", PNG)]});
    assert_eq!(refusal(body), of(400, "input_not_supported"));
    let lied = json!({"content": "x", "attachments": [{"type": "inline_asset", "file_name": "a.png",
        "media_type": "image/png", "content_base64": BASE64_STANDARD.encode(PDF)}]});
    assert_eq!(refusal(lied), of(400, "bad_request"));
    let large = [PNG, &vec![0; 12 * 1024 * 1024]].concat();
    assert_eq!(refusal(json!({"content": "x", "attachments": [asset("a.png", &large)]})), of(413, "payload_too_large"));
    let stored = json!({"content": "x", "attachments": [{"type": "asset_reference", "asset_id": "asset-1"}]});
    assert_eq!(refusal(stored), of(404, "asset_not_found"));
    let board = json!({"content": "x", "attachments": [{"type": "board_reference", "asset_id": "b"}]});
    assert_eq!(refusal(board), of(400, "unsupported_feature"));
    assert_eq!(fs::read_dir(home.root().join("blobs")).expect("the blobs").count(), 0);
    assert!(daemon.all_runs().is_empty() && provider.requests().is_empty());
    // A document of text is for everybody.
    submit(&daemon, "s", &json!({"content": "x", "provider": "text", "attachments": [asset("c.md", b"# heading")]}));
    assert!(last(&provider).contains("# heading"));
}
