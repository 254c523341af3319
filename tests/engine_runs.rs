//! Runs from their submission to their end: engine, core, journal, broker and network client together, against the
//! scripted provider and servers of raw bytes. Only the disk is a fake one.

mod net_raw_server;
mod sse_support;
mod state_root_scratch;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use kheish_daemon::api::events::Events;
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::broker::{Broker, BrokerHandle, Provider, Store};
use kheish_daemon::clock::Clock;
use kheish_daemon::commit::{CommandError, CommitLoop, CoreHandle, Effects, Parts, Restored, Snapshotter};
use kheish_daemon::core::{Command, Decision, RunStatus};
use kheish_daemon::engine::{Engine, Stops, Tools};
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::journal::fake_disk::{FakeDisk, FaultMode, Op};
use kheish_daemon::journal::{Journal, Options, Reader};
use kheish_daemon::net::{Net, NetConfig};
use kheish_daemon::providers::Routes;
use kheish_daemon::scripted::{Script, ScriptedServer};
use kheish_daemon::sse::{Hub, Log, Scope, StreamSpec};
use kheish_daemon::worker::Worker;
use net_raw_server::{RawServer, read_request, wait_for_close};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sse_support::{Client, HEARTBEAT, calm, pair};
use state_root_scratch::{KEY, Scratch, key, record};

/// Only a hang takes as long.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "sk-live-secret-0123456789";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// The route's credential comes from the slot that holds [`SECRET`].
const FROM_SLOT: &str = "auth_ref = 'openai.test'";

/// Rings whenever something was committed.
#[derive(Default)]
struct Bell {
    rings: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    /// Looks again at each ring, and now and then for what rings no bell.
    fn wait_until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Not held while looking: the core rings, and whoever looks may wait for the core.
            let before = *self.rings.lock().unwrap();
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            let rings = self.rings.lock().unwrap();
            let again = Duration::from_millis(20);
            drop(self.changed.wait_timeout_while(rings, again, |rings| *rings == before).unwrap());
        }
    }
}

/// What happens the next time that the engine asks for the time.
type Hook = Box<dyn FnOnce() + Send>;

/// The engine's clock. It asks once for a lease, and once when the lease is exchanged for the secret.
#[derive(Default)]
struct EngineClock {
    asked: AtomicU64,
    at_exchange: Mutex<Option<Hook>>,
}

impl Clock for EngineClock {
    fn now_ms(&self) -> u64 {
        if self.asked.fetch_add(1, Ordering::SeqCst) % 2 == 1
            && let Some(hook) = self.at_exchange.lock().unwrap().take()
        {
            hook();
        }
        1_764_057_600_000
    }
}

struct World {
    disk: FakeDisk,
    core: CoreHandle,
    reader: Reader,
    hub: Hub,
    stops: Stops,
    broker: Option<Broker>,
    secrets: BrokerHandle,
    clock: Arc<EngineClock>,
    bell: Arc<Bell>,
    workers: Vec<Worker>,
    _scratch: Scratch,
}

impl World {
    /// One engine, so that a run that does not let go of it is noticed.
    fn new(base_url: &str, credential: &str) -> Self {
        let scratch = Scratch::new();
        let root = scratch.open_root();
        let file = scratch.path().join("routes.toml");
        let route = format!(
            "[routes.main]\ndriver = 'openai'\ndefault_model = 'm'\nmodel_support = 'any'\n\
             base_url = '{base_url}'\n{credential}\n"
        );
        std::fs::write(&file, route).unwrap();
        let routes = Routes::load(&file, None, &|_| None).unwrap();
        let foreign = routes.inline_secrets().collect();
        let broker = Broker::start(Store::open(&root, key(KEY)).unwrap(), foreign).unwrap();
        let secrets = broker.handle();
        secrets.put(record("openai.test", Provider::OpenAi, SECRET)).unwrap();

        let disk = FakeDisk::new(1);
        let clock = Arc::new(EngineClock::default());
        let mut restored = Restored::default();
        let signer = Arc::new(SigningKey::from_seed(&[7; 32]));
        let opened = Journal::open(
            disk.handle(),
            disk.snapshots(),
            Options::default(),
            signer,
            1_764_057_600_000,
            &mut restored,
        );
        let (journal, _) = opened.unwrap();
        let mut state = restored.state;
        state.open_epoch(journal.epoch());
        state.finish_replay();
        let reader = journal.reader();
        let log: Arc<dyn Log> = Arc::new(reader.clone());
        let hub = Hub::start(log.clone(), Arc::new(Events::new(log)), &calm()).unwrap();
        let (stops, bell) = (Stops::default(), Arc::new(Bell::default()));
        let (snapshotter, snapshots) = Snapshotter::new();
        let (wake, ring, stop) = (hub.clone(), bell.clone(), stops.clone());
        let (core_loop, core) = CommitLoop::new(Parts {
            state,
            journal,
            clock: Arc::new(kheish_daemon::clock::SystemClock),
            effects: Effects {
                stop_task: Box::new(|_, _| {}),
                committed: Box::new(move || {
                    wake.committed();
                    ring.ring();
                }),
                stopped: Box::new(move |run| stop.stop(run)),
            },
            snapshots,
            snapshot_interval_records: u64::MAX,
            records_since_snapshot: 0,
        });
        let engine = Engine::new(Tools {
            core: core.clone(),
            reader: reader.clone(),
            broker: secrets.clone(),
            routes: Some(Arc::new(routes)),
            net: Net::new(&NetConfig { ca_file: None, resolver_threads: 1 }).unwrap(),
            hub: hub.clone(),
            stops: stops.clone(),
            clock: clock.clone(),
        });
        let workers = vec![
            Worker::spawn("core", move || core_loop.run().unwrap()).unwrap(),
            Worker::spawn("engine", move || engine.run()).unwrap(),
            Worker::spawn("snapshot", move || snapshotter.run()).unwrap(),
        ];
        let this = Self {
            disk,
            core,
            reader,
            hub,
            stops,
            broker: Some(broker),
            secrets,
            clock,
            bell,
            workers,
            _scratch: scratch,
        };
        this.core.execute(Command::CreateSession { id: session(), thread_id: None }).unwrap();
        this
    }

    fn scripted(server: &ScriptedServer, credential: &str) -> Self {
        Self::new(&format!("http://{}/v1", server.local_addr()), credential)
    }

    fn submit(&self, content: &str) -> RunId {
        self.submit_request(json!({"content": content, "source_plugin": "daemon", "source_kind": "api"}))
    }

    fn submit_request(&self, request: Value) -> RunId {
        let decision = self.core.execute(Command::SubmitRun {
            session: session(),
            request: RawValue::from_string(request.to_string()).unwrap(),
            route: "main".to_string(),
            model: "m".to_string(),
            idempotency: None,
        });
        match decision {
            Ok(Decision::Accepted { run, .. }) => run,
            other => panic!("{other:?}"),
        }
    }

    fn wait_for(&self, run: RunId, status: RunStatus) {
        let found = self.bell.wait_until("the run's end", || {
            let status = self.core.run(run).unwrap().unwrap().status;
            status.is_terminal().then_some(status)
        });
        assert_eq!(found, status, "{:#?}", self.records(run));
    }

    /// The run's records, oldest first: kind and body.
    fn records(&self, run: RunId) -> Vec<(String, Value)> {
        let mut records = Vec::new();
        let mut seq = self.core.run(run).unwrap().unwrap().last_seq;
        while seq != 0 {
            let record = self.reader.read(seq).unwrap();
            seq = record.run_prev;
            records.push((record.kind, serde_json::from_str(record.body.get()).unwrap()));
        }
        records.reverse();
        records
    }

    fn kinds(&self, run: RunId) -> Vec<String> {
        self.records(run).into_iter().map(|(kind, _)| kind).collect()
    }

    fn bodies(&self, run: RunId, wanted: &str) -> Vec<Value> {
        self.records(run).into_iter().filter(|(kind, _)| kind == wanted).map(|(_, body)| body).collect()
    }

    fn output(&self, run: RunId) -> Vec<Value> {
        self.bodies(run, "run.output").into_iter().map(|body| body["output"]["content"].clone()).collect()
    }

    /// The failure in `run.failed`: code and message.
    fn failure(&self, run: RunId) -> (String, String) {
        let failed = self.bodies(run, "run.failed");
        let text = |key: &str| failed[0]["error"][key].as_str().unwrap().to_string();
        (text("code"), text("message"))
    }

    /// Everything that was ever written.
    fn journal_text(&self) -> String {
        let records = self.reader.scan(self.reader.floor(), usize::MAX).unwrap();
        records.iter().map(|record| record.body.get()).collect()
    }

    fn stream(&self) -> Client {
        let (mut client, outlet) = pair(None);
        let seat = self.hub.try_reserve().unwrap();
        self.hub.accept(seat, outlet, StreamSpec::new(Scope::Session(session()), None));
        // Previews are for those who are up to date, which the first heartbeat tells.
        assert_eq!(client.frame(), HEARTBEAT);
        client
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.disk.heal();
        self.core.stop();
        self.stops.stop_all();
        for worker in self.workers.drain(..) {
            if let Err(panicked) = worker.join() {
                eprintln!("{panicked}");
            }
        }
        let _stopped = self.hub.stop();
        if let Some(broker) = self.broker.take() {
            let _stopped = broker.stop();
        }
    }
}

fn session() -> SessionId {
    SessionId::parse("s").unwrap()
}

fn server(script: &str) -> ScriptedServer {
    let script = Script::parse(script, Path::new("test.toml")).expect("valid script");
    ScriptedServer::start("127.0.0.1:0".parse().expect("address"), script).expect("server")
}

fn requests(server: &ScriptedServer) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&server.requests_json()).expect("JSON");
    list["requests"].as_array().expect("list").clone()
}

/// Text of previews until the run's output or end, and what ended it.
fn previews(client: &mut Client) -> (Vec<String>, String) {
    let mut texts = Vec::new();
    loop {
        let frame = client.event();
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_string();
        match field("event: ").as_str() {
            "preview" => {
                let data: Value = serde_json::from_str(&field("data: ")).unwrap();
                texts.push(data["text"].as_str().unwrap().to_string());
            }
            "output" | "run.failed" | "run.cancelled" => return (texts, frame),
            _ => {}
        }
    }
}

/// A streamed answer in parts: `events` of the Responses API as SSE frames.
fn frames(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn message_item(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

const ONE_CALL: [&str; 7] = [
    "run.accepted",
    "run.started",
    "external_action.request",
    "external_action.response",
    "message.appended",
    "run.output",
    "run.completed",
];

#[test]
fn the_second_run_of_a_session_is_asked_with_the_first_exchange_and_its_own_settings() {
    let server = server("[[turn]]\nmatch = 'first'\ntext = 'one'\n[[turn]]\nmatch = 'second'\ntext = 'two'");
    let world = World::scripted(&server, FROM_SLOT);
    let first = world.submit("the first");
    let second = world.submit_request(json!({"content": "the second", "max_output_tokens": 99, "temperature": 0.5}));
    world.wait_for(second, RunStatus::Completed);
    assert_eq!(
        (world.kinds(first), world.kinds(second)),
        (ONE_CALL.map(String::from).to_vec(), ONE_CALL.map(String::from).to_vec())
    );
    assert_eq!((world.output(first), world.output(second)), (vec![json!("one")], vec![json!("two")]));
    let seen = requests(&server);
    let user = |text: &str| json!({"role": "user", "content": [{"type": "input_text", "text": text}]});
    assert_eq!(seen[0]["body"]["input"], json!([user("the first")]));
    assert_eq!(seen[0]["body"].get("temperature"), None);
    let input = seen[1]["body"]["input"].as_array().unwrap();
    assert_eq!((input.len(), &input[0], &input[2]), (3, &user("the first"), &user("the second")));
    assert_eq!((&input[1]["type"], &input[1]["content"][0]["text"]), (&json!("message"), &json!("one")));
    assert_eq!((&seen[1]["body"]["max_output_tokens"], &seen[1]["body"]["temperature"]), (&json!(99), &json!(0.5)));
}

#[test]
fn a_refused_attempt_is_tried_again_and_both_are_recorded_with_one_output() {
    let server = server(
        "[[turn]]\nmatch = 'busy'\ntimes = 1\nerror = {status = 429, retry_after_ms = 1}\n\
         [[turn]]\nmatch = 'busy'\ntext = 'now'",
    );
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("busy");
    world.wait_for(run, RunStatus::Completed);
    let mut kinds = ONE_CALL.to_vec();
    kinds.splice(2..2, ["external_action.request", "external_action.response"]);
    assert_eq!(world.kinds(run), kinds);
    let (asked, answered) =
        (world.bodies(run, "external_action.request"), world.bodies(run, "external_action.response"));
    let outcomes: Vec<_> =
        answered.iter().map(|it| (&it["action"], &it["outcome"], &it["http_status"], &it["error"])).collect();
    assert_eq!(
        outcomes,
        [
            (&json!(1), &json!("failed"), &json!(429), &json!("provider_rate_limit")),
            (&json!(2), &json!("succeeded"), &json!(200), &Value::Null)
        ]
    );
    assert_eq!((&asked[0]["action"], &asked[1]["action"]), (&json!(1), &json!(2)));
    assert_eq!(asked[0]["request_digest"], asked[1]["request_digest"], "the same request");
    assert_ne!(asked[0]["lease"], asked[1]["lease"], "each attempt has its own lease");
    assert_eq!(world.output(run), [json!("now")]);
    // The broker is told without being waited for.
    world.bell.wait_until("every lease given back", || (world.secrets.stats().lease_count == 0).then_some(()));
}

#[test]
fn a_stream_that_breaks_after_text_is_asked_again_and_the_output_has_the_text_once() {
    let server = server(
        "[[turn]]\nmatch = 'break'\ntimes = 1\ntext = 'some text'\nchunk_chars = 3\nfault = {kind = 'disconnect', after_frames = 6}\n\
         [[turn]]\nmatch = 'break'\ntext = 'some text'\nchunk_chars = 3",
    );
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("break");
    let (texts, _) = previews(&mut client);
    world.wait_for(run, RunStatus::Completed);
    assert_eq!(texts, ["som", "e t", "som", "e t", "ext"], "what was shown and broke off is shown anew");
    assert_eq!(world.output(run), [json!("some text")]);
    let answered = world.bodies(run, "external_action.response");
    let ends: Vec<_> = answered.iter().map(|it| (&it["outcome"], &it["error"])).collect();
    assert_eq!(ends, [(&json!("failed"), &json!("provider_malformed_stream")), (&json!("succeeded"), &Value::Null)]);
}

#[test]
fn a_refused_credential_fails_the_run_at_once_and_shows_no_secret() {
    let message = format!("Incorrect API key provided: {SECRET}");
    let server =
        server(&format!("[default]\nerror = {{status = 401, code = 'invalid_api_key', message = '{message}'}}"));
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    let (code, message) = world.failure(run);
    assert_eq!(code, "provider_auth");
    assert!(message.contains("HTTP 401") && message.contains("; next: "), "{message}");
    assert_eq!(requests(&server).len(), 1, "asked again with a refused key");
    assert!(!world.journal_text().contains(SECRET));
}

#[test]
fn a_slot_overwritten_before_the_call_is_sent_ends_its_lease_and_nothing_is_sent() {
    let server = server("");
    let world = World::scripted(&server, FROM_SLOT);
    let secrets = world.secrets.clone();
    *world.clock.at_exchange.lock().unwrap() = Some(Box::new(move || {
        secrets.put(record("openai.test", Provider::OpenAi, "sk-another-secret")).unwrap();
    }));
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    let (code, message) = world.failure(run);
    assert_eq!(code, "provider_auth");
    assert!(message.contains("openai.test") && message.contains("; next: "), "{message}");
    assert_eq!(requests(&server), Vec::<Value>::new());
    let answered = world.bodies(run, "external_action.response");
    assert_eq!((answered.len(), &answered[0]["outcome"], answered[0].get("http_status")), (1, &json!("failed"), None));
    // The next run takes a lease for the new secret.
    let next = world.submit("again");
    world.wait_for(next, RunStatus::Completed);
}

#[test]
fn a_cancelled_run_lets_go_of_a_hanging_stream_and_of_its_engine() {
    let server =
        server("[[turn]]\nmatch = 'hang'\ntext = 'abcdef'\nchunk_chars = 3\nfault = {kind = 'hang', after_frames = 5}");
    let world = World::scripted(&server, FROM_SLOT);
    let mut client = world.stream();
    let run = world.submit("hang");
    let behind = world.submit("behind");
    while !client.event().contains("event: preview") {}
    let decision = world.core.execute(Command::CancelRun { run, reason: Some("enough".to_string()) });
    assert_eq!(decision, Ok(Decision::Run { run, status: RunStatus::Cancelled, changed: true }));
    world.wait_for(behind, RunStatus::Completed);
    assert_eq!(
        world.kinds(run),
        ["run.accepted", "run.started", "external_action.request", "external_action.response", "run.cancelled"]
    );
    let closing = &world.bodies(run, "external_action.response")[0];
    assert_eq!((&closing["outcome"], &closing["cause"]), (&json!("unknown"), &json!("run_cancelled")));
    assert_eq!(world.bodies(run, "run.cancelled")[0]["reason"], json!("enough"));
    world.bell.wait_until("an idle engine", || world.stops.is_empty().then_some(()));
}

#[test]
fn a_model_that_asks_for_tools_fails_its_run_and_does_not_break_the_session() {
    let server = server("[[turn]]\nmatch = 'tool'\ntext = 'let me'\ntool_calls = [{name = 'add'}]");
    let world = World::scripted(&server, FROM_SLOT);
    let run = world.submit("tool");
    world.wait_for(run, RunStatus::Failed);
    assert_eq!(world.failure(run).0, "tools_unavailable");
    assert_eq!(world.output(run), [json!("let me")]);
    let next = world.submit("go on");
    world.wait_for(next, RunStatus::Completed);
    let seen = requests(&server);
    let user = |text: &str| json!({"role": "user", "content": [{"type": "input_text", "text": text}]});
    assert_eq!(
        seen[1]["body"]["input"],
        json!([user("tool"), user("go on")]),
        "a call without its result was replayed"
    );
}

#[test]
fn an_answer_that_no_batch_can_hold_fails_its_run_and_stays_recorded_as_received() {
    // Four copies of it must be written; each item stays below the bound of a frame.
    let item = message_item(&"x".repeat(6 * 1024 * 1024)).to_string();
    let raw = RawServer::start(move |mut stream| {
        read_request(&mut stream);
        let mut answer = STREAM_HEAD.to_string();
        for index in 0..3 {
            answer += &format!(
                "data: {{\"type\":\"response.output_item.done\",\"output_index\":{index},\"item\":{item}}}\n\n"
            );
        }
        answer += &frames(&[json!({"type": "response.completed", "response": {"id": "resp_1"}})]);
        stream.write_all(answer.as_bytes()).expect("the client reads it all");
    });
    let world = World::new(&raw.url(), "");
    let run = world.submit("hi");
    world.wait_for(run, RunStatus::Failed);
    assert_eq!(world.failure(run).0, "record_too_large");
    assert_eq!(
        world.kinds(run),
        ["run.accepted", "run.started", "external_action.request", "external_action.response", "run.failed"]
    );
    assert_eq!(world.bodies(run, "external_action.response")[0]["response_id"], json!("resp_1"));
}

/// An answer was paid for and then lost, or its run left without an engine, when the disk refused it once.
#[test]
fn an_answer_that_the_disk_refuses_is_kept_until_it_takes_it() {
    for (errno, mode) in [(ENOSPC, FaultMode::ForGood), (EIO, FaultMode::Once)] {
        let (go, gate) = bounded::<()>(1);
        let raw = RawServer::start(move |mut stream| {
            read_request(&mut stream);
            let delta = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "answer"});
            stream.write_all((STREAM_HEAD.to_string() + &frames(&[delta])).as_bytes()).unwrap();
            gate.recv().unwrap();
            let item = json!({"type": "response.output_item.done", "output_index": 0, "item": message_item("answer")});
            let done = json!({"type": "response.completed", "response": {}});
            stream.write_all(frames(&[item, done]).as_bytes()).unwrap();
            wait_for_close(&mut stream);
        });
        let world = World::new(&raw.url(), "");
        let mut client = world.stream();
        let run = world.submit("hi");
        while !client.event().contains("event: preview") {}
        world.disk.fail_ops_at(&[Op::Write], 1, errno, mode);
        go.send(()).unwrap();
        let refusal = world.bell.wait_until("a refusal", || world.core.view().refusing.clone());
        assert_eq!(matches!(refusal, CommandError::StorageFull { .. }), errno == ENOSPC, "{refusal}");
        assert_eq!(world.core.run(run).unwrap().unwrap().status, RunStatus::Running);
        world.disk.heal();
        world.wait_for(run, RunStatus::Completed);
        assert_eq!((world.kinds(run), raw.connections()), (ONE_CALL.map(String::from).to_vec(), 1), "asked again");
        assert_eq!(world.core.view().poisoned, None);
    }
}

#[test]
fn a_secret_that_a_model_repeats_reaches_neither_journal_nor_stream() {
    // The second one stands in the routes file alone, and no slot has ever held it.
    let inline = "sk-inline-secret-987654321";
    for (secret, credential) in [(SECRET, FROM_SLOT.to_string()), (inline, format!("api_key = '{inline}'"))] {
        let server = server(&format!(
            "[default]\ntext = 'the key is {secret}, really'\nreasoning = 'r {secret}'\nchunk_chars = 4"
        ));
        let world = World::scripted(&server, &credential);
        let mut client = world.stream();
        let run = world.submit("what is the key?");
        let (texts, frame) = previews(&mut client);
        world.wait_for(run, RunStatus::Completed);
        assert_eq!(requests(&server)[0]["authorization"]["scheme"], "Bearer");
        let hidden = "the key is <redacted>, really";
        assert_eq!(texts.concat(), hidden, "{texts:?}");
        assert!(frame.contains(hidden) && !frame.contains(secret), "{frame}");
        assert_eq!(world.output(run), [json!(hidden)]);
        let message = &world.bodies(run, "message.appended")[0];
        assert_eq!(message["items"][0]["encrypted_content"], "r <redacted>");
        assert_eq!(message["items"][1]["content"][0]["text"], hidden);
        let written = world.journal_text();
        assert!(!written.contains(secret) && !written.contains(&secret[3..]), "{written}");
    }
}

/// Runs were failed for good as `provider_auth` in the moment between the broker's end and the daemon's.
#[test]
fn without_its_broker_an_engine_leaves_runs_to_the_next_start() {
    let server = server("");
    let mut world = World::scripted(&server, FROM_SLOT);
    world.broker.take().unwrap().stop().unwrap();
    let run = world.submit("hi");
    world.bell.wait_until("the engine has met the run and let go", || {
        (world.clock.asked.load(Ordering::SeqCst) > 0 && world.stops.is_empty()).then_some(())
    });
    assert_eq!(world.kinds(run), ["run.accepted", "run.started"]);
}
