//! The spacing of retries as the operator sets it.
//! Owns: the environment variables `KHEISH_DELIVERY_*`.
//! Never: takes a value that it cannot read for the default.

use std::fmt;

use crate::core::DeliveryPolicy;
use crate::limits::{
    DELIVERY_CIRCUIT_COOLDOWN_MS, DELIVERY_CIRCUIT_FAILURE_THRESHOLD, DELIVERY_INITIAL_RETRY_MS, DELIVERY_MAX_ATTEMPTS,
    DELIVERY_MAX_RETRY_AFTER_MS, DELIVERY_MAX_RETRY_MS,
};

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    name: &'static str,
    least: u64,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not a whole number of at least {} (and below 2^32); next: correct it, or leave it unset",
            self.name, self.least
        )
    }
}

impl std::error::Error for PolicyError {}

/// The policy in force: the defaults of `limits`, and what `variable` says.
///
/// # Errors
/// A value is no number, or below its least.
pub fn policy_from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<DeliveryPolicy, PolicyError> {
    let number = |name: &'static str, default: u64, least: u64| match variable(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => match text.trim().parse::<u32>().ok().map(u64::from).filter(|value| *value >= least) {
            Some(value) => Ok(value),
            None => Err(PolicyError { name, least }),
        },
    };
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let initial_retry_ms = number("KHEISH_DELIVERY_INITIAL_RETRY_MS", DELIVERY_INITIAL_RETRY_MS, 1)?;
    let threshold = u64::from(DELIVERY_CIRCUIT_FAILURE_THRESHOLD);
    Ok(DeliveryPolicy {
        initial_retry_ms,
        max_retry_ms: number("KHEISH_DELIVERY_MAX_RETRY_MS", DELIVERY_MAX_RETRY_MS, 1)?.max(initial_retry_ms),
        max_retry_after_ms: number("KHEISH_DELIVERY_MAX_RETRY_AFTER_MS", DELIVERY_MAX_RETRY_AFTER_MS, 1)?,
        max_attempts: small(number("KHEISH_DELIVERY_MAX_ATTEMPTS", u64::from(DELIVERY_MAX_ATTEMPTS), 1)?),
        target_min_interval_ms: number("KHEISH_DELIVERY_TARGET_MIN_INTERVAL_MS", 0, 0)?,
        circuit_failure_threshold: small(number("KHEISH_DELIVERY_CIRCUIT_FAILURE_THRESHOLD", threshold, 0)?),
        circuit_cooldown_ms: number("KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS", DELIVERY_CIRCUIT_COOLDOWN_MS, 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_cannot_be_read_ends_the_start_and_none_is_the_default() {
        let policy = policy_from_environment(|_| None).unwrap();
        assert_eq!((policy.max_attempts, policy.initial_retry_ms, policy.max_retry_ms), (8, 1_000, 60_000));
        for (name, value) in [
            ("KHEISH_DELIVERY_MAX_ATTEMPTS", "0"),
            ("KHEISH_DELIVERY_INITIAL_RETRY_MS", "1s"),
            ("KHEISH_DELIVERY_CIRCUIT_COOLDOWN_MS", "-1"),
        ] {
            let error = policy_from_environment(|asked| (asked == name).then(|| value.to_string())).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let raised = policy_from_environment(|name| name.ends_with("INITIAL_RETRY_MS").then(|| "90000".to_string()));
        assert_eq!(raised.unwrap().max_retry_ms, 90_000, "raised to the first wait");
    }

    #[test]
    fn the_documented_timeline_of_a_target_that_always_fails() {
        let policy = policy_from_environment(|_| None).unwrap();
        let waits: Vec<u64> = (1..=7).map(|attempts| policy.wait_ms(1, attempts, None)).collect();
        for (wait, doubled) in waits.iter().zip([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]) {
            assert!((doubled..=doubled + doubled / 10).contains(wait), "{waits:?}");
        }
        assert_eq!(policy.wait_ms(1, 1, Some(30_000)), 30_000);
        assert_eq!(policy.wait_ms(1, 1, Some(u64::MAX)), 3_600_000, "capped");
        assert!(policy.wait_ms(1, 1, Some(1)) >= 1_000, "never shortened");
    }
}
