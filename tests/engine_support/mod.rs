//! Engine, core, journal, broker and network client together, on a fake disk that can be opened again.
#![allow(dead_code)] // each test file uses its part

pub mod model;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kheish_daemon::api::events::Events;
use kheish_daemon::audit::key::SigningKey;
use kheish_daemon::blobs::Blobs;
use kheish_daemon::broker::{Broker, BrokerHandle, Provider, Store};
use kheish_daemon::clock::Clock;
use kheish_daemon::commit::{CommitLoop, CoreHandle, Effects, Parts, Restored, Snapshotter};
use kheish_daemon::core::{Command, Decision, RunStatus};
use kheish_daemon::engine::{AgentTools, CoreSettings, Engine, InForce, Lanes, Settings, Stops, Toolbox, Tools};
use kheish_daemon::ids::{RunId, SessionId};
use kheish_daemon::journal::fake_disk::FakeDisk;
use kheish_daemon::journal::{Journal, Options, Reader};
use kheish_daemon::net::{Net, NetConfig};
use kheish_daemon::providers::Routes;
use kheish_daemon::scripted::{Script, ScriptedServer};
use kheish_daemon::sse::{Hub, Log, Scope, StreamSpec};
use kheish_daemon::worker::Worker;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::sse_support::{Client, HEARTBEAT, calm, pair};
use crate::state_root_scratch::{KEY, Scratch, key, record, start_broker_with};

/// Only a hang takes as long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SECRET: &str = "sk-live-secret-0123456789";
pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;
/// The route's credential comes from the slot that holds [`SECRET`].
pub const FROM_SLOT: &str = "auth_ref = 'openai.test'";

/// Rings whenever something was committed.
#[derive(Default)]
pub struct Bell {
    rings: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    /// Looks again at each ring, and now and then for what rings no bell.
    pub fn wait_until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
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
pub type Hook = Box<dyn FnOnce() + Send>;

/// The engine's clock. It asks once for a lease, and once when the lease is exchanged for the secret.
#[derive(Default)]
pub struct EngineClock {
    pub asked: AtomicU64,
    pub at_exchange: Mutex<Option<Hook>>,
    /// It is the core's clock as well.
    pub is_real: bool,
}

impl Clock for EngineClock {
    fn now_ms(&self) -> u64 {
        if self.asked.fetch_add(1, Ordering::SeqCst) % 2 == 1
            && let Some(hook) = self.at_exchange.lock().unwrap().take()
        {
            hook();
        }
        if self.is_real {
            return kheish_daemon::clock::SystemClock.now_ms();
        }
        1_764_057_600_000
    }
}

pub struct World {
    pub disk: FakeDisk,
    pub core: CoreHandle,
    pub reader: Reader,
    pub hub: Hub,
    pub stops: Stops,
    pub broker: Option<Broker>,
    pub secrets: BrokerHandle,
    pub clock: Arc<EngineClock>,
    pub bell: Arc<Bell>,
    pub workers: Vec<Worker>,
    pub blobs: Blobs,
    pub _scratch: Scratch,
}

impl World {
    /// One engine, so that a run that does not let go of it is noticed; without tools.
    pub fn new(base_url: &str, credential: &str) -> Self {
        Self::open(base_url, credential, FakeDisk::new(1), Toolbox::none(), Arc::new(InForce::default()))
    }

    /// The same on a disk that may hold an earlier life.
    pub fn open(
        base_url: &str,
        credential: &str,
        disk: FakeDisk,
        toolbox: Toolbox,
        settings: Arc<dyn Settings>,
    ) -> Self {
        Self::start(base_url, credential, disk, settings, EngineClock::default(), |_, _| toolbox)
    }

    /// With the tools of agents, real settings, and one clock.
    pub fn with_agents(base_url: &str, credential: &str, disk: FakeDisk, toolbox: Toolbox) -> Self {
        let clock = EngineClock { is_real: true, ..EngineClock::default() };
        // Asked once the core is there.
        Self::start(base_url, credential, disk, Arc::new(InForce::default()), clock, |core, reader| {
            toolbox.with_room(Arc::new(AgentTools::new(core.clone(), reader.clone())))
        })
    }

    fn start(
        base_url: &str,
        credential: &str,
        disk: FakeDisk,
        settings: Arc<dyn Settings>,
        clock: EngineClock,
        toolbox: impl FnOnce(&CoreHandle, &Reader) -> Toolbox,
    ) -> Self {
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
        let broker = start_broker_with(&root, Store::open(&root, key(KEY)).unwrap(), foreign);
        let secrets = broker.handle();
        secrets.put(record("openai.test", Provider::OpenAi, SECRET)).unwrap();

        let clock = Arc::new(clock);
        let is_real = clock.is_real;
        let mut restored = Restored::default();
        let signer = Arc::new(SigningKey::from_seed(&[7; 32]));
        let opened = Journal::open(
            disk.handle(),
            disk.snapshots(),
            // The unused rest of a segment is read at each start, which takes a debug build half a second where it is 64 MiB.
            Options { segment_bytes: 1024 * 1024, ..Options::default() },
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
                acted: Box::new(|_| {}),
            },
            answers: None,
            snapshots,
            snapshot_interval_records: u64::MAX,
            records_since_snapshot: 0,
        });
        let blobs = Blobs::open(scratch.path().join("blobs")).unwrap();
        let toolbox = toolbox(&core, &reader);
        let settings: Arc<dyn Settings> =
            if is_real { Arc::new(CoreSettings::new(core.clone(), None)) } else { settings };
        let engine = Engine::new(Tools {
            core: core.clone(),
            reader: reader.clone(),
            broker: secrets.clone(),
            routes: Some(Arc::new(routes)),
            net: Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).unwrap(),
            hub: hub.clone(),
            stops: stops.clone(),
            lanes: Lanes::default(),
            clock: clock.clone(),
            toolbox,
            settings,
            blobs: Some(blobs.clone()),
            capture: None,
            hooks: None,
            workspace: "/workspace".to_string(),
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
            blobs,
            _scratch: scratch,
        };
        this.core.execute(Command::CreateSession { id: session(), thread_id: None }).unwrap();
        this
    }

    /// Ends this life as SIGKILL would, as far as the journal can tell: nothing more is written. The disk goes on.
    pub fn kill(self) -> FakeDisk {
        let disk = self.disk.clone();
        disk.crash();
        drop(self);
        disk.heal();
        disk.crash();
        disk
    }

    pub fn scripted(server: &ScriptedServer, credential: &str) -> Self {
        Self::new(&format!("http://{}/v1", server.local_addr()), credential)
    }

    pub fn submit(&self, content: &str) -> RunId {
        self.submit_request(json!({"content": content, "source_plugin": "daemon", "source_kind": "api"}))
    }

    pub fn submit_request(&self, request: Value) -> RunId {
        let decision = self.core.execute(Command::SubmitRun {
            session: session(),
            request: RawValue::from_string(request.to_string()).unwrap(),
            route: "main".to_string(),
            model: "m".to_string(),
            idempotency: None,
            reply_targets: Vec::new(),
        });
        match decision {
            Ok(Decision::Accepted { run, .. }) => run,
            other => panic!("{other:?}"),
        }
    }

    /// As [`World::submit`], on a disk that may be about to fail.
    pub fn try_submit(&self, content: &str) -> Option<RunId> {
        let request = json!({"content": content, "source_plugin": "daemon", "source_kind": "api"});
        let decision = self.core.execute(Command::SubmitRun {
            session: session(),
            request: RawValue::from_string(request.to_string()).unwrap(),
            route: "main".to_string(),
            model: "m".to_string(),
            idempotency: None,
            reply_targets: Vec::new(),
        });
        match decision {
            Ok(Decision::Accepted { run, .. }) => Some(run),
            _ => None,
        }
    }

    /// Waits until the disk is off or the run has ended; tells whether it has ended.
    pub fn until_off_or_ended(&self, run: Option<RunId>) -> bool {
        let Some(run) = run else { return false };
        self.bell.wait_until("a power cut or the run's end", || {
            let ended = self.core.run(run).unwrap().unwrap().status.is_terminal();
            if ended { Some(true) } else { self.disk.is_off().then_some(false) }
        })
    }

    pub fn wait_for(&self, run: RunId, status: RunStatus) {
        let found = self.bell.wait_until("the run's end", || {
            let status = self.core.run(run).unwrap().unwrap().status;
            status.is_terminal().then_some(status)
        });
        assert_eq!(found, status, "{:#?}", self.records(run));
    }

    /// The run's records, oldest first: kind and body.
    pub fn records(&self, run: RunId) -> Vec<(String, Value)> {
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

    pub fn kinds(&self, run: RunId) -> Vec<String> {
        self.records(run).into_iter().map(|(kind, _)| kind).collect()
    }

    pub fn bodies(&self, run: RunId, wanted: &str) -> Vec<Value> {
        self.records(run).into_iter().filter(|(kind, _)| kind == wanted).map(|(_, body)| body).collect()
    }

    pub fn output(&self, run: RunId) -> Vec<Value> {
        self.bodies(run, "run.output").into_iter().map(|body| body["output"]["content"].clone()).collect()
    }

    /// The failure in `run.failed`: code and message.
    pub fn failure(&self, run: RunId) -> (String, String) {
        let failed = self.bodies(run, "run.failed");
        let text = |key: &str| failed[0]["error"][key].as_str().unwrap().to_string();
        (text("code"), text("message"))
    }

    /// Everything that was ever written.
    pub fn journal_text(&self) -> String {
        let records = self.reader.scan(self.reader.floor(), usize::MAX).unwrap();
        records.iter().map(|record| record.body.get()).collect()
    }

    pub fn stream(&self) -> Client {
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

pub fn session() -> SessionId {
    SessionId::parse("s").unwrap()
}

pub fn server(script: &str) -> ScriptedServer {
    let script = Script::parse(script, Path::new("test.toml")).expect("valid script");
    ScriptedServer::start("127.0.0.1:0".parse().expect("address"), script).expect("server")
}

pub fn requests(server: &ScriptedServer) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&server.requests_json()).expect("JSON");
    list["requests"].as_array().expect("list").clone()
}

/// Text of previews until the run's output or end, and what ended it.
pub fn previews(client: &mut Client) -> (Vec<String>, String) {
    let mut texts = Vec::new();
    loop {
        let frame = client.event();
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_string();
        match field("event: ").as_str() {
            "preview" => {
                let data: Value = serde_json::from_str(&field("data: ")).unwrap();
                let is_withdrawn = data["withdrawn"] == true;
                texts.push(if is_withdrawn { "<withdrawn>" } else { data["text"].as_str().unwrap() }.to_string());
            }
            "output" | "run.failed" | "run.cancelled" => return (texts, frame),
            _ => {}
        }
    }
}

/// A streamed answer in parts: `events` of the Responses API as SSE frames.
pub fn frames(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

pub const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

pub fn message_item(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}
