//! `runtime auth …`: leases, subjects and revocations.
//! Owns: paths, bodies and table columns.
//! Never: interprets the views.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::context::Context;
use super::exit::CliError;
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::sessions::{post_object, show_list};
use super::table::{Column, text, time};
use super::verbs::Command;

fn subject(id: &str) -> Path {
    Path::new("/v1/runtime/auth/subjects").segment(id)
}

fn lease(id: &str) -> Path {
    Path::new("/v1/runtime/auth/leases").segment(id)
}

const SUBJECTS: &[Column] = &[
    text("SUBJECT", &["/subject_id"]),
    text("REVOKED", &["/revoked"]),
    text("EPOCH", &["/current_epoch"]),
    time("SINCE", &["/revoked_at_ms"]),
    text("REASON", &["/reason"]),
];

const LEASES: &[Column] = &[
    text("LEASE", &["/lease/id"]),
    text("SUBJECT", &["/lease/subject_id"]),
    text("FOR", &["/lease/audience/type"]),
    text("SLOT", &["/lease/slots/0/slot_id"]),
    time("ISSUED", &["/lease/issued_at_ms"]),
    time("EXPIRES", &["/lease/expires_at_ms"]),
    text("ACTIVE", &["/active"]),
    text("ENDED", &["/end_reason"]),
];

/// show a subject and its live leases
#[derive(FromArgs, ArgsInfo)]
pub struct ShowSubject {
    /// session:<id>, agent:<id>, connector:<name>, mcp:<server>, route:<id> or daemon
    #[argh(positional)]
    subject_id: String,
}

impl Command for ShowSubject {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, subject(&self.subject_id))
    }
}

/// list subjects that are revoked or hold leases
#[derive(FromArgs, ArgsInfo)]
pub struct Subjects {}

impl Command for Subjects {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_list(context, Path::new("/v1/runtime/auth/subjects"), SUBJECTS)
    }
}

/// show a lease, alive or ended within the last day
#[derive(FromArgs, ArgsInfo)]
pub struct ShowLease {
    /// the lease
    #[argh(positional)]
    lease_id: String,
}

impl Command for ShowLease {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, lease(&self.lease_id))
    }
}

/// list live leases, newest first
#[derive(FromArgs, ArgsInfo)]
pub struct Leases {
    /// only those of this subject, and of those that act for it
    #[argh(option, arg_name = "id")]
    subject: Option<String>,
    /// only those with this slot
    #[argh(option, arg_name = "name")]
    slot: Option<String>,
    /// also those that ended within the last day
    #[argh(switch)]
    all: bool,
}

impl Command for Leases {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/runtime/auth/leases")
            .query("subject_id", self.subject.as_deref())
            .query("slot_id", self.slot.as_deref())
            .query("all", self.all.then_some("true"));
        show_list(context, path, LEASES)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_current: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn post(
    context: &mut Context<'_>,
    path: Path,
    dry_run: bool,
    keep_current: bool,
    reason: Option<&str>,
) -> Result<(), CliError> {
    let is = |given: bool| given.then_some(true);
    let body = Document::of(&Body { dry_run: is(dry_run), keep_current: is(keep_current), reason });
    post_object(context, &path, Some(&body))
}

/// end one lease, and the call that uses it
#[derive(FromArgs, ArgsInfo)]
pub struct RevokeLease {
    /// the lease
    #[argh(positional)]
    lease_id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for RevokeLease {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post(context, lease(&self.lease_id).then("/revoke"), false, false, self.reason.as_deref())
    }
}

/// end the leases of a subject and of those that act for it, and refuse it others
#[derive(FromArgs, ArgsInfo)]
pub struct RevokeSubject {
    /// session:<id>, agent:<id>, connector:<name>, mcp:<server> or route:<id>; it need not be known
    #[argh(positional)]
    subject_id: String,
    /// only tell what would fall
    #[argh(switch)]
    dry_run: bool,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for RevokeSubject {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post(context, subject(&self.subject_id).then("/revoke"), self.dry_run, false, self.reason.as_deref())
    }
}

/// let a revoked subject have credentials again
#[derive(FromArgs, ArgsInfo)]
pub struct ReinstateSubject {
    /// the subject
    #[argh(positional)]
    subject_id: String,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for ReinstateSubject {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post(context, subject(&self.subject_id).then("/reinstate"), false, false, self.reason.as_deref())
    }
}

/// end the leases of a slot; a secret that has been leased gets no other one until the slot is set again
#[derive(FromArgs, ArgsInfo)]
pub struct RevokeSlot {
    /// name of the slot
    #[argh(positional)]
    slot_id: String,
    /// leave the present secret usable even if it has been leased, as after a rotation under load
    #[argh(switch)]
    keep_current: bool,
    /// only tell what would fall
    #[argh(switch)]
    dry_run: bool,
    /// why, for the record
    #[argh(option, arg_name = "text")]
    reason: Option<String>,
}

impl Command for RevokeSlot {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = Path::new("/v1/runtime/auth/slots").segment(&self.slot_id).then("/revoke");
        post(context, path, self.dry_run, self.keep_current, self.reason.as_deref())
    }
}
