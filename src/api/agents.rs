//! Agents: list and read them, make children, and their mailboxes.
//! Owns: the routes below `/v1/agents` and `/v1/mailboxes`.
//! Never: decides whether there is room for a child; the core does, in the batch that makes it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::context::Api;
use super::input_parts::InputItem;
use super::json;
use super::paging::{Page, PageRequest};
use super::query::{QueryKind, QueryParam};
use super::runs::{pin, redacted, store};
use super::status::AgentsStatus;
use super::submit::{Generation, Submission, SubmitInput, hash, idempotency_key};
use crate::commit::CommandError;
use crate::core::{
    AgentCommand, AgentQuery, AgentScope, AgentView, Command, Counts, Decision, Held, IdempotencyKey, Mail, Mailbox,
    Refusal, Retention, RunStatus, ScopeWish, SessionStatus, Spawn, SpawnTask, ToolScope,
};
use crate::hex::to_hex;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::{
    AGENT_NAME_BYTES_MAX, AGENT_PAGE_MAX, AGENT_TASK_BYTES_MAX, MAILBOX_EXPIRY_MS_MAX, MAILBOX_LABEL_BYTES_MAX,
    THREAD_ID_BYTES_MAX,
};
use crate::permissions::Mode;

/// Only agents of this session and below.
pub const BELOW: QueryParam = QueryParam {
    name: "session_id",
    kind: QueryKind::Session,
    summary: "Only the agent of this session and those below it.",
};

/// An agent on the wire.
#[derive(Debug, Serialize)]
struct AgentBody {
    agent_id: String,
    session_id: SessionId,
    status: SessionStatus,
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ParentBody>,
    depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    retention: Retention,
    scope: AgentScope,
    spawned_at_ms: u64,
    updated_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spawned_by_run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active_run_id: Option<RunId>,
    queued_run_count: u32,
    run_count: u32,
    open_child_count: u32,
    mailbox_message_count: u32,
    dead_letter_count: u32,
    pending_approval_count: usize,
    pending_question_count: usize,
}

#[derive(Debug, Serialize)]
struct ParentBody {
    agent_id: String,
    session_id: SessionId,
}

fn agent_id(number: u32) -> String {
    format!("agent-{number}")
}

impl From<AgentView> for AgentBody {
    fn from(agent: AgentView) -> Self {
        let AgentView { view, parent, open_children, mail_waiting, mail_dead } = agent;
        let session = view.session;
        let scope = AgentScope::of(session.child.as_deref());
        let child = session.child;
        Self {
            agent_id: agent_id(session.number),
            session_id: session.id,
            status: view.status,
            closed: session.ended,
            depth: child.as_ref().map_or(0, |child| child.depth),
            parent: child
                .as_ref()
                .map(|child| ParentBody { agent_id: agent_id(parent), session_id: child.link.session.clone() }),
            retention: child.as_ref().map(|child| child.link.retention).unwrap_or_default(),
            spawned_by_run_id: child.as_ref().and_then(|child| child.link.run),
            name: child.map(|child| child.link.name).filter(|name| !name.is_empty()),
            scope,
            spawned_at_ms: session.created_at_ms,
            updated_at_ms: session.updated_at_ms,
            active_run_id: view.active,
            queued_run_count: session.queue_runs,
            run_count: session.run_count,
            open_child_count: open_children,
            mailbox_message_count: mail_waiting,
            dead_letter_count: mail_dead,
            pending_approval_count: view.waiting.as_ref().map_or(0, |run| run.step.approvals.len()),
            pending_question_count: view.waiting.iter().filter(|run| run.step.question.is_some()).count(),
        }
    }
}

fn not_found(id: &str) -> Problem {
    Problem::new(&codes::AGENT_NOT_FOUND, format!("there is no agent {id:?}; next: list agents"))
}

fn number_of(id: &str) -> Result<u32, Problem> {
    let digits = id.strip_prefix("agent-").filter(|digits| !digits.starts_with(['0', '+']));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| not_found(id))
}

/// The agent that the path names.
fn agent_of(api: &Api, call: &Call) -> Result<AgentView, Problem> {
    let id = call.param("agent_id")?;
    let number = number_of(&id)?;
    api.core.read(move |state| state.agent(number))?.ok_or_else(|| not_found(&id))
}

/// `GET /v1/agents`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let after = match request.after.as_deref() {
        None => 0,
        Some(key) => key.strip_prefix("agent:").and_then(|number| number.parse().ok()).ok_or_else(|| {
            Problem::new(&codes::INVALID_CURSOR, "the cursor does not name an agent; next: start without a cursor")
        })?,
    };
    let query = AgentQuery { below: call.query.session(BELOW.name), after, limit: request.limit.min(AGENT_PAGE_MAX) };
    let page = api.core.read(move |state| state.agent_page(&query))?;
    let next = page.items.last().map(|agent| format!("agent:{}", agent.view.session.number));
    let next = next.filter(|_| page.has_more);
    let items: Vec<AgentBody> = page.items.into_iter().map(AgentBody::from).collect();
    Ok(Page { items, total_count: page.total, next, order: "agent_id_asc" }.answer(&request))
}

/// `GET /v1/agents/{agent_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    Ok(Response::json(200, &AgentBody::from(agent_of(api, call)?)))
}

/// Body of the routes that make a child.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnBody {
    session_id: Option<String>,
    thread_id: Option<String>,
    nickname: Option<String>,
    permission_mode: Option<Mode>,
    retention: Option<Retention>,
    spawn_request_id: Option<String>,
    route_policy: Option<RouteBody>,
    tool_surface: Option<ToolScope>,
    credential_scope: Option<CredentialScope>,
    workspace: Option<String>,
    read_only: Option<bool>,
    subtask: Option<Subtask>,
    capability_scope: Option<serde_json::Value>,
    fork_context: Option<serde_json::Value>,
}

/// Route and model of the child's first run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteBody {
    provider: Option<String>,
    generation: Option<Generation>,
}

/// Which routes its runs may use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialScope {
    #[serde(default)]
    route_allow: Vec<String>,
}

/// What the child is to do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subtask {
    name: Option<String>,
    description: Option<String>,
    content: Option<String>,
    input_items: Option<Vec<InputItem>>,
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(&codes::BAD_REQUEST, detail)
}

fn label(field: &str, text: Option<String>, bytes_max: usize) -> Result<String, Problem> {
    let text = text.map(|text| text.trim().to_string()).unwrap_or_default();
    if text.len() > bytes_max || text.contains(char::is_control) {
        return Err(bad(format!("{field} has at most {bytes_max} bytes and no control characters")));
    }
    Ok(text)
}

fn spawn_of(api: &Api, call: &Call, dry_run: bool) -> Result<Spawn, Problem> {
    let body: SpawnBody = json::parse_or_default(&call.body)?;
    let parent = agent_of(api, call)?.view.session.id;
    for (field, given) in [("capability_scope", &body.capability_scope), ("fork_context", &body.fork_context)] {
        if given.as_ref().is_some_and(|value| !value.is_null()) {
            let detail = format!("{field} is not supported by this daemon version; next: leave it out");
            return Err(Problem::new(&codes::UNSUPPORTED_FEATURE, detail));
        }
    }
    let key = idempotency_key(call.idempotency_key()?, body.spawn_request_id.as_deref())?;
    let idempotency = key.map(|key| IdempotencyKey {
        key: hash("spawn", &[parent.as_str(), &key]),
        fingerprint: api.request_mac.fingerprint("spawn", &[&String::from_utf8_lossy(&call.body)]),
    });
    let session = body.session_id.map(|raw| SessionId::parse(&raw)).transpose();
    let session = session.map_err(|error| Problem::new(&codes::INVALID_SESSION_ID, error.to_string()))?;
    let named = body.nickname.or_else(|| body.subtask.as_ref().and_then(|subtask| subtask.name.clone()));
    let name = label("nickname", named, AGENT_NAME_BYTES_MAX)?;
    let thread_id = Some(label("thread_id", body.thread_id, THREAD_ID_BYTES_MAX)?).filter(|id| !id.is_empty());
    let first = |subtask| first_run(api, &parent, subtask, body.route_policy, !dry_run);
    let task = body.subtask.map(first).transpose()?;
    Ok(Spawn {
        parent,
        run: None,
        call: None,
        session,
        thread_id,
        name,
        retention: body.retention.unwrap_or_default(),
        scope: ScopeWish {
            tools: body.tool_surface.unwrap_or_default(),
            routes: body.credential_scope.unwrap_or_default().route_allow,
            workspace: body.workspace.unwrap_or_default(),
            read_only: body.read_only.unwrap_or_default(),
        },
        permission_mode: body.permission_mode,
        task,
        idempotency,
        dry_run,
    })
}

/// The child's first run; it has the parent's route where none is named. Its files are stored where `keep` says so.
fn first_run(
    api: &Api,
    parent: &SessionId,
    subtask: Subtask,
    route: Option<RouteBody>,
    keep: bool,
) -> Result<SpawnTask, Problem> {
    let route = route.unwrap_or_default();
    let content = match (subtask.description.filter(|text| !text.trim().is_empty()), subtask.content) {
        (Some(description), Some(content)) => Some(format!("{description}\n\n{content}")),
        (description, content) => content.or(description),
    };
    let input = SubmitInput {
        provider: route.provider,
        generation: route.generation,
        content,
        input_items: subtask.input_items,
        source_kind: Some("subtask".to_string()),
        ..SubmitInput::default()
    };
    // Contracts are the parent's own; its route is the child's unless another one is named.
    let own = api.core.session_settings(parent);
    let submission = input.check(None, None)?;
    let (route, model) = pin(api, own.as_deref(), &submission)?;
    if keep {
        store(api, &route, &submission.files)?;
    }
    let Submission { request, summary, .. } = submission;
    let (request, _) = redacted(api, request, summary)?;
    Ok(SpawnTask { request, route, model })
}

fn spawned(api: &Api, decision: Decision) -> Result<Response, Problem> {
    let Decision::Spawned { number, session, run, created } = decision else {
        return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {decision:?}")));
    };
    let agent = api.core.read(move |state| state.agent(number))?.map(AgentBody::from);
    let answer = json!({"agent_id": agent_id(number), "session_id": session, "launch_run_id": run, "created": created,
        "agent": agent});
    Ok(Response::json(200, &answer))
}

/// `POST /v1/agents/{agent_id}/sidechains`.
pub fn spawn(api: &Api, call: &Call) -> Result<Response, Problem> {
    let spawn = spawn_of(api, call, false)?;
    let decision = api.core.request(Command::Agent(AgentCommand::Spawn(Box::new(spawn))), Some(call.actor()))?;
    spawned(api, decision)
}

/// `POST /v1/agents/{agent_id}/sidechains/explain`: what the same request would be told, without making anything.
pub fn explain(api: &Api, call: &Call) -> Result<Response, Problem> {
    let spawn = spawn_of(api, call, true)?;
    match api.core.request(Command::Agent(AgentCommand::Spawn(Box::new(spawn))), Some(call.actor())) {
        Ok(Decision::Spawned { created, session, .. }) => {
            Ok(Response::json(200, &json!({"allowed": true, "exists": !created, "session_id": session})))
        }
        Ok(other) => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
        Err(CommandError::Refused(refusal @ Refusal::Agent(_))) => {
            let problem = Problem::from(CommandError::Refused(refusal));
            let answer = json!({"allowed": false, "code": problem.code.code, "reason": problem.detail});
            Ok(Response::json(200, &answer))
        }
        Err(error) => Err(error.into()),
    }
}

/// A message on the wire.
#[derive(Debug, Serialize)]
struct MailBody<'a> {
    schema_version: u32,
    id: &'a str,
    state: &'static str,
    created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    delivery_attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    from: &'a str,
    to: &'a str,
    subject: &'a str,
    payload: &'a serde_json::Value,
}

fn mails(api: &Api, call: &Call, dead: bool) -> Result<Response, Problem> {
    let number = agent_of(api, call)?.view.session.number;
    let mailbox: Mailbox = api.core.read(move |state| state.mailbox(number).cloned())?.unwrap_or_default();
    let to = agent_id(number);
    let body = |held: &Held, state: &'static str| {
        serde_json::to_value(MailBody {
            schema_version: 1,
            id: &held.mail.id,
            state,
            created_at_ms: held.at_ms,
            expires_at_ms: held.mail.expires_at_ms,
            delivery_attempts: held.attempts,
            last_error: held.error.as_deref(),
            from: &held.mail.from,
            to: &to,
            subject: &held.mail.subject,
            payload: &held.mail.payload,
        })
        .unwrap_or_default()
    };
    let list: Vec<serde_json::Value> = if dead {
        mailbox.dead.iter().map(|held| body(held, "dead_letter")).collect()
    } else {
        let under_way = mailbox.delivering.iter().map(|held| body(held, "delivering"));
        under_way.chain(mailbox.pending.iter().map(|held| body(held, "pending"))).collect()
    };
    Ok(Response::json(200, &list))
}

/// `GET /v1/agents/{agent_id}/mailbox`. Reading takes nothing out.
pub fn mailbox(api: &Api, call: &Call) -> Result<Response, Problem> {
    mails(api, call, false)
}

/// `GET /v1/agents/{agent_id}/mailbox/dead-letter`.
pub fn dead_letters(api: &Api, call: &Call) -> Result<Response, Problem> {
    mails(api, call, true)
}

/// `POST /v1/agents/{agent_id}/mailbox/{message_id}/ack`.
pub fn acknowledge(api: &Api, call: &Call) -> Result<Response, Problem> {
    call.no_fields()?;
    let session = agent_of(api, call)?.view.session.id;
    let id = call.param("message_id")?.to_string();
    let command = Command::Agent(AgentCommand::Acknowledge { session, id });
    api.core.request(command, Some(call.actor()))?;
    Ok(Response::json(200, &json!({"accepted": true})))
}

/// Body of `POST /v1/mailboxes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostBody {
    id: Option<String>,
    to: String,
    from: Option<String>,
    subject: Option<String>,
    payload: serde_json::Value,
    expires_at_ms: Option<u64>,
}

/// `POST /v1/mailboxes`: 202 once the message is durable.
pub fn post(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: PostBody = json::parse(&call.body)?;
    let number = number_of(&body.to)?;
    let agent = api.core.read(move |state| state.agent(number))?.ok_or_else(|| not_found(&body.to))?;
    let scope = AgentScope::of(agent.view.session.child.as_deref());
    let to = agent.view.session.id;
    let id = match label("id", body.id, MAILBOX_LABEL_BYTES_MAX)? {
        id if id.is_empty() => format!("mail-{}", to_hex(&super::sessions::random_bytes()?)),
        id => id,
    };
    let from = label("from", body.from, MAILBOX_LABEL_BYTES_MAX)?;
    let subject = label("subject", body.subject, MAILBOX_LABEL_BYTES_MAX)?;
    let text = api.broker.redact(&body.payload.to_string());
    if text.len() > AGENT_TASK_BYTES_MAX {
        return Err(Problem::new(
            &codes::PAYLOAD_TOO_LARGE,
            format!("the payload has {} bytes, at most {AGENT_TASK_BYTES_MAX}; next: send less", text.len()),
        ));
    }
    let payload = serde_json::from_str(&text)
        .map_err(|_| bad("the payload holds a secret in a place where it cannot be left out"))?;
    let now_ms = api.clock.now_ms();
    if body.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms || at_ms - now_ms > MAILBOX_EXPIRY_MS_MAX) {
        return Err(bad("expires_at_ms lies in the past, or more than thirty days ahead"));
    }
    // A child with routes of its own has none of the session's defaults.
    let provider = scope.routes.first().cloned();
    let input = SubmitInput { provider, content: Some("mail".to_string()), ..SubmitInput::default() };
    let own = api.core.session_settings(&to);
    let (route, model) = pin(api, own.as_deref(), &input.check(None, None)?)?;
    let from = if from.is_empty() { "operator".to_string() } else { from };
    let mail = Mail {
        id,
        from,
        subject: api.broker.redact(&subject),
        payload,
        expires_at_ms: body.expires_at_ms,
        route,
        model,
    };
    let command = Command::Agent(AgentCommand::Post { to: to.clone(), mail: Box::new(mail) });
    match api.core.request(command, Some(call.actor()))? {
        Decision::Posted { id, is_new } => {
            Ok(Response::json(202, &json!({"id": id, "to": agent_id(number), "session_id": to, "created": is_new})))
        }
        other => Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
}

/// The group `agents` of the status. Every session has one agent.
pub fn status(counts: &Counts) -> AgentsStatus {
    let agents = counts.agents;
    let running = counts.status(RunStatus::Running);
    let (approval, question) =
        (counts.status(RunStatus::WaitingForApproval), counts.status(RunStatus::WaitingForUserQuestion));
    let live = running + approval + question;
    AgentsStatus {
        supported: true,
        total: agents.total,
        live_runtime_count: live,
        sidechain_count: agents.children,
        open_sidechain_count: agents.open_children,
        closed_count: agents.closed,
        // Closed agents can be read for as long as their records are kept.
        terminal_snapshot_count: agents.closed,
        mailbox_message_count: agents.mail_waiting,
        dead_letter_count: agents.mail_dead,
        idle: agents.total.saturating_sub(live + agents.closed + agents.failed),
        running,
        waiting_for_approval: approval,
        waiting_for_user_input: question,
        failed: agents.failed,
        completed: agents.closed,
        // What happens to agents is in the journal; there is no other sink.
        audit_sink_error_count: 0,
        last_audit_sink_error: None,
    }
}
