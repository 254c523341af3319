//! One artifact as a file: a line of JSON that says what it is, then its body.
//! Owns: the file's bytes, both ways.
//! Never: touches a disk.

use serde::{Deserialize, Serialize};

use ring::digest::{SHA256, digest};

use super::key::CaptureKey;
use crate::core::DebugLevel;
use crate::hex::{parse_hex, to_hex};

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    kind: String,
    version: u32,
    pub(super) run_id: String,
    pub(super) artifact_id: String,
    pub(super) content_kind: String,
    pub(super) format: String,
    pub(super) level: DebugLevel,
    pub(super) at_ms: u64,
    pub(super) plaintext_bytes: u64,
    pub(super) sha256: String,
    pub(super) truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) original_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<Encryption>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Encryption {
    algorithm: String,
    key_id: String,
    nonce: String,
}

const KIND: &str = "kheish_debug_artifact";
const VERSION: u32 = 1;
const ALGORITHM: &str = "AES-256-GCM";

/// An artifact in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactView {
    /// Its id within the run.
    pub artifact_id: String,
    /// What it holds.
    pub content_kind: String,
    /// `json` or `text`.
    pub format: String,
    /// The level that it was captured at.
    pub level: DebugLevel,
    /// When it was captured.
    pub updated_at_ms: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the body.
    pub plaintext_bytes: u64,
    /// SHA-256 of the body.
    pub sha256: String,
    /// Whether the body was cut.
    pub truncated: bool,
    /// Bytes before it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_bytes: Option<u64>,
    /// Whether the body is encrypted.
    pub encrypted: bool,
    /// With which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_key_id: Option<String>,
}

/// What an artifact is made of.
pub(super) struct Content {
    pub(super) run_id: String,
    pub(super) artifact_id: String,
    pub(super) content_kind: &'static str,
    pub(super) format: &'static str,
    pub(super) level: DebugLevel,
    pub(super) at_ms: u64,
    pub(super) body: Vec<u8>,
    /// Bytes before it was cut, if it was.
    pub(super) original_bytes: Option<u64>,
}

/// The file's bytes; `None` when it is to be encrypted and the system gives no random bytes.
pub(super) fn encode(content: Content, key: Option<&CaptureKey>) -> Option<Vec<u8>> {
    let encryption = match key {
        None => None,
        Some(key) => Some((key, CaptureKey::nonce()?)),
    };
    let header = Header {
        kind: KIND.to_string(),
        version: VERSION,
        run_id: content.run_id,
        artifact_id: content.artifact_id,
        content_kind: content.content_kind.to_string(),
        format: content.format.to_string(),
        level: content.level,
        at_ms: content.at_ms,
        plaintext_bytes: content.body.len() as u64,
        sha256: to_hex(digest(&SHA256, &content.body).as_ref()),
        truncated: content.original_bytes.is_some(),
        original_bytes: content.original_bytes,
        encryption: encryption.map(|(key, nonce)| Encryption {
            algorithm: ALGORITHM.to_string(),
            key_id: key.id().to_string(),
            nonce: to_hex(&nonce),
        }),
    };
    let mut file = serde_json::to_vec(&header).expect("a header has string keys and no failing serialisers");
    let mut body = content.body;
    if let Some((key, nonce)) = encryption {
        key.seal(nonce, &file, &mut body);
    }
    file.push(b'\n');
    file.append(&mut body);
    Some(file)
}

/// The first line of a file that begins with these bytes, and its length without the line end.
pub(super) fn header(beginning: &[u8]) -> Option<(Header, usize)> {
    let end = beginning.iter().position(|byte| *byte == b'\n')?;
    let header: Header = serde_json::from_slice(&beginning[..end]).ok()?;
    (header.kind == KIND && header.version == VERSION).then_some((header, end))
}

/// The body of a file.
///
/// # Errors
/// Why it cannot be shown, for people.
pub(super) fn body(file: Vec<u8>, key: Option<&CaptureKey>) -> Result<Vec<u8>, String> {
    let damaged = || "the file is not what was written".to_string();
    let (header, end) = header(&file).ok_or_else(damaged)?;
    let body = match &header.encryption {
        None => file[end + 1..].to_vec(),
        Some(encryption) => {
            let key = key.filter(|key| key.id() == encryption.key_id).ok_or_else(|| {
                format!("it is encrypted with the key {}, which this daemon does not have", encryption.key_id)
            })?;
            let nonce = parse_hex(encryption.nonce.as_bytes()).and_then(|nonce| nonce.try_into().ok());
            let nonce = nonce.filter(|_| encryption.algorithm == ALGORITHM).ok_or_else(damaged)?;
            key.open(nonce, &file[..end], file[end + 1..].to_vec()).ok_or_else(damaged)?
        }
    };
    let is_whole = to_hex(digest(&SHA256, &body).as_ref()) == header.sha256;
    if is_whole { Ok(body) } else { Err(damaged()) }
}

/// A header with the size of its file, for a list.
pub(super) fn view(header: Header, bytes: u64) -> ArtifactView {
    ArtifactView {
        artifact_id: header.artifact_id,
        content_kind: header.content_kind,
        format: header.format,
        level: header.level,
        updated_at_ms: header.at_ms,
        bytes,
        plaintext_bytes: header.plaintext_bytes,
        sha256: header.sha256,
        truncated: header.truncated,
        original_bytes: header.original_bytes,
        encrypted: header.encryption.is_some(),
        encryption_key_id: header.encryption.map(|encryption| encryption.key_id),
    }
}
