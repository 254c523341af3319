//! The rules of one route: from what was written to what holds.
//! Owns: every rule about a route's keys, and the wording of each finding.
//! May touch: environment variables that the file names, through the caller; CA files that it names, read-only.
//! Never: shows a value of the file in a finding, since any of them may be a misplaced key.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::broker::SlotId;
use crate::limits::{
    ANTHROPIC_BETAS_MAX, CONTEXT_WINDOW_TOKENS_MAX, CONTEXT_WINDOW_TOKENS_MIN, MODEL_BYTES_MAX,
    PROVIDER_CONNECT_MS_DEFAULT, PROVIDER_FIRST_BYTE_MS_DEFAULT, PROVIDER_IDLE_MS_DEFAULT, PROVIDER_TIMEOUT_MS_MAX,
    PROVIDER_TIMEOUT_MS_MIN, PROVIDER_TOTAL_MS_DEFAULT, ROUTE_CONCURRENCY_MAX, ROUTE_ID_BYTES_MAX,
    SLOT_LABEL_BYTES_MAX,
};
use crate::net::{BaseUrl, Timeouts, Trust};
use crate::secret::Secret;

use super::driver::Driver;
use super::routes::{Capabilities, Diagnostic, ModelSupport, Route, RouteCredential, Severity};
use super::routes_file::{At, Place, RawTable, nearest};

/// Reads an environment variable.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Findings so far, and the route that the next ones are about.
pub(super) struct Findings {
    pub route: Option<String>,
    pub list: Vec<Diagnostic>,
}

impl Findings {
    pub(super) fn add(&mut self, severity: Severity, code: &'static str, at: Option<Place>, message: &str) {
        self.list.push(Diagnostic::new(severity, code, self.route.as_deref(), at, message.to_string()));
    }

    pub(super) fn error(&mut self, code: &'static str, at: Place, message: &str) {
        self.add(Severity::Error, code, Some(at), message);
    }
}

/// Whether `model` can be sent as a model name at all.
pub(super) fn is_model_name(model: &str) -> bool {
    !model.trim().is_empty() && model.len() <= MODEL_BYTES_MAX && !model.chars().any(char::is_control)
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= SLOT_LABEL_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `None` after an error that leaves nothing to check; errors are in `findings` either way.
pub(super) fn resolve_route(
    id: &At<String>,
    raw: &RawTable,
    environment: Environment<'_>,
    findings: &mut Findings,
) -> Option<Route> {
    let name = &id.value;
    if name.is_empty()
        || name.len() > ROUTE_ID_BYTES_MAX
        || name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    {
        let message = "a route id is 1 to 64 bytes without blanks and '/'; next: rename the route";
        findings.route = None;
        findings.error("route_id_invalid", id.place, message);
        return None;
    }
    let driver = resolve_driver(id.place, raw, findings)?;
    let place_of = |key| raw.text(key).map(|at| at.place).or_else(|| raw.texts(key).map(|at| at.place));
    for place in foreign_keys(driver).filter_map(place_of) {
        let message = "this key belongs to another driver; next: remove it or change `driver`";
        findings.error("key_of_other_driver", place, message);
    }
    let model_support = match raw.text("model_support").map(|at| (at.value.to_string(), at.place)) {
        None if driver == Driver::OpenaiCompatible => ModelSupport::Any,
        None => ModelSupport::Family,
        Some((value, _)) if value == "family" => ModelSupport::Family,
        Some((value, _)) if value == "any" => ModelSupport::Any,
        Some((_, place)) => {
            findings.error(
                "model_support_invalid",
                place,
                "`model_support` is \"family\" or \"any\"; next: write one of them",
            );
            ModelSupport::Any
        }
    };
    let default_model = match raw.text("default_model") {
        None => {
            findings.error("default_model_missing", id.place, "`default_model` is required; next: name a model");
            String::new()
        }
        Some(model) if !is_model_name(model.value) => {
            findings.error(
                "default_model_invalid",
                model.place,
                "`default_model` is blank or too long; next: name a model",
            );
            String::new()
        }
        Some(model) => {
            if model_support == ModelSupport::Family && !driver.has_in_family(model.value) {
                let message = "the model is none of the driver's own; next: correct `default_model`, or write \
                               `model_support = \"any\"` for a gateway or local server";
                findings.error("model_not_in_family", model.place, message);
            }
            model.value.to_string()
        }
    };
    let base_url = match raw.text("base_url") {
        None => driver.base_url().or_else(|| {
            let message = "a gateway has no default address; next: write `base_url`, for example \
                           \"http://127.0.0.1:8000/v1\"";
            findings.error("base_url_missing", id.place, message);
            None
        }),
        Some(url) => BaseUrl::parse(url.value)
            .inspect_err(|error| findings.error("base_url_invalid", url.place, &format!("`base_url`: {error}")))
            .ok(),
    }?;
    let credential = resolve_credential(id.place, raw, &base_url, environment, findings);
    let organization = resolve_label(raw, ["organization", "organization_env"], environment, findings);
    let project = resolve_label(raw, ["project", "project_env"], environment, findings);
    let timeouts = resolve_timeouts(raw, findings);
    let anthropic_version = resolve_label(raw, ["anthropic_version", ""], environment, findings);
    let anthropic_beta = resolve_betas(raw, findings);
    let capabilities = Capabilities::resolve(driver, raw, findings);
    let context_window_tokens = resolve_window(raw, findings);
    let max_concurrency = resolve_concurrency(raw, findings);
    let trust = resolve_trust(raw, findings);
    let failover = raw.text("failover").map(|named| named.value.to_string());
    let target = driver.target(&base_url, &default_model);
    let id = name.clone();
    Some(Route {
        id,
        driver,
        default_model,
        model_support,
        credential,
        base_url,
        organization,
        project,
        anthropic_version,
        anthropic_beta,
        capabilities,
        timeouts,
        context_window_tokens,
        max_concurrency,
        failover,
        trust,
        target,
    })
}

/// Keys that mean something to other drivers only.
fn foreign_keys(driver: Driver) -> impl Iterator<Item = &'static str> {
    const OWNED: [(Driver, &[&str]); 2] = [
        (
            Driver::Openai,
            &["organization", "organization_env", "project", "project_env", "openai_auth_source", "openai_auth_file"],
        ),
        (
            Driver::Anthropic,
            &["anthropic_auth_source", "anthropic_credentials_file", "anthropic_version", "anthropic_beta_headers"],
        ),
    ];
    OWNED.into_iter().filter(move |(owner, _)| *owner != driver).flat_map(|(_, keys)| keys.iter().copied())
}

fn driver_names() -> String {
    Driver::ALL.map(|driver| format!("\"{}\"", driver.as_str())).join(", ")
}

fn resolve_driver(id: Place, raw: &RawTable, findings: &mut Findings) -> Option<Driver> {
    let Some(driver) = raw.text("driver") else {
        findings.error("driver_missing", id, &format!("`driver` is required; next: name one of {}", driver_names()));
        return None;
    };
    if let Some(driver) = Driver::parse(driver.value) {
        return Some(driver);
    }
    let message = match nearest(driver.value, Driver::ALL.into_iter().map(Driver::as_str)) {
        Some(name) => format!("unknown driver; next: did you mean \"{name}\"?"),
        None => format!("unknown driver; next: name one of {}", driver_names()),
    };
    findings.error("driver_unsupported", driver.place, &message);
    None
}

fn resolve_credential(
    id: Place,
    raw: &RawTable,
    base_url: &BaseUrl,
    environment: Environment<'_>,
    findings: &mut Findings,
) -> RouteCredential {
    check_exclusions(raw, findings);
    let credential = if let Some(slot) = raw.text("auth_ref") {
        if SlotId::parse(slot.value).is_err() {
            findings.error(
                "auth_ref_invalid",
                slot.place,
                "`auth_ref` is no slot id; next: name one of `secrets list`",
            );
        }
        RouteCredential::AuthRef(slot.value.to_string())
    } else if let Some(key) = raw.text("api_key") {
        let message = "the key stands in the routes file; next: store it with `secrets set` and use `auth_ref`";
        findings.add(Severity::Info, "inline_credential", Some(key.place), message);
        inline(key.value, key.place, findings)
    } else if let Some(variable) = raw.text("api_key_env") {
        match environment(variable.value).map(Zeroizing::new) {
            Some(value) => {
                let message =
                    "the key comes from the environment; next: store it with `secrets set` and use `auth_ref`";
                findings.add(Severity::Info, "inline_credential", Some(variable.place), message);
                inline(&value, variable.place, findings)
            }
            None => {
                let message = "the variable named by `api_key_env` is not set; next: set it, or use `auth_ref`";
                findings.error("api_key_env_missing", variable.place, message);
                RouteCredential::None
            }
        }
    } else {
        if !base_url.is_local() {
            let message = "a route without credential is allowed only for a server on this host; next: add `auth_ref`";
            findings.error("credential_missing", id, message);
        }
        RouteCredential::None
    };
    if !matches!(credential, RouteCredential::None) && !base_url.is_https() && !base_url.is_local() {
        let message = "the credential would travel unencrypted; next: use https, or keep the gateway on this host";
        findings.add(Severity::Warning, "credential_over_http", raw.text("base_url").map(|at| at.place), message);
    }
    credential
}

/// A route has at most one source of its credential.
fn check_exclusions(raw: &RawTable, findings: &mut Findings) {
    let (auth_ref, api_key, api_key_env) = (raw.text("auth_ref"), raw.text("api_key"), raw.text("api_key_env"));
    const ACCOUNT_KEYS: [&str; 4] =
        ["openai_auth_source", "openai_auth_file", "anthropic_auth_source", "anthropic_credentials_file"];
    for key in ACCOUNT_KEYS.into_iter().filter_map(|key| raw.text(key)) {
        if auth_ref.is_some() {
            let message = "this key and `auth_ref` exclude each other; next: keep `auth_ref`";
            findings.error("credential_conflict", key.place, message);
        } else if key.value != "api_key" {
            let message = "account logins are not part of this version; next: remove this key and use `auth_ref`";
            findings.error("auth_source_unsupported", key.place, message);
        }
    }
    let conflict = match (auth_ref, api_key, api_key_env) {
        (Some(_), Some(second), _) | (Some(_), None, Some(second)) => {
            Some((second, "this key and `auth_ref` exclude each other; next: keep `auth_ref`"))
        }
        (None, Some(_), Some(second)) => {
            Some((second, "`api_key` and `api_key_env` exclude each other; next: keep one, better `auth_ref`"))
        }
        _ => None,
    };
    if let Some((second, message)) = conflict {
        findings.error("credential_conflict", second.place, message);
    }
}

fn inline(key: &str, place: Place, findings: &mut Findings) -> RouteCredential {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "the key is blank or holds blanks, line ends or non-ASCII characters; \
                       next: store it with `secrets set` and use `auth_ref`";
        findings.error("api_key_invalid", place, message);
    }
    RouteCredential::Inline(Arc::new(Secret::new(key.as_bytes().to_vec())))
}

/// A header text that is either written in the file or named as a variable.
fn resolve_label(
    raw: &RawTable,
    [key, env_key]: [&str; 2],
    environment: Environment<'_>,
    findings: &mut Findings,
) -> Option<String> {
    let (text, place) = match (raw.text(key), raw.text(env_key)) {
        (Some(_), Some(second)) => {
            let message = format!("`{key}` and `{env_key}` exclude each other; next: keep one");
            findings.error("label_conflict", second.place, &message);
            return None;
        }
        (Some(text), None) => (text.value.to_string(), text.place),
        (None, Some(variable)) => match environment(variable.value) {
            Some(value) => (value, variable.place),
            None => {
                let message = format!("the variable named by `{env_key}` is not set; next: set it, or remove the key");
                findings.error("label_env_missing", variable.place, &message);
                return None;
            }
        },
        (None, None) => return None,
    };
    if !is_header_text(&text) {
        let message = format!("`{key}` is empty, too long or not plain ASCII without blanks; next: correct it");
        findings.error("label_invalid", place, &message);
    }
    Some(text)
}

fn resolve_timeouts(raw: &RawTable, findings: &mut Findings) -> Timeouts {
    let mut limit = |key, default| match raw.number(key) {
        None => default,
        Some(ms) if (PROVIDER_TIMEOUT_MS_MIN..=PROVIDER_TIMEOUT_MS_MAX).contains(&ms.value) => ms.value,
        Some(ms) => {
            let message = format!(
                "`{key}` is not between {PROVIDER_TIMEOUT_MS_MIN} and {PROVIDER_TIMEOUT_MS_MAX}; next: correct it"
            );
            findings.error("timeout_out_of_range", ms.place, &message);
            default
        }
    };
    Timeouts {
        connect_ms: limit("connect_timeout_ms", PROVIDER_CONNECT_MS_DEFAULT),
        first_byte_ms: limit("first_byte_timeout_ms", PROVIDER_FIRST_BYTE_MS_DEFAULT),
        idle_ms: limit("idle_timeout_ms", PROVIDER_IDLE_MS_DEFAULT),
        total_ms: Some(limit("total_timeout_ms", PROVIDER_TOTAL_MS_DEFAULT)),
    }
}

fn resolve_betas(raw: &RawTable, findings: &mut Findings) -> Option<String> {
    let betas = raw.texts("anthropic_beta_headers")?;
    let is_name = |name: &&str| is_header_text(name) && !name.contains(',');
    if betas.value.len() > ANTHROPIC_BETAS_MAX || !betas.value.iter().all(is_name) {
        let message = format!(
            "`anthropic_beta_headers` has at most {ANTHROPIC_BETAS_MAX} names of plain ASCII without blanks and commas; \
             next: write each beta as a text of its own"
        );
        findings.error("beta_header_invalid", betas.place, &message);
    }
    Some(betas.value.join(",")).filter(|names| !names.is_empty())
}

fn resolve_window(raw: &RawTable, findings: &mut Findings) -> Option<u64> {
    let window = raw.number("context_window_tokens")?;
    if !(CONTEXT_WINDOW_TOKENS_MIN..=CONTEXT_WINDOW_TOKENS_MAX).contains(&window.value) {
        let message = format!(
            "`context_window_tokens` is not between {CONTEXT_WINDOW_TOKENS_MIN} and {CONTEXT_WINDOW_TOKENS_MAX}; next: \
             correct it or remove it"
        );
        findings.error("context_window_out_of_range", window.place, &message);
    }
    Some(window.value)
}

fn resolve_concurrency(raw: &RawTable, findings: &mut Findings) -> Option<usize> {
    let limit = raw.number("max_concurrency")?;
    if !(1..=ROUTE_CONCURRENCY_MAX as u64).contains(&limit.value) {
        let message =
            format!("`max_concurrency` is not between 1 and {ROUTE_CONCURRENCY_MAX}; next: correct it or remove it");
        findings.error("max_concurrency_out_of_range", limit.place, &message);
    }
    Some(limit.value as usize)
}

fn resolve_trust(raw: &RawTable, findings: &mut Findings) -> Option<Arc<Trust>> {
    let file = raw.text("ca_file")?;
    // The reason without the path, which stands in a value of the file.
    match Trust::of_file(Path::new(file.value)) {
        Ok(trust) => Some(Arc::new(trust)),
        Err(_) => {
            let message = "the file named by `ca_file` cannot be used: it must be readable and hold PEM certificates only; \
                           next: correct the path, or try the file with `serve --ca-file`";
            findings.error("ca_file_unusable", file.place, message);
            None
        }
    }
}

/// A failover names another route, and following them never comes back.
pub(super) fn check_failovers(routes: &[(At<String>, RawTable)], findings: &mut Findings) {
    let next = |id: &str| {
        let (_, table) = routes.iter().find(|(other, _)| other.value == id)?;
        table.text("failover")
    };
    for (id, table) in routes {
        let Some(named) = table.text("failover") else { continue };
        findings.route = Some(id.value.clone());
        if !routes.iter().any(|(other, _)| other.value == named.value) {
            let message = "`failover` names no route of this file; next: name one of its [routes.<id>]";
            findings.error("failover_unknown", named.place, message);
            continue;
        }
        let chain = std::iter::successors(Some(named.value.to_string()), |id| next(id).map(|at| at.value.to_string()));
        if chain.take(routes.len()).any(|reached| reached == id.value) {
            let message = "`failover` leads back to its own route; next: let the last route of the chain have none";
            findings.error("failover_cycle", named.place, message);
        }
    }
}
