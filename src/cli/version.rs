//! `version`: which build this is, and what it is made of.
//! Owns: the form of the three documents.
//! Never: asks a daemon; `capabilities` tells which one answers.

use argh::{ArgsInfo, FromArgs};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::context::Context;
use super::exit::CliError;
use super::json_text::Document;
use super::table;
use super::verbs::Command;
use crate::hex::to_hex;
use crate::packages::{self, Reach};

/// show which build this is, and with --deps every package in it
#[derive(FromArgs, ArgsInfo)]
pub struct Version {
    /// list the packages of the lock file that this binary was built with
    #[argh(switch)]
    deps: bool,
    /// print the bill of materials (CycloneDX JSON)
    #[argh(switch)]
    sbom: bool,
}

#[derive(Serialize)]
struct Build {
    name: &'static str,
    version: &'static str,
    /// Which revision it was built from, where the builder said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
    architecture: &'static str,
    /// How it finds the C library: a static binary has its own.
    static_c_library: bool,
    optimised: bool,
    /// SHA-256 of the Cargo.lock that it was built with.
    lock_sha256: String,
    packages_linked: usize,
}

impl Command for Version {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        match (self.deps, self.sbom) {
            (true, true) => {
                Err(CliError::invalid("--deps and --sbom", "they are two documents", "ask for one at a time"))
            }
            (true, false) => {
                let columns = [
                    table::text("NAME", &["/name"]),
                    table::text("VERSION", &["/version"]),
                    table::text("REACH", &["/reach"]),
                    table::text("SHA256", &["/sha256"]),
                ];
                context.out.list(&Document::of(&packages::all()), &columns)
            }
            (false, true) => context.out.document(&Document::of(&packages::bill_of_materials())),
            (false, false) => context.out.document(&Document::of(&build())),
        }
    }
}

fn build() -> Build {
    Build {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("KHEISH_BUILD_COMMIT").filter(|commit| !commit.is_empty()),
        architecture: std::env::consts::ARCH,
        static_c_library: cfg!(target_feature = "crt-static"),
        optimised: !cfg!(debug_assertions),
        lock_sha256: to_hex(digest(&SHA256, packages::LOCK.as_bytes()).as_ref()),
        packages_linked: packages::all().iter().filter(|package| package.reach == Reach::Linked).count(),
    }
}
