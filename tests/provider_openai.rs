//! The OpenAI driver against the scripted provider and against raw bytes: success, every class of failure, cuts.

mod net_raw_server;
#[path = "support/port.rs"]
mod port;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use crossbeam_channel::bounded;
use kheish_daemon::clock::SystemClock;
use kheish_daemon::net::{Auth, Cancel, CredentialRefused, Net, NetConfig};
use kheish_daemon::providers::{
    Attempt, ErrorClass, Exchange, Message, Origin, PreparedTurn, ProviderError, Retry, Route, Routes, Stop, ToolCall,
    Turn, TurnEvent, TurnOptions, TurnOutcome, TurnRequest, Usage, retry_delay_ms, run_turn,
};
use kheish_daemon::scripted::{Script, ScriptedServer};
use kheish_daemon::secret::Secret;
use net_raw_server::{RawServer, read_request, wait_for_close};
use port::Port;
use serde_json::{Value, json};

/// Only a hang takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

fn server(script: &str) -> ScriptedServer {
    let script = Script::parse(script, Path::new("test.toml")).expect("valid script");
    ScriptedServer::start("127.0.0.1:0".parse().expect("address"), script).expect("server")
}

/// Resolves one route through a file, as the daemon does.
fn route(base_url: &str, more: &str) -> std::sync::Arc<Route> {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let path: PathBuf = std::env::temp_dir().join(format!("kheish-openai-{}-{number}.toml", std::process::id()));
    let text = format!(
        "[routes.main]\ndriver = \"openai\"\ndefault_model = \"m\"\nmodel_support = \"any\"\n\
         base_url = \"{base_url}\"\n{more}"
    );
    std::fs::write(&path, text).expect("scratch file");
    let routes = Routes::load(&path, None, &|_| None).expect("valid routes");
    std::fs::remove_file(&path).expect("scratch file is ours");
    routes.default_route().clone()
}

fn scripted_route(server: &ScriptedServer, more: &str) -> std::sync::Arc<Route> {
    route(&format!("http://{}/v1", server.local_addr()), more)
}

/// One client for all tests: it reads the host's CA bundle when it is made.
fn net() -> Net {
    static NET: LazyLock<Net> = LazyLock::new(|| {
        Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).expect("client")
    });
    NET.clone()
}

fn user(text: &str) -> Message {
    Message::user(text)
}

fn asks(messages: &[Message]) -> TurnRequest<'_> {
    TurnRequest {
        model: "m",
        instructions: None,
        messages,
        tools: &[],
        max_output_tokens: None,
        temperature: None,
        options: TurnOptions::default(),
    }
}

fn run_with(route: &Route, messages: &[Message], cancel: &Cancel, on_event: &mut dyn FnMut(TurnEvent<'_>)) -> Turn {
    let request = TurnRequest { instructions: Some("Be brief."), ..asks(messages) };
    let auth = Some(Auth::bearer(Secret::new(b"sk-test".to_vec())));
    run_turn(route, &request, Attempt { net: &net(), clock: &SystemClock, cancel, auth }, on_event)
}

fn run(route: &Route, input: &str) -> Result<TurnOutcome, ProviderError> {
    run_with(route, &[user(input)], &Cancel::new(), &mut |_| {}).result
}

fn requests(server: &ScriptedServer) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&server.requests_json()).expect("JSON");
    list["requests"].as_array().expect("list").clone()
}

#[test]
fn a_turn_streams_its_text_and_ends_with_items_usage_and_digests() {
    let server = server(
        "[[turn]]\ntext = 'héllo wörld \u{1f600}'\nchunk_chars = 1\nreasoning = 'b3BhcXVl'\n\
         usage = {input_tokens = 9, cached_input_tokens = 4, output_tokens = 7, reasoning_tokens = 2}",
    );
    let route = scripted_route(&server, "organization = 'org-1'\nproject = 'proj_2'\n");
    let mut preview = String::new();
    let mut events = Vec::new();
    let turn = run_with(&route, &[user("hi")], &Cancel::new(), &mut |event| match event {
        TurnEvent::Started => events.push("started"),
        TurnEvent::TextDelta(delta) => {
            events.push("delta");
            preview.push_str(delta);
        }
        TurnEvent::ReasoningDelta(_) => events.push("reasoning"),
    });
    let outcome = turn.result.expect("answer");
    assert_eq!((events[0], events.len()), ("started", 1 + 13));
    assert_eq!((preview.as_str(), outcome.text.as_str()), ("héllo wörld \u{1f600}", "héllo wörld \u{1f600}"));
    assert_eq!((outcome.stop, outcome.tool_calls.len(), outcome.items.len()), (Stop::Done, 0, 2));
    let usage =
        Usage { input_tokens: 9, cached_input_tokens: 4, cache_write_tokens: 0, output_tokens: 7, reasoning_tokens: 2 };
    assert_eq!((outcome.usage, outcome.response_id.as_deref()), (Some(usage), Some("resp_scripted_1")));
    assert_eq!(turn.exchange.http_status, Some(200));
    assert!(turn.exchange.response_bytes > 1_000 && turn.exchange.response_sha256.is_some());

    let seen = &requests(&server)[0];
    // printf %s sk-test | sha256sum
    let sha256 = "f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0";
    assert_eq!(seen["authorization"], json!({"scheme": "Bearer", "sha256": sha256}));
    assert_eq!((&seen["organization"], &seen["project"]), (&json!("org-1"), &json!("proj_2")));
    assert_eq!((&seen["method"], &seen["path"]), (&json!("POST"), &json!("/v1/responses")));
    let body = json!({
        "model": "m",
        "stream": true,
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    });
    assert_eq!(seen["body"], body);
}

#[test]
fn answers_go_back_as_received_to_the_same_route_and_model_and_as_text_to_any_other() {
    let server = server("[[turn]]\ntext = 'one'\nreasoning = 'b3BhcXVl'");
    let route = scripted_route(&server, "");
    let first = run(&route, "hi").expect("answer");
    let answer = |route: &str, model: &str| Message::Assistant {
        text: first.text.clone(),
        tool_calls: Vec::new(),
        items: first.items.clone(),
        origin: Origin { route: route.to_string(), model: model.to_string() },
    };
    let input_for = |message: Message| {
        let outcome = run_with(&route, &[user("hi"), message, user("more")], &Cancel::new(), &mut |_| {}).result;
        assert_eq!(outcome.expect("answer").text, "more");
        requests(&server).last().expect("seen")["body"]["input"].clone()
    };
    let as_received: Vec<Value> = first.items.iter().map(|it| serde_json::from_str(it.get()).expect("JSON")).collect();
    assert_eq!(as_received[0]["encrypted_content"], "b3BhcXVl");
    let input = input_for(answer("main", "m"));
    assert_eq!(input.as_array().expect("list")[1..3], as_received[..]);
    let as_text = json!({"role": "assistant", "content": [{"type": "output_text", "text": "one", "annotations": []}]});
    for message in [answer("other", "m"), answer("main", "other")] {
        let input = input_for(message);
        assert_eq!(input.as_array().expect("list").len(), 3);
        assert_eq!(input[1], as_text);
    }
}

#[test]
fn generation_settings_reach_the_provider_and_absent_ones_are_not_sent() {
    let server = server("");
    let route = scripted_route(&server, "");
    let messages = [user("hi")];
    let set = TurnRequest { max_output_tokens: Some(77), temperature: Some(0.25), ..asks(&messages) };
    for request in [set, asks(&messages)] {
        let cancel = Cancel::new();
        let attempt = Attempt { net: &net(), clock: &SystemClock, cancel: &cancel, auth: None };
        run_turn(&route, &request, attempt, &mut |_| {}).result.expect("answer");
    }
    let seen = requests(&server);
    let settings =
        |index: usize| (seen[index]["body"].get("max_output_tokens"), seen[index]["body"].get("temperature"));
    assert_eq!(settings(0), (Some(&json!(77)), Some(&json!(0.25))));
    assert_eq!(settings(1), (None, None));
}

#[test]
fn the_digest_recorded_before_sending_is_that_of_the_bytes_sent() {
    let (seen, request) = bounded(16);
    let raw = RawServer::start(move |mut stream| seen.send(read_request(&mut stream)).expect("test listens"));
    let route = route(&raw.url(), "");
    let messages = [user("hi")];
    let turn = asks(&messages);
    let prepared = PreparedTurn::new(&route, &turn).expect("fits");
    let cancel = Cancel::new();
    let attempt = Attempt { net: &net(), clock: &SystemClock, cancel: &cancel, auth: None };
    // This server closes without an answer; what it was sent is what counts.
    assert!(prepared.run(attempt, &mut |_| {}).result.is_err());
    let bytes = request.recv_timeout(PATIENCE).expect("request");
    let body = &bytes[bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("head") + 4..];
    assert_eq!(body, prepared.body());
    assert_eq!(prepared.body_sha256(), ring::digest::digest(&ring::digest::SHA256, body).as_ref());
    assert!(!String::from_utf8_lossy(&bytes).contains("authorization"), "a route without credential sends none");
}

#[test]
fn tool_calls_come_out_in_order_with_their_arguments() {
    let server = server(
        "[[turn]]\ntext = 'let me see'\ntool_calls = [{name = 'add', \
         arguments = '{\"a\":1}', call_id = 'c1'}, {name = 'now'}]",
    );
    let outcome = run(&scripted_route(&server, ""), "hi").expect("answer");
    let call = |call_id: &str, name: &str, arguments: &str| ToolCall {
        call_id: call_id.to_string(),
        name: name.to_string(),
        arguments: arguments.to_string(),
    };
    assert_eq!(outcome.tool_calls, [call("c1", "add", "{\"a\":1}"), call("call_scripted_1_1", "now", "{}")]);
    assert_eq!((outcome.text.as_str(), outcome.stop), ("let me see", Stop::ToolCalls));
}

#[test]
fn every_failure_of_a_provider_has_its_class_and_its_retry_advice() {
    use ErrorClass::*;
    let cases = [
        (
            "error = {status = 401, code = 'invalid_api_key', message = 'Incorrect API key provided: sk-te**st'}",
            Auth,
            Retry::Never,
        ),
        ("error = {status = 403}", Auth, Retry::Never),
        ("error = {status = 429, type = 'insufficient_quota'}", Quota, Retry::Never),
        ("error = {status = 429, code = 'rate_limit_exceeded', retry_after = '2'}", RateLimit, Retry::After(2_000)),
        ("error = {status = 429, retry_after_ms = 30}", RateLimit, Retry::After(30)),
        ("error = {status = 503, code = 'server_is_overloaded'}", Overload, Retry::Backoff),
        ("error = {status = 500}", Overload, Retry::Backoff),
        ("error = {status = 400, code = 'context_length_exceeded'}", ContextTooLong, Retry::Never),
        ("error = {status = 400, code = 'unknown_parameter', param = 'store'}", InvalidRequest, Retry::Never),
        ("error = {status = 302}", InvalidRequest, Retry::Never),
        ("fault = {kind = 'failed', code = 'rate_limit_exceeded'}", RateLimit, Retry::Backoff),
        ("fault = {kind = 'failed'}", Overload, Retry::Backoff),
        ("fault = {kind = 'failed', code = 'bio_policy'}", ContentFilter, Retry::Never),
        ("fault = {kind = 'error_event', code = 'insufficient_quota'}", Quota, Retry::Never),
        ("fault = {kind = 'incomplete', code = 'content_filter'}", ContentFilter, Retry::Never),
        ("fault = {kind = 'malformed', after_frames = 3}", MalformedStream, Retry::Backoff),
        ("fault = {kind = 'truncate'}", MalformedStream, Retry::Backoff),
        ("fault = {kind = 'disconnect', after_frames = 5}", MalformedStream, Retry::Backoff),
        ("fault = {kind = 'disconnect', after_bytes = 0}", MalformedStream, Retry::Backoff),
    ];
    let script: String = cases.iter().map(|(turn, ..)| format!("[[turn]]\n{turn}\n")).collect();
    let server = server(&script);
    let route = scripted_route(&server, "");
    for (turn, class, retry) in cases {
        let error = run(&route, "hi").expect_err(turn);
        assert_eq!((error.class, error.retry), (class, retry), "{turn}: {error}");
        let text = error.to_string();
        assert!(text.contains("; next: ") && !text.contains("sk-te"), "{text}");
    }
    // The list of cases was used up in step with the requests.
    assert_eq!(run(&route, "echo").expect("answer").text, "echo");
}

#[test]
fn no_connection_is_a_network_failure_and_a_refused_credential_an_auth_failure() {
    let port = Port::reserve();
    let error = run(&route(&format!("http://{}", port.address()), ""), "hi").expect_err("nobody listens");
    assert_eq!((error.class, error.retry), (ErrorClass::Network, Retry::Backoff), "{error}");

    let server = server("");
    let route = scripted_route(&server, "");
    let refused = || Err(CredentialRefused { reason: "lease revoked; next: set the slot again".to_string() });
    let (messages, cancel) = ([user("hi")], Cancel::new());
    let request = asks(&messages);
    let auth = Some(Auth::bearer_from(refused));
    let turn =
        run_turn(&route, &request, Attempt { net: &net(), clock: &SystemClock, cancel: &cancel, auth }, &mut |_| {});
    let error = turn.result.expect_err("refused");
    assert_eq!((error.class, error.retry), (ErrorClass::Auth, Retry::Never), "{error}");
    assert!(error.to_string().contains("lease revoked; next: set the slot again"), "{error}");
    assert_eq!((turn.exchange, requests(&server).len()), (Exchange::default(), 0));
}

#[test]
fn an_answer_cut_by_the_length_limit_is_an_answer() {
    let server = server("[[turn]]\ntext = 'half'\nfault = {kind = 'incomplete'}");
    let outcome = run(&scripted_route(&server, ""), "hi").expect("answer");
    assert_eq!((outcome.text.as_str(), outcome.stop), ("half", Stop::Length));
}

#[test]
fn a_rate_limit_is_retried_and_a_quota_stop_is_not() {
    let server = server(
        "[[turn]]\nmatch = 'rate'\ntimes = 2\nerror = {status = 429, retry_after_ms = 1}\n\
         [[turn]]\nmatch = 'quota'\nerror = {status = 429, code = 'insufficient_quota'}",
    );
    let route = scripted_route(&server, "");
    let cancel = Cancel::new();
    let attempts = |input: &str| {
        for attempt in 1.. {
            match run(&route, input) {
                Ok(outcome) => return (attempt, Ok(outcome.text)),
                Err(error) => match retry_delay_ms(attempt, &error, 0) {
                    Some(ms) => assert!(!cancel.wait(Duration::from_millis(ms))),
                    None => return (attempt, Err(error.class)),
                },
            }
        }
        unreachable!("the policy ends every series")
    };
    assert_eq!(attempts("rate"), (3, Ok("rate".to_string())));
    assert_eq!(attempts("quota"), (1, Err(ErrorClass::Quota)));
    assert_eq!(requests(&server).len(), 4);
}

#[test]
fn a_stream_cut_anywhere_before_its_last_event_is_never_an_answer() {
    let turn = "text = 'some text'\nchunk_chars = 3\n";
    // How long the whole stream is, is known by asking for it.
    let whole = server(&format!("[[turn]]\n{turn}"));
    let route_whole = scripted_route(&whole, "");
    let complete = run_with(&route_whole, &[user("hi")], &Cancel::new(), &mut |_| {});
    assert_eq!(complete.result.expect("answer").text, "some text");
    let bytes = complete.exchange.response_bytes as usize;
    // Every byte of the last event, and samples before it (a prime step meets every position within a frame).
    let last_event = bytes - 700;
    let cuts: Vec<usize> = (0..last_event).step_by(31).chain(last_event..bytes).collect();
    let script: String = cuts
        .iter()
        .map(|cut| format!("[[turn]]\n{turn}fault = {{kind = 'disconnect', after_bytes = {cut}}}\n"))
        .collect();
    // The terminal event itself is what the fault leaves out, so the cut streams are prefixes of a prefix.
    let server = server(&script);
    let route = scripted_route(&server, "");
    for cut in cuts {
        let error = run(&route, "hi").expect_err("cut");
        assert_eq!((error.class, error.is_truncation()), (ErrorClass::MalformedStream, true), "cut at {cut}: {error}");
    }
}

/// A whole stream with its terminal event, as bytes of an HTTP answer.
fn whole_answer(text: &str) -> Vec<u8> {
    let item = json!({"type": "message", "content": [{"type": "output_text", "text": text}]});
    let frames = [
        json!({"type": "response.created", "response": {}}),
        json!({"type": "response.output_text.delta", "output_index": 0, "delta": text}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": "r"}}),
    ];
    let body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn an_answer_that_trickles_in_byte_by_byte_is_the_same_answer() {
    let answer = whole_answer("é\u{1f600}\u{2028}");
    let raw = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        for byte in &answer {
            stream.write_all(std::slice::from_ref(byte)).expect("written");
        }
    });
    assert_eq!(run(&route(&raw.url(), ""), "hi").expect("answer").text, "é\u{1f600}\u{2028}");
}

#[test]
fn every_cut_of_the_terminal_frame_is_a_truncation() {
    let answer = whole_answer("text");
    let terminal = answer.windows(18).rposition(|it| it == b"response.completed").expect("terminal event");
    for cut in terminal..answer.len() {
        let raw = RawServer::answering(&answer[..cut]);
        let outcome = run(&route(&raw.url(), ""), "hi");
        // The last byte cut off is the frame's closing line end.
        let error = outcome.expect_err("cut");
        assert!(error.is_truncation(), "cut {} bytes early: {error}", answer.len() - cut);
    }
}

#[test]
fn an_endless_frame_is_refused() {
    let raw = RawServer::start(|mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ").expect("written");
        let block = [b'x'; 64 * 1024];
        while stream.write_all(&block).is_ok() {}
    });
    let error = run(&route(&raw.url(), ""), "hi").expect_err("too large");
    assert_eq!(
        (error.class, error.code.as_deref()),
        (ErrorClass::MalformedStream, Some("stream_malformed")),
        "{error}"
    );
    assert!(error.to_string().contains("8388608 bytes"), "{error}");
}

#[test]
fn an_answer_that_is_no_event_stream_is_malformed_unless_it_names_an_error() {
    let answer = |content_type: &str, body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
        let raw = RawServer::answering(format!("{head}{body}"));
        run(&route(&raw.url(), ""), "hi").expect_err("no answer")
    };
    assert_eq!(answer("text/html", "<html>login</html>").class, ErrorClass::MalformedStream);
    assert_eq!(answer("application/json", "{\"status\":\"completed\"}").class, ErrorClass::MalformedStream);
    assert_eq!(answer("application/json", "{\"error\":{\"code\":\"invalid_api_key\"}}").class, ErrorClass::Auth);
    assert_eq!(answer("text/event-stream", "data: [DONE]\n\n").class, ErrorClass::MalformedStream);
    assert_eq!(answer("text/event-stream", "data: \u{fffd}").class, ErrorClass::MalformedStream);
}

#[test]
fn a_silent_stream_ends_at_its_idle_limit_and_a_cancelled_one_at_once() {
    let server = server("[[turn]]\ntext = 'x'\nfault = {kind = 'hang', after_frames = 6}\ntimes = 2");
    let error = run(&scripted_route(&server, "idle_timeout_ms = 60\n"), "hi").expect_err("hangs");
    assert_eq!((error.class, error.retry), (ErrorClass::Timeout, Retry::Backoff), "{error}");
    assert!(error.to_string().contains("idle_timeout_ms"), "{error}");

    let cancel = Cancel::new();
    let (done, ended) = bounded(16);
    let (delta, seen) = bounded(16);
    let worker = std::thread::spawn({
        let (cancel, route) = (cancel.clone(), scripted_route(&server, "idle_timeout_ms = 3600000\n"));
        move || {
            let turn = run_with(&route, &[user("hi")], &cancel, &mut |event| {
                if matches!(event, TurnEvent::TextDelta(_)) {
                    delta.send(()).expect("test listens");
                }
            });
            done.send(turn.result.map(|outcome| outcome.text)).expect("test listens");
        }
    });
    seen.recv_timeout(PATIENCE).expect("the stream has begun");
    cancel.cancel();
    let error = ended.recv_timeout(PATIENCE).expect("ended").expect_err("cancelled");
    assert_eq!((error.class, error.retry), (ErrorClass::Cancelled, Retry::Never));
    worker.join().expect("worker");
}

#[test]
fn a_provider_that_never_answers_ends_at_the_limit_for_the_first_byte() {
    let raw = RawServer::start(|mut stream| wait_for_close(&mut stream));
    let error = run(&route(&raw.url(), "first_byte_timeout_ms = 60\n"), "hi").expect_err("silent");
    assert_eq!(error.class, ErrorClass::Timeout);
    assert!(error.to_string().contains("first_byte_timeout_ms"), "{error}");
}

#[test]
fn a_conversation_over_the_request_limit_is_refused_before_anything_is_sent() {
    let server = server("");
    let messages = [user(&"x".repeat(32 * 1024 * 1024))];
    let turn = run_with(&scripted_route(&server, ""), &messages, &Cancel::new(), &mut |_| {});
    assert_eq!(turn.result.expect_err("too large").class, ErrorClass::ContextTooLong);
    assert_eq!(requests(&server).len(), 0);
}
