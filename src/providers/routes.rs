//! Model routes: the routes file as it holds.
//! Owns: the resolved routes, the findings about a file, and the choice of the default route.
//! May touch: the routes file, read-only; environment variables that the file names, through the caller.
//! Never: shows a value of the file in a finding, since any of them may be a misplaced key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::limits::{COMPACT_AT_TOKENS, ROUTES_FILE_BYTES_MAX};
use crate::net::{BaseUrl, Target, Timeouts, Trust};
use crate::secret::Secret;

use super::driver::Driver;
use super::routes_file::{Place, RawRoutes, RawTable};
use super::routes_rules::{Environment, Findings, check_failovers, is_model_name, resolve_route};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It works, and should be changed.
    Warning,
    /// Worth knowing.
    Info,
}

/// A finding about a routes file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code.
    pub code: &'static str,
    /// The route concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_id: Option<String>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong and the next step.
    pub message: String,
}

impl Diagnostic {
    pub(super) fn new(
        severity: Severity,
        code: &'static str,
        route: Option<&str>,
        at: Option<Place>,
        message: String,
    ) -> Self {
        let (line, column) = (at.map(|at| at.line), at.map(|at| at.column));
        Self { severity, code, route_id: route.map(str::to_string), line, column, message }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if let Some(route) = &self.route_id {
            write!(f, "route {route:?}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.code)
    }
}

/// A routes file that cannot be used: all its findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutesError {
    /// The file.
    pub path: PathBuf,
    /// Findings of every severity, in file order; at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for RoutesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routes file {} cannot be used", self.path.display())?;
        let errors = self.diagnostics.iter().filter(|it| it.severity == Severity::Error);
        errors.into_iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for RoutesError {}

/// Which model names a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSupport {
    /// Names of the driver's own family.
    Family,
    /// Any name; for gateways and local servers.
    Any,
}

/// What a route can do beside text and tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Version of this set of fields.
    pub matrix_version: u32,
    /// Images and documents as input.
    pub multimodal_input: bool,
    /// The vendor's own web search.
    pub native_web_search: bool,
    /// Making images.
    pub image_generation: bool,
    /// Changing images.
    pub image_edit: bool,
    /// Speech output.
    pub audio_generation: bool,
    /// Speech to text.
    pub transcription: bool,
}

impl Capabilities {
    /// Version of the capability fields, as told by `/v1/capabilities`.
    pub const MATRIX_VERSION: u32 = 2;

    /// The driver's own abilities, each of which the file can take away and none of which it can add.
    pub(super) fn resolve(driver: Driver, raw: &RawTable, findings: &mut Findings) -> Self {
        let abilities = driver.abilities();
        let mut flag = |index: usize, key: &str| match raw.flag(key) {
            Some(flag) if flag.value && !abilities[index] => {
                let message = format!(
                    "`{key} = true`, which driver \"{}\" cannot do; next: remove the key, or choose another driver",
                    driver.as_str()
                );
                findings.error("unsupported_capability_override", flag.place, &message);
                false
            }
            Some(flag) => flag.value,
            None => abilities[index],
        };
        Self {
            matrix_version: Self::MATRIX_VERSION,
            multimodal_input: flag(0, "multimodal_input"),
            native_web_search: flag(1, "native_web_search"),
            image_generation: flag(2, "image_generation"),
            image_edit: flag(3, "image_edit"),
            audio_generation: flag(4, "audio_generation"),
            transcription: flag(5, "transcription"),
        }
    }
}

/// Where a route's credential comes from.
#[derive(Debug, Clone)]
pub enum RouteCredential {
    /// A slot of the auth store, reached through the broker.
    AuthRef(String),
    /// The file itself or an environment variable, read at start.
    Inline(Arc<Secret>),
    /// None: only for servers on this host.
    None,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its id.
    pub id: String,
    /// The API it speaks.
    pub driver: Driver,
    /// The model when a run names none.
    pub default_model: String,
    /// Which model names it accepts.
    pub model_support: ModelSupport,
    /// Its credential.
    pub credential: RouteCredential,
    /// Where its API lives.
    pub base_url: BaseUrl,
    /// `OpenAI-Organization`.
    pub organization: Option<String>,
    /// `OpenAI-Project`.
    pub project: Option<String>,
    /// `anthropic-version`; the driver's own when the file names none.
    pub anthropic_version: Option<String>,
    /// `anthropic-beta`: names joined by commas.
    pub anthropic_beta: Option<String>,
    /// What it can do beside text and tools.
    pub capabilities: Capabilities,
    /// Limits of time of one attempt.
    pub timeouts: Timeouts,
    /// Tokens that its model takes, question and answer together; conversations are compacted before.
    pub context_window_tokens: Option<u64>,
    /// Model calls at once, at most; no limit of its own otherwise.
    pub max_concurrency: Option<usize>,
    /// The route that a run goes on with when this one fails.
    pub failover: Option<String>,
    /// The only CAs to trust on this route; else the daemon's.
    pub trust: Option<Arc<Trust>>,
    pub(super) target: Target,
}

impl Route {
    /// The address of the turn endpoint for the default model.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Tokens of a conversation at which it is compacted: four fifths of the window, so that the answer fits too.
    pub fn compact_at_tokens(&self) -> u64 {
        self.context_window_tokens.map_or(COMPACT_AT_TOKENS, |window| window / 5 * 4)
    }

    /// Whether the route accepts `model`.
    pub fn accepts_model(&self, model: &str) -> bool {
        is_model_name(model)
            && match self.model_support {
                ModelSupport::Any => true,
                ModelSupport::Family => self.driver.has_in_family(model),
            }
    }
}

/// The file that routes came from, for the drift check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutesSource {
    /// Its path as given.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// All routes of a daemon.
#[derive(Debug, Clone)]
pub struct Routes {
    source: RoutesSource,
    default_route: String,
    routes: BTreeMap<String, Arc<Route>>,
    diagnostics: Vec<Diagnostic>,
}

impl Routes {
    /// Reads and judges the routes file at `path`. `default_route` (of `serve --default-route`) replaces the
    /// file's default; it does not stand in for one that the file lacks. `environment` reads a variable.
    ///
    /// # Errors
    /// Every finding about the file, when at least one is an error.
    pub fn load(
        path: &Path,
        default_route: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, RoutesError> {
        let fail = |code, message: String| {
            let diagnostics = vec![Diagnostic::new(Severity::Error, code, None, None, message)];
            Err(RoutesError { path: path.to_path_buf(), diagnostics })
        };
        let mut bytes = Zeroizing::new(Vec::new());
        let read =
            File::open(path).and_then(|file| file.take(ROUTES_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return fail("unreadable", format!("cannot read it: {error}; next: check the path and its permissions"));
        }
        if bytes.len() > ROUTES_FILE_BYTES_MAX {
            return fail("too_large", format!("it is over {ROUTES_FILE_BYTES_MAX} bytes; next: check the path"));
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return fail("not_utf8", "it is not UTF-8 text; next: save it as UTF-8".to_string());
        };
        let sha256 = digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let source = RoutesSource { path: path.to_path_buf(), sha256 };
        Self::resolve(source, RawRoutes::parse(text), default_route, environment)
    }

    /// The only place that judges: from what was written to what holds.
    fn resolve(
        source: RoutesSource,
        raw: RawRoutes,
        default_override: Option<&str>,
        environment: Environment<'_>,
    ) -> Result<Self, RoutesError> {
        let mut findings = Findings { route: None, list: raw.faults };
        let parsed = findings.list.iter().all(|fault| fault.code != "toml_syntax");
        let mut routes = BTreeMap::new();
        for (id, table) in &raw.routes {
            findings.route = Some(id.value.clone());
            if let Some(route) = resolve_route(id, table, environment, &mut findings) {
                routes.insert(id.value.clone(), Arc::new(route));
            }
        }
        check_failovers(&raw.routes, &mut findings);
        findings.route = None;
        if let Some(version) = raw.top.number("version").filter(|version| version.value != 1) {
            findings.error("version_unsupported", version.place, "only version 1 is known; next: write `version = 1`");
        }
        let names: Vec<&str> = raw.routes.iter().map(|(id, _)| id.value.as_str()).collect();
        let default_route = match raw.top.text("default_route") {
            Some(named) if names.contains(&named.value) => Some(named.value),
            Some(named) => {
                let message = "`default_route` names no route of this file; next: name one of its [routes.<id>]";
                findings.error("default_route_unknown", named.place, message);
                None
            }
            None if names.len() == 1 => Some(names[0]),
            None if names.is_empty() => {
                if parsed {
                    let message =
                        "the file has no route; next: add a [routes.<id>] table, see docs/operators/routes.md";
                    findings.add(Severity::Error, "no_routes", None, message);
                }
                None
            }
            None => {
                let message = "`default_route` is required with two or more routes; next: write `default_route = \"<id>\"` \
                               above the first of them";
                // In the order of the file, which is not that of the ids.
                let first = raw.routes.iter().map(|(id, _)| id.place).min_by_key(|place| (place.line, place.column));
                findings.add(Severity::Error, "default_route_missing", first, message);
                None
            }
        };
        let default_route = match default_override {
            Some(named) if !names.contains(&named) && parsed => {
                let message = "--default-route names no route of this file; next: name one of its [routes.<id>]";
                findings.add(Severity::Error, "default_route_unknown", None, message);
                None
            }
            Some(named) => default_route.map(|_| named),
            None => default_route,
        };
        findings.list.sort_by_key(|finding| (finding.line.is_none(), finding.line, finding.column));
        let has_error = findings.list.iter().any(|finding| finding.severity == Severity::Error);
        match default_route {
            Some(default_route) if !has_error => {
                let default_route = default_route.to_string();
                Ok(Self { source, default_route, routes, diagnostics: findings.list })
            }
            _ => Err(RoutesError { path: source.path, diagnostics: findings.list }),
        }
    }

    /// The file that the routes came from.
    pub fn source(&self) -> &RoutesSource {
        &self.source
    }

    /// The route of runs that name none.
    pub fn default_route(&self) -> &Arc<Route> {
        &self.routes[&self.default_route]
    }

    /// The route with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Route>> {
        self.routes.get(id)
    }

    /// All routes, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Credentials that the file or an environment variable holds, and no slot.
    pub fn inline_secrets(&self) -> impl Iterator<Item = Arc<Secret>> {
        self.iter().filter_map(|route| match &route.credential {
            RouteCredential::Inline(secret) => Some(secret.clone()),
            RouteCredential::AuthRef(_) | RouteCredential::None => None,
        })
    }

    /// Warnings and notes about the file; there are no errors.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}
