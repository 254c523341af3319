//! What `doctor routes` says: the inventory, its credentials, what refers to it, and how a real run went.
//! Owns: the report's shape and the judgement of each part.
//! May touch: the documents it is handed.
//! Never: calls a provider; a canary's result is handed in.

use serde::Serialize;
use serde_json::Value;

use super::codes;
use super::finding::Severity;
use crate::broker::Provider;
use crate::limits::DOCTOR_EXPIRY_WARNING_MS;
use crate::providers::{Driver, RouteCredential, Routes, RoutesError};

/// One finding about routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// For machines.
    pub code: String,
    /// The route, when it is about one.
    pub route_id: Option<String>,
    /// For people.
    pub message: String,
    /// The command or step that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// One route of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteRow {
    /// Its id.
    pub route_id: String,
    /// Its driver.
    pub provider: String,
    /// Its default model.
    pub model: String,
    /// Its slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_ref: Option<String>,
    /// `auth_ref`, `inline_api_key` or `provider_default`.
    pub auth_kind: &'static str,
    /// `family` or `any`; null where the daemon does not tell.
    pub model_support: Value,
    /// What it can do.
    pub capabilities: Value,
}

/// How a canary went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Canary {
    /// The route.
    pub route_id: String,
    /// Its driver.
    pub provider: String,
    /// The model that was asked.
    pub model: String,
    /// The session made for it, ended by now.
    pub session_id: String,
    /// The run, when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// `passed`, `failed` or `timeout`.
    pub status: &'static str,
    /// From the session's creation to the end.
    pub duration_ms: u64,
    /// What happened.
    pub message: String,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No error among the diagnostics.
    pub ok: bool,
    /// `runtime` or `file`.
    pub source: &'static str,
    /// The route of runs that name none.
    pub default_route: Option<String>,
    /// Routes listed.
    pub route_count: usize,
    /// Whether credentials were compared.
    pub auth_checked: bool,
    /// Whether references were looked at.
    pub reference_checked: bool,
    /// Whether real runs were made.
    pub canary_checked: bool,
    /// What the checks that were made do not prove.
    pub note: &'static str,
    /// The routes.
    pub routes: Vec<RouteRow>,
    /// How the canaries went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<Canary>,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
    /// Messages of the warnings.
    pub warnings: Vec<String>,
    /// Messages of the errors.
    pub errors: Vec<String>,
}

impl Report {
    fn new(source: &'static str) -> Self {
        Self {
            ok: true,
            source,
            default_route: None,
            route_count: 0,
            auth_checked: false,
            reference_checked: false,
            canary_checked: false,
            note: "only --canary proves that a provider accepts the key",
            routes: Vec::new(),
            canaries: Vec::new(),
            diagnostics: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Adds a finding of the table.
    ///
    /// # Panics
    /// The table has no such code, which is a mistake in this program.
    pub fn add(&mut self, code: &'static str, route_id: Option<&str>, message: impl Into<String>) {
        self.add_with(code, route_id, message, None);
    }

    /// As [`Report::add`], with a next step that fits better than the table's.
    pub fn add_with(
        &mut self,
        code: &'static str,
        route_id: Option<&str>,
        message: impl Into<String>,
        action: Option<String>,
    ) {
        let row = codes::find(code).unwrap_or_else(|| panic!("{code} is not in the table of codes"));
        self.diagnostics.push(Diagnostic {
            severity: row.severity,
            code: code.to_string(),
            route_id: route_id.map(str::to_string),
            message: message.into(),
            action: Some(action.unwrap_or_else(|| row.next.to_string())),
        });
    }

    fn copy(&mut self, severity: Severity, code: &str, route_id: Option<String>, message: String) {
        let action = message.split_once("; next: ").map(|(_, next)| next.to_string());
        let action = action.or_else(|| (severity > Severity::Info).then(|| "see docs/operators/routes.md".to_string()));
        self.diagnostics.push(Diagnostic { severity, code: code.to_string(), route_id, message, action });
    }

    /// The inventory of a running daemon.
    pub fn of_status(status: &Value) -> Self {
        let mut report = Self::new("runtime");
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_string);
        let Some(routes) = status.pointer("/runtime/routes").and_then(Value::as_array) else {
            report.add("route_evidence_missing", None, "the status has no usable runtime.routes");
            return report;
        };
        for route in routes {
            let (Some(route_id), Some(provider), Some(model)) =
                (text(route, "route_id"), text(route, "provider"), text(route, "model"))
            else {
                report.add("route_evidence_missing", None, "a route of the status lacks its id, provider or model");
                continue;
            };
            let auth_ref = text(route, "auth_ref");
            let auth_kind = match route["auth_kind"].as_str() {
                _ if auth_ref.is_some() => "auth_ref",
                Some("inline_api_key") => "inline_api_key",
                _ => "provider_default",
            };
            let (model_support, capabilities) = (route["model_support"].clone(), route["capabilities"].clone());
            report.routes.push(RouteRow {
                route_id,
                provider,
                model,
                auth_ref,
                auth_kind,
                model_support,
                capabilities,
            });
        }
        report.default_route = status.pointer("/runtime/route_id").and_then(Value::as_str).map(str::to_string);
        if report.routes.is_empty() {
            report.add("route_inventory_empty", None, "no model route is configured");
        } else {
            match report.default_route.clone() {
                None => report.add("default_route_unset", None, "no default route is in force"),
                Some(id) if !report.routes.iter().any(|route| route.route_id == id) => {
                    report.add("default_route_missing", Some(&id), format!("the default route {id} does not exist"));
                }
                Some(_) => {}
            }
        }
        match status.pointer("/runtime/route_diagnostics").and_then(Value::as_array) {
            None => report.add("route_evidence_missing", None, "the status has no usable runtime.route_diagnostics"),
            Some(diagnostics) => {
                for one in diagnostics {
                    let severity = Severity::of(one["severity"].as_str().unwrap_or_default());
                    let code = text(one, "code").unwrap_or_else(|| "unnamed".to_string());
                    report.copy(severity, &code, text(one, "route_id"), text(one, "message").unwrap_or_default());
                }
            }
        }
        report
    }

    /// The inventory of a file. `loaded` is the daemon's status, where one was asked.
    pub fn of_file(read: Result<&Routes, &RoutesError>) -> Self {
        let mut report = Self::new("file");
        let diagnostics = match read {
            Ok(routes) => {
                report.default_route = Some(routes.default_route().id.clone());
                report.routes = routes.iter().map(|route| row_of(route)).collect();
                routes.diagnostics()
            }
            Err(error) => {
                let unreadable = error.diagnostics.iter().any(|one| one.code == "unreadable");
                let code = if unreadable { "route_file_read_failed" } else { "route_file_invalid" };
                report.add(code, None, format!("{} cannot be used as a routes file", error.path.display()));
                &error.diagnostics
            }
        };
        for one in diagnostics {
            let severity = Severity::of(
                serde_json::to_value(one.severity).ok().as_ref().and_then(Value::as_str).unwrap_or_default(),
            );
            let place = one.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            report.copy(severity, one.code, one.route_id.clone(), format!("{place}{}", one.message));
        }
        report
    }

    /// Compares the digest of a file with what the daemon has loaded.
    pub fn compare(&mut self, sha256: &str, loaded: Option<(&str, &str)>) {
        let Some((path, loaded)) = loaded else {
            return self.add("route_file_drift", None, "the daemon was started without a routes file");
        };
        if loaded != sha256 {
            let short = |digest: &str| digest.chars().take(16).collect::<String>();
            let message = format!(
                "the file has SHA-256 {}…, and the daemon has loaded {path} with {}…",
                short(sha256),
                short(loaded)
            );
            self.add("route_file_drift", None, message);
        }
    }

    /// Keeps one route and what is said about it or about none.
    pub fn keep_only(&mut self, route_id: &str) {
        self.routes.retain(|route| route.route_id == route_id);
        self.diagnostics.retain(|one| one.route_id.as_deref().is_none_or(|id| id == route_id));
        if self.routes.is_empty() {
            self.add("route_not_found", Some(route_id), format!("there is no route {route_id}"));
        }
    }

    /// Compares each route's slot with what the auth store holds.
    pub fn check_auth(&mut self, slots: &[Value], now_ms: u64) {
        self.auth_checked = true;
        for route in self.routes.clone() {
            let id = Some(route.route_id.as_str());
            let Some(slot) = &route.auth_ref else { continue };
            let Some(found) = slots.iter().find(|found| found["slot_id"] == slot.as_str()) else {
                let message = format!("route {}: slot {slot} does not exist", route.route_id);
                let next = set_slot(slot, &route.provider);
                self.add_with("auth_ref_missing", id, message, Some(next));
                continue;
            };
            match needed(&route.provider) {
                None => {
                    let message = format!("route {}: driver {:?} is not known here", route.route_id, route.provider);
                    self.add("auth_ref_provider_unchecked", id, message);
                }
                Some(needed)
                    if found["provider"].as_str().and_then(|name| Provider::parse(name).ok()) != Some(needed) =>
                {
                    let has = found["provider"].as_str().unwrap_or("nobody");
                    let message = format!(
                        "route {}: slot {slot} holds a credential of {has}, and {needed} is needed",
                        route.route_id
                    );
                    self.add_with("auth_ref_provider_mismatch", id, message, Some(set_slot(slot, &route.provider)));
                }
                Some(_) => {}
            }
            if found["blocked"] == true {
                let message = format!("route {}: slot {slot} was revoked and not set since", route.route_id);
                self.add_with("auth_ref_revoked", id, message, Some(set_slot(slot, &route.provider)));
            }
            if let Some(expires_at_ms) = found.pointer("/details/expires_at_ms").and_then(Value::as_u64) {
                if expires_at_ms <= now_ms {
                    let message = format!("route {}: the credential in {slot} has expired", route.route_id);
                    self.add("auth_ref_expired", id, message);
                } else if expires_at_ms - now_ms < DOCTOR_EXPIRY_WARNING_MS {
                    let message = format!("route {}: the credential in {slot} expires soon", route.route_id);
                    self.add("auth_ref_expiring_soon", id, message);
                }
            }
            let outcome = found.pointer("/details/last_refresh_outcome").and_then(Value::as_str);
            if let Some(outcome) = outcome.filter(|outcome| *outcome != "success") {
                let message = format!("route {}: the last refresh of {slot} ended {outcome}", route.route_id);
                self.add("auth_ref_refresh_warning", id, message);
            }
        }
    }

    /// What the daemon itself says of each route, where the comparison of slots has found nothing.
    pub fn check_readiness(&mut self, status: &Value) {
        for route in self.routes.clone() {
            let id = route.route_id.as_str();
            let of = |one: &&Value| one["route_id"] == id;
            let states = status.pointer("/provider_readiness/routes").and_then(Value::as_array);
            let Some(state) = states.and_then(|states| states.iter().find(of)) else {
                self.add(
                    "route_evidence_missing",
                    Some(id),
                    format!("the status says nothing of route {id}'s readiness"),
                );
                continue;
            };
            if let Some(cause) = state["egress_refused"].as_str() {
                self.add("route_egress_refused", Some(id), format!("route {id}: {cause}"));
            }
            let told = self
                .diagnostics
                .iter()
                .any(|one| one.route_id.as_deref() == Some(id) && one.severity == Severity::Error);
            if state["state"] != "ok" && state["state"] != "warning" && !told {
                let message = state["message"].as_str().unwrap_or("no reason is given");
                let code = state["code"].as_str().unwrap_or("no code");
                let action = state["action"].as_str().map(str::to_string);
                self.add_with("provider_route_not_ready", Some(id), format!("route {id}: {message} ({code})"), action);
            }
        }
    }

    /// What refers to routes that do not exist, as `GET /v1/runtime/route-references` tells.
    pub fn check_references(&mut self, references: &Value) {
        self.reference_checked = true;
        let (Some(stale), Some(count)) = (references["stale"].as_array(), references["stale_count"].as_u64()) else {
            return self.add(
                "route_reference_check_failed",
                None,
                "the daemon's answer lacks its list of stale references",
            );
        };
        for one in stale {
            let text = |name: &str| one[name].as_str().unwrap_or("unknown");
            let (id, route) = (text("id"), text("route_id"));
            let (code, message, next) = match text("kind") {
                "run" => (
                    "stale_run_route",
                    format!("run {id} is {} and pinned to route {route}, which does not exist", text("status")),
                    Some(format!("kheish-daemon runs cancel {id}, or put route {route} back")),
                ),
                "session" => (
                    "stale_session_route_policy",
                    format!("session {id} has route {route} of its own, which does not exist"),
                    Some(format!("kheish-daemon sessions set-route {id} --clear")),
                ),
                "schedule" => {
                    ("stale_schedule_route", format!("schedule {id} names route {route}, which does not exist"), None)
                }
                "runtime" => (
                    "stale_runtime_route",
                    format!("the runtime configuration names route {route}, which does not exist"),
                    Some("kheish-daemon runtime set-model --reset".to_string()),
                ),
                kind => {
                    ("stale_route_reference", format!("{kind} {id} names route {route}, which does not exist"), None)
                }
            };
            self.add_with(code, Some(route), message, next);
        }
        if references["truncated"] == true || count > stale.len() as u64 {
            let message =
                format!("{count} references to unknown routes were counted, and not all are listed or looked at");
            self.add("route_references_truncated", None, message);
        }
    }

    /// Adds how the canaries went.
    pub fn add_canary(&mut self, canary: Canary) {
        let code = match canary.status {
            "passed" => None,
            "timeout" => Some("route_canary_timeout"),
            _ => Some("route_canary_failed"),
        };
        if let Some(code) = code {
            let next = canary.run_id.as_ref().map(|run| format!("kheish-daemon runs events {run}"));
            let message = format!("route {}: {}", canary.route_id, canary.message);
            self.add_with(code, Some(&canary.route_id), message, next);
        }
        self.canary_checked = true;
        self.canaries.push(canary);
    }

    /// Fills what follows from the rest.
    pub fn finish(&mut self) {
        self.route_count = self.routes.len();
        let of = |severity| {
            let rows = self.diagnostics.iter().filter(move |one| one.severity == severity);
            rows.map(|one| one.message.clone()).collect::<Vec<_>>()
        };
        (self.warnings, self.errors) = (of(Severity::Warning), of(Severity::Error));
        self.ok = self.errors.is_empty();
    }
}

fn row_of(route: &crate::providers::Route) -> RouteRow {
    let (auth_ref, auth_kind) = match &route.credential {
        RouteCredential::AuthRef(slot) => (Some(slot.clone()), "auth_ref"),
        RouteCredential::Inline(_) => (None, "inline_api_key"),
        RouteCredential::None => (None, "provider_default"),
    };
    let value = |serialised: Result<Value, serde_json::Error>| serialised.unwrap_or(Value::Null);
    RouteRow {
        route_id: route.id.clone(),
        provider: route.driver.as_str().to_string(),
        model: route.default_model.clone(),
        auth_ref,
        auth_kind,
        model_support: value(serde_json::to_value(route.model_support)),
        capabilities: value(serde_json::to_value(route.capabilities)),
    }
}

/// Whose credential a driver needs, as slots name it.
fn needed(driver: &str) -> Option<Provider> {
    Driver::parse(driver).map(Driver::slot_provider)
}

fn set_slot(slot: &str, driver: &str) -> String {
    let provider = needed(driver).map_or_else(|| "PROVIDER".to_string(), |provider| provider.to_string());
    format!("kheish-daemon secrets set {slot} --provider {provider} --from-file FILE")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(driver: &str) -> Report {
        let status = json!({"runtime": {
            "route_id": "main", "route_diagnostics": [],
            "routes": [{"route_id": "main", "provider": driver, "model": "m", "auth_ref": "slot", "capabilities": {}}]}});
        let report = Report::of_status(&status);
        assert_eq!(report.diagnostics, []);
        report
    }

    fn codes(report: &Report) -> Vec<&str> {
        report.diagnostics.iter().map(|one| one.code.as_str()).collect()
    }

    #[test]
    fn every_fault_of_a_slot_is_named_and_none_hides_another() {
        let now_ms = 1_000_000_000;
        let good = json!({"slot_id": "slot", "provider": "open_ai", "mode": "api_key"});
        let with = |extra: Value| {
            let mut slot = good.clone();
            slot.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
            slot
        };
        let expires = |in_ms: i64| with(json!({"details": {"expires_at_ms": now_ms as i64 + in_ms}}));
        let table: Vec<(Value, &[&str])> = vec![
            (good.clone(), &[]),
            (with(json!({"provider": "openai"})), &[]),
            (with(json!({"slot_id": "another"})), &["auth_ref_missing"]),
            (with(json!({"provider": "google"})), &["auth_ref_provider_mismatch"]),
            (with(json!({"provider": "nobody"})), &["auth_ref_provider_mismatch"]),
            (with(json!({"provider": 7})), &["auth_ref_provider_mismatch"]),
            (with(json!({"blocked": true})), &["auth_ref_revoked"]),
            (expires(0), &["auth_ref_expired"]),
            (expires(-1), &["auth_ref_expired"]),
            (expires(1), &["auth_ref_expiring_soon"]),
            (expires(599_999), &["auth_ref_expiring_soon"]),
            (expires(600_000), &[]),
            (with(json!({"details": {"last_refresh_outcome": "failed"}})), &["auth_ref_refresh_warning"]),
            (with(json!({"details": {"last_refresh_outcome": "success"}})), &[]),
            (
                with(json!({"provider": "google", "blocked": true, "details": {"expires_at_ms": 1}})),
                &["auth_ref_provider_mismatch", "auth_ref_revoked", "auth_ref_expired"],
            ),
        ];
        for (slot, expected) in table {
            let mut report = report("openai");
            report.check_auth(std::slice::from_ref(&slot), now_ms);
            assert_eq!(codes(&report), expected, "{slot}");
            report.finish();
            assert_eq!(report.ok, report.errors.is_empty());
        }
        let mut unknown = report("telepathy");
        unknown.check_auth(&[good], now_ms);
        assert_eq!(codes(&unknown), ["auth_ref_provider_unchecked"]);
    }

    #[test]
    fn an_inventory_that_is_missing_empty_or_torn_fails() {
        let base = json!({"runtime": {"route_id": "main", "route_diagnostics": [],
            "routes": [{"route_id": "main", "provider": "openai", "model": "m"}]}});
        let table = [
            ("/runtime", json!(null), "route_evidence_missing"),
            ("/runtime/routes", json!("x"), "route_evidence_missing"),
            ("/runtime/routes", json!([]), "route_inventory_empty"),
            ("/runtime/routes/0/model", json!(null), "route_evidence_missing"),
            ("/runtime/route_diagnostics", json!({}), "route_evidence_missing"),
            ("/runtime/route_id", json!(null), "default_route_unset"),
            ("/runtime/route_id", json!("gone"), "default_route_missing"),
        ];
        for (pointer, value, code) in table {
            let mut status = base.clone();
            *status.pointer_mut(pointer).expect("there") = value;
            let mut report = Report::of_status(&status);
            report.finish();
            assert!(codes(&report).contains(&code) && !report.ok, "{pointer}: {:?}", report.diagnostics);
        }
        let mut report = Report::of_status(&base);
        report.check_readiness(&base);
        assert_eq!(codes(&report), ["route_evidence_missing"], "no word of its readiness");
    }

    #[test]
    fn an_answer_about_references_that_is_torn_or_cut_is_no_pass() {
        let judge = |references: Value| {
            let mut report = report("openai");
            report.check_references(&references);
            report.diagnostics.into_iter().map(|one| one.code).collect::<Vec<_>>()
        };
        assert_eq!(judge(json!({"stale": [], "stale_count": 0, "truncated": false})), Vec::<String>::new());
        for torn in [
            json!({}),
            json!([]),
            json!({"stale": []}),
            json!({"stale_count": 0}),
            json!({"stale": 1, "stale_count": 0}),
        ] {
            assert_eq!(judge(torn.clone()), ["route_reference_check_failed"], "{torn}");
        }
        assert_eq!(judge(json!({"stale": [], "stale_count": 0, "truncated": true})), ["route_references_truncated"]);
        assert_eq!(judge(json!({"stale": [], "stale_count": 3, "truncated": false})), ["route_references_truncated"]);
        let stale = |kind: &str| json!({"stale": [{"kind": kind, "id": "x", "route_id": "gone"}], "stale_count": 1});
        for (kind, code) in [
            ("run", "stale_run_route"),
            ("session", "stale_session_route_policy"),
            ("schedule", "stale_schedule_route"),
            ("runtime", "stale_runtime_route"),
            ("something new", "stale_route_reference"),
        ] {
            assert_eq!(judge(stale(kind)), [code], "{kind}");
        }
    }
}
