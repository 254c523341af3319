//! What `incident collect` gathers, and from where.
//! Owns: the list of the evidence, and the record of what could not be had.
//! May touch: the network, through `net`; the evidence directory; a state root on this host, for reading.
//! Never: stops at the first missing piece; writes a text without masking what looks like a key.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path as FilePath, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::client::{Client, decode};
use super::doctor;
use super::doctor_routes::DoctorRoutes;
use super::environment::Environment;
use super::exit::CliError;
use super::json_text::Document;
use super::path::Path;
use super::runs::run_path;
use crate::audit::incident::IncidentSignature;
use crate::audit::verify::verify_beside;
use crate::clock::{Clock, SystemClock};
use crate::doctor::finding::Findings;
use crate::doctor::offline::{Subject, examine};
use crate::hex::to_hex;
use crate::incident::directory::Evidence;
use crate::incident::inventory;
use crate::incident::manifest::sha256_hex;
use crate::limits::{INCIDENT_AUDIT_BYTES_MAX, INCIDENT_PAGES_MAX, INCIDENT_RUNS_DEFAULT, INCIDENT_RUNS_MAX};
use crate::redaction::mask_keys;
use crate::state_root::{Directory, LOCK_FILE};
use crate::sys::effective_user_id;

/// Where the daemon's public key is kept in the evidence.
pub const KEY_ITEM: &str = "audit-public-key.json";
/// Items of one page of a list.
const PAGE_ITEMS: &str = "100";

/// What is to be collected.
pub struct Request<'a> {
    /// The directory to make.
    pub out: &'a FilePath,
    /// Sessions to take in full.
    pub sessions: Vec<String>,
    /// Runs to take in full.
    pub runs: Vec<String>,
    /// The state root on this host, if named.
    pub state_root: Option<PathBuf>,
}

/// A piece of evidence that could not be had.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// Its file, or what it is.
    pub name: String,
    /// Why.
    pub cause: String,
}

/// What was collected.
#[derive(Debug, Serialize)]
pub struct Summary {
    ok: bool,
    out: String,
    file_count: usize,
    bytes: u64,
    manifest_sha256: String,
    signed_by: Option<String>,
    /// What could not be had.
    pub missing: Vec<Missing>,
}

/// One line of the timeline.
#[derive(Serialize)]
struct Step {
    at_ms: u64,
    file: String,
    /// The request or file that it comes from.
    source: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

struct Collector<'a> {
    client: &'a Client,
    evidence: Evidence,
    steps: Vec<Step>,
    missing: Vec<Missing>,
}

/// Collects everything that can be had, names the rest, and has the daemon sign the manifest.
///
/// # Errors
/// The directory cannot be made or written; everything else is named as missing.
pub fn collect(client: &Client, env: &Environment, request: &Request<'_>) -> Result<Summary, CliError> {
    let started_at_ms = SystemClock.now_ms();
    let evidence = Evidence::create(request.out).map_err(|error| out_error(request.out, &error))?;
    let mut collector = Collector { client, evidence, steps: Vec::new(), missing: Vec::new() };
    let status = collector.views(env)?;
    let (runs, sessions) = collector.subjects(request)?;
    for run in &runs {
        collector.run(run)?;
    }
    for session in &sessions {
        collector.session(session)?;
    }
    let root = request.state_root.clone().or_else(|| local_root(client, status.as_ref()));
    collector.state_root(root.as_deref())?;
    collector.finish(started_at_ms, env, request, &runs, &sessions)
}

fn out_error(out: &FilePath, error: &io::Error) -> CliError {
    let cause = error.to_string();
    CliError::File {
        path: out.to_path_buf(),
        cause,
        next: "name a directory that does not exist yet, with room for it",
    }
}

/// The state root that the status names, when it is this host's: the lock file must name the daemon's process.
pub(super) fn local_root(client: &Client, status: Option<&Value>) -> Option<PathBuf> {
    if !client.is_local() {
        return None;
    }
    let root = PathBuf::from(status?.pointer("/runtime/state_root")?.as_str()?);
    let pid = status?.get("process_id")?.as_u64()?;
    let holder = fs::read_to_string(root.join(LOCK_FILE)).ok()?;
    holder.lines().any(|line| line == format!("pid={pid}")).then_some(root)
}

impl Collector<'_> {
    fn keep(&mut self, file: &str, source: &str, bytes: &[u8]) -> Result<(), CliError> {
        self.evidence.write(file, bytes).map_err(|error| out_error(FilePath::new(file), &error))?;
        self.step(file, source, "collected", None);
        Ok(())
    }

    fn step(&mut self, file: &str, source: &str, outcome: &'static str, cause: Option<String>) {
        let (file, source) = (file.to_string(), source.to_string());
        self.steps.push(Step { at_ms: SystemClock.now_ms(), file, source, outcome, cause });
    }

    fn lack(&mut self, file: &str, source: &str, cause: String) {
        self.missing.push(Missing { name: file.to_string(), cause: cause.clone() });
        self.step(file, source, "missing", Some(cause));
    }

    /// A document of the daemon, as it came but for what looks like a key.
    fn document(&mut self, file: &str, path: &Path) -> Result<Option<Value>, CliError> {
        let source = format!("GET {}", path.as_str());
        match self.client.get(path) {
            Ok(document) => {
                self.keep(file, &source, masked(document.as_str()).as_bytes())?;
                Ok(decode(&document, "a document").ok())
            }
            Err(error) => {
                self.lack(file, &source, error.without_next());
                Ok(None)
            }
        }
    }

    /// As [`Self::document`], for what an older or smaller daemon does not have.
    fn optional(&mut self, file: &str, path: &Path) -> Result<(), CliError> {
        match self.client.get(path) {
            Err(CliError::Http { status: 404 | 405, code, .. }) => {
                let cause = code.unwrap_or_else(|| "no such resource".to_string());
                self.step(file, &format!("GET {}", path.as_str()), "not_offered", Some(cause));
                Ok(())
            }
            Err(error) => {
                self.lack(file, &format!("GET {}", path.as_str()), error.without_next());
                Ok(())
            }
            Ok(document) => self.keep(file, &format!("GET {}", path.as_str()), masked(document.as_str()).as_bytes()),
        }
    }

    /// All pages of a list, as one array.
    fn list(&mut self, file: &str, path: &Path) -> Result<Vec<Value>, CliError> {
        let source = format!("GET {}", path.as_str());
        let (mut items, mut cursor): (Vec<Value>, Option<String>) = (Vec::new(), None);
        for _ in 0..INCIDENT_PAGES_MAX {
            let page = path.clone().query("page", Some("true")).query("limit", Some(PAGE_ITEMS));
            let page = page.query("cursor", cursor.as_deref());
            let answer: Value = match self.client.get(&page).and_then(|document| decode(&document, "a page")) {
                Ok(answer) => answer,
                Err(error) => {
                    self.lack(file, &source, error.without_next());
                    break;
                }
            };
            items.extend(answer["items"].as_array().cloned().unwrap_or_default());
            cursor = answer.pointer("/pagination/next_cursor").and_then(Value::as_str).map(str::to_string);
            if cursor.is_none() {
                break;
            }
        }
        if cursor.is_some() {
            self.lack(file, &source, format!("the list goes on behind its item {}", items.len()));
        }
        if !items.is_empty() || cursor.is_none() {
            self.keep(file, &source, masked(&Value::Array(items.clone()).to_string()).as_bytes())?;
        }
        Ok(items)
    }

    /// What concerns the daemon as a whole. Gives the status.
    fn views(&mut self, env: &Environment) -> Result<Option<Value>, CliError> {
        let status = self.document("status.json", &Path::new("/v1/status"))?;
        let (report, _, failure) = doctor::ask(self.client, None)?;
        self.keep("doctor.json", "doctor", masked(report.as_str()).as_bytes())?;
        if let Some(error) = failure {
            self.lack("doctor.json", "doctor", format!("it had no status: {}", error.without_next()));
        }
        for (file, source, routes) in [
            ("doctor-routes-check-auth.json", "doctor routes --check-auth", DoctorRoutes::only(true, false)),
            (
                "doctor-routes-check-references.json",
                "doctor routes --check-references",
                DoctorRoutes::only(false, true),
            ),
        ] {
            match routes.examine(self.client, env) {
                Ok((report, failure)) => {
                    self.keep(file, source, masked(Document::of(&report).as_str()).as_bytes())?;
                    if let Some(error) = failure {
                        self.lack(file, source, error.without_next());
                    }
                }
                Err(error) => self.lack(file, source, error.without_next()),
            }
        }
        for (file, path) in [
            ("runtime.json", "/v1/runtime"),
            ("capabilities.json", "/v1/capabilities"),
            ("runtime-revisions.json", "/v1/runtime/revisions"),
            ("secrets.json", "/v1/runtime/secrets"),
            ("auth-subjects.json", "/v1/runtime/auth/subjects"),
            ("auth-leases.json", "/v1/runtime/auth/leases?all=true"),
            ("audit-checkpoint.json", "/v1/audit/checkpoint"),
            (KEY_ITEM, "/v1/audit/public-key"),
            ("approvals.json", "/v1/approvals"),
            ("questions.json", "/v1/questions"),
        ] {
            self.document(file, &Path::new(path))?;
        }
        self.optional("connectors.json", &Path::new("/v1/runtime/connectors"))?;
        Ok(status)
    }

    /// The runs and sessions to be taken in full.
    fn subjects(&mut self, request: &Request<'_>) -> Result<(BTreeSet<String>, BTreeSet<String>), CliError> {
        let listed = self.list("runs.json", &Path::new("/v1/runs").query("order", Some("desc")))?;
        self.list("sessions.json", &Path::new("/v1/sessions"))?;
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_string);
        let mut runs: BTreeSet<String> = request.runs.iter().cloned().collect();
        let mut sessions: BTreeSet<String> = request.sessions.iter().cloned().collect();
        let newest = if runs.is_empty() && sessions.is_empty() { INCIDENT_RUNS_DEFAULT } else { 0 };
        runs.extend(listed.iter().take(newest).filter_map(|run| text(run, "run_id")));
        // A run is read together with its session, and a session with its runs.
        let mut left_out = 0;
        for run in &listed {
            let (Some(id), Some(session)) = (text(run, "run_id"), text(run, "session_id")) else { continue };
            if request.sessions.contains(&session) {
                if runs.len() < INCIDENT_RUNS_MAX {
                    runs.insert(id);
                } else {
                    left_out += 1;
                }
            } else if runs.contains(&id) {
                sessions.insert(session);
            }
        }
        if left_out > 0 {
            let cause = format!("{left_out} older runs of the named sessions were left out; name those of interest");
            self.lack("runs", "GET /v1/runs", cause);
        }
        Ok((runs, sessions))
    }

    fn run(&mut self, run: &str) -> Result<(), CliError> {
        let file = |name: &str| format!("runs/{}/{name}.json", plain(run));
        self.document(&file("run"), &run_path(run))?;
        self.document(&file("events"), &run_path(run).then("/events"))?;
        self.list(&file("external-actions"), &run_path(run).then("/external-actions"))?;
        // Most runs have no debug capture.
        self.optional(&file("debug"), &run_path(run).then("/debug"))?;
        let deliveries = Path::new("/v1/deliveries").query("run_id", Some(run));
        self.optional(&file("deliveries"), &deliveries)
    }

    fn session(&mut self, session: &str) -> Result<(), CliError> {
        let file = |name: &str| format!("sessions/{}/{name}.json", plain(session));
        let path = Path::new("/v1/sessions").segment(session);
        self.document(&file("session"), &path)?;
        self.document(&file("events"), &path.clone().then("/events"))?;
        self.list(&file("tasks"), &path.clone().then("/tasks"))?;
        self.document(&file("settings"), &path.clone().then("/settings"))?;
        let subject = Path::new("/v1/runtime/auth/subjects").segment(&format!("session:{session}"));
        self.optional(&file("auth-subject"), &subject)
    }

    /// What only the daemon's host has.
    fn state_root(&mut self, root: Option<&FilePath>) -> Result<(), CliError> {
        let Some(root) = root else {
            let cause = "the daemon's state root is not on this host; collect there too, or name it with --state-root";
            for file in
                ["state-root/inventory.jsonl", "state-root/control-plane-auth/audit.jsonl", "state-root/doctor.json"]
            {
                self.lack(file, "state root", cause.to_string());
            }
            return Ok(());
        };
        let source = root.display().to_string();
        let directory = root.join(Directory::ControlPlaneAuth.name());
        match read_tails(&directory) {
            Ok(files) if files.iter().any(|(name, _)| name == "audit.jsonl") => {
                for (name, bytes) in files {
                    let text = masked(&String::from_utf8_lossy(&bytes));
                    self.keep(&format!("state-root/control-plane-auth/{name}"), &source, text.as_bytes())?;
                }
            }
            Ok(_) => self.lack("state-root/control-plane-auth/audit.jsonl", &source, "there is none".to_string()),
            Err(error) => self.lack("state-root/control-plane-auth/audit.jsonl", &source, error.to_string()),
        }
        match inventory::take(root) {
            Ok(inventory) => {
                self.keep("state-root/inventory.jsonl", &source, &inventory.text)?;
                for unread in inventory.unread {
                    self.lack("state-root/inventory.jsonl", &source, unread);
                }
            }
            Err(error) => self.lack("state-root/inventory.jsonl", &source, error.to_string()),
        }
        let mut found = Findings::default();
        let seen = examine(Subject { root, key_file: None, master_key: None, scan: false }, &mut found);
        let report = json!({"seen": seen, "checks": found.verdict().checks});
        self.keep("state-root/doctor.json", "doctor --offline", masked(&report.to_string()).as_bytes())?;
        let trail = Document::of(&verify_beside(root, &[], None));
        self.keep("state-root/audit-verify.json", "audit verify", masked(trail.as_str()).as_bytes())
    }

    fn finish(
        mut self,
        started_at_ms: u64,
        env: &Environment,
        request: &Request<'_>,
        runs: &BTreeSet<String>,
        sessions: &BTreeSet<String>,
    ) -> Result<Summary, CliError> {
        let name = |variable: &str| env.get(variable).ok().flatten().map(str::to_string);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let collection = json!({
            "type": "kheish-incident",
            "version": 1,
            "client_version": env!("CARGO_PKG_VERSION"),
            "base_url": self.client.base_url(),
            "operator": {
                "user": name("USER").or_else(|| name("LOGNAME")),
                "uid": effective_user_id(),
                "host": host.trim(),
            },
            "asked_for": {"sessions": request.sessions, "runs": request.runs},
            "sessions": sessions,
            "runs": runs,
            "started_at_ms": started_at_ms,
            "finished_at_ms": SystemClock.now_ms(),
            "timeline": self.steps,
            "missing": self.missing,
        });
        let text = masked(&collection.to_string());
        let out = |error: io::Error| out_error(request.out, &error);
        self.evidence.write("collection.json", text.as_bytes()).map_err(out)?;
        let (file_count, bytes) = self.evidence.figures();
        let digest = self.evidence.seal().map_err(out)?;
        let body = Document::of(&json!({"manifest_sha256": to_hex(&digest)}));
        let path = Path::new("/v1/audit/incident-signature");
        let signature = self.client.post(&path, Some(body.as_str().as_bytes()), &[]);
        let signature: Result<IncidentSignature, CliError> =
            signature.and_then(|document| decode(&document, "the signature"));
        let signed_by = match signature {
            Ok(signature) => {
                self.evidence.sign(&signature).map_err(out)?;
                Some(signature.key_id)
            }
            Err(error) => {
                self.missing.push(Missing { name: "signature".to_string(), cause: error.without_next() });
                None
            }
        };
        Ok(Summary {
            ok: self.missing.is_empty(),
            out: request.out.display().to_string(),
            file_count,
            bytes,
            manifest_sha256: to_hex(&digest),
            signed_by,
            missing: self.missing,
        })
    }
}

/// The daemon has masked what it knows; what only has the shape of a key is masked here once more.
fn masked(text: &str) -> String {
    mask_keys(text)
}

/// An id as the name of a directory; no two ids have one name.
fn plain(id: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if !id.is_empty() && id.chars().all(legal) && !id.bytes().all(|b| b == b'.') {
        return id.to_string();
    }
    let name: String = id.chars().map(|c| if legal(c) && c != '.' { c } else { '_' }).collect();
    format!("{name}~{}", &sha256_hex(id.as_bytes())[..16])
}

/// The plain files of a directory, each from its end as far as the bound goes.
fn read_tails(directory: &FilePath) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let mut file = File::open(entry.path())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(INCIDENT_AUDIT_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(INCIDENT_AUDIT_BYTES_MAX).read_to_end(&mut bytes)?;
        files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_leaves_its_directory() {
        assert_eq!(["run-1", "slack:T1:C2"].map(plain), ["run-1", "slack:T1:C2"]);
        let ids = ["..", ".", "", "a/../b", "a_.._b", "a/b", "a_b", "é"];
        let names: BTreeSet<String> = ids.into_iter().map(plain).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        for name in names {
            assert!(crate::incident::manifest::is_inside(&format!("runs/{name}/run.json")), "{name:?}");
        }
    }
}
