//! Permissions over HTTP: rules, dry runs, and the decisions that were recorded.
//! Owns: their shapes.
//! Never: runs a hook, asks for an approval or writes an audit record.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call::Call;
use super::context::Api;
use super::paging::encode_cursor;
use super::query::Query;
use super::runtime_changes::mode;
use super::sessions::known;
use crate::core::SessionSettings;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{Seq, SessionId};
use crate::limits::{LABEL_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, PERMISSION_AUDIT_RECORDS_MAX};
use crate::permissions::{Behavior, Effective, Facts, Mode, Origin, Policy, Question, Rule, RuleScope, Verdict};
use crate::tools;

/// The policy and the mode in force for a session, or for one that has nothing of its own.
///
/// # Errors
/// The session's rules cannot be used, which they were checked for.
fn in_force(api: &Api, settings: Option<&SessionSettings>) -> Result<(Policy, Effective), Problem> {
    let view = api.core.view();
    let own = settings.map_or(&[][..], |settings| &settings.permission_rules);
    let policy = view.runtime.policy().with_session(own);
    let policy = policy.map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))?;
    let daemon = view.runtime.settings().permission_mode;
    Ok((policy, Effective::of(daemon, settings.and_then(|settings| settings.permission_mode))))
}

fn facts_of(tool: &str) -> Facts {
    tools::find(tool).map_or_else(|| Facts::of_name(tool), |def| def.facts())
}

/// Body of `POST /v1/runtime/permissions/check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    tool_name: String,
    tool_call_id: Option<String>,
    session_id: Option<SessionId>,
    mode_override: Option<String>,
    input: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Check<'a> {
    tool_call_id: &'a str,
    tool_name: &'a str,
    effective_mode: Mode,
    decision: Behavior,
    base_decision: Behavior,
    mode_applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode_effect: Option<&'static str>,
    approval_required: bool,
    hooks_evaluated: bool,
    hook_policy: &'static str,
    scope: RuleScope,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_rule: Option<&'a Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_rule_origin: Option<Origin>,
    audit_preview: AuditPreview<'a>,
}

#[derive(Debug, Serialize)]
struct AuditPreview<'a> {
    tool_name: &'a str,
    tool_call_id: &'a str,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

/// `POST /v1/runtime/permissions/check`: what would be decided about a call now.
pub fn check(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: CheckBody = call.json()?;
    let tool_call_id = body.tool_call_id.as_deref().unwrap_or("dry-run");
    for (field, text) in [("tool_name", body.tool_name.as_str()), ("tool_call_id", tool_call_id)] {
        if text.is_empty() || text.len() > LABEL_BYTES_MAX || text.contains(char::is_control) {
            let detail = format!("{field} is empty, has control characters or more than {LABEL_BYTES_MAX} bytes");
            return Err(Problem::new(&codes::BAD_REQUEST, detail));
        }
    }
    if let Some(session) = &body.session_id {
        known(api, session)?;
    }
    let settings = body.session_id.as_ref().and_then(|session| api.core.session_settings(session));
    let (policy, in_force) = in_force(api, settings.as_deref())?;
    let mode = match &body.mode_override {
        Some(text) => Effective::from(mode(text)?),
        None => in_force,
    };
    let input = body.input.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
    let input = serde_json::value::to_raw_value(&input)
        .map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))?;
    let verdict = decide(api, &policy, &body.tool_name, &input, mode);
    let answer = Check {
        tool_call_id,
        tool_name: &body.tool_name,
        effective_mode: verdict.effective_mode,
        decision: verdict.decision,
        base_decision: verdict.base_decision,
        mode_applied: verdict.mode_effect.is_some(),
        mode_effect: verdict.mode_effect,
        approval_required: verdict.decision == Behavior::Ask,
        hooks_evaluated: false,
        hook_policy: "not_executed_in_dry_run",
        scope: verdict.scope,
        reason: verdict.reason.as_deref(),
        matched_rule: verdict.matched_rule.as_ref(),
        matched_rule_origin: verdict.matched_rule_origin,
        audit_preview: AuditPreview { tool_name: &body.tool_name, tool_call_id, verdict: &verdict },
    };
    Ok(Response::json(200, &answer))
}

fn decide(api: &Api, policy: &Policy, tool: &str, input: &RawValue, mode: Effective) -> Verdict {
    // As the engine resolved it at start.
    let workspace_root = api.config.workspace_root.canonicalize().unwrap_or_default();
    let workspace_root = workspace_root.to_string_lossy();
    let (workspace_root, base) = (&*workspace_root, &*workspace_root);
    let question = Question { tool, facts: facts_of(tool), input, mode, workspace_root, base };
    policy.decide(&question)
}

/// Body of `POST /v1/runtime/permissions/matrix`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixBody {
    session_id: Option<SessionId>,
}

#[derive(Debug, Serialize)]
struct Matrix {
    effective_mode: Mode,
    modes: [Mode; 5],
    tools: Vec<MatrixRow>,
}

#[derive(Debug, Serialize)]
struct MatrixRow {
    tool_name: &'static str,
    base_decision: Behavior,
    decisions: Vec<MatrixCell>,
}

#[derive(Debug, Serialize)]
struct MatrixCell {
    mode: Mode,
    decision: Behavior,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode_effect: Option<&'static str>,
}

/// `POST /v1/runtime/permissions/matrix`: every tool in every mode, without arguments.
pub fn matrix(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: MatrixBody = call.json_or_default()?;
    if let Some(session) = &body.session_id {
        known(api, session)?;
    }
    let settings = body.session_id.as_ref().and_then(|session| api.core.session_settings(session));
    let (policy, effective) = in_force(api, settings.as_deref())?;
    let input = RawValue::from_string("{}".to_string()).expect("an empty object is JSON");
    let row = |def: &'static tools::ToolDef<'static>| {
        let verdict = |mode: Mode| decide(api, &policy, def.name, &input, mode.into());
        let decisions = Mode::ALL.map(|mode| {
            let verdict = verdict(mode);
            MatrixCell { mode, decision: verdict.decision, mode_effect: verdict.mode_effect }
        });
        let base_decision = verdict(Mode::Default).base_decision;
        MatrixRow { tool_name: def.name, base_decision, decisions: decisions.into() }
    };
    let tools = tools::TOOLS.iter().map(row).collect();
    Ok(Response::json(200, &Matrix { effective_mode: effective.mode, modes: Mode::ALL, tools }))
}

#[derive(Debug, Serialize)]
struct Rules<'a> {
    revision: u64,
    rules: &'a [Rule],
}

/// `GET /v1/runtime/permissions/rules`: the rules of the scopes `user` and `project`.
pub fn rules(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let view = api.core.view();
    let config = &view.runtime;
    let rules = &config.settings().permission_rules;
    Ok(Response::json(200, &Rules { revision: config.current().revision, rules }))
}

#[derive(Debug, Serialize)]
struct AuditPage {
    items: Vec<Box<RawValue>>,
    pagination: AuditPagination,
}

#[derive(Debug, Serialize)]
struct AuditPagination {
    limit: usize,
    has_more: bool,
    order: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What the record does not say in its body.
#[derive(Debug, Serialize)]
struct AuditEntry<'a> {
    event_id: String,
    timestamp_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<crate::ids::RunId>,
    #[serde(flatten)]
    decided: std::collections::BTreeMap<String, &'a RawValue>,
}

/// `GET /v1/sessions/{session_id}/permission-audits`: decisions, newest first, one page at a time.
pub fn audits(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = known(api, &call.session_id()?)?.session;
    let limit = call.query.unsigned("limit").map_or(PAGE_ITEMS_DEFAULT, |limit| limit as usize).min(PAGE_ITEMS_MAX);
    let (mut items, mut seq) = (Vec::new(), begin(&call.query, session.last_seq)?);
    let mut looked_at = 0;
    while seq != 0 && items.len() < limit && looked_at < PERMISSION_AUDIT_RECORDS_MAX {
        if seq < api.reader.floor() {
            seq = 0;
            break;
        }
        let record = api.reader.read(seq)?;
        if record.session.as_ref() != Some(&session.id) {
            return Err(invalid_cursor());
        }
        looked_at += 1;
        seq = record.session_prev;
        if record.kind == "permission.decided" {
            items.push(entry(&record)?);
        }
    }
    let next_cursor = (seq != 0).then(|| encode_cursor(&format!("record:{seq}")));
    let pagination = AuditPagination { limit, has_more: next_cursor.is_some(), order: "event_id_desc", next_cursor };
    Ok(Response::json(200, &AuditPage { items, pagination }))
}

fn invalid_cursor() -> Problem {
    let detail = "the cursor does not name a record of this session; next: start without a cursor";
    Problem::new(&codes::INVALID_CURSOR, detail)
}

/// The newest record to look at.
fn begin(query: &Query, newest: Seq) -> Result<Seq, Problem> {
    let Some(cursor) = query.text("cursor") else { return Ok(newest) };
    let key = super::paging::decode_cursor(cursor).unwrap_or_default();
    let seq = key.strip_prefix("record:").and_then(|seq| seq.parse().ok());
    seq.filter(|seq| (1..=newest).contains(seq)).ok_or_else(invalid_cursor)
}

fn entry(record: &crate::journal::Record) -> Result<Box<RawValue>, Problem> {
    let internal = |error: serde_json::Error| Problem::new(&codes::INTERNAL_ERROR, error.to_string());
    let entry = AuditEntry {
        event_id: record.seq.to_string(),
        timestamp_ms: record.at_ms,
        run_id: record.run,
        decided: serde_json::from_str(record.body.get()).map_err(internal)?,
    };
    serde_json::value::to_raw_value(&entry).map_err(internal)
}
