//! Connectors: list, get, put, delete, hold.
//! Owns: the routes below `/v1/runtime/connectors`, and the way of write-only secrets into the auth store.
//! Never: hands the core a configuration with a secret in it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::call::{Call, Reply};
use super::context::Api;
use super::json;
use super::secrets::Accepted;
use super::status::groups::ConnectorsStatus;
use super::witness::Act;
use crate::broker::{Mode, SlotId, SlotRecord};
use crate::commit::CommandError;
use crate::connectors::check::{self, ConfigError};
use crate::connectors::config::{merge, secret_fields};
use crate::connectors::registry::Counters;
use crate::connectors::{Entry, SecretRef, Settings, Source, from_environment, variable, view};
use crate::core::{Command, ConnectorCommand, ConnectorKind, Decision, Refusal};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::CONNECTOR_PUT_TRIES_MAX;
use crate::secret::Secret;

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(&codes::CONNECTOR_INVALID, error.to_string())
    }
}

fn kind_and_name(call: &Call) -> Result<(ConnectorKind, String), Problem> {
    let kind = ConnectorKind::parse(&call.param("kind")?).ok_or_else(|| {
        let detail = "a connector is of kind http, slack, telegram or external; next: correct the path";
        Problem::new(&codes::CONNECTOR_NOT_FOUND, detail)
    })?;
    Ok((kind, call.param("name")?.into_owned()))
}

fn not_found(kind: ConnectorKind, name: &str) -> Problem {
    CommandError::Refused(Refusal::ConnectorNotFound { kind, name: name.to_string() }).into()
}

fn shown(api: &Api, entry: &Entry) -> Value {
    let mut shown = view::view(entry, api.sidecars.view(&entry.name).filter(|_| entry.settings.child().is_some()));
    if let Some(poll) = api.poll_view(entry) {
        shown["poll"] = poll;
    }
    if entry.secrets.is_revoked(&api.broker) {
        shown["revoked"] = json!(true);
    }
    let missing = unusable(api, entry);
    if !missing.is_empty() {
        shown["unusable_secrets"] = json!(missing);
    }
    shown
}

/// Fields whose slot is missing or revoked.
fn unusable(api: &Api, entry: &Entry) -> Vec<String> {
    let is_usable = |slot: &SlotId| matches!(api.broker.slot_state(slot), Ok(Some(state)) if !state.blocked);
    entry.settings.slots().into_iter().filter(|(_, slot)| !is_usable(slot)).map(|(field, _)| field).collect()
}

/// `GET /v1/runtime/connectors`.
pub fn list(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let table = api.connectors.table();
    let all: Vec<Value> = table.iter().map(|entry| shown(api, entry)).collect();
    Ok(Response::json(200, &all))
}

/// `GET /v1/runtime/connectors/{kind}/{name}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let (kind, name) = kind_and_name(call)?;
    let entry = api.connectors.get(kind, &name).ok_or_else(|| not_found(kind, &name))?;
    Ok(Response::json(200, &shown(api, &entry)))
}

/// `PUT /v1/runtime/connectors/{kind}/{name}`.
pub fn put(api: &Api, mut call: Call, reply: Reply) {
    let body = Zeroizing::new(std::mem::take(&mut call.body));
    reply.send_result(store(api, &call, &body));
}

/// A change as it was asked for, with the secrets taken out of it.
struct Change {
    fields: Map<String, Value>,
    values: Vec<(SlotId, Secret)>,
    expected_revision: Option<u64>,
}

fn store(api: &Api, call: &Call, body: &[u8]) -> Result<Response, Problem> {
    let Value::Object(body) = json::parse::<Value>(body)? else {
        return Err(Problem::new(&codes::UNPROCESSABLE_BODY, "the body is no JSON object"));
    };
    let (kind, name) =
        kind_and_name(call).map_err(|problem| Problem::new(&codes::CONNECTOR_INVALID, problem.detail))?;
    check::name(&name)?;
    let Change { fields, values, expected_revision } = read_change(kind, &name, body)?;
    let mut values = Some(values);
    let mut tries = 0;
    loop {
        tries += 1;
        if api.connectors.get(kind, &name).is_some_and(|entry| entry.source == Source::File) {
            let detail = format!("{kind} connector {name} comes from the file of --connectors-config");
            return Err(Problem::new(&codes::CONNECTOR_FILE_BACKED, detail));
        }
        let published = api.core.connectors();
        let known = published.get(kind, &name);
        let base_revision = known.map_or(0, |known| known.revision);
        let base = known.and_then(|known| serde_json::from_str(known.config.get()).ok()).unwrap_or(json!({}));
        if let Some(expected) = expected_revision.filter(|expected| *expected != base_revision) {
            let refusal = Refusal::ConnectorRevisionConflict { expected, current: base_revision };
            return Err(CommandError::Refused(refusal).into());
        }
        let settings = Settings::read(kind, merge(base, fields.clone())).map_err(|cause| {
            Problem::new(
                &codes::CONNECTOR_INVALID,
                format!("{cause}; next: compare it with docs/operators/connectors.md"),
            )
        })?;
        check::settings(&settings)?;
        check_references(api, &settings, values.as_deref().unwrap_or_default())?;
        let text = settings.to_value().to_string();
        if api.broker.redact(&text) != text {
            let detail = "the configuration holds a secret in plain text; next: put it into a slot and refer to that";
            return Err(Problem::new(&codes::CONNECTOR_INVALID, detail));
        }
        for (slot, value) in values.take().unwrap_or_default() {
            let record =
                SlotRecord::new(slot, crate::broker::Provider::Generic, value, None, None, api.clock.now_ms())?;
            let slot = record.id().clone();
            let act = Act { verb: "secret.put", target: slot.as_str(), containment: false };
            api.witnessed(&call.actor(), act, || Ok(api.broker.put(record)?))?;
        }
        redact_variables(api, &settings)?;
        let config = serde_json::value::to_raw_value(&settings.to_value()).expect("a JSON value serialises");
        let command =
            ConnectorCommand::Put { kind, name: name.clone(), config, expected_revision: Some(base_revision) };
        match api.core.request(Command::Connector(Box::new(command)), Some(call.actor())) {
            Err(CommandError::Refused(Refusal::ConnectorRevisionConflict { .. }))
                if expected_revision.is_none() && tries < CONNECTOR_PUT_TRIES_MAX => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    api.credentials_changed();
    let entry = api.connectors.get(kind, &name).ok_or_else(|| not_found(kind, &name))?;
    Ok(Response::json(200, &shown(api, &entry)))
}

fn read_change(kind: ConnectorKind, name: &str, mut fields: Map<String, Value>) -> Result<Change, Problem> {
    let expected_revision = match fields.remove("expected_revision") {
        None | Some(Value::Null) => None,
        Some(revision) => Some(revision.as_u64().ok_or_else(|| {
            Problem::new(&codes::UNPROCESSABLE_BODY, "expected_revision is no revision; next: take it from the view")
        })?),
    };
    let mut values = Vec::new();
    for field in secret_fields(kind) {
        if let Some(given) = fields.get_mut(*field).filter(|given| !given.is_null()) {
            *given = reference(given.take(), field, &format!("connectors.{kind}.{name}.{field}"), &mut values)?;
        }
    }
    if let Some(Value::Array(teams)) = fields.get_mut("team_bot_tokens") {
        for team in teams {
            let id = team["team_id"].as_str().unwrap_or_default().to_string();
            if let Some(given) = team.get_mut("bot_token") {
                let slot = format!("connectors.{kind}.{name}.bot_token.{id}");
                *given = reference(given.take(), "bot_token", &slot, &mut values)?;
            }
        }
    }
    Ok(Change { fields, values, expected_revision })
}

/// `{"secret_ref"?, "value"?}` or `{"env"}` as a reference; a value leaves it.
fn reference(given: Value, field: &str, derived: &str, values: &mut Vec<(SlotId, Secret)>) -> Result<Value, Problem> {
    let refuse = |cause: &str| {
        let next = "write {\"secret_ref\": …}, {\"env\": …} or {\"value\": …}";
        Err(Problem::from(ConfigError::new(field, cause, next)))
    };
    let Value::Object(mut given) = given else { return refuse("a secret is written as an object") };
    let text = |given: &mut Map<String, Value>, name: &str| match given.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => refuse("a part of it is no text").map(|_| None),
    };
    let value = text(&mut given, "value")?.map(|value| Secret::new(value.into_bytes()));
    let (slot, env) = (text(&mut given, "secret_ref")?, text(&mut given, "env")?);
    if !given.is_empty() {
        return refuse("it has an unknown part");
    }
    match (value, slot, env) {
        (None, None, Some(env)) => Ok(json!({"env": env})),
        (None, Some(slot), None) => Ok(json!({"secret_ref": SlotId::parse(&slot)?})),
        (Some(value), slot, None) => {
            let slot = SlotId::parse(slot.as_deref().unwrap_or(derived))?;
            values.push((slot.clone(), value));
            Ok(json!({"secret_ref": slot}))
        }
        (None, None, None) => refuse("it names nothing"),
        _ => refuse("env goes with neither of the others"),
    }
}

/// Every slot that is named must be there and be a generic one; every variable must be set.
fn check_references(api: &Api, settings: &Settings, coming: &[(SlotId, Secret)]) -> Result<(), Problem> {
    for (field, slot) in settings.slots() {
        if coming.iter().any(|(id, _)| *id == slot) {
            continue;
        }
        match api.broker.slot(&slot)? {
            Some(status) if status.mode == Mode::OpaqueSecret => {}
            Some(status) => {
                let detail =
                    format!("{field}: slot {slot} is of provider {}; next: use a generic slot", status.provider);
                return Err(Problem::new(&codes::SECRET_CONFLICT, detail));
            }
            None => {
                let detail = format!(
                    "{field}: slot {slot} does not exist; next: `kheish-daemon secrets set {slot} --provider generic`"
                );
                return Err(Problem::new(&codes::SECRET_NOT_FOUND, detail));
            }
        }
    }
    for (field, secret) in settings.secrets() {
        if let SecretRef::Env(name) = secret
            && variable(name).is_none()
        {
            let cause = "the daemon has no such variable in its environment, or a blank one";
            return Err(ConfigError::new(field, cause, "start the daemon with it, or use a secret_ref").into());
        }
    }
    Ok(())
}

fn redact_variables(api: &Api, settings: &Settings) -> Result<(), Problem> {
    let values = from_environment(settings);
    if !values.is_empty() {
        api.broker.also_redact(values)?;
    }
    Ok(())
}

/// `DELETE /v1/runtime/connectors/{kind}/{name}`.
pub fn delete(api: &Api, call: &Call) -> Result<Response, Problem> {
    let (kind, name) = kind_and_name(call)?;
    let table = api.connectors.table();
    let Some(entry) = table.get(kind, &name) else { return Err(not_found(kind, &name)) };
    if entry.source == Source::File {
        let detail = format!("{kind} connector {name} comes from the file of --connectors-config");
        return Err(Problem::new(&codes::CONNECTOR_FILE_BACKED, detail));
    }
    let refers = |other: &Entry| {
        let is_other = (other.kind, &other.name) != (kind, &name);
        is_other
            && other.settings.reply_targets().iter().any(|target| {
                let address: Value = serde_json::from_str(&target.address).unwrap_or_default();
                target.plugin == kind.as_str() && address["connector"] == json!(name)
            })
    };
    if let Some(other) = table.iter().find(|other| refers(other)) {
        let detail = format!("{} connector {} has a reply target that leads to it", other.kind, other.name);
        return Err(Problem::new(&codes::CONNECTOR_REFERENCED, detail));
    }
    let own: Vec<SlotId> = entry
        .settings
        .slots()
        .into_iter()
        .filter(|(field, slot)| slot.as_str() == derived(kind, &name, field))
        .map(|(_, slot)| slot)
        .collect();
    let command = ConnectorCommand::Delete { kind, name };
    match api.core.request(Command::Connector(Box::new(command)), Some(call.actor()))? {
        Decision::Connectors { .. } => {}
        other => return Err(Problem::new(&codes::INTERNAL_ERROR, format!("unexpected decision {other:?}"))),
    }
    api.credentials_changed();
    for slot in own {
        // The connector is gone; a slot that could not be deleted is named in the log and can be deleted by hand.
        if let Err(problem) = super::secrets::delete_slot(api, call, &slot, false) {
            log::warn!("slot {slot} of a deleted connector stays: {problem}");
        }
    }
    Ok(Response::json(200, &Accepted { accepted: true }))
}

/// The slot that a write-only value of a field goes to when the caller names none.
fn derived(kind: ConnectorKind, name: &str, field: &str) -> String {
    match field.strip_prefix("team_bot_tokens.") {
        Some(team) => format!("connectors.{kind}.{name}.bot_token.{team}"),
        None => format!("connectors.{kind}.{name}.{field}"),
    }
}

/// `POST /v1/runtime/connectors/hold`.
pub fn hold(api: &Api, call: &Call) -> Result<Response, Problem> {
    let body: super::runs::HoldBody = json::parse(&call.body)?;
    let (held, reason) = body.into_parts()?;
    let command = ConnectorCommand::Hold { held, reason };
    api.core.request(Command::Connector(Box::new(command)), Some(call.actor()))?;
    api.credentials_changed();
    Ok(Response::json(200, &json!({"held": held})))
}

/// Starts without a lasting one in between after which a sidecar counts as one that ends again and again.
const CRASH_LOOP_STARTS: u32 = 3;

/// The group `connectors` of the status.
pub(super) fn figures(api: &Api) -> ConnectorsStatus {
    let table = api.connectors.table();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut figures = ConnectorsStatus { supported: true, held: table.hold.is_some(), ..ConnectorsStatus::default() };
    for entry in table.iter() {
        let is_revoked = entry.secrets.is_revoked(&api.broker);
        let counters = &entry.counters;
        figures.total += 1;
        figures.enabled += u64::from(!figures.held && !is_revoked);
        figures.revoked_count += u64::from(is_revoked);
        figures.unusable_secret_count += u64::from(!unusable(api, entry).is_empty());
        figures.unauthenticated_count += u64::from(entry.settings.is_open());
        figures.ingress_count += load(&counters.accepted) + load(&counters.duplicate);
        figures.ingress_refused_count +=
            load(&counters.rejected) + load(&counters.rate_limited) + load(&counters.unauthorized);
        if let Some(status) = entry.settings.child().and_then(|_| api.sidecars.status(&entry.name)) {
            figures.running_process_count += u64::from(["ready", "degraded"].contains(&status.state));
            figures.crash_looping_count += u64::from(status.failed_starts >= CRASH_LOOP_STARTS);
        }
    }
    figures
}

/// `GET /v1/runtime/connectors/external/metrics`: figures of each external connector, as Prometheus reads them.
pub fn metrics(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let table = api.connectors.table();
    let external: Vec<_> = table.iter().filter(|entry| entry.kind == ConnectorKind::External).collect();
    let mut text = String::new();
    let mut series = |name: &str, label: &str, read: &dyn Fn(&Counters) -> &AtomicU64| {
        for entry in &external {
            // A name is letters, digits, dots, dashes and underscores.
            let value = read(&entry.counters).load(Ordering::Relaxed);
            text.push_str(&format!(
                "kheish_external_connector_{name}{{connector=\"{}\"{label}}} {value}\n",
                entry.name
            ));
        }
    };
    series("ingress_total", ",status=\"accepted\"", &|counters| &counters.accepted);
    series("ingress_total", ",status=\"duplicate\"", &|counters| &counters.duplicate);
    series("ingress_total", ",status=\"rejected\"", &|counters| &counters.rejected);
    series("ingress_rate_limited_total", "", &|counters| &counters.rate_limited);
    series("ingress_unauthorized_total", "", &|counters| &counters.unauthorized);
    series("child_restarts_total", "", &|counters| &counters.restarts);
    series("manifest_fetch_failures_total", "", &|counters| &counters.manifest_failures);
    Ok(Response::text(200, text))
}
