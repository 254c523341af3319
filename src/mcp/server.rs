//! One server's life, on one thread: connect, look after the connection, wait, connect again.
//! Owns: when a server is connected, and what everybody else may see of it.
//! May touch: the connection.
//! Never: hurries a server that fails; holds a lock while it waits for one.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::catalogue::Catalogue;
use super::config::{ServerConfig, Stdio, Transport};
use super::credential::{InUse, Vault};
use super::error::McpError;
use super::http::{HttpLink, Listened};
use super::inbox::Inbox;
use super::link::Link;
use super::record::{Chain, Recorder};
use super::session::{Ask, Hello, Session};
use super::stdio::StdioLink;
use super::worker::Start;
use crate::limits::{
    MCP_LEASE_MS, MCP_READY_GRACE_MS, MCP_RESTART_MS_MAX, MCP_RESTART_MS_MIN, MCP_STEADY_MS, MCP_TICK_MS, MCP_TOOLS_MAX,
};
use crate::net::{Cancel, Net};
use crate::sandbox::Sandbox;
use crate::sys::EventFd;
use crate::sys::process::wait_readable;

/// What all servers share.
#[derive(Clone)]
pub(super) struct World {
    pub vault: Vault,
    pub recorder: Arc<Recorder>,
    pub net: Net,
    pub sandbox: Sandbox,
    pub workspace: PathBuf,
    /// Ends everything.
    pub stop: Cancel,
}

/// What an operator has decided about a server while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is used.
    On,
    /// It is not, until it is enabled again.
    Off,
    /// It is gone from every list, and names no slot any more.
    Removed,
}

/// A connection, as its users have it.
#[derive(Clone)]
pub(super) struct Connection {
    pub session: Arc<Session>,
    pub catalogue: Arc<Catalogue>,
}

/// What is known of a server at the moment.
#[derive(Clone)]
pub(super) struct Known {
    pub switch: Switch,
    pub connection: Option<Connection>,
    /// Of the newest connection, also after its end.
    pub catalogue: Arc<Catalogue>,
    pub hello: Option<Hello>,
    pub error: Option<McpError>,
    /// What its account would have to allow, since a request was refused for lack of it.
    pub wanted_scopes: Vec<String>,
    /// Attempts to connect that have ended.
    pub attempts: u64,
    /// Connections so far.
    pub connects: u64,
    pub connected_at_ms: Option<u64>,
    /// Failures in a row.
    failures: u32,
    /// Somebody needs it, though it is lazy.
    is_wanted: bool,
    is_attempting: bool,
    /// Ends the attempt that is being made.
    attempt: Option<Cancel>,
    retry_at: Option<Instant>,
    /// The slots as they were when the last attempt failed.
    slots: Vec<Option<(u64, bool)>>,
}

/// One server.
pub(super) struct Server {
    pub config: Arc<ServerConfig>,
    known: Mutex<Known>,
    changed: Condvar,
    wake: Arc<EventFd>,
}

impl Server {
    pub fn new(config: ServerConfig, switch: Switch) -> std::io::Result<Self> {
        let known = Known {
            switch,
            connection: None,
            catalogue: Arc::default(),
            hello: None,
            error: None,
            wanted_scopes: Vec::new(),
            attempts: 0,
            connects: 0,
            connected_at_ms: None,
            failures: 0,
            is_wanted: !config.is_lazy(),
            is_attempting: false,
            attempt: None,
            retry_at: None,
            slots: Vec::new(),
        };
        let wake = Arc::new(EventFd::new()?);
        Ok(Self { config: Arc::new(config), known: Mutex::new(known), changed: Condvar::new(), wake })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every statement leaves it complete, so a panic elsewhere has not spoilt it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known at the moment.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// Has the thread look again.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// What an operator decides. A connection that is not wanted any more is ended with everything under way on it.
    pub fn set_switch(&self, switch: Switch) {
        let (connection, attempt) = {
            let mut known = self.lock();
            known.switch = switch;
            (known.failures, known.retry_at) = (0, None);
            if switch == Switch::On { (None, None) } else { (known.connection.take(), known.attempt.take()) }
        };
        self.changed.notify_all();
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
        if let Some(connection) = connection {
            connection.session.cancel.cancel();
        }
        self.wake();
    }

    /// Ends the connection, if there is one, and makes another at once.
    pub fn reconnect(&self) {
        let connection = {
            let mut known = self.lock();
            (known.failures, known.retry_at, known.is_wanted) = (0, None, true);
            known.connection.take()
        };
        if let Some(connection) = connection {
            connection.session.cancel.cancel();
        }
        self.wake();
    }

    /// The connection, waiting for one that is being made: at most the server's start-up time, `limit_ms`, or until
    /// cancelled. A server that is waiting after a failure is not waited for.
    pub fn ready(&self, limit_ms: u64, cancel: &Cancel) -> Result<Connection, McpError> {
        let server = || self.config.name.clone();
        let limit_ms = limit_ms.min(self.config.startup_ms + MCP_READY_GRACE_MS);
        let until = Instant::now() + Duration::from_millis(limit_ms);
        let mut known = self.lock();
        if !known.is_wanted {
            known.is_wanted = true;
            self.wake.wake();
        }
        loop {
            match (known.switch, &known.connection) {
                (Switch::On, Some(connection)) => return Ok(connection.clone()),
                (Switch::On, None) => {}
                (Switch::Off, _) => return Err(McpError::SwitchedOff { server: server() }),
                (Switch::Removed, _) => return Err(McpError::UnknownServer { server: server() }),
            }
            let waits = known.retry_at.is_some_and(|at| at > Instant::now()) && !known.is_attempting;
            let left = until.saturating_duration_since(Instant::now());
            if waits || left.is_zero() {
                let cause = known.error.as_ref().map_or("it is still starting".to_string(), ToString::to_string);
                return Err(McpError::NotConnected { server: server(), cause });
            }
            if cancel.is_cancelled() {
                return Err(McpError::Cancelled { server: server() });
            }
            // Short, so that a cancelled caller does not wait for a server.
            let step = left.min(Duration::from_millis(100));
            known = self.changed.wait_timeout(known, step).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Passes an outcome on, and remembers what account a refused request would have needed.
    pub fn noted<T>(&self, outcome: Result<T, McpError>) -> Result<T, McpError> {
        if let Err(McpError::ScopeRequired { scopes, .. }) = &outcome {
            self.lock().wanted_scopes.clone_from(scopes);
        }
        outcome
    }

    fn slots(&self, vault: &Vault) -> Vec<Option<(u64, bool)>> {
        let state = |slot| vault.broker.slot_state(slot).ok().flatten().map(|state| (state.version, state.blocked));
        self.config.slots().into_iter().map(state).collect()
    }

    /// The thread of the server.
    pub fn run(self: Arc<Self>, world: &World) {
        let wake = self.wake.clone();
        let Some(_attached) = world.stop.on_cancel(move || wake.wake()) else { return };
        while !world.stop.is_cancelled() {
            match self.pause(world) {
                Some(limit) => self.wait(limit),
                // Everything in it has a deadline of its own.
                None => crate::worker::idle(|| self.connect_once(world)),
            }
        }
    }

    fn wait(&self, limit: Duration) {
        // A poll that fails leaves a wait that is too short, after which everything is looked at again.
        let _ready = crate::worker::idle(|| wait_readable(&[Some(self.wake.as_fd())], limit));
        self.wake.drain();
    }

    /// How long there is nothing to do; `None` when it is to be connected now.
    fn pause(&self, world: &World) -> Option<Duration> {
        let tick = Duration::from_millis(MCP_TICK_MS);
        let slots = self.slots(&world.vault);
        let mut known = self.lock();
        if known.switch != Switch::On || !known.is_wanted {
            return Some(Duration::from_secs(3_600));
        }
        let left =
            known.retry_at.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())?;
        if slots != known.slots {
            // Somebody has set a secret: what failed before may work now.
            (known.failures, known.retry_at) = (0, None);
            return None;
        }
        Some(if slots.is_empty() { left } else { left.min(tick) })
    }

    fn connect_once(&self, world: &World) {
        let began = Instant::now();
        let slots = self.slots(&world.vault);
        let cancel = world.stop.child();
        {
            let mut known = self.lock();
            if known.switch != Switch::On {
                return;
            }
            (known.is_attempting, known.attempt) = (true, Some(cancel.clone()));
        }
        let made = self.connect(world, &cancel, began + Duration::from_millis(self.config.startup_ms));
        self.lock().attempt = None;
        let (session, catalogue) = match made {
            Ok(made) => made,
            Err(error) => {
                // Whoever cancels it knows that.
                if !cancel.is_cancelled() {
                    log::warn!("{error}");
                }
                return self.over(Some(error), false, slots);
            }
        };
        let session = Arc::new(session);
        session.inbox.belongs_to(&session);
        {
            let mut known = self.lock();
            known.is_attempting = false;
            known.attempts += 1;
            known.connects += 1;
            known.connected_at_ms = Some(world.vault.clock.now_ms());
            known.hello = session.hello.get().cloned();
            known.catalogue = catalogue.clone();
            known.error = None;
            known.retry_at = None;
            if known.switch == Switch::On {
                known.connection = Some(Connection { session: session.clone(), catalogue });
            } else {
                session.cancel.cancel();
            }
        }
        self.changed.notify_all();
        log::info!("MCP server {} is connected", self.config.name);
        let (ended, is_prompt) = self.look_after(world, &session, &slots);
        session.cancel.cancel();
        match &session.link {
            Link::Stdio(link) => link.close(),
            Link::Http(link) => {
                let credential = world.vault.for_request(&self.config, None, &Cancel::new()).ok().flatten();
                link.close(credential.as_ref());
            }
        }
        if let Some(error) = &ended {
            log::warn!("{error}");
        }
        if began.elapsed() >= Duration::from_millis(MCP_STEADY_MS) {
            self.lock().failures = 0;
        }
        self.over(ended, is_prompt, slots);
    }

    /// Nothing is connected any more, or not yet.
    fn over(&self, error: Option<McpError>, is_prompt: bool, slots: Vec<Option<(u64, bool)>>) {
        {
            let mut known = self.lock();
            if known.is_attempting {
                (known.is_attempting, known.attempts) = (false, known.attempts + 1);
            }
            known.connection = None;
            known.connected_at_ms = None;
            known.slots = slots;
            if is_prompt {
                known.retry_at = None;
            } else {
                let wait_ms = (MCP_RESTART_MS_MIN << known.failures.min(16)).min(MCP_RESTART_MS_MAX);
                known.failures += 1;
                known.retry_at = Some(Instant::now() + Duration::from_millis(wait_ms));
            }
            if let Some(McpError::ScopeRequired { scopes, .. }) = &error {
                known.wanted_scopes.clone_from(scopes);
            }
            known.error = error;
        }
        self.changed.notify_all();
    }

    fn connect(&self, world: &World, cancel: &Cancel, until: Instant) -> Result<(Session, Arc<Catalogue>), McpError> {
        let config = &self.config;
        let workspace = world.workspace.display().to_string();
        let inbox = Arc::new(Inbox::new(&config.name, &workspace, config.elicitation, self.wake.clone()));
        let mut standing = Vec::new();
        let link = match &config.transport {
            Transport::Stdio(stdio) => {
                let (link, leases) = self.start(world, stdio, &inbox, until, cancel)?;
                standing = leases;
                Link::Stdio(link)
            }
            Transport::Http(http) => Link::Http(HttpLink::new(&config.name, http, world.net.clone(), inbox.clone())),
        };
        let session = Session {
            config: config.clone(),
            link,
            inbox,
            vault: world.vault.clone(),
            recorder: world.recorder.clone(),
            cancel: cancel.clone(),
            standing,
            hello: OnceLock::new(),
        };
        session.open(until, cancel)?;
        let catalogue = catalogue(&session, until)?;
        Ok((session, Arc::new(catalogue)))
    }

    fn start(
        &self,
        world: &World,
        stdio: &Stdio,
        inbox: &Arc<Inbox>,
        until: Instant,
        cancel: &Cancel,
    ) -> Result<(StdioLink, Vec<InUse>), McpError> {
        let name = &self.config.name;
        let failed = |cause: String| McpError::Start { server: name.clone(), cause };
        let mut spec = world.sandbox.spec(&world.workspace).map_err(|error| failed(error.to_string()))?;
        spec.read_only_paths.extend(stdio.read_only_paths.iter().cloned());
        spec.network |= stdio.network;
        let (secrets, leases) = world.vault.environment(&self.config, stdio, cancel)?;
        let mut start = Start {
            command: stdio.command.clone(),
            args: stdio.args.clone(),
            env: stdio.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            cwd: stdio.cwd.clone(),
        };
        for (variable, secret) in secrets {
            let value = std::str::from_utf8(secret.expose()).map_err(|_| failed("a secret is not text".to_string()))?;
            start.env.push((variable, value.to_string()));
        }
        let link = StdioLink::start(name, &spec, &start, inbox.clone(), self.wake.clone(), until);
        // The child has them now; this copy is of no use any more.
        start.env.iter_mut().for_each(|(_, value)| zeroize::Zeroize::zeroize(value));
        Ok((link?, leases))
    }

    /// Looks after a connection until it is over: why, unless somebody wanted it so, and whether another is to be made at
    /// once.
    fn look_after(&self, world: &World, session: &Session, slots: &[Option<(u64, bool)>]) -> (Option<McpError>, bool) {
        match &session.link {
            Link::Stdio(link) => self.look_after_process(world, session, link, slots),
            Link::Http(link) => self.look_after_http(world, session, link, slots),
        }
    }

    /// Whether the connection is over for a reason that lies with us.
    fn is_unwanted(
        &self,
        world: &World,
        session: &Session,
        slots: &[Option<(u64, bool)>],
    ) -> Option<(Option<McpError>, bool)> {
        if world.stop.is_cancelled() || self.lock().switch != Switch::On {
            return Some((None, true));
        }
        let now = self.slots(&world.vault);
        if now != slots {
            let cause = "its secret was set anew, deleted or revoked".to_string();
            log::info!("MCP server {}: {cause}", self.config.name);
            self.lock().wanted_scopes.clear();
            return Some((Some(McpError::Credential { server: self.config.name.clone(), cause }), true));
        }
        // Somebody has taken the connection away to have another one.
        session.cancel.is_cancelled().then_some((None, true))
    }

    fn look_after_process(
        &self,
        world: &World,
        session: &Session,
        link: &StdioLink,
        slots: &[Option<(u64, bool)>],
    ) -> (Option<McpError>, bool) {
        let ended = |cause: String| (Some(McpError::Ended { server: self.config.name.clone(), cause }), false);
        let mut leased_at = Instant::now();
        let mut renewed: Vec<InUse> = Vec::new();
        loop {
            let tick = Duration::from_millis(MCP_TICK_MS);
            // What comes is dealt with at once; only the lists wait for their time.
            link.pump(session.inbox.changed().map_or(tick, |rest| rest.min(tick)));
            if let Some(over) = self.is_unwanted(world, session, slots) {
                return over;
            }
            if let Some(cause) = link.ended() {
                return ended(cause);
            }
            if session.inbox.take_changed() {
                self.list_again(session);
            }
            let standing = if renewed.is_empty() { &session.standing } else { &renewed };
            if standing.iter().any(|lease| lease.cancel().is_cancelled()) {
                let cause = "the credential that it was started with was revoked".to_string();
                return (Some(McpError::Credential { server: self.config.name.clone(), cause }), true);
            }
            let Transport::Stdio(stdio) = &self.config.transport else { continue };
            if !standing.is_empty() && leased_at.elapsed() >= Duration::from_millis(MCP_LEASE_MS / 5 * 4) {
                match world.vault.environment(&self.config, stdio, &session.cancel) {
                    Ok((_, leases)) => (renewed, leased_at) = (leases, Instant::now()),
                    Err(error) => return (Some(error), false),
                }
            }
        }
    }

    fn look_after_http(
        &self,
        world: &World,
        session: &Session,
        link: &HttpLink,
        slots: &[Option<(u64, bool)>],
    ) -> (Option<McpError>, bool) {
        let stateless = session.hello.get().is_some_and(Hello::is_stateless);
        let began = Instant::now();
        // A server that forgets its session as soon as it has one is not hurried.
        let is_steady = || began.elapsed() >= Duration::from_millis(MCP_STEADY_MS);
        let mut listens = !stateless;
        loop {
            let mut pause_ms = MCP_TICK_MS;
            if listens {
                let credential = match world.vault.for_request(&self.config, None, &session.cancel) {
                    Ok(credential) => credential,
                    Err(error) => return (Some(error), false),
                };
                let cancel = credential.as_ref().map_or(&session.cancel, InUse::cancel);
                let mut between = || {
                    // What else the server has to say waits meanwhile.
                    if session.inbox.changed().is_some_and(|rest| !session.cancel.wait(rest))
                        && session.inbox.take_changed()
                    {
                        self.list_again(session);
                    }
                    self.lock().switch == Switch::On
                };
                match link.listen(credential.as_ref(), cancel, &mut between) {
                    Listened::NotOffered => listens = false,
                    Listened::Ended(retry_ms) => pause_ms = retry_ms,
                    Listened::Failed(McpError::Cancelled { .. }) => {}
                    Listened::Failed(error) if link.is_expired() => return (Some(error), is_steady()),
                    Listened::Failed(error) => return (Some(error), false),
                }
            }
            // A server that names a time is not asked before, whatever it has us woken for.
            let until = Instant::now() + Duration::from_millis(pause_ms);
            loop {
                if let Some(over) = self.is_unwanted(world, session, slots) {
                    return over;
                }
                if link.is_expired() {
                    let cause = "it does not know the session any more".to_string();
                    return (Some(McpError::Ended { server: self.config.name.clone(), cause }), is_steady());
                }
                if session.inbox.take_changed() {
                    self.list_again(session);
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.wait(left.min(Duration::from_millis(MCP_TICK_MS)));
            }
        }
    }

    /// Takes a changed list of tools. One that cannot be had leaves the former one.
    fn list_again(&self, session: &Session) {
        let until = Instant::now() + Duration::from_millis(self.config.startup_ms);
        match catalogue(session, until) {
            Ok(catalogue) => {
                let catalogue = Arc::new(catalogue);
                let mut known = self.lock();
                if *known.catalogue != *catalogue {
                    log::info!("MCP server {} has changed its tools", self.config.name);
                }
                known.catalogue = catalogue.clone();
                if let Some(connection) = &mut known.connection {
                    connection.catalogue = catalogue;
                }
            }
            Err(error) => log::warn!("the tools of MCP server {} stay as they were: {error}", self.config.name),
        }
    }
}

/// The tools that a server lists.
fn catalogue(session: &Session, until: Instant) -> Result<Catalogue, McpError> {
    let hello = session.hello.get().cloned().unwrap_or_default();
    if !hello.has("tools") {
        return Ok(Catalogue::default());
    }
    let limit_ms =
        u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX).max(1);
    let ask = Ask {
        method: "tools/list",
        params: Value::Null,
        about: None,
        param_headers: Vec::new(),
        chain: Chain::Daemon,
        session: None,
        limit_ms,
        cancel: &session.cancel,
        is_owner: true,
        asker: None,
    };
    let (listed, is_cut) = session.list("tools/list", "tools", &ask, MCP_TOOLS_MAX)?;
    Ok(Catalogue::of(&session.config, listed, is_cut, hello.is_stateless()))
}
