//! Telegram connectors of mode `polling`: the daemon asks for updates itself.
//! Owns: the pollers' threads, which update of a bot is the next one, the pauses after failures.
//! May touch: the network with purpose `connector`; what `connector_events` does.
//! Never: confirms an update before what became of it is durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connector_chat::{Read, telegram_event};
use super::context::Api;
use crate::connectors::config::{IngressMode, TelegramConfig};
use crate::connectors::registry::Counters;
use crate::connectors::{Entry, Settings, TELEGRAM_API};
use crate::core::ConnectorKind;
use crate::http::problem::Problem;
use crate::limits::{
    TELEGRAM_POLL_BYTES_MAX, TELEGRAM_POLL_CROWDED_S, TELEGRAM_POLL_LOOK_MS, TELEGRAM_POLL_MARGIN_MS,
    TELEGRAM_POLL_PAUSE_MS_MAX, TELEGRAM_POLL_PAUSE_MS_MIN, TELEGRAM_POLL_TIMEOUT_S_DEFAULT, TELEGRAM_POLLERS,
    TELEGRAM_RETRY_AFTER_MS_MAX, TELEGRAM_SETTLE_MS_MAX, TELEGRAM_UPDATES_MAX,
};
use crate::net::{Auth, BaseUrl, Cancel, Method, NetError, Purpose, Request, Timeouts};
use crate::secret::Secret;
use crate::worker::{Worker, idle};

/// Stands in the path where the token goes.
const TOKEN_MARKER: &str = "BOT-TOKEN-GOES-HERE";

/// How the polling of one connector goes.
struct Poll {
    /// Of the configuration, and of the token: another bot counts its updates anew.
    of: (u64, u64),
    in_hand: Option<Cancel>,
    /// The first update that is not confirmed yet; before the first poll Telegram knows it.
    offset: Option<i64>,
    next: Instant,
    failures: u32,
    last_error: Option<String>,
    last_success_at_ms: Option<u64>,
    updates: u64,
}

struct Shared {
    board: Mutex<BTreeMap<String, Poll>>,
    stop: Cancel,
}

/// The pollers. Cheap to clone.
#[derive(Clone)]
pub struct Polls(Arc<Shared>);

impl Default for Polls {
    fn default() -> Self {
        Self(Arc::new(Shared { board: Mutex::default(), stop: Cancel::new() }))
    }
}

/// What a poller has in hand.
struct Job {
    entry: Arc<Entry>,
    cancel: Cancel,
    /// More connectors poll than there are pollers.
    is_crowded: bool,
}

/// How a poll ended.
enum End {
    /// Updates came, or none; the next poll follows at once.
    Done,
    /// Somebody ended it.
    Cancelled,
    /// It failed, and the next one waits; where nothing is said, longer each time.
    Failed(String, Option<u64>),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    result: Vec<Value>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    retry_after: Option<u64>,
}

/// What became of one update.
enum Taken {
    /// It is durable, or never will be anything.
    Yes,
    /// The daemon cannot take it now.
    NotNow(String),
}

impl Polls {
    /// Starts the threads `telegram-poll-n`. The core must run.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(&self, api: &Arc<Api>) -> io::Result<Vec<Worker>> {
        let start = |number: usize| {
            let (polls, api) = (self.clone(), api.clone());
            Worker::spawn(format!("telegram-poll-{number}"), move || polls.run(&api))
        };
        (1..=TELEGRAM_POLLERS).map(start).collect()
    }

    /// Ends what is in flight, and the threads.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Ends what is in flight, to begin again with the configuration and the token that hold now.
    pub fn interrupt(&self) {
        self.board().values().filter_map(|poll| poll.in_hand.as_ref()).for_each(Cancel::cancel);
    }

    /// How the polling of a connector goes, as JSON.
    pub fn view(&self, api: &Api, name: &str) -> Value {
        let board = self.board();
        let Some(poll) = board.get(name) else { return json!({"state": "waiting"}) };
        let state = if poll.last_error.is_some() { "failing" } else { "polling" };
        let mut view = json!({"state": state, "updates": poll.updates, "failures": poll.failures});
        if let Some(error) = &poll.last_error {
            view["last_error"] = json!(api.broker.redact(error));
            view["next_poll_in_ms"] = json!(poll.next.saturating_duration_since(Instant::now()).as_millis() as u64);
        }
        if let Some(at_ms) = poll.last_success_at_ms {
            view["last_success_at_ms"] = json!(at_ms);
        }
        view
    }

    fn board(&self) -> MutexGuard<'_, BTreeMap<String, Poll>> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self, api: &Api) {
        while !self.0.stop.is_cancelled() {
            match self.take(api) {
                Some(job) => self.poll(api, &job),
                None => drop(idle(|| self.0.stop.wait(Duration::from_millis(TELEGRAM_POLL_LOOK_MS)))),
            }
        }
    }

    /// The connector that has waited longest, of those that are due and in nobody's hands.
    fn take(&self, api: &Api) -> Option<Job> {
        let table = api.connectors.table();
        let polls = |entry: &&Arc<Entry>| {
            matches!(&entry.settings, Settings::Telegram(config) if config.ingress_mode == IngressMode::Polling)
                && !entry.secrets.is_revoked(&api.broker)
        };
        let all: Vec<&Arc<Entry>> = match table.hold {
            Some(_) => Vec::new(),
            None => table.iter().filter(polls).collect(),
        };
        let mut board = self.board();
        board.retain(|name, poll| poll.in_hand.is_some() || all.iter().any(|entry| entry.name == *name));
        let now = Instant::now();
        for entry in &all {
            board.entry(entry.name.clone()).or_insert_with(|| Poll {
                of: (entry.revision, 0),
                in_hand: None,
                offset: None,
                next: now,
                failures: 0,
                last_error: None,
                last_success_at_ms: None,
                updates: 0,
            });
            let poll = board.get_mut(&entry.name).expect("put there just now");
            if poll.of.0 != entry.revision && poll.in_hand.is_none() {
                // Somebody has put it: what happened to its former form does not count.
                (poll.of, poll.offset, poll.next, poll.failures) = ((entry.revision, 0), None, now, 0);
            }
        }
        let due = all.iter().filter(|entry| {
            let poll = &board[&entry.name];
            poll.in_hand.is_none() && poll.next <= now
        });
        let entry = (*due.min_by_key(|entry| board[&entry.name].next)?).clone();
        let cancel = self.0.stop.child();
        board.get_mut(&entry.name).expect("it is on the board").in_hand = Some(cancel.clone());
        Some(Job { entry, cancel, is_crowded: all.len() > TELEGRAM_POLLERS })
    }

    fn poll(&self, api: &Api, job: &Job) {
        let end = self.ask(api, job);
        let mut board = self.board();
        let Some(poll) = board.get_mut(&job.entry.name) else { return };
        poll.in_hand = None;
        match end {
            End::Done => {
                if poll.last_error.take().is_some() {
                    log::info!("telegram connector {} polls again", job.entry.name);
                }
                poll.failures = 0;
                poll.last_success_at_ms = Some(api.clock.now_ms());
                poll.next = Instant::now();
            }
            End::Cancelled => poll.next = Instant::now(),
            End::Failed(cause, asked_ms) => {
                let cause = api.broker.redact(&cause);
                if poll.last_error.as_ref() != Some(&cause) {
                    log::warn!("telegram connector {}: {cause}", job.entry.name);
                }
                poll.last_error = Some(cause);
                let doubled_ms = TELEGRAM_POLL_PAUSE_MS_MIN << poll.failures.min(10);
                let pause_ms = asked_ms
                    .unwrap_or(doubled_ms.min(TELEGRAM_POLL_PAUSE_MS_MAX))
                    .clamp(TELEGRAM_POLL_PAUSE_MS_MIN, TELEGRAM_RETRY_AFTER_MS_MAX);
                poll.failures = poll.failures.saturating_add(1);
                poll.next = Instant::now() + Duration::from_millis(pause_ms);
            }
        }
    }

    fn ask(&self, api: &Api, job: &Job) -> End {
        let Settings::Telegram(config) = &job.entry.settings else { return End::Cancelled };
        let secret = job.entry.secret(&api.broker, "bot_token", config.bot_token.as_ref(), api.clock.now_ms());
        let (token, version) = match secret {
            Ok(Some(found)) => (found.secret, found.version),
            Ok(None) => return End::Failed("it has no bot_token; next: put one".to_string(), None),
            Err(error) => return End::Failed(error.to_string(), None),
        };
        let offset = {
            let mut board = self.board();
            let Some(poll) = board.get_mut(&job.entry.name) else { return End::Cancelled };
            if poll.of.1 != version {
                (poll.of.1, poll.offset) = (version, None);
            }
            poll.offset
        };
        let answer = match get_updates(api, job, config, &token, offset) {
            Ok(answer) => answer,
            Err(end) => return end,
        };
        for update in answer.result {
            let Some(id) = update["update_id"].as_i64() else {
                return End::Failed("Telegram sent an update without update_id".to_string(), None);
            };
            match take_update(api, &job.entry, config, update) {
                Taken::Yes => {
                    if let Some(poll) = self.board().get_mut(&job.entry.name) {
                        (poll.offset, poll.updates) = (Some(id.saturating_add(1)), poll.updates + 1);
                    }
                }
                Taken::NotNow(cause) => return End::Failed(cause, None),
            }
            if job.cancel.is_cancelled() {
                return End::Cancelled;
            }
        }
        End::Done
    }
}

/// One request for updates; it waits at Telegram until there is one.
fn get_updates(
    api: &Api,
    job: &Job,
    config: &TelegramConfig,
    token: &Arc<Secret>,
    offset: Option<i64>,
) -> Result<Answer, End> {
    let failed = |cause: String| End::Failed(cause, None);
    let base = BaseUrl::parse(config.api_base_url.as_deref().unwrap_or(TELEGRAM_API))
        .map_err(|error| failed(error.to_string()))?;
    let target = base.target(&format!("/bot{TOKEN_MARKER}/getUpdates"));
    let timeout_s = match job.is_crowded {
        true => TELEGRAM_POLL_CROWDED_S,
        false => config.polling_timeout_seconds.unwrap_or(TELEGRAM_POLL_TIMEOUT_S_DEFAULT),
    };
    let mut asked = json!({"timeout": timeout_s, "limit": TELEGRAM_UPDATES_MAX,
        "allowed_updates": ["message", "edited_message", "callback_query"]});
    if let Some(offset) = offset {
        asked["offset"] = json!(offset);
    }
    let body = asked.to_string();
    let token = token.clone();
    let wait_ms = timeout_s * 1_000 + TELEGRAM_POLL_MARGIN_MS;
    let request = Request {
        method: Method::Post,
        target: &target,
        purpose: Purpose::Connector,
        allow_private: false,
        headers: &[("content-type", "application/json")],
        auth: Some(Auth::bearer_from(move || Ok(Secret::new(token.expose().to_vec()))).in_path(TOKEN_MARKER)),
        body: Some(body.as_bytes()),
        timeouts: Timeouts {
            connect_ms: TELEGRAM_POLL_MARGIN_MS,
            first_byte_ms: wait_ms,
            idle_ms: wait_ms,
            total_ms: Some(2 * wait_ms),
        },
        body_bytes_max: TELEGRAM_POLL_BYTES_MAX,
    };
    let of_net = |error: NetError| match error {
        NetError::Cancelled => End::Cancelled,
        error => failed(error.to_string()),
    };
    // Waiting at Telegram is no work.
    let mut response = idle(|| api.facts.net.send(request, &job.cancel)).map_err(of_net)?;
    let status = response.status;
    let body = response.body.read_to_end().map_err(of_net)?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| failed(format!("Telegram answered {status}, and not in the form of its API")))?;
    if status == 200 && answer.ok {
        return Ok(answer);
    }
    let words = answer.description.unwrap_or_default();
    let next = match status {
        401 | 404 => "; next: set the bot token anew",
        409 => "; next: delete the bot's webhook at Telegram, or stop whoever else polls it",
        _ => "",
    };
    let asked_ms = answer.parameters.retry_after.map(|seconds| seconds.saturating_mul(1_000));
    Err(End::Failed(format!("Telegram answered {status}: {words}{next}"), asked_ms))
}

/// Hands one update to the core and waits for what becomes of it. What a webhook would be refused for is left out here.
fn take_update(api: &Api, entry: &Arc<Entry>, config: &TelegramConfig, update: Value) -> Taken {
    let event = match telegram_event(entry, config, update) {
        Ok(Read::Run(event)) => event,
        Ok(Read::Answer(_)) => return Taken::Yes,
        Err(problem) => return judge(entry, &problem),
    };
    let prepared = match event.prepare(api) {
        Ok(prepared) => prepared,
        Err(problem) => return judge(entry, &problem),
    };
    let (settled, outcome) = bounded(1);
    // Nobody waits any more when the daemon stops; the update comes again then.
    prepared.submit(api, Box::new(move |outcome| drop(settled.send(outcome.map(|_| ())))));
    match outcome.recv_timeout(Duration::from_millis(TELEGRAM_SETTLE_MS_MAX)) {
        Ok(Ok(())) => Taken::Yes,
        Ok(Err(problem)) => judge(entry, &problem),
        Err(_) => Taken::NotNow("the daemon did not take an update in time; it is asked for again".to_string()),
    }
}

/// What is wrong with an update itself will not heal, and must not hold up those behind it.
fn judge(entry: &Entry, problem: &Problem) -> Taken {
    if problem.code.status == 429 || problem.code.status >= 500 {
        return Taken::NotNow(problem.detail.to_string());
    }
    Counters::count(&entry.counters.rejected);
    log::info!("telegram connector {}: an update is left out: {}", entry.name, problem.code.code);
    Taken::Yes
}

impl Api {
    /// Has everything look again that runs on credentials by itself.
    pub(super) fn credentials_changed(&self) {
        self.sidecars.reconcile();
        self.polls.interrupt();
    }

    /// Views and acts of connectors of mode `polling` ask this.
    pub(super) fn poll_view(&self, entry: &Entry) -> Option<Value> {
        let polls = entry.kind == ConnectorKind::Telegram
            && matches!(&entry.settings, Settings::Telegram(config) if config.ingress_mode == IngressMode::Polling);
        polls.then(|| self.polls.view(self, &entry.name))
    }
}
