//! MCP servers that the daemon knows without a configuration: one table, and the profiles that select from it.
//! Owns: the table.
//! Never: asks anybody; it comes with the binary.

use serde::Serialize;

use super::config::{Credential, Http, Protocol, ServerConfig, Source, Transport};
use crate::broker::SlotId;
use crate::limits::{MCP_STARTUP_TIMEOUT_S_DEFAULT, MCP_TOOL_TIMEOUT_S_DEFAULT};
use crate::net::Target;
use crate::providers::nearest;

/// One entry.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Entry {
    /// Names it on the command line.
    pub id: &'static str,
    /// Name of its server.
    pub server: &'static str,
    /// `supported`, or `catalog_only` where it is only told that it exists.
    pub status: &'static str,
    /// `low`, `medium` or `high`: what a call can do.
    pub risk: &'static str,
    /// `none`, `optional_bearer`, `bearer` or `oauth`.
    pub auth: &'static str,
    /// Variables that its makers name for the credential; the daemon reads none of them.
    pub credential_env: &'static [&'static str],
    /// Slots of the secret store.
    pub credential_secret_refs: &'static [&'static str],
    /// Profiles that have it.
    pub profiles: &'static [&'static str],
    /// `streamable_http` or `stdio`.
    pub transport: &'static str,
    /// Where it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub url: &'static str,
    /// The only tools that are offered; empty for all.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub enabled_tools: &'static [&'static str],
}

const OPEN: Entry = Entry {
    id: "",
    server: "",
    status: "supported",
    risk: "low",
    auth: "none",
    credential_env: &[],
    credential_secret_refs: &[],
    profiles: &["docs"],
    transport: "streamable_http",
    url: "",
    enabled_tools: &[],
};

const LISTED: Entry = Entry { status: "catalog_only", risk: "medium", auth: "oauth", ..OPEN };

/// Every entry, by id.
pub static ENTRIES: &[Entry] = &[
    Entry { id: "atlassian", server: "atlassian", profiles: &["planning", "knowledge"], ..LISTED },
    Entry {
        id: "cloudflare-agents-docs",
        server: "cloudflareAgentsDocs",
        profiles: &["docs", "deploy-infra"],
        url: "https://agents.cloudflare.com/mcp",
        ..OPEN
    },
    Entry {
        id: "cloudflare-api",
        server: "cloudflareApi",
        risk: "high",
        auth: "optional_bearer",
        credential_env: &["CLOUDFLARE_API_TOKEN"],
        credential_secret_refs: &["mcp.cloudflare-api.CLOUDFLARE_API_TOKEN"],
        profiles: &["deploy-infra"],
        url: "https://mcp.cloudflare.com/mcp",
        ..OPEN
    },
    Entry {
        id: "cloudflare-docs",
        server: "cloudflareDocs",
        profiles: &["docs", "deploy-infra"],
        url: "https://docs.mcp.cloudflare.com/mcp",
        ..OPEN
    },
    Entry { id: "figma", server: "figma", profiles: &["business"], ..LISTED },
    Entry {
        id: "github",
        server: "github",
        auth: "bearer",
        credential_env: &["GITHUB_PERSONAL_ACCESS_TOKEN"],
        credential_secret_refs: &["mcp.github.GITHUB_PERSONAL_ACCESS_TOKEN"],
        profiles: &["repo"],
        transport: "stdio",
        ..LISTED
    },
    Entry {
        id: "gitlab",
        server: "gitlab",
        risk: "high",
        auth: "optional_bearer",
        credential_env: &["GITLAB_TOKEN"],
        credential_secret_refs: &["mcp.gitlab.GITLAB_TOKEN"],
        profiles: &["repo"],
        url: "https://gitlab.com/api/v4/mcp",
        ..OPEN
    },
    Entry {
        id: "linear",
        server: "linear",
        risk: "medium",
        auth: "optional_bearer",
        credential_env: &["LINEAR_API_KEY"],
        credential_secret_refs: &["mcp.linear.LINEAR_API_KEY"],
        profiles: &["planning"],
        url: "https://mcp.linear.app/mcp",
        ..OPEN
    },
    Entry { id: "microsoft-learn", server: "microsoftLearn", url: "https://learn.microsoft.com/api/mcp", ..OPEN },
    Entry {
        id: "neon",
        server: "neon",
        risk: "high",
        auth: "optional_bearer",
        credential_env: &["NEON_API_KEY"],
        credential_secret_refs: &["mcp.neon.NEON_API_KEY"],
        profiles: &["data-dev"],
        url: "https://mcp.neon.tech/mcp",
        ..OPEN
    },
    Entry { id: "notion", server: "notion", profiles: &["knowledge"], ..LISTED },
    Entry { id: "openai-docs", server: "openaiDeveloperDocs", url: "https://developers.openai.com/mcp", ..OPEN },
    Entry {
        id: "playwright",
        server: "playwright",
        auth: "none",
        profiles: &["browser-ui"],
        transport: "stdio",
        ..LISTED
    },
    Entry {
        id: "sentry",
        server: "sentry",
        auth: "bearer",
        credential_env: &["SENTRY_ACCESS_TOKEN"],
        credential_secret_refs: &["mcp.sentry.SENTRY_ACCESS_TOKEN"],
        profiles: &["observability"],
        transport: "stdio",
        ..LISTED
    },
    Entry { id: "slack", server: "slack", profiles: &["communication"], ..LISTED },
    Entry {
        id: "stripe",
        server: "stripe",
        risk: "high",
        auth: "optional_bearer",
        credential_env: &["STRIPE_SECRET_KEY"],
        credential_secret_refs: &["mcp.stripe.STRIPE_SECRET_KEY"],
        profiles: &["business"],
        url: "https://mcp.stripe.com",
        enabled_tools: &["search_stripe_documentation"],
        ..OPEN
    },
    Entry { id: "vercel", server: "vercel", profiles: &["deploy-infra"], ..LISTED },
];

/// Every profile.
pub const PROFILES: [&str; 10] = [
    "docs",
    "repo",
    "planning",
    "knowledge",
    "communication",
    "browser-ui",
    "observability",
    "data-dev",
    "deploy-infra",
    "business",
];

/// The entry with this id.
pub fn find(id: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.id == id)
}

/// Profiles as they were asked for: in lower case, each once, in the order given.
///
/// # Errors
/// One is unknown, or has no entry that can be used.
pub fn profiles(asked: &[String]) -> Result<Vec<String>, String> {
    let mut profiles: Vec<String> = Vec::new();
    for name in asked.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()) {
        if name.is_empty() || profiles.contains(&name) {
            continue;
        }
        if !PROFILES.contains(&name.as_str()) {
            return Err(match nearest(&name, PROFILES.into_iter()) {
                Some(known) => format!("there is no such profile, did you mean {known}?"),
                None => "there is no such profile".to_string(),
            });
        }
        if !ENTRIES.iter().any(|entry| entry.status == "supported" && entry.profiles.contains(&name.as_str())) {
            return Err(format!("profile {name} has no entry that can be used yet"));
        }
        profiles.push(name);
    }
    Ok(profiles)
}

/// The servers of some profiles. Where a slot of an entry exists the server gets its secret, by `has_slot`.
pub fn servers(profiles: &[String], has_slot: &dyn Fn(&SlotId) -> bool) -> Vec<ServerConfig> {
    let selected = |entry: &&Entry| {
        entry.status == "supported" && entry.profiles.iter().any(|profile| profiles.iter().any(|name| name == profile))
    };
    ENTRIES.iter().filter(selected).filter_map(|entry| server(entry, has_slot)).collect()
}

fn server(entry: &'static Entry, has_slot: &dyn Fn(&SlotId) -> bool) -> Option<ServerConfig> {
    let slot = entry.credential_secret_refs.first().and_then(|slot| SlotId::parse(slot).ok());
    let credential = match slot.filter(|slot| entry.auth == "bearer" || has_slot(slot)) {
        Some(slot) => Credential::Bearer(slot),
        None => Credential::None,
    };
    Some(ServerConfig {
        name: entry.server.to_string(),
        source: Source::Catalog,
        profiles: entry.profiles.to_vec(),
        catalog_entry: Some(entry.id),
        required: false,
        startup_ms: MCP_STARTUP_TIMEOUT_S_DEFAULT * 1_000,
        tool_ms: MCP_TOOL_TIMEOUT_S_DEFAULT * 1_000,
        enabled_tools: (!entry.enabled_tools.is_empty())
            .then(|| entry.enabled_tools.iter().map(ToString::to_string).collect()),
        disabled_tools: std::collections::BTreeSet::new(),
        elicitation: false,
        protocol: Protocol::Handshake,
        transport: Transport::Http(Http {
            url: Target::parse(entry.url).ok()?,
            url_text: entry.url.to_string(),
            headers: Vec::new(),
            credential,
            allow_private: false,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::config::is_server_name;

    #[test]
    fn every_entry_can_be_what_it_says() {
        for (at, entry) in ENTRIES.iter().enumerate() {
            assert!(is_server_name(entry.server), "{}", entry.id);
            assert!(entry.profiles.iter().all(|profile| PROFILES.contains(profile)), "{}", entry.id);
            assert!(ENTRIES[..at].iter().all(|other| other.id < entry.id && other.server != entry.server));
            assert!(entry.credential_secret_refs.iter().all(|slot| SlotId::parse(slot).is_ok()), "{}", entry.id);
            assert_eq!(server(entry, &|_| true).is_some(), entry.status == "supported", "{}", entry.id);
        }
    }

    #[test]
    fn profiles_are_read_in_any_case_and_unknown_ones_are_refused() {
        let names = |asked: &[&str]| profiles(&asked.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["Docs,repo", "docs"]).unwrap(), ["docs", "repo"]);
        assert!(names(&["doc"]).unwrap_err().contains("did you mean docs?"));
        assert!(names(&["communication"]).unwrap_err().contains("no entry"));
        let docs = servers(&["docs".to_string()], &|_| false);
        assert!(docs.iter().any(|server| server.name == "openaiDeveloperDocs") && docs.len() == 4);
    }
}
