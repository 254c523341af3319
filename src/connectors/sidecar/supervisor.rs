//! The thread that starts sidecars, looks after them and ends them.
//! Owns: which sidecar runs, and when the next one may start.
//! May touch: child processes, the broker, the board that views are made from.
//! Never: waits for a sidecar; starts one before the one before it is gone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::probe::{Look, Looked, Seen};
use super::running::{Phase, Running};
use super::worker::Start;
use super::{Parts, Sidecars, Status, Taken, grants};
use crate::broker::{BrokerHandle, ConnectorLease, ConnectorLeaseRequest, Revocation, SlotId};
use crate::connectors::check::RESERVED_VARIABLES;
use crate::connectors::registry::{Counters, Entry};
use crate::connectors::secrets::Versioned;
use crate::limits::{
    SIDECAR_DAEMON_STOP_MS, SIDECAR_HEALTH_LOOK_MS, SIDECAR_LEASE_MS, SIDECAR_MISSES_MAX, SIDECAR_READY_MS_MAX,
    SIDECAR_RESTART_JITTER_MS, SIDECAR_RESTART_MS_MAX, SIDECAR_RESTART_MS_MIN, SIDECAR_STABLE_MS,
    SIDECAR_START_LOOK_MS, SIDECAR_STOP_MS, SIDECAR_TICK_MS, TASK_FRAME_BYTES_MAX,
};
use crate::sys::{Epoll, Interest};

/// Variables of the daemon's environment that a sidecar gets as well.
const PRESERVED: [&str; 9] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "PYTHONDONTWRITEBYTECODE",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The wake-up descriptor's token; sidecars have even ones for their socket and odd ones for their process.
const WAKE: u64 = 0;
const LISTEN: Interest = Interest { readable: true, writable: false, edge: false };

/// What is kept of a connector between its processes.
#[derive(Default)]
struct Slot {
    number: u64,
    running: Option<Running>,
    generation: u64,
    /// Starts since the last one that lasted.
    attempt: u32,
    next_start: Option<Instant>,
    restarts: u64,
    last_error: Option<String>,
    /// A slot that it needs is revoked: nothing is started until that is over.
    blocked: bool,
    /// The revision that `attempt` counts for.
    revision: Option<u64>,
}

pub(super) struct Supervisor {
    handle: Sidecars,
    parts: Parts,
    looks: Option<Sender<Look>>,
    looked: Receiver<Looked>,
    epoll: Epoll,
    slots: BTreeMap<String, Slot>,
    next_number: u64,
    buffer: Vec<u8>,
    stopping_since: Option<Instant>,
}

impl Supervisor {
    pub(super) fn new(
        handle: Sidecars,
        parts: Parts,
        looks: Sender<Look>,
        looked: Receiver<Looked>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&handle.0.wake, WAKE, LISTEN)?;
        Ok(Self {
            handle,
            parts,
            looks: Some(looks),
            looked,
            epoll,
            slots: BTreeMap::new(),
            next_number: 1,
            buffer: vec![0; TASK_FRAME_BYTES_MAX],
            stopping_since: None,
        })
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            self.reconcile();
            self.publish();
            if self.is_done() {
                break;
            }
            if let Err(error) = self.epoll.wait(&mut ready, self.sleep_ms()) {
                log::error!("the supervisor of sidecars cannot wait: {error}; next: restart the daemon");
                break;
            }
            for report in ready.drain(..) {
                match report.token {
                    WAKE => self.handle.0.wake.drain(),
                    token if token.is_multiple_of(2) => drop(self.take_in(token / 2)),
                    token => self.ended(token / 2),
                }
            }
            while let Ok(looked) = self.looked.try_recv() {
                self.saw(looked);
            }
        }
        // Ends the thread that looks: the look in hand first, then the queue.
        self.handle.0.cancel.cancel();
        self.looks = None;
    }

    fn is_done(&self) -> bool {
        let Some(since) = self.stopping_since else { return false };
        let limit = Duration::from_millis(SIDECAR_DAEMON_STOP_MS + SIDECAR_STOP_MS);
        self.slots.values().all(|slot| slot.running.is_none()) || since.elapsed() > limit
    }

    /// Until the next thing that is due.
    fn sleep_ms(&self) -> i32 {
        let now = Instant::now();
        let due = self.slots.values().filter_map(|slot| match &slot.running {
            None => slot.next_start,
            Some(running) if running.is_stopping() => Some(now + Duration::from_millis(SIDECAR_START_LOOK_MS)),
            Some(running) if running.looking => None,
            Some(running) => Some(running.next_look),
        });
        let next = due.map(|at| at.saturating_duration_since(now)).min();
        next.map_or(SIDECAR_TICK_MS, |left| (left.as_millis() as u64).min(SIDECAR_TICK_MS)) as i32 + 1
    }

    /// Compares what runs with what is configured.
    fn reconcile(&mut self) {
        if self.handle.0.stopping.load(Ordering::SeqCst) && self.stopping_since.is_none() {
            self.stopping_since = Some(Instant::now());
        }
        self.give_up_what_was_taken();
        let table = self.handle.0.registry.table();
        let broker = self.handle.0.registry.broker().clone();
        let wanted = |entry: &Arc<Entry>| {
            self.stopping_since.is_none()
                && table.hold.is_none()
                && entry.settings.child().is_some()
                && !entry.secrets.is_revoked(&broker)
        };
        let wanted: BTreeMap<String, Arc<Entry>> =
            table.iter().filter(|entry| wanted(entry)).map(|entry| (entry.name.clone(), entry.clone())).collect();
        for (name, entry) in &wanted {
            if !self.slots.contains_key(name) {
                let number = self.next_number;
                self.next_number += 1;
                self.slots.insert(name.clone(), Slot { number, ..Slot::default() });
            }
            self.tend(name, entry);
        }
        let stop = Duration::from_millis(match self.stopping_since {
            Some(_) => SIDECAR_DAEMON_STOP_MS,
            None => SIDECAR_STOP_MS,
        });
        for (name, slot) in &mut self.slots {
            if let Some(running) = &mut slot.running {
                if !wanted.contains_key(name) {
                    running.ask_to_stop(stop);
                }
                running.insist();
            }
        }
        self.slots.retain(|name, slot| wanted.contains_key(name) || slot.running.is_some());
    }

    /// Sidecars end that hold what an operator has revoked. Setting a slot does not end them: the operator says when by a put,
    /// or by the revocation that follows.
    fn give_up_what_was_taken(&mut self) {
        let broker = self.handle.0.registry.broker();
        for taken in self.handle.taken() {
            for (name, slot) in &mut self.slots {
                let Some(running) = &mut slot.running else { continue };
                let holds = match &taken {
                    Taken::Lease(id) => running.lease.as_ref().is_some_and(|(lease, _)| lease == id),
                    Taken::Slot(id) => running.slots.iter().any(|held| held.0 == *id && !is_held(broker, held)),
                };
                if holds && !running.is_stopping() {
                    log::warn!("the sidecar of connector {name} ends: what it was started with was revoked");
                    running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
                }
            }
        }
    }

    /// The revoked slot without which a sidecar cannot be.
    fn blocked_slot(&self, entry: &Entry) -> Option<SlotId> {
        let broker = self.handle.0.registry.broker();
        let is_blocked = |slot: &SlotId| matches!(broker.slot_state(slot), Ok(Some(state)) if state.blocked);
        entry.settings.slots().into_iter().map(|(_, slot)| slot).find(is_blocked)
    }

    /// One connector that shall have a sidecar.
    fn tend(&mut self, name: &str, entry: &Arc<Entry>) {
        let token_version = self.token(entry).map_or(0, |token| token.version);
        let blocked = self.blocked_slot(entry);
        let now = Instant::now();
        let slot = self.slots.get_mut(name).expect("put there just now");
        if slot.revision != Some(entry.revision) {
            // Somebody has put it: what happened to its former form does not count.
            (slot.revision, slot.attempt, slot.next_start) = (Some(entry.revision), 0, None);
        }
        if let Some(id) = blocked {
            slot.blocked = true;
            (slot.attempt, slot.next_start) = (0, None);
            slot.last_error =
                Some(format!("slot {id} is revoked; next: `kheish-daemon secrets set {id} --provider generic`"));
            if let Some(running) = slot.running.as_mut().filter(|running| !running.is_stopping()) {
                log::warn!("the sidecar of connector {name} ends: slot {id} is revoked");
                running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
            }
            return;
        }
        if std::mem::take(&mut slot.blocked) {
            slot.last_error = None;
        }
        let Some(running) = &mut slot.running else {
            if slot.next_start.is_none_or(|at| at <= now) {
                self.start(name, entry);
            }
            return;
        };
        if running.is_stopping() {
            return;
        }
        let is_changed =
            running.revision != entry.revision || (token_version != 0 && running.token_version != token_version);
        if is_changed {
            return running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
        }
        if let Phase::Ready(since) = running.phase
            && since.elapsed() >= Duration::from_millis(SIDECAR_STABLE_MS)
        {
            slot.attempt = 0;
        }
        if running.phase == Phase::Starting && running.started.elapsed() >= Duration::from_millis(SIDECAR_READY_MS_MAX)
        {
            let seen = running.detail.take().unwrap_or_else(|| "no answer".to_string());
            running.fault = Some(format!("it was not ready within {SIDECAR_READY_MS_MAX} ms: {seen}"));
            Counters::count(&entry.counters.manifest_failures);
            return running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
        }
        let now_ms = self.parts.clock.now_ms();
        let renewal = running.lease.clone().filter(|(_, expires_at_ms)| *expires_at_ms < now_ms + SIDECAR_LEASE_MS / 5);
        if let Some((lease, _)) = renewal {
            self.renew(name, entry, lease);
        }
        let Some(running) = self.slots.get(name).and_then(|slot| slot.running.as_ref()) else { return };
        if !running.looking && running.next_look <= now {
            let generation = running.generation;
            self.look(name, entry, generation);
        }
    }

    fn token(&self, entry: &Entry) -> Option<Versioned> {
        let (config, _) = entry.settings.child()?;
        let now_ms = self.parts.clock.now_ms();
        let broker = self.handle.0.registry.broker();
        entry.secret(broker, "shared_token", config.shared_token.as_ref(), now_ms).ok().flatten()
    }

    fn look(&mut self, name: &str, entry: &Entry, generation: u64) {
        let Some((config, _)) = entry.settings.child() else { return };
        let token = self.token(entry).map(|token| token.secret);
        let look = Look { name: name.to_string(), generation, base_url: config.base_url.clone(), token };
        // A full queue means that others are looked at; its turn comes.
        let is_queued = self.looks.as_ref().is_some_and(|looks| looks.try_send(look).is_ok());
        if let Some(running) = self.slots.get_mut(name).and_then(|slot| slot.running.as_mut()) {
            running.looking = is_queued;
            running.next_look = Instant::now() + Duration::from_millis(SIDECAR_START_LOOK_MS);
        }
    }

    fn saw(&mut self, looked: Looked) {
        let Some(running) = self.slots.get_mut(&looked.name).and_then(|slot| slot.running.as_mut()) else { return };
        if running.generation != looked.generation || running.is_stopping() {
            return;
        }
        running.looking = false;
        let was_ready = matches!(running.phase, Phase::Ready(_));
        let pause_ms = if was_ready { SIDECAR_HEALTH_LOOK_MS } else { SIDECAR_START_LOOK_MS };
        running.next_look = Instant::now() + Duration::from_millis(pause_ms);
        match looked.seen {
            Seen::Up { instance_id, status, detail } => {
                running.detail = detail;
                running.degraded = status == "degraded";
                let is_up = status == "ready" || status == "degraded";
                if is_up && !was_ready {
                    running.phase = Phase::Ready(Instant::now());
                    running.instance_id = Some(instance_id);
                    running.next_look = Instant::now() + Duration::from_millis(SIDECAR_HEALTH_LOOK_MS);
                    log::info!("sidecar of connector {} is {status}", looked.name);
                } else if is_up && running.instance_id.as_ref() != Some(&instance_id) {
                    running.fault = Some("another process answers on its port".to_string());
                    return running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
                }
                running.misses = if is_up { 0 } else { running.misses + 1 };
            }
            Seen::Down(cause) => {
                running.detail = Some(cause);
                running.misses += 1;
            }
            Seen::Foreign(cause) => {
                running.fault = Some(cause);
                return running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
            }
        }
        if was_ready && running.misses >= SIDECAR_MISSES_MAX {
            let cause = running.detail.clone().unwrap_or_else(|| "it is not ready".to_string());
            running.fault = Some(format!("{SIDECAR_MISSES_MAX} looks in a row found it unwell: {cause}"));
            running.ask_to_stop(Duration::from_millis(SIDECAR_STOP_MS));
        }
    }

    fn start(&mut self, name: &str, entry: &Arc<Entry>) {
        let begun = self.begin(entry);
        let slot = self.slots.get_mut(name).expect("tended");
        let mut running = match begun {
            Ok(running) => running,
            Err(cause) => {
                log::warn!("the sidecar of connector {name} cannot be started: {cause}");
                slot.last_error = Some(cause);
                return back_off(name, slot);
            }
        };
        slot.generation += 1;
        slot.next_start = None;
        (running.generation, running.revision) = (slot.generation, entry.revision);
        let registered = self
            .epoll
            .add(&running.channel, 2 * slot.number, LISTEN)
            .and_then(|()| self.epoll.add(&running.process, 2 * slot.number + 1, LISTEN));
        if let Err(error) = registered {
            // Dropped, its socket ends and with it everything.
            slot.last_error = Some(format!("no descriptor is left: {error}"));
            return back_off(name, slot);
        }
        slot.running = Some(running);
    }

    fn begin(&self, entry: &Arc<Entry>) -> Result<Running, String> {
        let (config, child) = entry.settings.child().ok_or("it has no process")?;
        let daemon_url = self.parts.daemon_url.as_ref().ok_or(
            "the daemon listens on no TCP port, where a sidecar could reach it; next: start it with --bind host:port",
        )?;
        let now_ms = self.parts.clock.now_ms();
        let broker = self.handle.0.registry.broker();
        let token = entry
            .secret(broker, "shared_token", config.shared_token.as_ref(), now_ms)
            .map_err(|error| format!("shared_token: {error}"))?;
        let (spec, directory) = grants::spec(&self.parts.surroundings, child)?;
        let lease = self.lease(entry)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        let variable = |name: &str| std::env::var(name).ok().map(|value| (name.to_string(), value));
        let mut env: Vec<(String, String)> = vec![("PATH".to_string(), PATH.to_string())];
        env.extend(PRESERVED.iter().filter_map(|name| variable(name)));
        env.extend(child.env.clone());
        let [of_name, of_base, of_daemon, of_token, of_credential, of_keys] = RESERVED_VARIABLES.map(str::to_string);
        env.push((of_name, entry.name.clone()));
        env.push((of_base, config.base_url.trim_end_matches('/').to_string()));
        env.push((of_daemon, daemon_url.clone()));
        env.extend(token.as_ref().map(|token| (of_token, text(token.secret.expose()))));
        if let Some(lease) = &lease {
            let keys: Vec<&String> = child.credential_slots.keys().collect();
            env.push((of_credential, text(lease.token.expose())));
            env.push((of_keys, serde_json::to_string(&keys).expect("texts")));
        }
        let start = Start {
            program: program(child, &self.parts.surroundings.directory),
            args: child.args.clone(),
            env,
            directory: directory.display().to_string(),
        };
        let started = Running::start(&spec, &start);
        let mut running = match started {
            Ok(running) => running,
            Err(error) => {
                if let Some(lease) = lease {
                    broker.release_id(lease.id);
                }
                return Err(format!("no process: {error}; next: check the limits of processes and memory"));
            }
        };
        running.token_version = token.map_or(0, |token| token.version);
        running.slots = child
            .credential_slots
            .values()
            .filter_map(|slot| Some((slot.clone(), broker.slot_state(slot).ok()??.version)))
            .collect();
        running.lease = lease.map(|lease| (lease.id, lease.expires_at_ms));
        Ok(running)
    }

    fn lease(&self, entry: &Entry) -> Result<Option<ConnectorLease>, String> {
        let Some((_, child)) = entry.settings.child() else { return Ok(None) };
        if child.credential_slots.is_empty() {
            return Ok(None);
        }
        let slots = child.credential_slots.iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        let request = ConnectorLeaseRequest { connector: entry.name.clone(), slots, ttl_ms: SIDECAR_LEASE_MS };
        let leased = self.handle.0.registry.broker().lease_connector(request, self.parts.clock.now_ms());
        leased.map(Some).map_err(|error| error.to_string())
    }

    /// A process that lives goes on holding what it has read, and its lease says so; the token that it was given is not
    /// renewed. A slot that was set or revoked meanwhile has ended the lease, and another one would be for what the process
    /// does not have.
    fn renew(&mut self, name: &str, entry: &Entry, lease: String) {
        let broker = self.handle.0.registry.broker().clone();
        let Some(running) = self.slots.get(name).and_then(|slot| slot.running.as_ref()) else { return };
        let renewed = match running.slots.iter().all(|held| is_held(&broker, held)) {
            true => self.lease(entry),
            false => Ok(None),
        };
        let renewed = match renewed {
            Ok(renewed) => renewed,
            // The old one says what the process holds until it expires, and the next look tries again.
            Err(cause) => return log::warn!("the lease of connector {name} cannot be renewed yet: {cause}"),
        };
        if let Some(running) = self.slots.get_mut(name).and_then(|slot| slot.running.as_mut()) {
            running.lease = renewed.map(|lease| (lease.id, lease.expires_at_ms));
        }
        broker.release_id(lease);
    }

    fn name_of(&self, number: u64) -> Option<String> {
        self.slots.iter().find(|(_, slot)| slot.number == number).map(|(name, _)| name.clone())
    }

    /// Takes in what a worker wrote; `false` when nothing was there.
    fn take_in(&mut self, number: u64) -> bool {
        let Some(slot) = self.slots.values_mut().find(|slot| slot.number == number) else { return false };
        let Some(running) = slot.running.as_mut().filter(|running| running.open) else { return false };
        let any = running.take_in(&mut self.buffer);
        if !running.open {
            // Its end would be reported for ever; the process's own end is what counts now.
            drop(self.epoll.remove(&running.channel));
        }
        any
    }

    /// A worker has ended, and with it everything that it watched over.
    fn ended(&mut self, number: u64) {
        // What it wrote last is in the socket by now.
        while self.take_in(number) {}
        let Some(name) = self.name_of(number) else { return };
        let slot = self.slots.get_mut(&name).expect("found by its number");
        let Some(mut running) = slot.running.take() else { return };
        drop(self.epoll.remove(&running.process));
        if running.open {
            drop(self.epoll.remove(&running.channel));
        }
        let broker = self.handle.0.registry.broker();
        if let Some((lease, _)) = running.lease.take() {
            // Taken away and not given back: the process held what it stood for.
            let how = Revocation { reason: Some("its sidecar has ended".to_string()), ..Revocation::default() };
            if let Err(error) = broker.revoke_lease(&lease, how, self.parts.clock.now_ms()) {
                log::debug!("lease {lease} of an ended sidecar: {error}");
            }
        }
        match running.conclude() {
            None => slot.next_start = None,
            Some(cause) => {
                let output = String::from_utf8_lossy(&running.output);
                let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let last: String = last.chars().take(300).collect();
                let cause = if last.is_empty() { cause } else { format!("{cause}; it wrote last: {last}") };
                log::warn!("the sidecar of connector {name}: {}", broker.redact(&cause));
                slot.last_error = Some(cause);
                slot.restarts += 1;
                if let Some(entry) = self.handle.0.registry.get(crate::core::ConnectorKind::External, &name) {
                    Counters::count(&entry.counters.restarts);
                }
                back_off(&name, slot);
            }
        }
    }

    fn publish(&self) {
        let broker = self.handle.0.registry.broker();
        let now = Instant::now();
        let holds = self.handle.0.registry.table().hold.is_some();
        let mut board: BTreeMap<String, Status> = BTreeMap::new();
        for (name, slot) in &self.slots {
            let mut status = Status {
                state: if slot.blocked { "blocked" } else { "waiting" },
                generation: slot.generation,
                restarts: slot.restarts,
                failed_starts: slot.attempt,
                next_start_in_ms: slot.next_start.map(|at| at.saturating_duration_since(now).as_millis() as u64),
                last_error: slot.last_error.clone(),
                ..Status::default()
            };
            if let Some(running) = &slot.running {
                status.state = match running.phase {
                    _ if running.is_stopping() => "stopping",
                    Phase::Starting => "starting",
                    Phase::Ready(_) if running.degraded || running.misses > 0 => "degraded",
                    Phase::Ready(_) => "ready",
                };
                status.detail = running.detail.clone();
                status.pid = running.pid;
                status.instance_id = running.instance_id.clone();
                status.lease_id = running.lease.as_ref().map(|(id, _)| id.clone());
                status.output = String::from_utf8_lossy(&running.output).into_owned();
                status.credentials_stale = running.slots.iter().any(|held| !is_held(broker, held));
            }
            board.insert(name.clone(), status);
        }
        if holds {
            for entry in self.handle.0.registry.table().iter().filter(|entry| entry.settings.child().is_some()) {
                board.entry(entry.name.clone()).or_insert(Status { state: "held", ..Status::default() });
            }
        }
        *self.handle.board() = board;
    }
}

/// Whether a slot holds this version still, and may be used.
fn is_held(broker: &BrokerHandle, (slot, version): &(SlotId, u64)) -> bool {
    matches!(broker.slot_state(slot), Ok(Some(state)) if state.version == *version && !state.blocked)
}

/// A command with a slash is found from the daemon's own directory, which its sandbox may show under no other name.
fn program(child: &crate::connectors::config::ChildProcess, directory: &std::path::Path) -> String {
    match child.command.contains('/') && child.working_dir.is_none() {
        true => directory.join(&child.command).display().to_string(),
        false => child.command.clone(),
    }
}

/// Pause before start `attempt` of a connector, counted from 0, in milliseconds.
fn pause_ms(name: &str, attempt: u32) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{name}:{attempt}").as_bytes());
    let jitter = u64::from(u16::from_be_bytes([digest.as_ref()[0], digest.as_ref()[1]])) % SIDECAR_RESTART_JITTER_MS;
    (SIDECAR_RESTART_MS_MIN << attempt.min(6)).min(SIDECAR_RESTART_MS_MAX) + jitter
}

fn back_off(name: &str, slot: &mut Slot) {
    slot.next_start = Some(Instant::now() + Duration::from_millis(pause_ms(name, slot.attempt)));
    slot.attempt = slot.attempt.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_capped_and_differ_between_connectors() {
        let pauses: Vec<u64> = (0..10).map(|attempt| pause_ms("ops", attempt)).collect();
        for (attempt, pause) in pauses.iter().enumerate() {
            let plain = (1_000u64 << attempt.min(6)).min(60_000);
            assert!((plain..plain + 400).contains(pause), "{attempt}: {pause}");
        }
        assert_eq!(pauses[3], pause_ms("ops", 3), "the same for the same name and attempt");
        assert!((0..10).any(|attempt| pause_ms("a", attempt) != pause_ms("b", attempt)));
    }
}
