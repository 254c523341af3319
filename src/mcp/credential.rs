//! Credentials of servers, from the broker.
//! Owns: who the broker is told uses a credential, and which one belongs to which server.
//! May touch: the broker.
//! Never: keeps a secret: what goes to a child process is taken when it is started.

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::config::{Credential, Http, ServerConfig, Stdio, Transport};
use super::error::McpError;
use crate::broker::{BrokerHandle, LeaseRequest, Provider, SlotId, Subject, SubjectId, Use};
use crate::clock::Clock;
pub(super) use crate::engine::InUse;
use crate::hex::to_hex;
use crate::ids::SessionId;
use crate::limits::MCP_LEASE_MS;
use crate::net::{Auth, Cancel};
use crate::secret::Secret;

/// Secret variables of a child process, by name.
pub(super) type Variables = Vec<(String, Secret)>;

/// The way to the broker.
#[derive(Clone)]
pub(super) struct Vault {
    pub broker: BrokerHandle,
    pub clock: Arc<dyn Clock>,
}

impl Vault {
    /// Leases a slot for a server, on behalf of a session where there is one.
    fn lease(
        &self,
        config: &ServerConfig,
        slot: &SlotId,
        session: Option<&SessionId>,
        cancel: &Cancel,
    ) -> Result<InUse, McpError> {
        let (provider, scopes) = match &config.transport {
            Transport::Http(Http { credential: Credential::OAuth { scopes, .. }, .. }) => {
                (Provider::McpOauth, scopes.join(" "))
            }
            _ => (Provider::Generic, String::new()),
        };
        let request = LeaseRequest {
            subject: Subject {
                id: SubjectId::mcp(&config.name),
                acts_for: session.map(SubjectId::session).into_iter().collect(),
            },
            slot: slot.clone(),
            provider,
            use_for: Use::McpServer {
                server: config.name.clone(),
                scopes_hash: to_hex(&digest(&SHA256, scopes.as_bytes()).as_ref()[..16]),
            },
            ttl_ms: MCP_LEASE_MS,
        };
        InUse::take(&self.broker, &self.clock, request, cancel)
            .map_err(|error| McpError::Credential { server: config.name.clone(), cause: error.to_string() })
    }

    /// The lease behind one request to a server; `None` for a server without a slot. It is ended with `cancel` or by whoever
    /// takes the credential away. For a child process it stands for the variables that it was started with.
    pub fn for_request(
        &self,
        config: &ServerConfig,
        session: Option<&SessionId>,
        cancel: &Cancel,
    ) -> Result<Option<InUse>, McpError> {
        let Some(slot) = config.slots().first().copied() else { return Ok(None) };
        self.check_account(config)?;
        self.lease(config, slot, session, cancel).map(Some)
    }

    /// A child process's secret variables, with the leases that stand behind them for as long as it lives.
    pub fn environment(
        &self,
        config: &ServerConfig,
        stdio: &Stdio,
        cancel: &Cancel,
    ) -> Result<(Variables, Vec<InUse>), McpError> {
        let (mut variables, mut leases) = (Vec::new(), Vec::new());
        for (name, slot) in &stdio.env_secret_refs {
            let lease = self.lease(config, slot, None, cancel)?;
            let refused = |cause: String| McpError::Credential { server: config.name.clone(), cause };
            let secret = lease.secret().map_err(|error| refused(error.to_string()))?;
            variables.push((name.clone(), secret));
            leases.push(lease);
        }
        Ok((variables, leases))
    }

    /// Exchanges the token of a server's account for another one, because the server does not take it; whether there is one.
    pub fn refresh(&self, config: &ServerConfig) -> bool {
        let Some(slot) = config.account() else { return false };
        match self.broker.refresh_account(slot) {
            Ok(_) => true,
            Err(error) => {
                log::info!("MCP server {}: its token is not taken, and there is no other one: {error}", config.name);
                false
            }
        }
    }

    /// What a server's account would have to allow for it to take a request: what it allows, what the configuration wants, and
    /// what the server asks for. Where the account has that already another login is of no use.
    pub fn step_up(&self, config: &ServerConfig, asked: Vec<String>) -> McpError {
        let server = config.name.clone();
        let refused = |cause: &str| McpError::AuthRequired { server: config.name.clone(), cause: cause.to_string() };
        let Some(slot) = config.account() else {
            return refused("HTTP 403, insufficient_scope: its secret does not allow this");
        };
        let details = self.broker.slot(slot).ok().flatten().and_then(|status| status.details);
        let mut scopes = details.map(|details| details.scopes).unwrap_or_default();
        if asked.iter().all(|scope| scopes.contains(scope)) {
            return McpError::Refused {
                server,
                code: 403,
                message: "its account has all the scopes that it asks for, and it refuses all the same".to_string(),
                data: None,
            };
        }
        for scope in config.account_scopes().iter().cloned().chain(asked) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        McpError::ScopeRequired { server, scopes }
    }

    /// Whether the account of a server is for it: the resource that it was logged in for, and the scopes.
    fn check_account(&self, config: &ServerConfig) -> Result<(), McpError> {
        let Transport::Http(Http { credential: Credential::OAuth { slot, resource, scopes }, .. }) = &config.transport
        else {
            return Ok(());
        };
        let refused = |cause: String| Err(McpError::Credential { server: config.name.clone(), cause });
        let status = match self.broker.slot(slot) {
            Ok(Some(status)) => status,
            Ok(None) => {
                return Err(McpError::AuthRequired {
                    server: config.name.clone(),
                    cause: format!("slot {slot} holds no account"),
                });
            }
            Err(error) => return refused(error.to_string()),
        };
        let Some(details) = status.details else { return refused(format!("slot {slot} holds no account")) };
        // As metadata of a server's origin is metadata of the server.
        if !super::discovery::covers(&details.resource, resource) {
            return refused(format!(
                "the account in {slot} is for another resource; next: log in again with the server's url, or set oauth_resource"
            ));
        }
        match scopes.iter().find(|scope| !details.scopes.contains(scope)) {
            Some(_) => refused(format!(
                "the account in {slot} lacks a scope of oauth_scopes; next: log in again with all of them, or list fewer"
            )),
            None => Ok(()),
        }
    }
}

/// The header of a request that carries the credential.
pub(super) fn auth(http: &Http, in_use: Option<&InUse>) -> Option<Auth> {
    match (&http.credential, in_use) {
        (Credential::Bearer(_) | Credential::OAuth { .. }, Some(in_use)) => Some(in_use.auth()),
        (Credential::Header(name, _), Some(in_use)) => Some(in_use.auth().in_header(name.clone())),
        (Credential::Environment(header, secret), _) => {
            let copy = Secret::new(secret.expose().to_vec());
            let auth = Auth::bearer(copy);
            Some(match header {
                Some(name) => auth.in_header(name.clone()),
                None => auth,
            })
        }
        _ => None,
    }
}
