//! Bounds of the doctor, of its probes in the daemon, and of incident evidence.
//! Owns: numbers, each with its reason.
//! Never: reads configuration.

// --- doctor ----------------------------------------------------------------------------------

/// Requests for a frame on a probe stream that wait for a writer; one more answers 503 `stream_limit`.
pub const SSE_PROBES_MAX: usize = 64;
/// Characters of a probe stream's name: fewer could be guessed.
pub const SSE_PROBE_NONCE_BYTES_MIN: usize = 16;
/// Characters of a probe stream's name; a longer one answers 400.
pub const SSE_PROBE_NONCE_BYTES_MAX: usize = 64;
/// Runs whose route `GET /v1/runtime/route-references` looks up; with more of them that are not finished, the answer says
/// `truncated`.
pub const ROUTE_REFERENCE_RUNS_MAX: usize = 10_000;
/// References to unknown routes that one answer names; the rest is counted.
pub const ROUTE_REFERENCES_NAMED_MAX: usize = 1_000;
/// Sessions read from the core at once for it.
pub const ROUTE_REFERENCE_SESSIONS_PAGE: usize = 1_000;

/// `doctor`: `/readyz`, `/healthz`, a preflight, the head of an event stream; each.
pub const DOCTOR_PROBE_MS: u64 = 3_000;
/// `doctor`: a frame that the daemon sends at once must have come by then, else something on the way holds it back.
pub const DOCTOR_FRAME_MS: u64 = 5_000;
/// `doctor`: a frame that takes longer is worth a warning.
pub const DOCTOR_FRAME_SLOW_MS: u64 = 2_000;
/// `doctor routes --canary`: a route's whole check, unless `--canary-timeout-ms` says otherwise.
pub const CANARY_TIMEOUT_MS: u64 = 90_000;
/// `doctor routes --canary`: between two looks at the run.
pub const CANARY_POLL_MS: u64 = 250;
/// `doctor routes --canary`: ceiling of the answer. The answer is a few tokens; models that think first need the rest.
pub const CANARY_OUTPUT_TOKENS: u32 = 4_096;
/// Characters of a route's id in the name of its canary's session, which has to stay a legal one.
pub const CANARY_ROUTE_CHARS_MAX: usize = 60;
/// Characters of a canary's answer that a failure shows.
pub const CANARY_QUOTE_CHARS_MAX: usize = 240;
/// `doctor --offline`: bytes that must be left in the file system, else it fails: a segment of the journal and its spare are made
/// ahead, and a store is replaced whole.
pub const DOCTOR_SPACE_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// A credential that expires sooner is worth a warning.
pub const DOCTOR_EXPIRY_WARNING_MS: u64 = 10 * 60 * 1_000;
/// Findings of one kind that `doctor --offline` names, such as files that others may read; the rest is counted.
pub const DOCTOR_NAMED_MAX: usize = 20;

// --- incident evidence -----------------------------------------------------------------------

/// `incident collect` without `--run` and `--session`: the newest runs that are taken in full.
pub const INCIDENT_RUNS_DEFAULT: usize = 20;
/// Runs of named sessions that `incident collect` takes in full, the newest first; the rest is named as missing.
pub const INCIDENT_RUNS_MAX: usize = 1_000;
/// Pages of one list that `incident collect` follows; then the list is kept as far as it was read and named as cut.
pub const INCIDENT_PAGES_MAX: usize = 1_000;
/// Bytes of the control-plane audit file that are taken, from its end.
pub const INCIDENT_AUDIT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one file of an evidence directory that `incident verify` reads as text: the manifest and the signature.
pub const INCIDENT_MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;
