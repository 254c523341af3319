//! The state as lines of text, and back.
//! Owns: what a snapshot carries. The file around it (digest, signature, chain) is the journal's.
//! Never: stores what can be derived; indexes and idempotency are rebuilt from sessions and runs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::ActionChain;
use super::agent::Mailbox;
use super::connectors::{BindingKey, Connectors, binding_lines};
use super::delivery::{Delivery, TargetKey};
use super::delivery_table::{Deliveries, DeliveryHold, TargetState};
use super::event::Idempotency;
use super::hooks::HookLedger;
use super::retention::RetentionHold;
use super::routes_loaded::RoutesInForce;
use super::run::{Run, RunStatus, RunTable};
use super::runtime_config::{Revision, RuntimeConfig};
use super::session::Session;
use super::state::State;
use super::step::Step;
use super::task::{Task, Tasks, TodoList};

/// Version of the lines below; another one is refused.
const VERSION: u32 = 1;
/// Runs per line: long enough to amortise parsing, short enough to stay a small buffer.
const RUNS_PER_LINE: usize = 256;

/// A copy of the state that can be written by another thread while the original moves on. Runs are shared,
/// sessions are copied.
#[derive(Debug)]
pub struct Frozen {
    head: Head,
    runtime: Arc<RuntimeConfig>,
    hooks: Arc<HookLedger>,
    retention: Vec<(u32, RetentionHold)>,
    routes: Option<Arc<RoutesInForce>>,
    sessions: Vec<Session>,
    runs: RunTable,
    chains: Vec<(u32, ActionChain)>,
    steps: Vec<(u32, Arc<Step>)>,
    receipts: Vec<(Idempotency, u32)>,
    tasks: Tasks,
    connectors: Arc<Connectors>,
    bindings: Vec<Vec<(BindingKey, u32)>>,
    mailboxes: Vec<(u32, Arc<Mailbox>)>,
    deliveries: Deliveries,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    state_version: u32,
    epoch: u32,
    home_epoch: u32,
    run_epochs: Vec<(u32, u32)>,
    held: bool,
    /// Runs up to this number came with a copy and are held.
    #[serde(default)]
    brought: u32,
    sessions: u32,
    runs: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    State(Head),
    /// All kept revisions of the runtime configuration, the one in force last.
    Runtime(Vec<Revision>),
    /// The routes file that the daemon was last started with.
    Routes(RoutesInForce),
    /// How far notifications have come, and calls of hooks that came to nothing.
    Hooks(HookLedger),
    /// Runs whose evidence is held.
    Retention(Vec<(u32, RetentionHold)>),
    Session(Session),
    Runs(Vec<RunRow>),
    /// The chain of a run's signed actions; the daemon's under 0.
    Actions(u32, ActionChain),
    /// The turn at hand of a run.
    Step(u32, Step),
    /// Answers of operators, oldest first.
    Receipts(Vec<(Idempotency, u32)>),
    /// Tasks ever created, and how many by status.
    Tasks(u32, [u64; 6]),
    /// One that is kept.
    Task(Box<Task>),
    /// The short list of a session.
    Todos(u32, TodoList),
    /// Connectors that were configured at runtime.
    Connectors(Connectors),
    /// Digests of binding keys, and the sessions that they name.
    Bindings(Vec<(BindingKey, u32)>),
    /// Messages to the agent of a session.
    Mailbox(u32, Box<Mailbox>),
    /// Deliveries ever queued, delivered and dead, and why nothing is sent.
    Deliveries([u64; 3], Option<DeliveryHold>),
    /// Some that are kept.
    Delivery(Vec<Delivery>),
    /// How targets fare.
    DeliveryTargets(Vec<(TargetKey, TargetState)>),
    /// Targets of runs under way.
    DeliveryRoutes(Vec<(u32, Vec<TargetKey>)>),
}

/// A run as a row without field names: a million of them are read at start.
#[derive(Serialize, Deserialize)]
struct RunRow(u32, RunStatus, bool, [u32; 4], [u64; 5], Option<Idempotency>);

impl From<&Run> for RunRow {
    fn from(run: &Run) -> Self {
        let idempotency = (run.key != [0; 16]).then_some(Idempotency { key: run.key, fingerprint: run.fingerprint });
        Self(
            run.session,
            run.status,
            run.action_in_flight,
            [run.queue_prev, run.queue_next, run.session_prev, run.session_next],
            [run.submitted_at_ms, run.started_at_ms, run.updated_at_ms, run.first_seq, run.last_seq],
            idempotency,
        )
    }
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        let RunRow(session, status, action_in_flight, neighbours, times, idempotency) = row;
        let [queue_prev, queue_next, session_prev, session_next] = neighbours;
        let [submitted_at_ms, started_at_ms, updated_at_ms, first_seq, last_seq] = times;
        Self {
            session,
            status,
            action_in_flight,
            queue_prev,
            queue_next,
            session_prev,
            session_next,
            submitted_at_ms,
            started_at_ms,
            updated_at_ms,
            first_seq,
            last_seq,
            key: idempotency.map_or([0; 16], |idempotency| idempotency.key),
            fingerprint: idempotency.map_or([0; 16], |idempotency| idempotency.fingerprint),
        }
    }
}

/// A snapshot line that does not fit.
#[derive(Debug)]
pub struct RestoreError(String);

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot content: {}; next: move the snapshot file aside to replay the journal instead", self.0)
    }
}

impl std::error::Error for RestoreError {}

impl Frozen {
    /// The lines of the snapshot, without line ends.
    pub fn into_lines(self) -> impl Iterator<Item = Vec<u8>> {
        fn json(line: &Line) -> Vec<u8> {
            serde_json::to_vec(line).expect("snapshot lines have string keys and no failing serialisers")
        }
        let Self {
            head,
            runtime,
            hooks,
            retention,
            routes,
            sessions,
            runs,
            steps,
            receipts,
            chains,
            tasks,
            connectors,
            bindings,
            mailboxes,
            deliveries,
        } = self;
        let Deliveries { created, delivered, dead, hold, rows, targets, routes: targets_of_runs, .. } = deliveries;
        let figures = [u64::from(created), delivered, dead];
        let delivery_routes: Vec<(u32, Vec<TargetKey>)> =
            targets_of_runs.into_iter().map(|(run, targets)| (run, targets.to_vec())).collect();
        let mut kept: Vec<Vec<Delivery>> = Vec::new();
        for row in rows.into_values() {
            match kept.last_mut() {
                Some(line) if line.len() < RUNS_PER_LINE => line.push(row),
                _ => kept.push(vec![row]),
            }
        }
        let targets: Vec<(TargetKey, TargetState)> = targets.into_iter().collect();
        let target_lines: Vec<Vec<u8>> =
            targets.chunks(RUNS_PER_LINE).map(|line| json(&Line::DeliveryTargets(line.to_vec()))).collect();
        let route_lines: Vec<Vec<u8>> =
            delivery_routes.chunks(RUNS_PER_LINE).map(|line| json(&Line::DeliveryRoutes(line.to_vec()))).collect();
        let revisions = runtime.revisions().cloned().collect();
        let run_count = runs.len();
        let run_lines = (0..run_count.div_ceil(RUNS_PER_LINE as u32)).map(move |line| {
            let first = line * RUNS_PER_LINE as u32 + 1;
            let last = run_count.min(first + RUNS_PER_LINE as u32 - 1);
            let rows = (first..=last).map(|number| runs.get(number).expect("numbers have no holes").into());
            json(&Line::Runs(rows.collect()))
        });
        [json(&Line::State(head)), json(&Line::Runtime(revisions))]
            .into_iter()
            .chain(sessions.into_iter().map(|session| json(&Line::Session(session))))
            .chain(run_lines)
            .chain(chains.into_iter().map(|(run, chain)| json(&Line::Actions(run, chain))))
            .chain(steps.into_iter().map(|(run, step)| json(&Line::Step(run, Step::clone(&step)))))
            .chain(routes.map(|routes| json(&Line::Routes(RoutesInForce::clone(&routes)))))
            .chain(std::iter::once(json(&Line::Hooks(HookLedger::clone(&hooks)))))
            .chain(std::iter::once(json(&Line::Retention(retention))))
            .chain(std::iter::once(json(&Line::Receipts(receipts))))
            .chain(std::iter::once(json(&Line::Tasks(tasks.created, tasks.by_status))))
            .chain(tasks.by_number.into_values().map(|task| json(&Line::Task(Box::new(Task::clone(&task))))))
            .chain(tasks.todos.into_iter().map(|(session, list)| json(&Line::Todos(session, TodoList::clone(&list)))))
            .chain(std::iter::once(json(&Line::Connectors(Connectors::clone(&connectors)))))
            .chain(bindings.into_iter().map(|line| json(&Line::Bindings(line))))
            .chain(
                mailboxes
                    .into_iter()
                    .map(|(session, mailbox)| json(&Line::Mailbox(session, Box::new(Mailbox::clone(&mailbox))))),
            )
            .chain(std::iter::once(json(&Line::Deliveries(figures, hold))))
            .chain(kept.into_iter().map(|line| json(&Line::Delivery(line))))
            .chain(target_lines)
            .chain(route_lines)
    }
}

impl State {
    /// A consistent copy for the snapshot writer.
    pub fn freeze(&self) -> Frozen {
        let head = Head {
            state_version: VERSION,
            epoch: self.epoch,
            home_epoch: self.home_epoch,
            run_epochs: self.run_epochs.clone(),
            held: self.held,
            brought: self.brought,
            sessions: self.sessions.len() as u32,
            runs: self.runs.len(),
        };
        Frozen {
            head,
            runtime: self.runtime.clone(),
            hooks: self.hooks.clone(),
            retention: self.retention.iter().map(|(run, hold)| (*run, hold.clone())).collect(),
            routes: self.routes.clone(),
            sessions: self.sessions.clone(),
            runs: self.runs.clone(),
            steps: self.steps.iter().map(|(run, step)| (*run, step.clone())).collect(),
            receipts: self.receipts.iter().collect(),
            tasks: self.tasks.clone(),
            connectors: self.connectors.clone(),
            bindings: binding_lines(&self.bindings),
            mailboxes: self.mailboxes.iter().map(|(session, mailbox)| (*session, mailbox.clone())).collect(),
            deliveries: self.deliveries.clone(),
            chains: self.chains.iter().map(|(run, chain)| (*run, chain.clone())).collect(),
        }
    }

    /// Adds one line of a snapshot to a state that holds only earlier lines of the same snapshot.
    ///
    /// # Errors
    /// The line does not parse, is of another version, or does not follow the lines before it.
    pub fn restore_line(&mut self, line: &[u8]) -> Result<(), RestoreError> {
        let line: Line = serde_json::from_slice(line).map_err(|error| RestoreError(error.to_string()))?;
        match line {
            Line::State(head) => {
                if head.state_version != VERSION {
                    return Err(RestoreError(format!("state version {} is not {VERSION}", head.state_version)));
                }
                self.epoch = head.epoch;
                self.home_epoch = head.home_epoch;
                self.run_epochs = head.run_epochs;
                self.held = head.held;
                self.brought = head.brought;
                self.sessions.reserve(head.sessions as usize);
                self.idempotency.reserve(head.runs as usize);
            }
            Line::Retention(holds) => {
                if let Some((number, _)) = holds.iter().find(|(number, _)| self.runs.get(*number).is_none()) {
                    return Err(RestoreError(format!("the evidence of unknown run number {number} is held")));
                }
                self.retention = holds.into_iter().collect();
            }
            Line::Routes(routes) => self.routes = Some(Arc::new(routes)),
            Line::Hooks(ledger) => self.hooks = Arc::new(ledger),
            Line::Runtime(revisions) => {
                self.runtime = Arc::new(RuntimeConfig::restored(revisions).map_err(RestoreError)?);
            }
            Line::Session(session) => {
                let next = self.sessions.len() as u32 + 1;
                if session.number != next || self.session_number(&session.id).is_some() {
                    return Err(RestoreError(format!("session {} does not follow {}", session.number, next - 1)));
                }
                self.put_session(next, session);
            }
            Line::Actions(run, chain) => {
                if run != 0 && !self.runs.get(run).is_some_and(|run| run.status.is_active()) {
                    return Err(RestoreError(format!("actions belong to run number {run}, which is not active")));
                }
                self.chains.insert(run, chain);
            }
            Line::Step(number, step) => {
                if !self.runs.get(number).is_some_and(|run| run.status.is_active()) {
                    return Err(RestoreError(format!("a turn belongs to run number {number}, which is not active")));
                }
                self.put_step(number, Some(Arc::new(step)));
            }
            Line::Receipts(receipts) => receipts.into_iter().for_each(|(key, run)| self.receipts.put(key, run)),
            Line::Tasks(created, by_status) => {
                self.tasks.created = created;
                self.tasks.by_status = by_status;
            }
            Line::Task(task) => {
                if self.session(task.session).is_none() {
                    return Err(RestoreError(format!("task {} belongs to an unknown session", task.id)));
                }
                self.tasks.keep(task.number, Arc::new(*task));
            }
            Line::Connectors(connectors) => self.connectors = Arc::new(connectors),
            Line::Bindings(bindings) => {
                if let Some((_, session)) = bindings.iter().find(|(_, session)| self.session(*session).is_none()) {
                    return Err(RestoreError(format!("a binding names unknown session number {session}")));
                }
                self.bindings.extend(bindings.into_iter().map(|(key, session)| (key.0, session)));
            }

            Line::Mailbox(session, mailbox) => {
                if self.session(session).is_none() {
                    return Err(RestoreError(format!("a mailbox belongs to unknown session number {session}")));
                }
                self.put_mailbox(session, Some(Arc::new(*mailbox)));
            }
            Line::Todos(session, list) => self.tasks.put_todos(session, Arc::new(list)),
            Line::Deliveries([created, delivered, dead], hold) => {
                let deliveries = &mut self.deliveries;
                deliveries.created = u32::try_from(created).map_err(|_| RestoreError("too many deliveries".into()))?;
                (deliveries.delivered, deliveries.dead, deliveries.hold) = (delivered, dead, hold);
            }
            Line::Delivery(rows) => {
                for row in rows {
                    if self.runs.get(row.run).is_none_or(|run| run.session != row.session) {
                        return Err(RestoreError(format!("{} belongs to an unknown run", row.id)));
                    }
                    self.deliveries.keep(row.id.number, row);
                }
            }
            Line::DeliveryTargets(targets) => self.deliveries.targets.extend(targets),
            Line::DeliveryRoutes(routes) => {
                routes.into_iter().for_each(|(run, targets)| self.deliveries.put_route(run, Some(targets.into())));
            }
            Line::Runs(rows) => {
                for row in rows {
                    let run = Run::from(row);
                    if self.session(run.session).is_none() {
                        return Err(RestoreError(format!("a run belongs to unknown session {}", run.session)));
                    }
                    let number = self.runs.len() + 1;
                    if run.key != [0; 16] {
                        self.idempotency.insert(run.key, number);
                    }
                    self.put_run(number, run);
                }
            }
        }
        Ok(())
    }
}
