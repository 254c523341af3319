//! Refreshing access tokens: what is asked of an authorization server, and what comes back.
//! Owns: the contract between the broker, which decides and stores, and whoever speaks to the server.
//! Never: contacts anybody; the exchange is handed in.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::account::{ClientAuth, McpAccount};
use super::actor::Command;
use super::slot::SlotId;
use super::wire::duplicate;
use crate::limits::{OAUTH_REFRESH_AHEAD_MS, OAUTH_USABLE_MS_MIN};
use crate::net::Cancel;
use crate::secret::Secret;

/// One exchange of a refresh token for an access token.
#[derive(Debug)]
pub struct RefreshRequest {
    /// The account's slot.
    pub slot: SlotId,
    /// Whom to ask.
    pub token_endpoint: String,
    /// As whom.
    pub client_id: String,
    /// The client's own secret.
    pub client_secret: Option<Secret>,
    /// How it proves itself.
    pub client_auth: ClientAuth,
    /// What for.
    pub resource: String,
    /// The token to exchange.
    pub refresh_token: Secret,
    /// What the tokens allow.
    pub scopes: Vec<String>,
}

/// What the server gave.
#[derive(Debug)]
pub struct RefreshedTokens {
    /// The next access token.
    pub access_token: Secret,
    /// The next refresh token; absent when the former one goes on.
    pub refresh_token: Option<Secret>,
    /// Life of the access token in seconds, if it was said.
    pub expires_in_s: Option<u64>,
    /// What it allows, if it was said.
    pub scopes: Option<Vec<String>>,
}

/// The server gave nothing usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshFailure {
    /// A word for machines: `rejected`, `unreachable`, `overloaded`, `malformed`, `unrecorded`,
    /// `unsupported`.
    pub class: &'static str,
    /// What happened, without any text of the server.
    pub reason: String,
    /// Whether asking again is pointless until somebody logs in.
    pub is_final: bool,
}

/// Speaks to authorization servers. Called on a thread of its own, one exchange after the other.
pub trait TokenExchange: Send + Sync {
    /// Exchanges a refresh token. Ends early when `cancel` does.
    ///
    /// # Errors
    /// The server gave nothing usable.
    fn refresh(&self, request: &RefreshRequest, cancel: &Cancel) -> Result<RefreshedTokens, RefreshFailure>;
}

/// For a daemon without accounts.
#[derive(Debug)]
pub struct NoExchange;

impl TokenExchange for NoExchange {
    fn refresh(&self, _request: &RefreshRequest, _cancel: &Cancel) -> Result<RefreshedTokens, RefreshFailure> {
        let reason = "this daemon exchanges no tokens".to_string();
        Err(RefreshFailure { class: "unsupported", reason, is_final: false })
    }
}

/// How much life an access token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenAge {
    /// Enough.
    Fresh,
    /// Usable, and time for the next one.
    Aging,
    /// Over, or so close to it that a request might not arrive in time.
    Ended,
}

pub(super) fn age(account: &McpAccount, now_ms: u64) -> TokenAge {
    let rest_ms = account.expires_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms));
    match rest_ms {
        None => TokenAge::Fresh,
        Some(rest_ms) if rest_ms > OAUTH_REFRESH_AHEAD_MS => TokenAge::Fresh,
        Some(rest_ms) if rest_ms > OAUTH_USABLE_MS_MIN => TokenAge::Aging,
        Some(_) => TokenAge::Ended,
    }
}

/// The exchange that an account needs; `None` without a refresh token.
pub(super) fn request(slot: &SlotId, account: &McpAccount) -> Option<RefreshRequest> {
    Some(RefreshRequest {
        slot: slot.clone(),
        token_endpoint: account.token_endpoint.clone(),
        client_id: account.client_id.clone(),
        client_secret: account.client_secret.as_ref().map(duplicate),
        client_auth: account.client_auth,
        resource: account.resource.clone(),
        refresh_token: duplicate(account.refresh_token.as_ref()?),
        scopes: account.scopes.clone(),
    })
}

/// One job of a refresher.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) request: RefreshRequest,
}

/// A refresher's thread: takes jobs, reports results to the broker, ends when nobody can send jobs any more.
pub(super) fn work(jobs: &Receiver<Job>, exchange: &Arc<dyn TokenExchange>, stop: &Cancel, broker: &Sender<Command>) {
    while let Ok(Job { number, request }) = crate::worker::idle(|| jobs.recv()) {
        if stop.is_cancelled() {
            return;
        }
        let result = exchange.refresh(&request, stop);
        // A broker that has ended has nobody waiting.
        let _nobody_waits = broker.send(Command::Refreshed { slot: request.slot, number, result });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ages_before_it_ends_and_one_without_an_end_does_not() {
        let mut account = super::super::account::tests::account();
        account.expires_at_ms = None;
        assert_eq!(age(&account, u64::MAX), TokenAge::Fresh);
        account.expires_at_ms = Some(1_000_000);
        for (now_ms, expected) in [
            (0, TokenAge::Fresh),
            (1_000_000 - OAUTH_REFRESH_AHEAD_MS - 1, TokenAge::Fresh),
            (1_000_000 - OAUTH_REFRESH_AHEAD_MS, TokenAge::Aging),
            (1_000_000 - OAUTH_USABLE_MS_MIN - 1, TokenAge::Aging),
            (1_000_000 - OAUTH_USABLE_MS_MIN, TokenAge::Ended),
            (u64::MAX, TokenAge::Ended),
        ] {
            assert_eq!(age(&account, now_ms), expected, "{now_ms}");
        }
    }
}
