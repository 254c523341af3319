//! What the status document says, check by check.
//! Owns: which fields a check needs, and that a missing one is a failure.
//! May touch: the document it is handed.
//! Never: asks anybody; takes an absent field for a good one.

use serde_json::Value;

use super::finding::{Findings, Severity};

/// Judges a status document. Everything in it that is wrong is named, not only the first of each kind.
pub fn judge(status: &Value, found: &mut Findings) {
    let mut reader = Reader { status, found };
    reader.daemon();
    reader.events();
    reader.control_plane();
    reader.routes();
    reader.storage();
    reader.journal();
    reader.hooks();
    reader.sandbox();
    reader.counts();
    reader.health();
}

/// The number at a path, for the head of the report.
pub fn count(status: &Value, pointer: &str) -> Option<u64> {
    status.pointer(pointer).and_then(Value::as_u64)
}

struct Reader<'a> {
    status: &'a Value,
    found: &'a mut Findings,
}

impl Reader<'_> {
    /// What the path leads to; a missing or mistyped one is itself a finding.
    fn need<T>(&mut self, pointer: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.status.pointer(pointer).and_then(read);
        if value.is_none() {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            self.found.add("evidence_missing", format!("the status has no usable {path}"), Some(path));
        }
        value
    }

    fn flag(&mut self, pointer: &str) -> Option<bool> {
        self.need(pointer, Value::as_bool)
    }

    fn number(&mut self, pointer: &str) -> Option<u64> {
        self.need(pointer, Value::as_u64)
    }

    fn list(&mut self, pointer: &str) -> Vec<Value> {
        self.need(pointer, |value| value.as_array().cloned()).unwrap_or_default()
    }

    fn text(&self, pointer: &str) -> Option<String> {
        self.status.pointer(pointer).and_then(Value::as_str).map(str::to_string)
    }

    fn daemon(&mut self) {
        let state = self.text("/status").unwrap_or_else(|| "unknown".to_string());
        match self.flag("/ready") {
            Some(true) => self.found.pass("daemon_status", format!("the daemon is {state}")),
            Some(false) => self.found.add("daemon_not_ready", format!("the daemon is not ready ({state})"), None),
            None => {}
        }
    }

    fn events(&mut self) {
        self.need("/events/tail_event_id_cursor", |value| value.as_str().map(str::len));
        for (number, writer) in self.list("/events/writers").iter().enumerate() {
            if writer["alive"] != true {
                let message = format!("event stream writer {number} has ended");
                self.found.add("events_writer_dead", message, Some(number.to_string()));
            }
        }
        let failures = self.number("/events/read_failures").unwrap_or(0);
        if failures > 0 {
            let message =
                format!("{failures} event streams were closed because the journal could not be read for them");
            self.found.add("events_read_failures", message, None);
        }
        self.found.pass("events_status", "the event streams' writers run");
    }

    fn control_plane(&mut self) {
        let bind = self.text("/control_plane/bind_addr");
        if self.flag("/control_plane/externally_exposed_without_auth") == Some(true) {
            let message = "anybody who reaches the daemon's address controls it".to_string();
            self.found.add("control_plane_exposed", message, bind.clone());
        }
        let enabled = self.flag("/control_plane/auth_enabled");
        if self.flag("/control_plane/auth_duplicate_token") == Some(true) {
            self.found.add("control_plane_duplicate_token", "admin and read-only token are equal", None);
        }
        let admin = self.flag("/control_plane/auth_effective_admin_token_available");
        if enabled == Some(true) && admin == Some(false) {
            self.found.add("control_plane_no_admin_token", "no admin token can be used now", None);
        }
        let errors = self.number("/control_plane/auth_token_file_error_count").unwrap_or(0);
        let files = self.status.pointer("/control_plane/auth_token_files").and_then(Value::as_array);
        let mut named = 0;
        for file in files.into_iter().flatten() {
            let fault = file["error"].as_str().map(str::to_string).or_else(|| {
                (file["token_loaded"] != true || file["readable"] != true)
                    .then(|| "it holds no usable token".to_string())
            });
            let Some(fault) = fault else { continue };
            named += 1;
            let path = file["path"].as_str().map(str::to_string);
            let role = file["role"].as_str().unwrap_or("unknown");
            let message = format!("token file {} ({role}): {fault}", path.as_deref().unwrap_or("without a path"));
            self.found.add("control_plane_token_unusable", message, path);
        }
        if errors > named {
            let message = format!("{} token files cannot be used", errors - named);
            self.found.add("control_plane_token_unusable", message, None);
        }
        if enabled == Some(false) && !self.found.has("control_plane_exposed") {
            self.found.add("control_plane_auth_off", "nobody is asked for a token", bind);
        }
        self.found.pass("control_plane_auth", "tokens are asked for and usable");
    }

    fn routes(&mut self) {
        for diagnostic in self.list("/runtime/route_diagnostics") {
            let text = |name: &str| diagnostic[name].as_str().map(str::to_string);
            let code = match Severity::of(diagnostic["severity"].as_str().unwrap_or_default()) {
                Severity::Info => continue,
                Severity::Warning => "route_diagnostic_warning",
                Severity::Error => "route_diagnostic_error",
            };
            let what = text("code").unwrap_or_else(|| "unnamed".to_string());
            let message = format!("{what}: {}", text("message").unwrap_or_default());
            self.found.add(code, message, text("route_id"));
        }
        let routes = self.list("/provider_readiness/routes");
        if routes.is_empty() {
            self.found.add("routes_empty", "no model route is configured", None);
        } else if self.text("/runtime/route_id").is_none() {
            self.found.add("default_route_unset", "no default route is in force", None);
        }
        self.found.pass("routes", format!("{} routes are configured", routes.len()));
        self.readiness(&routes);
    }

    fn readiness(&mut self, routes: &[Value]) {
        let (mut errors, mut warnings) = (0, 0);
        for route in routes {
            let text = |name: &str| route[name].as_str().map(str::to_string);
            let id = text("route_id");
            let name = id.clone().unwrap_or_else(|| "without an id".to_string());
            if let Some(cause) = text("egress_refused") {
                errors += 1;
                let next = "add its host with --egress-allow, or take the route out of the routes file".to_string();
                self.found.add_with("provider_route_not_ready", format!("route {name}: {cause}"), id, Some(next));
                continue;
            }
            let code = match route["state"].as_str() {
                Some("ok") => continue,
                Some("warning") => "provider_route_warning",
                _ => "provider_route_not_ready",
            };
            *(if code == "provider_route_warning" { &mut warnings } else { &mut errors }) += 1;
            let reason = text("code").unwrap_or_else(|| "no code".to_string());
            let message = format!("route {name}: {} ({reason})", text("message").unwrap_or_default());
            self.found.add_with(code, message, id, text("action"));
        }
        let told = self.number("/provider_readiness/error_route_count").unwrap_or(0);
        if told > errors {
            let message = format!("{told} routes are not ready, and {errors} of them are named");
            self.found.add("provider_route_not_ready", message, None);
        }
        if self.flag("/provider_readiness/active_route_ready") == Some(false) && !routes.is_empty() {
            let active = self.text("/runtime/route_id");
            self.found.add("provider_active_route_not_ready", "runs that name no route would fail", active);
        }
        self.found.pass("provider_readiness", format!("{} routes are ready", routes.len()));
    }

    fn storage(&mut self) {
        let probes = self.list("/storage/probes");
        for name in ["state_root", "workspace_root"] {
            if !probes.iter().any(|probe| probe["name"] == name) {
                self.found.add(
                    "storage_probe_missing",
                    format!("there is no write probe of {name}"),
                    Some(name.into()),
                );
            }
        }
        for probe in &probes {
            let text = |name: &str| probe[name].as_str().map(str::to_string);
            let code = match (probe["writable"].as_bool(), probe["state"].as_str()) {
                (Some(true), Some("ok")) => continue,
                (Some(true), Some("warning")) => "storage_probe_warning",
                _ => "storage_probe_failed",
            };
            let path = text("path");
            let what = text("code").unwrap_or_else(|| "no code".to_string());
            let message =
                format!("{}: {} ({what})", path.clone().unwrap_or_default(), text("message").unwrap_or_default());
            self.found.add_with(code, message, path, text("action").or_else(|| next_of_probe(&what)));
        }
        // A lost lock makes it false as well, and is named below.
        let lost = self.status.pointer("/storage/state_root_lock/held") == Some(&Value::Bool(false));
        if self.flag("/storage/ok") == Some(false) && !lost && !self.found.has("storage_probe_failed") {
            let stale = self.status.pointer("/storage/stale") == Some(&Value::Bool(true));
            let damage = self.text("/storage/scrub/damage").map(|damage| format!(": {damage}"));
            let message = match damage {
                Some(damage) => format!("the journal is damaged{damage}"),
                None if stale => "the write probes have not come back for too long".to_string(),
                None => "the storage is not usable".to_string(),
            };
            self.found.add("storage_not_ok", message, None);
        }
        self.found.pass("storage", "both roots can be written and synced");
        let path = self.text("/storage/state_root_lock/path");
        match self.flag("/storage/state_root_lock/held") {
            Some(true) => self.found.pass("state_root_lock", "the daemon owns the lock of its state root"),
            Some(false) => {
                let message = "the daemon does not own the lock of its state root any more".to_string();
                self.found.add("state_root_lock_lost", message, path);
            }
            None => {}
        }
    }

    fn journal(&mut self) {
        if self.flag("/journal/poisoned") == Some(true) {
            let reason = self.text("/journal/reason").unwrap_or_else(|| "no reason is given".to_string());
            self.found.add("journal_poisoned", format!("the journal accepts nothing more: {reason}"), None);
        }
        self.found.pass("journal", "the journal accepts records");
    }

    /// A daemon that has no hooks says so, or has no such group: nothing of it can surprise anybody. Where some are
    /// configured, the daemon must tell how they were checked.
    fn hooks(&mut self) {
        let Some(group) = self.status.get("hooks") else { return };
        if group["supported"] == false {
            return;
        }
        let said = |name: &str| group[name].as_array().is_some_and(|list| !list.is_empty());
        if self.number("/hooks/configured_count") == Some(0) && !said("diagnostics") {
            return self.found.pass("hooks", "no hooks are configured");
        }
        self.list("/hooks/diagnostics");
        self.list("/hooks/http_targets");
        for finding in group["diagnostics"].as_array().into_iter().flatten() {
            let text = |name: &str| finding[name].as_str().map(str::to_string);
            let code = match Severity::of(finding["severity"].as_str().unwrap_or_default()) {
                Severity::Info => continue,
                Severity::Warning => "hook_warning",
                Severity::Error => "hook_invalid",
            };
            let hook = text("hook").or_else(|| text("related_id"));
            let message = format!("{}: {}", hook.as_deref().unwrap_or("settings"), text("message").unwrap_or_default());
            self.found.add_with(code, message, hook, text("action"));
        }
        self.found.pass("hooks", "the definitions of the hooks are valid");
        for target in group["http_targets"].as_array().into_iter().flatten() {
            let text = |name: &str| target[name].as_str().map(str::to_string);
            let code = match target["state"].as_str() {
                Some("ok") => continue,
                Some("warning") => "hook_target_unresolved",
                _ => "hook_target_private",
            };
            let hook = text("hook");
            let message = format!(
                "{} calls {}: {}",
                hook.as_deref().unwrap_or("a hook"),
                text("host").unwrap_or_default(),
                text("message").unwrap_or_default()
            );
            self.found.add_with(code, message, hook, text("action"));
        }
        self.found.pass("hooks_http_targets", "the names of HTTP hooks lead to public addresses");
    }

    fn sandbox(&mut self) {
        let Some(level) = self.text("/sandbox/level") else { return };
        let strength = self.text("/sandbox/strength").unwrap_or_else(|| "unknown".to_string());
        self.found.add("sandbox_level", format!("tools run at level {level}, walls {strength}"), Some(level));
    }

    fn counts(&mut self) {
        for pointer in [
            "/sessions/total",
            "/runs/pending_approval_count",
            "/runs/pending_question_count",
            "/runs/queued",
            "/runs/running",
        ] {
            self.number(pointer);
        }
        self.need("/runtime/debug_level", |value| value.as_str().map(str::len));
    }

    /// The daemon's own findings, under their own codes.
    fn health(&mut self) {
        let ok = self.flag("/health/ok");
        let warnings = self.status.pointer("/health/warnings").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut unwell = 0;
        for warning in &warnings {
            let text = |name: &str| warning[name].as_str().map(str::to_string);
            let severity = Severity::of(warning["severity"].as_str().unwrap_or_default());
            unwell += usize::from(severity > Severity::Info);
            let code = text("code").unwrap_or_else(|| "unnamed".to_string());
            let message = text("message").unwrap_or_default();
            self.found.add_reported(severity, &code, &message, text("related_id"), text("action"));
        }
        match ok {
            Some(false) if unwell == 0 => {
                let message = "health.ok is false, and no warning says why".to_string();
                self.found.add("evidence_missing", message, Some("health.warnings".to_string()));
            }
            Some(true) => self.found.pass("health", "health.ok is true"),
            _ => {}
        }
    }
}

fn next_of_probe(code: &str) -> Option<String> {
    code.contains("timeout").then(|| "check for a hanging disk or network file system".to_string())
}
