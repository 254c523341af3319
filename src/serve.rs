//! Boot, the thread table, watching, and the drain.
//! Owns: the order of start and stop, and which threads exist.
//! May touch: every room, once.
//! Never: serves a request or decides a command.
//!
//! Start: settings, state root and its lock, auth store, signing key, routes, journal, core, broker, streams,
//! engines, listener. Whatever is wrong with any of these ends the start with its name, cause and next step,
//! before the listener opens. Stop is the same list backwards.

mod watching;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ring::rand::SystemRandom;

use crate::api::access_log::AccessLog;
use crate::api::auth::{Auth, AuthConfig, AuthMode, BindScope, RawAuth};
use crate::api::context::Api;
use crate::api::cors::{CorsPolicy, HostPolicy};
use crate::api::events::Events;
use crate::api::front::{Front, FrontParts};
use crate::api::request_mac::RequestMac;
use crate::api::routes;
use crate::api::status::Facts;
use crate::api::status::observed::Observed;
use crate::api::telegram_poll::Polls;
use crate::audit::control_plane::{AuditLimits, ControlPlaneAudit};
use crate::audit::key::{KeyOrigin, KeySources, SigningKey};
use crate::backup::barrier::Barrier;
use crate::blobs::Blobs;
use crate::broker::{Broker, BrokerLog, BrokerParts, MasterKey, SecretReference, Store};
use crate::clock::{Clock, SystemClock};
use crate::commit::{Answerer, CommandError, CommitLoop, CoreHandle, Effects, Parts, Restored, Snapshotter, StartHold};
use crate::config::{Config, RawServe};
use crate::connectors::egress::Egress;
use crate::connectors::file::FileConnector;
use crate::connectors::{self, Registry, Sidecars, file, sidecar};
use crate::core::{COPIED_CONNECTORS, Command, ConnectorCommand, Decision, RoutesLoaded, State};
use crate::credential;
use crate::debug_capture::{self, CaptureConfig, DebugCapture, Standing};
use crate::delivery::{self, DeliveryRoom};
use crate::engine::{AgentTools, CoreSettings, Engine, Lanes, Settings, Stops, Toolbox, Tools, WebFetch};
use crate::hex::to_hex;
use crate::hooks::{self, Hooks, HooksFile};
use crate::http::{Bind, Edge, EdgeConfig};
use crate::journal::{self, Journal, OpenCause, Options, RealDisk};
use crate::limits::{DRAIN_MS, ENGINE_WORKERS, SNAPSHOT_INTERVAL_RECORDS};
use crate::mcp::{self, Mcp};
use crate::net::{Net, NetConfig};
use crate::oauth::HttpExchange;
use crate::providers::{RouteCredential, Routes, RoutesWatch};
use crate::redaction::redact_tokens;
use crate::sandbox::{Sandbox, places};
use crate::secret::Secret;
use crate::sse::{self, Hub};
use crate::state_root::{Directory, StateRoot};
use crate::supervisor::{Inherited, Supervisor};
use crate::sys::{self, StopSignals};
use crate::tasks::{self, TaskStops, Tasks};
use crate::upkeep::{Roots, Upkeep};
use crate::worker::Worker;

/// Exit code after the core or the broker died: a supervisor restarts the daemon.
pub const EXIT_COMPONENT_DIED: i32 = 70;

/// Why the daemon did not start or did not stop cleanly.
#[derive(Debug)]
pub struct ServeError {
    what: &'static str,
    cause: String,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for ServeError {}

/// Names the step that failed.
fn step<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> ServeError {
    move |cause| ServeError { what, cause: cause.to_string() }
}

/// An error of the operating system, with the thing that it happened to.
fn file_error(action: &str, path: &Path, cause: std::io::Error) -> String {
    format!("cannot {action} {}: {cause}; next: check the path, its owner and its disk", path.display())
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// The step that failed, its cause and what to do.
pub fn run(raw: RawServe) -> Result<(), ServeError> {
    // Before a secret is read: a process of the same user, such as a tool without its walls, must not find it in our
    // memory or environment.
    if raw.dumpable {
        log::warn!("--dumpable: processes of the same user can read the daemon's memory and environment");
    } else {
        sys::jail::set_dumpable(false).map_err(step("shutting off the daemon's memory"))?;
    }
    let signals = StopSignals::install().map_err(step("signal handlers"))?;
    let mut supervisor = Supervisor::of_process().map_err(step("socket activation"))?;
    crate::worker::enroll("main");
    if let Err(error) = sys::raise_open_files_limit() {
        log::warn!("the limit of open files stays as it is: {error}");
    }
    supervisor.notifier.status("starting: opening the state root and replaying the journal");
    let inherited = supervisor.inherited.take();
    let daemon = Daemon::start(&raw, inherited).inspect_err(|error| {
        supervisor.notifier.status(&format!("start refused: {error}"));
    })?;
    supervisor.notifier.ready(&daemon.summary());
    daemon.watch(&signals, &supervisor);
    supervisor.notifier.stopping(daemon.stop_budget_ms(), supervisor.watchdog.is_wanted());
    daemon.stop()
}

/// Everything that runs.
struct Daemon {
    api: Arc<Api>,
    edge: Arc<Edge>,
    hub: Hub,
    broker: Broker,
    audit: ControlPlaneAudit,
    access_log: AccessLog,
    /// The core sealed the journal, or had found it poisoned before.
    journal_closed: Arc<AtomicBool>,
    /// Threads that must not end before they are told to.
    core: Worker,
    answerer: Worker,
    engines: Vec<Worker>,
    deliveries: DeliveryRoom,
    hooks: Vec<Worker>,
    upkeep: Worker,
    capture: Worker,
    snapshots: Worker,
    task_reaper: Worker,
    sidecars: Vec<Worker>,
    mcp: Vec<Worker>,
    stop_upkeep: crossbeam_channel::Sender<()>,
    report_failure: crossbeam_channel::Sender<String>,
    /// Held until everything else has ended.
    _root: StateRoot,
}

/// Durable state as found at start.
struct Opened {
    root: StateRoot,
    journal: Journal,
    signer: Arc<SigningKey>,
    key_in_state_root: bool,
    state: State,
    records_replayed: u64,
    /// The root was copied or restored since it was last open.
    is_copy: bool,
    store: Store,
    capture: CaptureConfig,
    broker_log: BrokerLog,
}

impl Daemon {
    fn start(raw: &RawServe, inherited: Option<Inherited>) -> Result<Self, ServeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let delivery_policy =
            delivery::policy_from_environment(|name| std::env::var(name).ok()).map_err(step("settings"))?;
        let mut config = Config::resolve(raw).map_err(step("settings"))?;
        // What guards the listener is decided by where it really listens.
        if let Some(inherited) = &inherited {
            config.bind = inherited.bind.clone();
        }
        let auth = open_auth(raw, &config, &clock)?;
        let cors = CorsPolicy::from_flags(&raw.http_cors_allow_origin).map_err(step("settings"))?;
        let hosts = HostPolicy::from_flags(&raw.http_allowed_host).map_err(step("settings"))?;
        config
            .check_sandbox_network(auth.view().auth_enabled, config.egress.is_restrictive())
            .map_err(step("settings"))?;
        places::check_start(raw, &config).map_err(step("places"))?;
        std::fs::create_dir_all(&config.workspace_root)
            .map_err(|cause| step("workspace root")(file_error("create", &config.workspace_root, cause)))?;
        let sandbox = Sandbox::start(&config);
        let opened = open_state(&config, &clock)?;
        let routes = load_routes(&config)?;
        let file_connectors = load_connectors(&config)?;
        let net_config =
            NetConfig { ca_file: config.ca_file.clone(), egress: config.egress.clone(), ..NetConfig::default() };
        let net = Net::new(&net_config).map_err(step("outbound client"))?;
        let hooks_file = config.hooks_config.as_ref().map(|path| HooksFile::load(path, &hooks::AtStart(&net)));
        let hooks_file = hooks_file.transpose().map_err(step("hooks file"))?;
        let Opened {
            root,
            journal,
            signer,
            key_in_state_root,
            state,
            records_replayed,
            is_copy,
            store,
            broker_log,
            capture,
        } = opened;

        let reader = journal.reader();
        let log: Arc<dyn sse::Log> = Arc::new(reader.clone());
        let render = Arc::new(Events::new(log.clone()));
        let hub = Hub::start(log, render, &sse::Config::default()).map_err(step("event streams"))?;
        let audit_directory = root.directory(Directory::ControlPlaneAuth);
        let audit = ControlPlaneAudit::start(&audit_directory, AuditLimits::default(), Some(reader.clone()))
            .map_err(step("control-plane audit"))?;
        let stops = Stops::default();
        let (snapshotter, snapshots) = Snapshotter::new();
        let (answerer, answers) = Answerer::new();
        let (effects_hub, effects_stops, effects_audit) = (hub.clone(), stops.clone(), audit.clone());
        let (hooks_bell, hooks_rung) = hooks::bell();
        let lanes = Lanes::new(routes.as_deref());
        let effects_lanes = lanes.clone();
        let task_stops = TaskStops::new().map_err(step("tasks"))?;
        let effects_task_stops = task_stops.clone();
        let live_tasks = state.live_tasks();
        let (core_loop, core) = CommitLoop::new(Parts {
            state,
            journal,
            clock: clock.clone(),
            effects: Effects {
                committed: Box::new(move || {
                    effects_hub.committed();
                    hooks_bell.ring();
                }),
                stopped: Box::new(move |run| {
                    // In this order: whoever is about to stand in line looks for the stop afterwards.
                    effects_stops.stop(run);
                    effects_lanes.leave(run);
                }),
                stop_task: Box::new(move |session, task| effects_task_stops.stop(session, task)),
                acted: Box::new(move |event| effects_audit.acted(event)),
            },
            answers: Some(answers),
            snapshots,
            snapshot_interval_records: SNAPSHOT_INTERVAL_RECORDS,
            records_since_snapshot: records_replayed,
        });
        lanes.attach(core.clone());
        let snapshots = Worker::spawn("snapshot", move || snapshotter.run()).map_err(step("threads"))?;
        let answerer = Worker::spawn("answerer", move || answerer.run()).map_err(step("threads"))?;
        let journal_closed = Arc::new(AtomicBool::new(false));
        let closed = journal_closed.clone();
        // Before the core's first pass, so that it does not begin what is to be held.
        let held = config.hold.then(|| StartHold::begin(&core, !file_connectors.is_empty()));
        let core_thread = Worker::spawn("core", move || match core_loop.run() {
            Ok(()) => closed.store(true, Ordering::SeqCst),
            Err(error) => log::error!("the journal could not be closed: {error}"),
        })
        .map_err(step("threads"))?;
        held.map_or(Ok(()), StartHold::wait).map_err(step("hold"))?;
        match core.execute(Command::SettleActions) {
            Ok(_) => {}
            // A full disk must not keep an operator from the daemon; the next start closes them.
            Err(error @ (CommandError::StorageFull { .. } | CommandError::WriteFailed { .. })) => {
                log::warn!("what became of the daemon's own actions could not be recorded: {error}");
            }
            Err(error) => return Err(step("journal")(error)),
        }
        let routes_since_ms = note_routes(&core, routes.as_deref())?;
        let routes_watch =
            routes.clone().map(|routes| RoutesWatch::begin(routes, config.default_route.clone(), clock.now_ms()));
        if is_copy && (core.connectors().iter().next().is_some() || !file_connectors.is_empty()) {
            // The original may still serve its senders: nothing is to be answered twice before somebody has looked.
            let reason = Some(COPIED_CONNECTORS.to_string());
            let hold = ConnectorCommand::Hold { held: true, reason };
            core.execute(Command::Connector(Box::new(hold))).map_err(step("connectors"))?;
            log::warn!(
                "connectors are held: the state root was copied or restored; next: kheish-daemon runtime release"
            );
        }
        if core.view().counts.copy_held {
            log::warn!(
                "unfinished runs are held: the state root was copied or restored; next: kheish-daemon runtime release"
            );
        }
        let task_config = tasks::Config {
            directory: root.directory(Directory::ShellTasks),
            workspace: config.workspace_root.clone(),
            sandbox: sandbox.clone(),
            is_copy,
        };
        let (tasks, task_reaper) =
            Tasks::start(task_config, core.clone(), task_stops, live_tasks).map_err(step("tasks"))?;
        let kept = places::kept_files(raw, &config);
        let servers = mcp::boot::servers(&config, auth.view().auth_enabled, &kept, &|slot| store.get(slot).is_some())
            .map_err(step("MCP servers"))?;
        let of_file = file_connectors.iter().flat_map(|connector| connector.inline.values().cloned());
        let inline = routes.iter().flat_map(|routes| routes.inline_secrets()).chain(of_file);
        let of_connectors = connectors::environment_secrets(&file_connectors, &core.connectors());
        let of_environment = Mcp::environment_secrets(&servers).into_iter().chain(of_connectors);
        let mut foreign: Vec<_> = inline.chain(of_environment).collect();
        foreign.extend(redact_tokens::from_environment().map_err(step("redaction"))?);
        let exchange = Arc::new(HttpExchange::new(net.clone(), Arc::new(core.clone())));
        let broker = Broker::start(BrokerParts { store, log: broker_log, foreign, exchange, clock: clock.clone() })
            .map_err(step("threads"))?;
        refer_routes(&broker, &routes);
        let (capture, capture_thread) = start_capture(&root, capture, &core, &broker, &clock)?;
        let known = broker.handle();
        let streamed = known.clone();
        crate::redaction::install(move |text| known.redact(text));
        crate::redaction::install_stream(move |text| streamed.redact_settled(text));
        let request_mac = RequestMac::load_or_create(&root.directory(Directory::Auth), &SystemRandom::new())
            .map_err(|cause| step("request key")(file_error("use", &root.directory(Directory::Auth), cause)))?;
        let connectors = Registry::new(core.clone(), broker.handle(), file_connectors, clock.now_ms());
        let named = connectors.clone();
        broker.handle().references().add(move || named.references());
        let sidecars = Sidecars::new(connectors.clone()).map_err(step("connectors"))?;
        let hooks = Hooks::new(hooks::Parts {
            core: core.clone(),
            reader: reader.clone(),
            net: net.clone(),
            broker: broker.handle(),
            clock: clock.clone(),
            sandbox: sandbox.clone(),
            workspace: config.workspace_root.clone(),
            file: hooks_file.map(|file| file.take(&core)).transpose().map_err(step("hooks file"))?,
        });
        let hooks_named = hooks.clone();
        broker.handle().references().add(move || hooks_named.references());
        let blobs = Blobs::open(root.directory(Directory::Blobs)).map_err(step("blobs"))?;
        let probe_roots = Roots {
            state_probe: root.directory(Directory::Probe),
            state_root: root.path().to_path_buf(),
            workspace_root: config.workspace_root.clone(),
        };
        let lock = root.lock_watch().map_err(step("state root"))?;
        let (upkeep, upkeep_loop) = Upkeep::begin(probe_roots, lock, reader.clone(), clock.clone());
        let upkeep_loop = upkeep_loop.with_routes(routes_watch.clone());
        let (stop_upkeep, upkeep_stopped) = crossbeam_channel::bounded(0);
        let upkeep_thread =
            Worker::spawn("upkeep", move || upkeep_loop.run(upkeep_stopped)).map_err(step("threads"))?;

        let (mcp, mcp_threads) = Mcp::start(mcp::Parts {
            servers,
            config_path: config.mcp_config.clone(),
            profiles: config.mcp_profiles.clone(),
            switches: mcp::boot::switches(core.view().runtime.settings()),
            broker: broker.handle(),
            clock: clock.clone(),
            core: core.clone(),
            net: net.clone(),
            sandbox: sandbox.clone(),
            workspace: config
                .workspace_root
                .canonicalize()
                .map_err(|cause| step("workspace root")(file_error("resolve", &config.workspace_root, cause)))?,
        })
        .map_err(step("MCP servers"))?;
        let named = mcp.clone();
        broker.handle().references().add(move || named.references());
        mcp.require().map_err(step("MCP servers"))?;
        let access_log = AccessLog::start().map_err(step("threads"))?;
        // One report is enough to fail readiness for good.
        let (report_failure, failed) = crossbeam_channel::bounded(1);
        let api = Arc::new(Api {
            core: core.clone(),
            reader: reader.clone(),
            signer,
            request_mac,
            barrier: Barrier::new(core.clone(), broker.handle(), audit.clone()),
            broker: broker.handle(),
            hub: hub.clone(),
            capture,
            stops: stops.clone(),
            tasks,
            mcp,
            blobs: blobs.clone(),
            connectors,
            hooks: hooks.clone(),
            sidecars: sidecars.clone(),
            polls: Polls::default(),
            routes: routes.clone(),
            facts: Facts {
                started_at_ms: clock.now_ms(),
                bind: OnceLock::new(),
                scope: scope_of(&config.bind),
                cors_policy: cors.name(),
                cors_allowed_origin_count: cors.origin_count(),
                net: net.clone(),
                auth: auth.clone(),
                audit: audit.clone(),
                edge: OnceLock::new(),
                upkeep,
                routes: routes_watch,
                routes_since_ms,
                lanes,
                sandbox: sandbox.clone(),
                thresholds: config.run_thresholds,
                key_in_state_root,
                observed: Observed::default(),
                draining: AtomicBool::new(false),
                failed,
                failed_seen: OnceLock::new(),
            },
            config,
            clock: clock.clone(),
        });
        let deliveries = DeliveryRoom::start(delivery::Parts {
            core: core.clone(),
            reader: api.reader.clone(),
            net: net.clone(),
            broker: api.broker.clone(),
            connectors: Arc::new(Egress::new(api.connectors.clone(), clock.clone())),
            policy: delivery_policy,
            clock: clock.clone(),
        })
        .map_err(step("threads"))?;
        let hook_threads = hooks.start(hooks_rung).map_err(step("threads"))?;
        let engines = start_engines(&api, net.clone(), &stops, blobs)?;
        let sidecar_clock = clock.clone();
        let front = Front::new(FrontParts {
            routes: routes::ROUTES,
            context: api.clone(),
            auth,
            cors,
            hosts,
            audit: audit.clone(),
            access_log: access_log.clone(),
            clock,
        });
        let edge_config = EdgeConfig {
            trusted_proxies: api.config.trusted_proxies.clone(),
            ..EdgeConfig::new(api.config.bind.clone())
        };
        let edge = match inherited {
            Some(Inherited { listener, .. }) => Edge::adopt(edge_config, listener, Arc::new(front)),
            None => Edge::start(edge_config, Arc::new(front)),
        };
        let edge = Arc::new(edge.map_err(step("listener"))?);
        let bound = edge.local_addr().to_string();
        log::info!("listening on {bound}");
        api.facts.bind.get_or_init(|| bound);
        api.facts.edge.get_or_init(|| edge.clone());
        let parts = sidecar::Parts {
            surroundings: surroundings(raw, &api)?,
            daemon_url: daemon_url(edge.local_addr()),
            net,
            clock: sidecar_clock,
        };
        let mut sidecars = sidecars.start(parts).map_err(step("threads"))?;
        sidecars.extend(api.polls.start(&api).map_err(step("threads"))?);
        Ok(Self {
            api,
            edge,
            hub,
            broker,
            audit,
            access_log,
            journal_closed,
            core: core_thread,
            answerer,
            engines,
            deliveries,
            hooks: hook_threads,
            upkeep: upkeep_thread,
            capture: capture_thread,
            snapshots,
            task_reaper,
            mcp: mcp_threads,
            sidecars,
            stop_upkeep,
            report_failure,
            _root: root,
        })
    }

    /// Lets requests in flight end within the drain time, then ends everything in order. A run in hand is let go at
    /// once: it stays active in the journal and is resumed at the next start.
    fn stop(self) -> Result<(), ServeError> {
        self.api.facts.draining.store(true, Ordering::SeqCst);
        let mut clean = true;
        // While the core can still record what came of them, and the sidecars that take them still run.
        if let Err(panicked) = self.deliveries.stop() {
            log::error!("{panicked}");
            clean = false;
        }
        // As well while the core can record what came of them.
        self.api.hooks.stop();
        // While the listener still answers what they have in hand.
        self.api.sidecars.stop();
        self.api.polls.stop();
        for worker in self.hooks.into_iter().chain(self.sidecars) {
            if let Err(panicked) = worker.join() {
                log::error!("{panicked}");
                clean = false;
            }
        }
        if !self.edge.drain(Duration::from_millis(DRAIN_MS)) {
            log::warn!("some requests were still in flight at the end of the drain time");
        }
        let drain_ms = self.api.config.drain_timeout_ms;
        if drain_ms > 0 && !self.api.stops.drain(Duration::from_millis(drain_ms)) {
            log::warn!(
                "some runs were still in the middle of a step at the end of --drain-timeout-s; they are resumed"
            );
        }
        if let Err(panicked) = self.hub.stop() {
            log::error!("{panicked}");
        }
        // While the core can still record their ends.
        self.api.tasks.stop();
        if let Err(panicked) = self.task_reaper.join() {
            log::error!("{panicked}");
            clean = false;
        }
        // In this order: an engine that lets go of its run must find no core that hands it the next one, which nobody
        // would stop any more.
        self.api.core.stop();
        self.api.stops.stop_all();
        // After the core: the end of a server must not be recorded as what became of a call.
        self.api.mcp.stop();
        drop(self.stop_upkeep);
        self.api.capture.stop();
        let others = [self.answerer, self.snapshots, self.upkeep, self.capture];
        for worker in std::iter::once(self.core).chain(self.engines).chain(others) {
            if let Err(panicked) = worker.join() {
                log::error!("{panicked}");
                clean = false;
            }
        }
        for worker in self.mcp {
            if let Err(panicked) = worker.join() {
                log::error!("{panicked}");
                clean = false;
            }
        }
        clean &= self.journal_closed.load(Ordering::SeqCst);
        if let Err(panicked) = self.broker.stop() {
            log::error!("{panicked}");
            clean = false;
        }
        if let Err(error) = self.audit.stop() {
            log::error!("{error}");
            clean = false;
        }
        log::info!("stopped");
        self.access_log.stop();
        if clean {
            Ok(())
        } else {
            Err(step("stop")("the journal was not closed or a thread had died; next: read the log lines above"))
        }
    }
}

/// Debug capture asks the core for the level and for what has ended, and the broker for what must not be shown.
fn start_capture(
    root: &StateRoot,
    config: CaptureConfig,
    core: &CoreHandle,
    broker: &Broker,
    clock: &Arc<dyn Clock>,
) -> Result<(DebugCapture, Worker), ServeError> {
    let (core_level, core_standing, broker, clock_level) = (core.clone(), core.clone(), broker.handle(), clock.clone());
    let surroundings = debug_capture::Surroundings {
        level: Box::new(move || core_level.view().runtime.settings().debug.at(clock_level.now_ms())),
        redact: Box::new(move |text| broker.redact(text)),
        standing: Box::new(move |run| match core_standing.retention_hold(run) {
            Some(_) => Standing::Held,
            None => match core_standing.run(run) {
                Ok(Some(position)) if !position.status.is_terminal() => Standing::Active,
                Ok(_) => Standing::Ended,
                Err(_) => Standing::Unknown,
            },
        }),
        clock: clock.clone(),
    };
    let store = debug_capture::Store::open(root.directory(Directory::Debug), config);
    DebugCapture::start(store, surroundings).map_err(step("threads"))
}

fn scope_of(bind: &Bind) -> BindScope {
    match bind {
        Bind::Tcp(address) => BindScope::of(address),
        Bind::Unix(_) => BindScope::UnixSocket,
    }
}

fn open_auth(raw: &RawServe, config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<Auth>, ServeError> {
    let mode = match raw.http_auth_mode.as_deref() {
        None => AuthMode::Auto,
        Some(text) => AuthMode::parse(text)
            .ok_or_else(|| step("--http-auth-mode")(format!("{text:?} is no mode; next: use auto, bearer or none")))?,
    };
    let token = |text: &Option<String>| text.as_ref().map(|text| Secret::new(text.clone().into_bytes()));
    let raw_auth = RawAuth {
        mode,
        admin_token: token(&raw.http_admin_token),
        admin_token_file: raw.http_admin_token_file.as_ref().map(Into::into),
        read_only_token: token(&raw.http_readonly_token),
        read_only_token_file: raw.http_readonly_token_file.as_ref().map(Into::into),
    };
    let resolved = AuthConfig::resolve(raw_auth, scope_of(&config.bind)).map_err(step("control-plane auth"))?;
    let auth = Auth::open(resolved, clock.clone()).map_err(step("control-plane auth"))?;
    for notice in auth.notices() {
        log::warn!("{notice}");
    }
    Ok(Arc::new(auth))
}

fn open_state(config: &Config, clock: &Arc<dyn Clock>) -> Result<Opened, ServeError> {
    let root = StateRoot::open(&config.state_root, true).map_err(step("state root"))?;
    let master_key = MasterKey::from_environment().map_err(step("auth store"))?;
    let capture = CaptureConfig::from_environment(master_key.as_ref()).map_err(step("debug capture"))?;
    let store = Store::open(&root, master_key).map_err(step("auth store"))?;
    let broker_log = BrokerLog::open(&root).map_err(step("broker log"))?;
    let journal_directory = root.directory(Directory::Journal);
    let nothing_signed = journal::is_empty(&journal_directory)
        .map_err(|cause| step("journal")(file_error("list", &journal_directory, cause)))?;
    let (signer, origin) = load_signing_key(config, root.path(), nothing_signed)?;
    let key_in_state_root = matches!(origin, KeyOrigin::Created | KeyOrigin::StateRoot);
    let signer = Arc::new(signer);
    let disk = |directory: &Path| {
        let opened = RealDisk::open(directory).map(Box::new);
        opened.map_err(|cause| step("journal")(file_error("open", directory, cause)))
    };
    let options = Options { segment_bytes: config.segment_bytes, ..Options::default() };
    let mut restored = Restored::default();
    let (journal, recovery) = Journal::open(
        disk(&journal_directory)?,
        disk(&root.directory(Directory::Snapshots))?,
        options,
        signer.clone(),
        clock.now_ms(),
        &mut restored,
    )
    .map_err(step("journal"))?;
    for skipped in &recovery.snapshots_skipped {
        log::warn!("a snapshot was passed over: {skipped}");
    }
    if let Some(torn) = &recovery.torn {
        log::warn!("the last batch was incomplete and was cut; it had not been acknowledged: {torn:?}");
    }
    log::info!("journal open: {:?}, {} records replayed", recovery.cause, recovery.records_replayed);
    let mut state = restored.state;
    state.open_epoch(journal.epoch());
    state.finish_replay();
    let (records_replayed, is_copy) = (recovery.records_replayed, recovery.cause == OpenCause::Copied);
    Ok(Opened {
        root,
        journal,
        signer,
        key_in_state_root,
        state,
        records_replayed,
        is_copy,
        store,
        broker_log,
        capture,
    })
}

fn load_signing_key(
    config: &Config,
    state_root: &Path,
    nothing_signed: bool,
) -> Result<(SigningKey, KeyOrigin), ServeError> {
    const INLINE: &str = "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY";
    const FILE: &str = "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE";
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let mut inline = variable(INLINE).map(|text| Secret::new(text.into_bytes()));
    let file = config.audit_signing_key_file.as_deref();
    // A flag silences the environment; two variables contradict each other.
    let named = variable(FILE).and_then(|text| credential::file(text.as_ref()).ok());
    let is_flag = file.is_some_and(|path| named.is_none_or(|set| set != path));
    if is_flag && inline.take().is_some() {
        log::warn!("--audit-signing-key-file is given, so {INLINE} is not used");
    }
    let sources = KeySources { state_root, inline, file, nothing_signed };
    let (key, origin) = SigningKey::load_or_create(sources, &SystemRandom::new()).map_err(step("audit signing key"))?;
    match origin {
        KeyOrigin::Created => log::info!("audit signing key created: {}", key.key_id()),
        KeyOrigin::StateRoot => log::info!(
            "audit signing key {} lies in the state root whose records it signs; --audit-signing-key-file keeps it apart",
            key.key_id()
        ),
        KeyOrigin::Inline | KeyOrigin::File(_) => log::info!("audit signing key: {}", key.key_id()),
    }
    Ok((key, origin))
}

fn load_routes(config: &Config) -> Result<Option<Arc<Routes>>, ServeError> {
    let Some(path) = &config.routes_file else {
        log::warn!("no routes file: runs cannot be submitted until the daemon is started with --routes-file");
        return Ok(None);
    };
    let environment = |name: &str| std::env::var(name).ok();
    let routes = Routes::load(path, config.default_route.as_deref(), &environment).map_err(step("settings"))?;
    for diagnostic in routes.diagnostics() {
        log::warn!("routes file: {}: {}", diagnostic.code, diagnostic.message);
    }
    Ok(Some(Arc::new(routes)))
}

/// Puts the routes file on record where it is another one than at the start before; since when it is in force.
fn note_routes(core: &CoreHandle, routes: Option<&Routes>) -> Result<Option<u64>, ServeError> {
    let loaded = RoutesLoaded {
        path: routes.map(|routes| routes.source().path.display().to_string()),
        sha256: routes.map(|routes| to_hex(&routes.source().sha256)),
        default_route: routes.map(|routes| routes.default_route().id.clone()),
        routes: routes.iter().flat_map(|routes| routes.iter()).map(|route| route.id.clone()).collect(),
    };
    match core.execute(Command::NoteRoutes(loaded)) {
        Ok(Decision::RoutesNoted { since_ms, .. }) => Ok(since_ms),
        Ok(other) => Err(step("routes file")(format!("unexpected decision {other:?}"))),
        // A full disk must not keep an operator from the daemon; the next start records it.
        Err(error @ (CommandError::StorageFull { .. } | CommandError::WriteFailed { .. })) => {
            log::warn!("which routes file is in force could not be recorded: {error}");
            Ok(None)
        }
        Err(error) => Err(step("routes file")(error)),
    }
}

/// Where a sidecar reaches the daemon: on this host's loopback, unless the listener is on one other address only.
fn daemon_url(bound: &Bind) -> Option<String> {
    let Bind::Tcp(address) = bound else { return None };
    let mut address = *address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Some(format!("http://{address}"))
}

fn surroundings(raw: &RawServe, api: &Api) -> Result<sidecar::Surroundings, ServeError> {
    let directory = std::env::current_dir().map_err(step("working directory"))?;
    let files = places::kept_files(raw, &api.config).into_iter().map(|(_, path)| path);
    let kept = std::iter::once(api.config.state_root.clone()).chain(files).collect();
    Ok(sidecar::Surroundings { sandbox: api.facts.sandbox.clone(), directory, kept })
}

fn load_connectors(config: &Config) -> Result<Vec<FileConnector>, ServeError> {
    let Some(path) = &config.connectors_config else { return Ok(Vec::new()) };
    file::load(path).map_err(step("connectors file"))
}

/// Tells the broker which slots the routes name.
fn refer_routes(broker: &Broker, routes: &Option<Arc<Routes>>) {
    let Some(routes) = routes.clone() else { return };
    broker.handle().references().add(move || {
        let named = routes.iter().filter_map(|route| match &route.credential {
            RouteCredential::AuthRef(slot) => Some(SecretReference::new(slot.as_str(), format!("route {}", route.id))),
            RouteCredential::Inline(_) | RouteCredential::None => None,
        });
        named.collect()
    });
}

fn start_engines(api: &Arc<Api>, net: Net, stops: &Stops, blobs: Blobs) -> Result<Vec<Worker>, ServeError> {
    let root = &api.config.workspace_root;
    let workspace = root.canonicalize().map_err(|cause| step("workspace root")(file_error("resolve", root, cause)))?;
    let settings: Arc<dyn Settings> =
        Arc::new(CoreSettings::new(api.core.clone(), api.config.approval_expires_after_ms));
    let shown = workspace.display().to_string();
    let agents = AgentTools::new(api.core.clone(), api.reader.clone());
    let mut toolbox = Toolbox::sandboxed(api.facts.sandbox.clone(), workspace)
        .with_room(Arc::new(api.tasks.clone()))
        .with_room(Arc::new(agents));
    if api.mcp.is_configured() {
        toolbox = toolbox.with_room(Arc::new(api.mcp.clone()));
    }
    if api.config.web_fetch {
        let room = WebFetch::new(net.clone(), api.core.clone(), settings.clone(), shown.clone());
        toolbox = toolbox.with_room(Arc::new(room));
    }
    let tools = Tools {
        toolbox,
        settings,
        blobs: Some(blobs),
        capture: Some(api.capture.clone()),
        hooks: Some(api.hooks.clone()),
        workspace: shown,
        core: api.core.clone(),
        reader: api.reader.clone(),
        broker: api.broker.clone(),
        routes: api.routes.clone(),
        net,
        hub: api.hub.clone(),
        stops: stops.clone(),
        lanes: api.facts.lanes.clone(),
        clock: api.clock.clone(),
    };
    (1..=ENGINE_WORKERS)
        .map(|number| {
            let engine = Engine::new(tools.clone());
            Worker::spawn(format!("engine-{number}"), move || engine.run()).map_err(step("threads"))
        })
        .collect()
}
