//! The credential of one call of a model or an MCP server: leased before it, watched during it, given back after it.
//! Owns: the lease in hand, and the handle that ends the call when the lease is revoked.
//! May touch: the broker.
//! Never: holds a secret longer than the exchange of the lease for it; takes a silent broker for a refusing one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::broker::{BrokerError, BrokerHandle, Lease, LeaseRequest, Watch};
use crate::clock::Clock;
use crate::limits::{BROKER_REDEEM_ATTEMPTS_MAX, BROKER_REDEEM_PAUSE_MS};
use crate::net::{Auth, Cancel, CredentialRefused};
use crate::providers::{ErrorClass, ProviderError, Retry};
use crate::secret::Secret;

/// A lease in hand. It is given back with this.
pub(crate) struct InUse {
    broker: BrokerHandle,
    clock: Arc<dyn Clock>,
    lease: Lease,
    /// Ends the call: with the run, or with the lease.
    cancel: Cancel,
    /// The broker did not decide.
    was_silent: Arc<AtomicBool>,
    _watch: Watch,
}

impl InUse {
    /// Leases a credential for a call of a run that `run` ends.
    ///
    /// # Errors
    /// The broker refused, or did not decide ([`BrokerError::is_silence`]).
    pub(crate) fn take(
        broker: &BrokerHandle,
        clock: &Arc<dyn Clock>,
        request: LeaseRequest,
        run: &Cancel,
    ) -> Result<Self, BrokerError> {
        let lease = broker.lease(request, clock.now_ms())?;
        let cancel = run.child();
        let watch = broker.watch(&lease, cancel.clone());
        let (broker, clock) = (broker.clone(), clock.clone());
        Ok(Self { broker, clock, lease, cancel, was_silent: Arc::default(), _watch: watch })
    }

    /// Names the lease in records.
    pub(crate) fn lease_id(&self) -> &str {
        &self.lease.id
    }

    /// Ends the call with the run or with the lease.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Exchanges the lease when the connection stands. A broker that is busy is asked again.
    pub(crate) fn auth(&self) -> Auth {
        let (broker, clock, lease) = (self.broker.clone(), self.clock.clone(), self.lease.clone());
        let (cancel, was_silent) = (self.cancel.clone(), self.was_silent.clone());
        let organization = lease.organization.clone().map(|organization| ("openai-organization", organization));
        let project = lease.project.clone().map(|project| ("openai-project", project));
        let labels = organization.into_iter().chain(project).collect();
        let release = move || {
            exchange(&broker, &*clock, &lease, &cancel).map_err(|error| {
                was_silent.store(error.is_silence(), Ordering::SeqCst);
                CredentialRefused { reason: error.to_string() }
            })
        };
        Auth::bearer_from(release).with_labels(labels)
    }

    /// The secret itself, for what is no request of the network: the environment of a child process.
    ///
    /// # Errors
    /// The lease has ended, or the broker did not answer.
    pub(crate) fn secret(&self) -> Result<Secret, BrokerError> {
        exchange(&self.broker, &*self.clock, &self.lease, &self.cancel)
    }

    /// What a failed call with this credential means, which may be that the credential was taken away meanwhile: then
    /// the next attempt asks for another lease, and is told by the broker if there is none.
    pub(super) fn judge(&self, error: ProviderError) -> ProviderError {
        // However the call ended then: the run itself goes on, or nobody would ask.
        if self.cancel.is_cancelled() {
            let message = format!(
                "the credential was revoked while the call was under way ({}); next: see kheish-daemon runtime auth lease \
                 {}",
                self.lease.slot, self.lease.id
            );
            return retried(ErrorClass::Auth, "credential_revoked", message);
        }
        if self.was_silent.load(Ordering::SeqCst) {
            return retried(ErrorClass::Network, "broker_unanswered", error.message);
        }
        error
    }
}

/// The secret behind a lease. A broker that is busy or silent is asked [`BROKER_REDEEM_ATTEMPTS_MAX`] times.
fn exchange(broker: &BrokerHandle, clock: &dyn Clock, lease: &Lease, cancel: &Cancel) -> Result<Secret, BrokerError> {
    let mut tries = 1;
    loop {
        match broker.redeem(lease, clock.now_ms()) {
            Ok(credential) => return Ok(credential.secret),
            Err(error) if error.is_silence() && tries < BROKER_REDEEM_ATTEMPTS_MAX => {
                if cancel.wait(Duration::from_millis(BROKER_REDEEM_PAUSE_MS)) {
                    return Err(error);
                }
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn retried(class: ErrorClass, code: &str, message: String) -> ProviderError {
    ProviderError { class, retry: Retry::Backoff, http_status: None, code: Some(code.to_string()), message }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.broker.release(self.lease.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Stalled;
    use crate::clock::SystemClock;

    #[test]
    fn a_broker_that_was_busy_for_a_moment_costs_no_attempt() {
        let stalled = Stalled::new("engine-busy");
        let (handle, lease) = (stalled.handle(), stalled.lease());
        // The first look finds it busy; it works again before the next one.
        assert!(matches!(handle.redeem(&lease, SystemClock.now_ms()), Err(BrokerError::Busy)));
        let cancel = Cancel::new();
        let secret = std::thread::scope(|scope| {
            let asking = scope.spawn(|| exchange(&handle, &SystemClock, &lease, &cancel));
            stalled.go_on();
            asking.join().unwrap()
        });
        assert_eq!(secret.unwrap().expose(), b"secret-zero");
    }

    #[test]
    fn a_broker_that_stays_busy_is_no_refusal_and_a_cancelled_run_does_not_wait_for_it() {
        let stalled = Stalled::new("engine-silent");
        let (handle, lease) = (stalled.handle(), stalled.lease());
        let silent = exchange(&handle, &SystemClock, &lease, &Cancel::new()).unwrap_err();
        assert!(silent.is_silence(), "{silent}");
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert!(exchange(&handle, &SystemClock, &lease, &cancelled).unwrap_err().is_silence());
        stalled.go_on();
        let unknown = Lease { id: "lease-0".to_string(), ..lease };
        let refused = exchange(&handle, &SystemClock, &unknown, &Cancel::new()).unwrap_err();
        assert!(!refused.is_silence(), "{refused}");
    }
}
