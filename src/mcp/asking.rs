//! Calls during which people may be asked: they outlive the engine's interest, so each has a thread of this room.
//! Owns: those threads, which call waits for whom, and the end of calls that nobody will answer.
//! May touch: the core, to see whether a run still waits.
//! Never: has a person asked by a call that is not theirs; keeps a server waiting for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::form::{self, Reply};
use crate::commit::CoreHandle;
use crate::core::{QuestionAnswer, QuestionResolved, UserQuestion};
use crate::engine::{Called, RoomQuestion};
use crate::ids::RunId;
use crate::limits::{MCP_ASK_MS_MAX, MCP_ASKS_OPEN_MAX, MCP_ASKS_PER_CALL_MAX, MCP_CALL_THREADS_MAX, MCP_TICK_MS};
use crate::net::Cancel;
use crate::tools::ToolOutput;
use crate::worker::{self, Worker};

/// Tells a server what came of its question. Called once, on any thread; it may send.
type Respond = Box<dyn FnOnce(Reply) + Send>;

/// What a call tells the engine.
enum Event {
    Asks(Vec<UserQuestion>),
    Over(ToolOutput),
}

/// The question of a call that is open.
struct Open {
    respond: Respond,
    questions: Vec<UserQuestion>,
    is_link: bool,
    /// The server's own name for it.
    request: Option<String>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    asked: u32,
    is_over: bool,
}

/// A call of a run.
pub(super) struct UnderWay {
    server: String,
    run: RunId,
    call: String,
    /// Ends it.
    pub cancel: Cancel,
    tell: Sender<Event>,
    told: Receiver<Event>,
    state: Mutex<State>,
    /// When it ends in any case.
    until: Mutex<Instant>,
    desk: Arc<Desk>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The calls of one daemon.
pub(super) struct Desk {
    core: CoreHandle,
    stop: Cancel,
    jobs: (Sender<Job>, Receiver<Job>),
    threads: Mutex<Vec<Worker>>,
    /// Calls whose run waits, or will go on.
    parked: Mutex<HashMap<(RunId, String), Arc<UnderWay>>>,
    /// Wakes the watch.
    wake: (Sender<()>, Receiver<()>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every statement leaves what it guards complete, so a panic elsewhere has not spoilt it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub fn new(core: CoreHandle, stop: Cancel) -> Arc<Self> {
        Arc::new(Self {
            core,
            stop,
            jobs: bounded(0),
            threads: Mutex::default(),
            parked: Mutex::default(),
            wake: bounded(1),
        })
    }

    /// A call of a run that may ask; `None` for one more than there are threads.
    pub fn begin(
        self: &Arc<Self>,
        server: &str,
        run: RunId,
        call: &str,
        job: impl FnOnce(&Arc<UnderWay>) -> ToolOutput + Send + 'static,
    ) -> Option<Arc<UnderWay>> {
        let (tell, told) = bounded(2);
        let under_way = Arc::new(UnderWay {
            server: server.to_string(),
            run,
            call: call.to_string(),
            cancel: self.stop.child(),
            tell,
            told,
            state: Mutex::default(),
            until: Mutex::new(Instant::now() + Duration::from_millis(MCP_ASK_MS_MAX)),
            desk: self.clone(),
        });
        let own = under_way.clone();
        let work: Job = Box::new(move || {
            let output = job(&own);
            own.end();
            let _nobody_waits = own.tell.try_send(Event::Over(output));
        });
        self.give(work).then_some(under_way)
    }

    /// Has a thread do the work; false where all are in use.
    fn give(self: &Arc<Self>, work: Job) -> bool {
        let work = match self.jobs.0.try_send(work) {
            Ok(()) => return true,
            Err(error) => error.into_inner(),
        };
        let mut threads = lock(&self.threads);
        if threads.len() >= MCP_CALL_THREADS_MAX || self.stop.is_cancelled() {
            return false;
        }
        let desk = self.clone();
        let thread = Worker::spawn(format!("mcp-call-{}", threads.len() + 1), move || {
            worker::idle(work);
            desk.work();
        });
        match thread {
            Ok(thread) => {
                threads.push(thread);
                true
            }
            Err(error) => {
                log::warn!("no thread for a call of an MCP server: {error}");
                false
            }
        }
    }

    fn work(&self) {
        loop {
            let job = select! {
                recv(self.jobs.1) -> job => job,
                recv(self.stop.woken()) -> _ => return,
            };
            // What a server takes its time for is no fault of the thread.
            if let Ok(job) = job {
                worker::idle(job);
            }
        }
    }

    /// Looks after calls that wait for people, and ends with the threads. For one thread.
    pub fn watch(&self) {
        while !self.stop.is_cancelled() {
            let tick = if lock(&self.parked).is_empty() {
                Duration::from_secs(3_600)
            } else {
                Duration::from_millis(MCP_TICK_MS)
            };
            worker::idle(|| {
                select! {
                    recv(self.wake.1) -> _ => {}
                    recv(self.stop.woken()) -> _ => {}
                    default(tick) => {}
                }
            });
            let parked: Vec<Arc<UnderWay>> = lock(&self.parked).values().cloned().collect();
            for call in parked {
                // A core that does not answer has not said that the run is over.
                let is_over = self.core.run(call.run).is_ok_and(|run| run.is_none_or(|run| run.status.is_terminal()));
                if is_over || *lock(&call.until) <= Instant::now() {
                    log::info!(
                        "MCP server {}: nobody waits any more for a call during which people were asked",
                        call.server
                    );
                    self.forget(&call);
                    call.cancel.cancel();
                    call.end();
                }
            }
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if let Err(error) = thread.join() {
                log::error!("{error}");
            }
        }
    }

    fn key(call: &UnderWay) -> (RunId, String) {
        (call.run, call.call.clone())
    }

    fn forget(&self, call: &UnderWay) {
        lock(&self.parked).remove(&Self::key(call));
    }

    /// Goes on with a call, with what people have said.
    pub fn resume(
        &self,
        run: RunId,
        call: &str,
        answer: &QuestionResolved,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Option<Called> {
        let under_way = lock(&self.parked).get(&(run, call.to_string())).cloned()?;
        under_way.answer(answer);
        Some(under_way.wait(limit_ms, cancel))
    }
}

impl UnderWay {
    /// Has people asked. `respond` is called with what they say; at once with "cancel" where they cannot be asked now.
    pub fn ask(&self, questions: Vec<UserQuestion>, is_link: bool, request: Option<String>, respond: Respond) {
        let refused = {
            let mut state = lock(&self.state);
            let is_full = lock(&self.desk.parked).len() >= MCP_ASKS_OPEN_MAX;
            if state.is_over || state.open.is_some() || state.asked >= MCP_ASKS_PER_CALL_MAX || is_full {
                Some(respond)
            } else {
                state.asked += 1;
                state.open = Some(Open { respond, questions: questions.clone(), is_link, request });
                None
            }
        };
        match refused {
            Some(respond) => respond(Reply::Cancel),
            // There is room: a call has one question open at a time, and ends once.
            None => drop(self.tell.try_send(Event::Asks(questions))),
        }
    }

    /// The server does not want to know any more.
    pub fn withdraw(&self, request: &str) {
        let mut state = lock(&self.state);
        if let Some(open) = &mut state.open
            && open.request.as_deref() == Some(request)
        {
            // The question stays with the people; what they say is for nobody.
            open.respond = Box::new(|_| {});
        }
    }

    fn answer(&self, answer: &QuestionResolved) {
        let Some(open) = lock(&self.state).open.take() else { return };
        let reply = match answer {
            QuestionResolved { reason: Some(_), .. } => Reply::Cancel,
            QuestionResolved { declined: true, .. } => Reply::Decline,
            _ if open.is_link => Reply::Accept(None),
            _ => reply(&self.server, &open.questions, &answer.answers),
        };
        (open.respond)(reply);
    }

    /// Nothing is asked any more, and what is open will not be answered.
    fn end(&self) {
        let open = {
            let mut state = lock(&self.state);
            state.is_over = true;
            state.open.take()
        };
        if let Some(open) = open {
            (open.respond)(Reply::Cancel);
        }
    }

    /// Waits for the end of the call, for a question, for the end of its time, or for whoever cancels.
    pub fn wait(self: &Arc<Self>, limit_ms: u64, cancel: &Cancel) -> Called {
        let limit = Duration::from_millis(limit_ms);
        let event = select! {
            recv(self.told) -> event => event.ok(),
            recv(cancel.woken()) -> _ => None,
            default(limit) => None,
        };
        match event {
            Some(Event::Asks(questions)) => {
                *lock(&self.until) = Instant::now() + Duration::from_millis(MCP_ASK_MS_MAX) + 2 * limit;
                lock(&self.desk.parked).insert(Desk::key(self), self.clone());
                // It has been woken before, or is now.
                let _woken_before = self.desk.wake.0.try_send(());
                Called::Asks(RoomQuestion { server: self.server.clone(), questions, expires_after_ms: MCP_ASK_MS_MAX })
            }
            Some(Event::Over(output)) => {
                self.desk.forget(self);
                Called::Over(output)
            }
            None => {
                self.desk.forget(self);
                self.cancel.cancel();
                self.end();
                let error = match cancel.is_cancelled() || self.desk.stop.is_cancelled() {
                    true => super::McpError::Cancelled { server: self.server.clone() },
                    false => super::McpError::TimedOut {
                        server: self.server.clone(),
                        method: "tools/call".to_string(),
                        limit_ms,
                    },
                };
                Called::Over(super::room::failed(&error))
            }
        }
    }
}

/// The reply that answers make.
fn reply(server: &str, questions: &[UserQuestion], answers: &[QuestionAnswer]) -> Reply {
    match form::content(questions, answers) {
        Ok(content) => Reply::Accept(Some(content)),
        Err(cause) => {
            log::error!("MCP server {server}: an answer that was taken does not fit its form: {cause}");
            Reply::Cancel
        }
    }
}
