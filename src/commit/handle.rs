//! How other threads talk to the core thread.
//! Owns: the message type and the handle that hides the channel.
//! Never: blocks on a full mailbox; fullness is an answer.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::published::{CoreView, Published};
use crate::actor::Actor;
use crate::core::{
    Command, Connectors, Decision, DeliveryHold, DeliveryItem, DeliveryJob, DeliveryPage, DeliveryQuery, Refusal,
    RetentionHold, Run, RunPage, RunPosition, RunQuery, SessionPage, SessionSettings, SessionView, State, Target, Task,
    Todo, WaitingPage, WaitingRun, WaitsFor,
};
use crate::ids::{DeliveryId, RunId, SessionId};
use crate::journal::{Cut, JournalError};
use crate::limits::{CORE_MAILBOX_MAX, CORE_REPLY_MS_MAX};

/// Where a command's outcome goes, called on the core thread once the batch is durable. Must not block.
pub type Reply = Box<dyn FnOnce(Result<Decision, CommandError>) + Send>;

/// Work for an engine: an active run and where its records are.
pub type Job = RunPosition;

/// Why a command had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// The core refused it.
    Refused(Refusal),
    /// The mailbox is full.
    Busy,
    /// The disk is full; heals when space returns.
    StorageFull {
        /// What the journal said.
        reason: String,
    },
    /// A write failed for another reason than space; the next one is tried again.
    WriteFailed {
        /// What the journal said.
        reason: String,
    },
    /// A sync failed earlier; nothing more is accepted until a restart.
    Poisoned {
        /// What the journal said.
        reason: String,
    },
    /// The batch is larger than a segment can hold.
    TooLarge {
        /// What the journal said.
        reason: String,
    },
    /// No answer in time, as while a sync hangs. A change may still take place.
    NoAnswer {
        /// How long was waited.
        waited_ms: u64,
    },
    /// The daemon is stopping, or its core has ended.
    Stopping,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Busy => {
                write!(f, "{CORE_MAILBOX_MAX} commands are waiting already; next: retry after a second")
            }
            Self::StorageFull { reason }
            | Self::WriteFailed { reason }
            | Self::Poisoned { reason }
            | Self::TooLarge { reason } => f.write_str(reason),
            Self::NoAnswer { waited_ms } => write!(
                f,
                "the core gave no answer within {waited_ms} ms, as while a sync hangs; a change may still take place; \
                 next: see journal in GET /v1/status and check the disk, and look before a change is tried again"
            ),
            Self::Stopping => f.write_str("the daemon is stopping; next: retry when it is back"),
        }
    }
}

impl std::error::Error for CommandError {}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<JournalError> for CommandError {
    fn from(error: JournalError) -> Self {
        let reason = error.to_string();
        match error {
            JournalError::Full { .. } => Self::StorageFull { reason },
            JournalError::TooLarge { .. } => Self::TooLarge { reason },
            JournalError::Poisoned { .. } => Self::Poisoned { reason },
            JournalError::WriteFailed { .. }
            | JournalError::Io { .. }
            | JournalError::Damaged { .. }
            | JournalError::FormatNewer { .. }
            | JournalError::NotUnderstood { .. }
            | JournalError::SnapshotContradicts { .. } => Self::WriteFailed { reason },
        }
    }
}

/// A question about committed state. Answered after the batch it arrived with.
pub(super) enum Query {
    Session(SessionId, Sender<Option<SessionView>>),
    Sessions { after: u32, limit: usize, reply: Sender<SessionPage> },
    Run(RunId, Sender<Option<RunPosition>>),
    RunOfKey([u8; 16], Sender<Option<(RunId, Run)>>),
    Runs(RunQuery, Sender<RunPage>),
    Tasks(SessionId, Sender<Option<Vec<Arc<Task>>>>),
    Task(SessionId, String, Sender<Option<Arc<Task>>>),
    Todos(SessionId, Sender<Option<Vec<Todo>>>),
    Waiting(WaitingQuery, Sender<WaitingPage>),
    WaitingRun(Target, Sender<Option<WaitingRun>>),
    Read(Box<dyn FnOnce(&State) + Send>),
    Delivery(DeliveryId, Sender<Option<DeliveryItem>>),
    Deliveries(DeliveryQuery, Sender<DeliveryPage>),
    DeliveryHold(Sender<Option<DeliveryHold>>),
}

/// A command, who is behind it, and where its outcome goes.
pub(super) struct Asked {
    pub command: Command,
    pub by: Option<Actor>,
    pub reply: Reply,
}

/// Which waiting runs to list.
#[derive(Debug, Clone)]
pub struct WaitingQuery {
    /// What they wait for.
    pub waits_for: WaitsFor,
    /// Only this session's.
    pub session: Option<SessionId>,
    /// Behind the run with this time and number.
    pub after: Option<(u64, u32)>,
    /// Runs at most.
    pub limit: usize,
}

/// What arrives in the core's mailbox.
pub(super) enum Message {
    /// Boxed, as the next: the mailbox holds thousands of slots of the largest message.
    Decide(Box<Asked>),
    Ask(Box<Query>),
    TakeRun(Sender<Job>),
    /// There is something to do that does not travel in a message.
    Wake,
    TakeDelivery(Sender<DeliveryJob>),
    PutBackDelivery(u32),
    /// Seal what is committed and tell how far the files reach.
    Cut(Sender<Result<Cut, CommandError>>),
    Stop,
}

/// Access to the core thread. Cheap to clone.
#[derive(Clone)]
pub struct CoreHandle {
    sender: Sender<Message>,
    /// Disconnected once the core has ended. A message that came too late for it lies in the mailbox for as long as a
    /// handle lives, and with it the way for its answer, so waiting for the answer alone would never end.
    ended: Receiver<Never>,
    published: Arc<Published>,
}

/// What no channel ever carries.
pub(super) enum Never {}

impl CoreHandle {
    /// The handle, the mailbox, and what the core holds for as long as it lives.
    pub(super) fn new(published: Arc<Published>) -> (Self, Receiver<Message>, Sender<Never>) {
        let (sender, inbox) = bounded(CORE_MAILBOX_MAX);
        let (alive, ended) = bounded(0);
        (Self { sender, ended, published }, inbox, alive)
    }

    /// Waits for an answer; `None` when the core ended without one.
    fn wait<T>(&self, answer: &Receiver<T>) -> Option<T> {
        select! {
            recv(answer) -> answered => answered.ok(),
            // It may have answered before it ended.
            recv(self.ended) -> _ended => answer.try_recv().ok(),
        }
    }

    /// As [`CoreHandle::wait`], for at most `limit`.
    fn wait_within<T>(&self, answer: &Receiver<T>, limit: Duration) -> Result<T, CommandError> {
        select! {
            recv(answer) -> answered => answered.ok(),
            recv(self.ended) -> _ended => answer.try_recv().ok(),
            default(limit) => return Err(CommandError::NoAnswer { waited_ms: limit.as_millis() as u64 }),
        }
        .ok_or(CommandError::Stopping)
    }

    pub(super) fn send(&self, message: Message) -> Result<(), Box<(CommandError, Message)>> {
        self.sender.try_send(message).map_err(|refused| match refused {
            TrySendError::Full(message) => Box::new((CommandError::Busy, message)),
            TrySendError::Disconnected(message) => Box::new((CommandError::Stopping, message)),
        })
    }

    /// Hands over a command; `reply` is called exactly once, here if the command could not be handed over. Only when
    /// the core panics is it dropped without a call. Every record that the command commits names `by`, the API caller
    /// on whose behalf it is; the daemon's own commands have none.
    pub fn submit(&self, command: Command, by: Option<Actor>, reply: Reply) {
        if let Err(refused) = self.send(Message::Decide(Box::new(Asked { command, by, reply })))
            && let (error, Message::Decide(asked)) = *refused
        {
            (asked.reply)(Err(error));
        }
    }

    /// Hands over a command of a caller who may be told to look again: waits for its outcome for at most
    /// [`CORE_REPLY_MS_MAX`], so that a hanging sync does not hold the threads that answer requests.
    ///
    /// # Errors
    /// See [`CommandError`]; after [`CommandError::NoAnswer`] the outcome is not known.
    pub fn request(&self, command: Command, by: Option<Actor>) -> Result<Decision, CommandError> {
        self.request_within(command, by, Duration::from_millis(CORE_REPLY_MS_MAX))
    }

    /// As [`CoreHandle::request`], waiting for at most `limit`.
    ///
    /// # Errors
    /// As there.
    pub fn request_within(
        &self,
        command: Command,
        by: Option<Actor>,
        limit: Duration,
    ) -> Result<Decision, CommandError> {
        let (reply, outcome) = bounded(1);
        self.submit(command, by, Box::new(move |result| drop(reply.try_send(result))));
        self.wait_within(&outcome, limit)?
    }

    /// Hands over a command and waits for its outcome, however long a sync takes.
    ///
    /// # Errors
    /// See [`CommandError`]; no error means the outcome is durable.
    pub fn execute(&self, command: Command) -> Result<Decision, CommandError> {
        let (reply, outcome) = bounded(1);
        self.submit(command, None, Box::new(move |result| drop(reply.send(result))));
        self.wait(&outcome).unwrap_or(Err(CommandError::Stopping))
    }

    fn ask<T>(&self, query: impl FnOnce(Sender<T>) -> Query) -> Result<T, CommandError> {
        let (reply, answer) = bounded(1);
        self.send(Message::Ask(Box::new(query(reply)))).map_err(|refused| refused.0)?;
        self.wait_within(&answer, Duration::from_millis(CORE_REPLY_MS_MAX))
    }

    /// A session's figures.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn session(&self, id: &SessionId) -> Result<Option<SessionView>, CommandError> {
        self.ask(|reply| Query::Session(id.clone(), reply))
    }

    /// Sessions in order of creation behind number `after`.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn sessions(&self, after: u32, limit: usize) -> Result<SessionPage, CommandError> {
        self.ask(|reply| Query::Sessions { after, limit, reply })
    }

    /// Where a run stands.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn run(&self, id: RunId) -> Result<Option<RunPosition>, CommandError> {
        self.ask(|reply| Query::Run(id, reply))
    }

    /// The run of an idempotency key.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn run_of_key(&self, key: [u8; 16]) -> Result<Option<(RunId, Run)>, CommandError> {
        self.ask(|reply| Query::RunOfKey(key, reply))
    }

    /// One page of runs.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn runs(&self, query: RunQuery) -> Result<RunPage, CommandError> {
        self.ask(|reply| Query::Runs(query, reply))
    }

    /// The tasks of a session that are kept, oldest first; `None` for an unknown session.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn tasks(&self, session: &SessionId) -> Result<Option<Vec<Arc<Task>>>, CommandError> {
        self.ask(|reply| Query::Tasks(session.clone(), reply))
    }

    /// A task of a session, if it is kept.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn task(&self, session: &SessionId, id: &str) -> Result<Option<Arc<Task>>, CommandError> {
        self.ask(|reply| Query::Task(session.clone(), id.to_string(), reply))
    }

    /// The short list of a session; `None` for an unknown session.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn todos(&self, session: &SessionId) -> Result<Option<Vec<Todo>>, CommandError> {
        self.ask(|reply| Query::Todos(session.clone(), reply))
    }

    /// One page of runs that wait for people.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn waiting(&self, query: WaitingQuery) -> Result<WaitingPage, CommandError> {
        self.ask(|reply| Query::Waiting(query, reply))
    }

    /// What a run, or a session's active one, waits for; `None` when it waits for nothing.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn waiting_run(&self, target: Target) -> Result<Option<WaitingRun>, CommandError> {
        self.ask(|reply| Query::WaitingRun(target, reply))
    }

    /// Reads committed state on the core thread, which nothing of it may hold up.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn read<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T + Send + 'static) -> Result<T, CommandError> {
        self.ask(|reply| {
            // A caller that gave up needs no answer.
            Query::Read(Box::new(move |state| drop(reply.try_send(look(state)))))
        })
    }

    /// Waits for an active run that needs an engine. `None` when the daemon stops.
    pub fn take_run(&self) -> Option<Job> {
        let (reply, job) = bounded(1);
        self.sender.send(Message::TakeRun(reply)).ok()?;
        self.wait(&job)
    }

    /// Has an active run handed out again that an engine let go of without an end. Never waits: with a full mailbox the
    /// core comes by anyway.
    pub fn hand_again(&self, run: RunId) {
        self.published.put_again(run);
        drop(self.send(Message::Wake));
    }

    /// A delivery, if it is kept.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryItem>, CommandError> {
        self.ask(|reply| Query::Delivery(id, reply))
    }

    /// One page of deliveries.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, CommandError> {
        self.ask(|reply| Query::Deliveries(query, reply))
    }

    /// Why no delivery is sent, if none is.
    ///
    /// # Errors
    /// The core could not be asked.
    pub fn delivery_hold(&self) -> Result<Option<DeliveryHold>, CommandError> {
        self.ask(Query::DeliveryHold)
    }

    /// Waits for a delivery that may be sent now. `None` when `stopped` disconnects or the core ends; then a delivery
    /// handed out in that moment waits for the next start.
    pub fn take_delivery(&self, stopped: &Receiver<Infallible>) -> Option<DeliveryJob> {
        let (reply, job) = bounded(1);
        self.sender.send(Message::TakeDelivery(reply)).ok()?;
        select! {
            recv(job) -> job => job.ok(),
            recv(self.ended) -> _ended => job.try_recv().ok(),
            recv(stopped) -> _stopped => job.try_recv().ok(),
        }
    }

    /// Gives a delivery in hand back, to be taken again.
    pub fn put_back_delivery(&self, number: u32) {
        // A core that has ended gives nothing out any more.
        drop(self.sender.send(Message::PutBackDelivery(number)));
    }

    /// Seals the journal and tells how far its files reach there, for whoever copies them while the core goes on. Waits
    /// for at most [`CORE_REPLY_MS_MAX`].
    ///
    /// # Errors
    /// The journal takes no record, or the core could not be asked.
    pub fn cut(&self) -> Result<Cut, CommandError> {
        let (reply, answer) = bounded(1);
        self.send(Message::Cut(reply)).map_err(|refused| refused.0)?;
        self.wait_within(&answer, Duration::from_millis(CORE_REPLY_MS_MAX))?
    }

    /// Asks the core to end after what is in its mailbox.
    pub fn stop(&self) {
        // A core that has ended already is what is asked for.
        drop(self.sender.send(Message::Stop));
    }

    /// The newest committed figures; never waits for the core.
    pub fn view(&self) -> Arc<CoreView> {
        self.published.view()
    }

    /// The hold on a run's evidence as of the last committed batch; never waits for the core.
    pub fn retention_hold(&self, run: RunId) -> Option<RetentionHold> {
        self.published.hold(run)
    }

    /// What a session has of its own as of the last committed batch, if anything; never waits for the core.
    pub fn session_settings(&self, session: &SessionId) -> Option<Arc<SessionSettings>> {
        self.published.settings(session)
    }

    /// What sessions have of their own, in no order.
    pub fn all_session_settings(&self) -> Vec<(SessionId, Arc<SessionSettings>)> {
        self.published.all_settings()
    }

    /// The connectors that were configured at runtime, as of the last committed batch; never waits for the core.
    pub fn connectors(&self) -> Arc<Connectors> {
        self.published.connectors()
    }

    /// The session that the first of these binding keys to name one names; never waits for the core.
    pub fn bound_session(&self, keys: &[[u8; 16]]) -> Option<SessionId> {
        self.published.bound(keys)
    }

    /// For how long the core has been at its present batch, its sync and its upkeep, in milliseconds; `None` while it
    /// waits for work.
    pub fn batch_age_ms(&self) -> Option<u64> {
        self.published.batch_age_ms()
    }

    /// Commands waiting.
    pub fn queue_depth(&self) -> usize {
        self.sender.len()
    }
}
