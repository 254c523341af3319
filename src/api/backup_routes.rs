//! Rows of the route table for backups, and the schemas of their answers.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::backup;
use super::context::Api;
use super::route::{Handler, Route};
use super::routes::{json, optional, post};
use super::schemas::Component;
use crate::http::problem::codes;

pub(super) const OPEN: Route<Api> = Route {
    problems: &[&codes::BACKUP_IN_PROGRESS, &codes::BACKUP_BARRIER_FAILED],
    ..post(
        "/v1/backup/barrier",
        "Seal the journal and keep audit file and auth store as they are for a moment, for `backup create`.",
        optional("NoFields"),
        json(200, "BackupBarrier"),
        Handler::Plain(backup::open),
    )
};

pub(super) const CLOSE: Route<Api> = Route {
    problems: &[&codes::BACKUP_BARRIER_UNKNOWN],
    ..post(
        "/v1/backup/barrier/{barrier_id}/close",
        "Let the daemon go on before the barrier's time is up, and hear whether it stood until now.",
        optional("NoFields"),
        json(200, "BackupBarrierClosed"),
        Handler::Plain(backup::close),
    )
};

/// Components of these routes.
pub static BACKUP: &[Component] = &[
    Component {
        name: "BackupBarrier",
        schema: r#"{
            "type": "object",
            "required": ["barrier_id", "pause_ms", "daemon_version", "state_root", "cut", "audit_key_id"],
            "properties": {
                "barrier_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                "pause_ms": {"type": "integer", "description": "The daemon goes on by itself after this time"},
                "daemon_version": {"type": "string"},
                "state_root": {"type": "object", "required": ["device", "inode"],
                    "properties": {"device": {"type": "integer"}, "inode": {"type": "integer"}},
                    "description": "By which a command tells that the files it reads are this daemon's"},
                "cut": {"type": "object", "required": ["seq", "chain", "batch", "sealed_seq", "segments"],
                    "description": "How far the journal's files reach at its seal; their bytes up to there never change",
                    "properties": {
                        "seq": {"type": "integer"},
                        "chain": {"type": "string"},
                        "batch": {"type": "integer"},
                        "sealed_seq": {"type": "integer"},
                        "segments": {"type": "array", "items": {"type": "object", "required": ["first", "bytes"],
                            "properties": {"first": {"type": "integer"}, "bytes": {"type": "integer"}}}}
                    }},
                "audit_key_id": {"type": "string"}
            }
        }"#,
    },
    Component {
        name: "BackupBarrierClosed",
        schema: r#"{
            "type": "object",
            "required": ["stood"],
            "properties": {
                "stood": {"type": "boolean", "description": "Nothing was changed while the barrier stood"}
            }
        }"#,
    },
];
