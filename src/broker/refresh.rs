//! Accounts in the broker's thread: when a token is refreshed, who waits for it, and what is made of the outcome.
//! Owns: one refresh at a time for each account; the pause after failures.
//! May touch: the store, the ledger, the refreshers' jobs.
//! Never: waits for a network; hands out a token that is not on disk; throws a token away before there is a better one.

use crossbeam_channel::Sender;

use super::Credential;
use super::account::{McpAccount, check_token};
use super::actor::{Actor, in_words};
use super::entry::{EndReason, Entry};
use super::error::BrokerError;
use super::lease::Lease;
use super::oauth::{self, Job, RefreshFailure, RefreshedTokens, TokenAge};
use super::slot::{Material, SlotId, SlotRecord, SlotStatus};
use crate::limits::{OAUTH_PAUSE_MS, OAUTH_PAUSE_MS_MAX, OAUTH_WAITING_MAX};

/// Who waits for a refresh.
pub(super) enum Waiting {
    /// To use the token.
    Credential { lease: Lease, reply: Sender<Result<Credential, BrokerError>> },
    /// To know that it was done.
    Status { reply: Sender<Result<SlotStatus, BrokerError>> },
}

/// What is known of an account's refreshes since the daemon started or the slot was set.
#[derive(Default)]
pub(super) struct Account {
    /// The job under way, and when it began.
    in_flight: Option<(u64, u64)>,
    waiting: Vec<Waiting>,
    /// When the last refresh ended.
    last_at_ms: Option<u64>,
    /// The failure that it ended with, and how many there were in a row.
    failure: Option<RefreshFailure>,
    failure_count: u32,
    /// Tokens that could not be stored: the former refresh token may be worth nothing any more.
    unsaved: Option<McpAccount>,
}

impl Account {
    /// How long no further refresh is made; `None` when none will be.
    fn pause_ms(&self, now_ms: u64) -> Option<u64> {
        let (Some(last_at_ms), Some(failure)) = (self.last_at_ms, &self.failure) else { return Some(0) };
        if failure.is_final {
            return None;
        }
        let doublings = self.failure_count.saturating_sub(1).min(16);
        let pause_ms = (OAUTH_PAUSE_MS << doublings).min(OAUTH_PAUSE_MS_MAX);
        Some(last_at_ms.saturating_add(pause_ms).saturating_sub(now_ms))
    }
}

impl Actor {
    /// A token for a checked lease: the present one while it lasts, else the next one when it is there.
    pub(super) fn redeem_account(&mut self, lease: Lease, now_ms: u64, reply: Sender<Result<Credential, BrokerError>>) {
        let slot = lease.slot.clone();
        let Some(account) = self.account(&slot) else {
            return drop(reply.send(Err(BrokerError::NotAnAccount { slot })));
        };
        // Its token may be fresh: until somebody logs in again nobody gets it, also after a restart.
        if account.last_refresh_outcome.as_deref() == Some(WIDENED) {
            let refused = BrokerError::RefreshFailed {
                slot,
                class: WIDENED,
                reason: WIDENED_REASON.to_string(),
                retry_after_ms: None,
            };
            return drop(reply.send(Err(refused)));
        }
        let age = oauth::age(account, now_ms);
        match age {
            TokenAge::Fresh => drop(reply.send(self.credential(&lease))),
            TokenAge::Aging => {
                // Its failure is nobody's business yet.
                let _usable_still = self.start_refresh(&slot, now_ms);
                drop(reply.send(self.credential(&lease)));
            }
            TokenAge::Ended => match self.start_refresh(&slot, now_ms) {
                Ok(()) => self.wait(&slot, Waiting::Credential { lease, reply }),
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    /// Refreshes an account because somebody asks for it; not more often than every [`OAUTH_PAUSE_MS`].
    pub(super) fn refresh_account(&mut self, slot: SlotId, reply: Sender<Result<SlotStatus, BrokerError>>) {
        let now_ms = self.clock.now_ms();
        let status = self.store.get(&slot);
        let Some(status) = status else { return drop(reply.send(Err(BrokerError::SlotMissing { slot }))) };
        let Some(version) = self.store.entry(&slot).filter(|_| self.account(&slot).is_some()).map(|e| e.version) else {
            return drop(reply.send(Err(BrokerError::NotAnAccount { slot })));
        };
        if self.ledger.is_blocked(&slot, version) {
            return drop(reply.send(Err(BrokerError::SlotRevoked { slot })));
        }
        let account = self.accounts.entry(slot.clone()).or_default();
        let is_recent = account.last_at_ms.is_some_and(|at_ms| at_ms.saturating_add(OAUTH_PAUSE_MS) > now_ms);
        if is_recent && account.failure.is_none() && account.in_flight.is_none() && account.unsaved.is_none() {
            return drop(reply.send(Ok(status)));
        }
        if !is_recent {
            // Whoever asks has reason to believe that it works now.
            account.failure = None;
        }
        match self.start_refresh(&slot, now_ms) {
            Ok(()) => self.wait(&slot, Waiting::Status { reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn account(&self, slot: &SlotId) -> Option<&McpAccount> {
        match self.store.entry(slot)?.record.material() {
            Material::Account(account) => Some(account),
            Material::Text { .. } => None,
        }
    }

    /// Sees to it that a refresh is under way.
    fn start_refresh(&mut self, slot: &SlotId, now_ms: u64) -> Result<(), BrokerError> {
        let failed = |failure: &RefreshFailure, retry_after_ms| BrokerError::RefreshFailed {
            slot: slot.clone(),
            class: failure.class,
            reason: failure.reason.clone(),
            retry_after_ms,
        };
        let state = self.accounts.entry(slot.clone()).or_default();
        if state.in_flight.is_some() {
            return Ok(());
        }
        if let Some(unsaved) = state.unsaved.take() {
            // It was exchanged before, and must not be again: the former refresh token is used up.
            let number = self.next_job;
            self.next_job += 1;
            self.accounts.entry(slot.clone()).or_default().in_flight = Some((number, now_ms));
            return self.save(slot, unsaved);
        }
        if let Some(failure) = &state.failure {
            match state.pause_ms(now_ms) {
                Some(0) => {}
                pause_ms => return Err(failed(failure, pause_ms)),
            }
        }
        let request = self.account(slot).and_then(|account| oauth::request(slot, account));
        let Some(request) = request else {
            let reason = "the account has no refresh token".to_string();
            return Err(failed(&RefreshFailure { class: "no_refresh_token", reason, is_final: true }, None));
        };
        let number = self.next_job;
        self.next_job += 1;
        // One job an account, and the channel holds one for each slot.
        self.jobs.try_send(Job { number, request }).map_err(|_| BrokerError::Busy)?;
        self.accounts.entry(slot.clone()).or_default().in_flight = Some((number, now_ms));
        Ok(())
    }

    fn wait(&mut self, slot: &SlotId, waiting: Waiting) {
        let state = self.accounts.entry(slot.clone()).or_default();
        match (state.in_flight.is_some(), state.waiting.len() < OAUTH_WAITING_MAX) {
            (true, true) => state.waiting.push(waiting),
            (true, false) => refuse(waiting, BrokerError::Busy),
            // What was to be saved is saved by now.
            (false, _) => self.answer(slot, waiting),
        }
    }

    /// What a refresher reports.
    pub(super) fn refreshed(&mut self, slot: &SlotId, number: u64, result: Result<RefreshedTokens, RefreshFailure>) {
        let state = self.accounts.get(slot);
        let Some((_, began_at_ms)) = state.and_then(|state| state.in_flight).filter(|(job, _)| *job == number) else {
            log::info!("account {slot} was set anew or revoked while it was refreshed; the answer is dropped");
            return;
        };
        match result.and_then(|tokens| self.merge(slot, tokens, began_at_ms)) {
            Ok(account) => {
                // Whether it could be saved is told to those who wait.
                let _told_below = self.save(slot, account);
            }
            Err(failure) => self.refresh_failed(slot, failure),
        }
        let waiting = self.accounts.get_mut(slot).map(|state| std::mem::take(&mut state.waiting)).unwrap_or_default();
        waiting.into_iter().for_each(|waiting| self.answer(slot, waiting));
    }

    /// The account with what the server gave.
    fn merge(&self, slot: &SlotId, tokens: RefreshedTokens, began_at_ms: u64) -> Result<McpAccount, RefreshFailure> {
        let malformed =
            |reason: &str| RefreshFailure { class: "malformed", reason: reason.to_string(), is_final: false };
        let Some(account) = self.account(slot) else { return Err(malformed("the account is gone")) };
        let mut account = account.duplicate();
        check_token("access_token", &tokens.access_token).map_err(|_| malformed("the new access token is no token"))?;
        if let Some(token) = tokens.refresh_token {
            check_token("refresh_token", &token).map_err(|_| malformed("the new refresh token is no token"))?;
            account.refresh_token = Some(token);
        }
        account.access_token = tokens.access_token;
        // From the beginning of the exchange: the token is never thought to live longer than it does.
        account.expires_at_ms =
            tokens.expires_in_s.map(|seconds| began_at_ms.saturating_add(seconds.saturating_mul(1_000)));
        account.last_refresh_at_ms = Some(self.clock.now_ms());
        let is_wider = tokens.scopes.iter().flatten().any(|scope| !account.scopes.contains(scope));
        account.last_refresh_outcome = Some(if is_wider { WIDENED } else { "success" }.to_string());
        Ok(account)
    }

    /// Stores an account after an exchange, whatever its scopes: its refresh token may be the only good one.
    fn save(&mut self, slot: &SlotId, account: McpAccount) -> Result<(), BrokerError> {
        let now_ms = self.clock.now_ms();
        let outcome = account.last_refresh_outcome.clone().unwrap_or_default();
        let updated_at_ms = self.store.entry(slot).map_or(now_ms, |entry| entry.record.updated_at_ms());
        let saved = SlotRecord::account(slot.clone(), account.duplicate(), updated_at_ms)
            .map_err(|_| BrokerError::NotAnAccount { slot: slot.clone() })
            .and_then(|record| self.store.renew(record).map_err(BrokerError::Store));
        let state = self.accounts.entry(slot.clone()).or_default();
        state.in_flight = None;
        state.last_at_ms = Some(now_ms);
        match saved {
            Ok(former) => {
                (state.failure, state.failure_count) = (None, 0);
                if outcome == WIDENED {
                    let reason = WIDENED_REASON.to_string();
                    state.failure = Some(RefreshFailure { class: WIDENED, reason, is_final: true });
                }
                self.retire(former);
                self.republish();
                self.note(&Entry::AccountRefreshed { slot: slot.clone(), outcome });
                log::info!("account {slot} refreshed");
                Ok(())
            }
            Err(error) => {
                log::error!("account {slot} was refreshed and could not be stored: {error}");
                state.unsaved = Some(account);
                Err(error)
            }
        }
    }

    fn refresh_failed(&mut self, slot: &SlotId, failure: RefreshFailure) {
        let now_ms = self.clock.now_ms();
        log::warn!("account {slot} was not refreshed ({}): {}", failure.class, failure.reason);
        let outcome = failure.class.to_string();
        let state = self.accounts.entry(slot.clone()).or_default();
        state.in_flight = None;
        state.last_at_ms = Some(now_ms);
        state.failure_count += 1;
        state.failure = Some(failure);
        self.note(&Entry::AccountRefreshed { slot: slot.clone(), outcome: outcome.clone() });
        let Some(mut account) = self.account(slot).map(McpAccount::duplicate) else { return };
        (account.last_refresh_at_ms, account.last_refresh_outcome) = (Some(now_ms), Some(outcome));
        let updated_at_ms = self.store.entry(slot).map_or(now_ms, |entry| entry.record.updated_at_ms());
        // The tokens are the ones on disk; that the failure is not noted there as well loses nothing.
        match SlotRecord::account(slot.clone(), account, updated_at_ms).map(|record| self.store.renew(record)) {
            Ok(Ok(_same_secrets)) => self.republish(),
            Ok(Err(error)) => log::warn!("the failed refresh of account {slot} was not stored: {error}"),
            Err(error) => log::warn!("the failed refresh of account {slot} was not stored: {error}"),
        }
    }

    /// Answers somebody who waited, after the refresh has ended one way or the other.
    fn answer(&mut self, slot: &SlotId, waiting: Waiting) {
        let now_ms = self.clock.now_ms();
        match waiting {
            Waiting::Credential { lease, reply } => {
                let outcome = self.outcome(slot, now_ms);
                let credential = self.check(&lease, now_ms).and(outcome).and_then(|()| self.credential(&lease));
                drop(reply.send(credential));
            }
            Waiting::Status { reply } => {
                let outcome = self.outcome(slot, now_ms);
                let status = self.store.get(slot).ok_or_else(|| BrokerError::SlotMissing { slot: slot.clone() });
                drop(reply.send(outcome.and(status)));
            }
        }
    }

    fn outcome(&self, slot: &SlotId, now_ms: u64) -> Result<(), BrokerError> {
        let Some(state) = self.accounts.get(slot) else { return Ok(()) };
        if state.unsaved.is_some() {
            let reason = "the new token could not be stored".to_string();
            let (class, retry_after_ms) = ("store", Some(0));
            return Err(BrokerError::RefreshFailed { slot: slot.clone(), class, reason, retry_after_ms });
        }
        match &state.failure {
            None => Ok(()),
            Some(failure) => Err(BrokerError::RefreshFailed {
                slot: slot.clone(),
                class: failure.class,
                reason: failure.reason.clone(),
                retry_after_ms: state.pause_ms(now_ms),
            }),
        }
    }

    /// Forgets what was known of a slot's refreshes: it was set, deleted or revoked.
    pub(super) fn drop_account(&mut self, slot: &SlotId) {
        let Some(state) = self.accounts.remove(slot) else { return };
        for waiting in state.waiting {
            let id = match &waiting {
                Waiting::Credential { lease, .. } => lease.id.clone(),
                Waiting::Status { .. } => "the refresh".to_string(),
            };
            let reason = in_words(EndReason::SlotOverwritten);
            refuse(waiting, BrokerError::LeaseRevoked { id, slot: slot.clone(), reason });
        }
    }
}

const WIDENED: &str = "scope_widened";
const WIDENED_REASON: &str = "the server gave scopes that nobody had agreed to";

fn refuse(waiting: Waiting, error: BrokerError) {
    match waiting {
        Waiting::Credential { reply, .. } => drop(reply.send(Err(error))),
        Waiting::Status { reply } => drop(reply.send(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_failures_doubles_up_to_its_bound_and_a_final_one_never_ends() {
        let failure = |is_final| Some(RefreshFailure { class: "unreachable", reason: String::new(), is_final });
        let mut state = Account { last_at_ms: Some(1_000), ..Account::default() };
        assert_eq!(state.pause_ms(1_000), Some(0));
        state.failure = failure(false);
        for (count, pause_ms) in
            [(1, OAUTH_PAUSE_MS), (2, 2 * OAUTH_PAUSE_MS), (3, 4 * OAUTH_PAUSE_MS), (60, OAUTH_PAUSE_MS_MAX)]
        {
            state.failure_count = count;
            assert_eq!(state.pause_ms(1_000), Some(pause_ms), "{count}");
            assert_eq!(state.pause_ms(1_000 + pause_ms), Some(0), "{count}");
        }
        state.failure = failure(true);
        assert_eq!(state.pause_ms(u64::MAX), None);
    }
}
