//! When and how often a failed attempt is made again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most attempts of one node.
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest pause between two attempts: 24 hours, in milliseconds.
pub const RETRY_DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Largest growth of the pause, in thousandths: a hundredfold.
pub const RETRY_FACTOR_PERMILLE_MAX: u32 = 100_000;

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 1 means no retry.
    pub max_attempts: u32,
    /// Upper bound of the pause before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// Growth of that bound from attempt to attempt, in thousandths: 2,000 doubles it.
    pub factor_permille: u32,
    /// The bound grows no further than this, in milliseconds.
    pub max_ms: u64,
    /// The failures that are worth another attempt.
    pub on: Vec<FailureClass>,
}

impl RetryPolicy {
    /// One attempt only.
    #[must_use]
    pub fn none() -> Self {
        Self { max_attempts: 1, initial_ms: 0, factor_permille: 1_000, max_ms: 0, on: Vec::new() }
    }

    /// What the short form `exponential_backoff` stands for: five attempts,
    /// pauses up to 200 ms, doubling, at most 30 s, for the failures that
    /// [`FailureClass::retryable_by_default`].
    #[must_use]
    pub fn exponential_backoff() -> Self {
        Self {
            max_attempts: 5,
            initial_ms: 200,
            factor_permille: 2_000,
            max_ms: 30_000,
            on: FailureClass::ALL
                .into_iter()
                .filter(|class| class.retryable_by_default())
                .collect(),
        }
    }

    /// Whether a failure of `class` in the `attempt`th attempt, counted from
    /// 1, is followed by another attempt.
    #[must_use]
    pub fn retries(&self, attempt: u32, class: FailureClass) -> bool {
        attempt < self.max_attempts && self.on.contains(&class)
    }

    /// The pause after the `attempt`th attempt, counted from 1: uniform
    /// between 0 and min(`max_ms`, `initial_ms` · factor^(attempt − 1)), both
    /// included (full jitter, Brooker, "Exponential Backoff And Jitter").
    ///
    /// `random` is a uniform number that the caller derives from the effect
    /// key and the attempt, so that deciding again gives the same pause.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, random: u64) -> u64 {
        let bound = u128::from(self.delay_bound_ms(attempt));
        // The high half of the product is uniform over 0..=bound; it is at
        // most `bound`, so it fits.
        u64::try_from((u128::from(random) * (bound + 1)) >> 64).unwrap_or(u64::MAX)
    }

    fn delay_bound_ms(&self, attempt: u32) -> u64 {
        let max = u128::from(self.max_ms);
        let mut bound = u128::from(self.initial_ms).min(max);
        for _ in 1..attempt.min(ATTEMPTS_MAX) {
            let grown = (bound * u128::from(self.factor_permille) / 1_000).min(max);
            if grown == bound {
                break;
            }
            bound = grown;
        }
        u64::try_from(bound).unwrap_or(self.max_ms)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::none()
    }
}

/// Why an attempt failed, as far as retrying goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// No answer within the time limit.
    Timeout,
    /// No connection.
    Connect,
    /// A redirect, which is never followed.
    #[serde(rename = "http_3xx")]
    Http3xx,
    /// The plugin refused the call.
    #[serde(rename = "http_4xx")]
    Http4xx,
    /// The plugin failed.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// The answer exceeds the size limit.
    ResponseTooLarge,
    /// The answer is no JSON.
    ResponseNotJson,
    /// The call's target is not on the allow-list.
    NotAllowed,
    /// The attempt was told to stop.
    Cancelled,
    /// A guard, value or body could not be evaluated.
    Expression,
    /// Nobody knows what became of the attempt.
    Unknown,
    /// The event would be one too many in a chain of events of runs.
    TooManyHops,
    /// Nobody listens on the subject.
    NoResponders,
    /// The service answered with an error (NATS micro services).
    ServiceError,
    /// Whoever was called said by callback that it failed.
    Reported,
    /// The program ended with a failure, or by a signal.
    ExitStatus,
    /// The program says that trying again may help (exit status 75, `EX_TEMPFAIL`).
    ExitTemporary,
    /// No worker of the task's queue could run it: it cannot be read, or workers
    /// kept dying at it.
    Poisoned,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 18] = [
        Self::Timeout,
        Self::Connect,
        Self::Http3xx,
        Self::Http4xx,
        Self::Http5xx,
        Self::ResponseTooLarge,
        Self::ResponseNotJson,
        Self::NotAllowed,
        Self::Cancelled,
        Self::Expression,
        Self::Unknown,
        Self::TooManyHops,
        Self::NoResponders,
        Self::ServiceError,
        Self::Reported,
        Self::ExitStatus,
        Self::ExitTemporary,
        Self::Poisoned,
    ];

    /// Whether `exponential_backoff` tries again whatever the kind of node: after
    /// a time-out, no connection, a failing plugin. This never changes; what
    /// single kinds add is [`Work::retryable_by_default`](super::Work)'s.
    #[must_use]
    pub fn retryable_by_default(self) -> bool {
        match self {
            Self::Timeout | Self::Connect | Self::Http5xx => true,
            Self::Http3xx
            | Self::Http4xx
            | Self::ResponseTooLarge
            | Self::ResponseNotJson
            | Self::NotAllowed
            | Self::Cancelled
            | Self::Expression
            | Self::Unknown
            | Self::TooManyHops
            | Self::NoResponders
            | Self::ServiceError
            | Self::Reported
            | Self::ExitStatus
            | Self::ExitTemporary
            | Self::Poisoned => false,
        }
    }

    /// Whether whoever was asked may have acted though the attempt failed: the failure tells nothing of it.
    #[must_use]
    pub fn may_have_acted(self) -> bool {
        match self {
            Self::Timeout
            | Self::Connect
            | Self::Http5xx
            | Self::ResponseTooLarge
            | Self::ResponseNotJson
            | Self::Cancelled
            // By a signal, in the middle of what it did.
            | Self::ExitStatus
            | Self::Unknown
            | Self::Poisoned => true,
            Self::Http3xx
            | Self::Http4xx
            | Self::NotAllowed
            | Self::Expression
            | Self::TooManyHops
            | Self::NoResponders
            | Self::ServiceError
            | Self::Reported
            | Self::ExitTemporary => false,
        }
    }

    /// The name in definitions and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Http3xx => "http_3xx",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::ResponseTooLarge => "response_too_large",
            Self::ResponseNotJson => "response_not_json",
            Self::NotAllowed => "not_allowed",
            Self::Cancelled => "cancelled",
            Self::Expression => "expression",
            Self::Unknown => "unknown",
            Self::TooManyHops => "too_many_hops",
            Self::NoResponders => "no_responders",
            Self::ServiceError => "service_error",
            Self::Reported => "reported",
            Self::ExitStatus => "exit_status",
            Self::ExitTemporary => "exit_temporary",
            Self::Poisoned => "poisoned",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_stays_within_its_growing_bound(attempt in 1_u32..200, random: u64) {
            let policy = RetryPolicy::exponential_backoff();
            let bound = (200_u64 << (attempt - 1).min(20)).min(30_000);

            prop_assert!(policy.delay_ms(attempt, random) <= bound);
        }

        #[test]
        fn no_policy_makes_the_pause_panic(
            initial_ms: u64, factor_permille: u32, max_ms: u64, attempt: u32, random: u64,
        ) {
            let policy =
                RetryPolicy { max_attempts: 3, initial_ms, factor_permille, max_ms, on: vec![] };

            prop_assert!(policy.delay_ms(attempt, random) <= max_ms);
        }
    }

    #[test]
    fn the_pause_reaches_both_ends_of_its_range() {
        let policy = RetryPolicy::exponential_backoff();

        assert_eq!(policy.delay_ms(1, 0), 0);
        assert_eq!(policy.delay_ms(1, u64::MAX), 200);
        assert_eq!(policy.delay_ms(2, u64::MAX), 400);
        assert_eq!(policy.delay_ms(50, u64::MAX), 30_000);
    }

    #[test]
    fn the_last_attempt_is_not_followed_by_another() {
        let policy = RetryPolicy::exponential_backoff();

        assert!(policy.retries(4, FailureClass::Http5xx));
        assert!(!policy.retries(5, FailureClass::Http5xx));
        assert!(!policy.retries(1, FailureClass::Http4xx));
        assert!(!RetryPolicy::none().retries(1, FailureClass::Timeout));
    }

    #[test]
    fn a_class_is_stored_under_its_name() {
        for class in FailureClass::ALL {
            let stored = serde_json::to_value(class).unwrap();

            assert_eq!(stored, class.as_str());
            assert_eq!(serde_json::from_value::<FailureClass>(stored).unwrap(), class);
        }
    }
}
