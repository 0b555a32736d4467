//! Retries: which errors are transient, and the backoff between attempts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::outage::HostState;
use super::{RegistryError, RegistryOptions};

/// The longest `Retry-After` that is respected, and the longest backoff of a host that answers.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Attempts for an unreachable registry (connection refused, DNS failure) that has not answered
/// before: enough for a short DNS outage, and a mistyped name fails within seconds.
const MAX_ATTEMPTS_UNREACHABLE: u32 = 3;

/// The longest backoff while a host is silent: it should be noticed soon when it is back.
const MAX_WAIT_IN_OUTAGE: Duration = Duration::from_secs(2);

/// Bytes after a failure that reset the budget. A server that sends a few bytes per
/// connection must not get endless retries.
const RESET_AFTER: u64 = 16 << 10;

/// Returns whether the same request may succeed later.
pub fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Network { .. } | RegistryError::RateLimited { .. } => true,
        RegistryError::Status { status, .. } => is_transient_status(*status),
        RegistryError::Token { status, .. } => {
            *status == 0 || *status == 429 || is_transient_status(*status)
        }
        _ => false,
    }
}

/// Returns whether a status is transient: 408 and server errors except 501 and 505.
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 500 | 502 | 503 | 504 | 520..=524)
}

/// Counts consecutive failures without progress, and measures outages.
///
/// A failure counts towards the retries if the host answered, or sent something since this
/// transfer's last failure, or never answered at all. Other failures belong to an outage, which is
/// limited by its time.
#[derive(Debug)]
pub struct Budget {
    allowed: u32,
    base: Duration,
    outage_timeout: Duration,
    failed: u32,
    /// Failures of the current outage, which do not count.
    failed_in_outage: u32,
    /// Bytes received since the first of the failures that count.
    progress: u64,
    /// The host of the last failure, and what it had sent then.
    last: Option<(Arc<HostState>, u64)>,
}

impl Budget {
    /// Allows as many consecutive failures and as long an outage as `options` say. The backoff
    /// doubles with each further failure.
    pub fn of(options: &RegistryOptions) -> Self {
        Self {
            allowed: options.retries,
            base: options.backoff,
            outage_timeout: options.outage_timeout,
            failed: 0,
            failed_in_outage: 0,
            progress: 0,
            last: None,
        }
    }

    /// Counts received bytes.
    pub fn progress(&mut self, bytes: usize) {
        self.progress += bytes as u64;
        if self.progress >= RESET_AFTER {
            (self.failed, self.failed_in_outage, self.progress) = (0, 0, 0);
        }
    }

    /// Returns the number of the next attempt.
    pub fn attempt(&self) -> u32 {
        self.failed + self.failed_in_outage + 1
    }

    /// Returns the wait before the next attempt at `host`.
    ///
    /// # Errors
    /// `error`, if it is not transient or the budget is spent; [`RegistryError::Outage`] if the
    /// host has been silent for too long.
    pub fn wait_after(
        &mut self,
        error: RegistryError,
        host: &Arc<HostState>,
    ) -> Result<Duration, RegistryError> {
        if self.allowed == 0 || !is_transient(&error) {
            return Err(error);
        }
        let received = host.received();
        let same =
            |(last, then): &(Arc<HostState>, u64)| Arc::ptr_eq(last, host) && *then == received;
        let silent = self.last.as_ref().is_some_and(same);
        self.last = Some((host.clone(), received));
        if has_no_answer(&error) && received > 0 && !self.outage_timeout.is_zero() {
            let now = Instant::now();
            let lasting = host.fail(now, self.outage_timeout);
            if is_unreachable(&error) || silent {
                return self.wait_in_outage(error, host.name(), lasting);
            }
        }
        self.wait_to_retry(error)
    }

    /// Returns the wait after a failure in an outage of `host` that has lasted for `lasting`.
    fn wait_in_outage(
        &mut self,
        error: RegistryError,
        host: &str,
        lasting: Duration,
    ) -> Result<Duration, RegistryError> {
        let left = self.outage_timeout.saturating_sub(lasting);
        if left.is_zero() {
            return Err(error.into_outage(host, lasting));
        }
        self.failed_in_outage += 1;
        let backoff = self.doubled(self.failed_in_outage).min(MAX_WAIT_IN_OUTAGE);
        // The last attempt is made when the time is over.
        Ok(jitter(backoff).min(left))
    }

    /// Returns the wait after a failure that counts.
    fn wait_to_retry(&mut self, error: RegistryError) -> Result<Duration, RegistryError> {
        let unreachable = is_unreachable(&error) && self.attempt() >= MAX_ATTEMPTS_UNREACHABLE;
        if unreachable || self.failed >= self.allowed {
            return Err(error);
        }
        if self.failed == 0 {
            self.progress = 0;
        }
        self.failed += 1;
        self.failed_in_outage = 0;
        let requested = match &error {
            RegistryError::RateLimited { retry_after, .. }
            | RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        // A wait of more than a minute is left to the caller, for example a CI job.
        if requested.is_some_and(|requested| requested > MAX_WAIT) {
            return Err(error);
        }
        let backoff = self.doubled(self.failed).min(MAX_WAIT);
        Ok(requested.unwrap_or_default().max(jitter(backoff)))
    }

    fn doubled(&self, failures: u32) -> Duration {
        self.base.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
    }
}

/// Returns whether a request was not answered, or its response is not complete.
fn has_no_answer(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Network { .. } | RegistryError::Token { status: 0, .. })
}

/// Returns whether no request could be sent at all.
fn is_unreachable(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Network { down: true, .. })
}

/// Returns a random duration between half of `wait` and `wait`, so that clients do not retry
/// at the same time.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes there is no jitter, which is harmless.
    let _ = getrandom::fill(&mut byte);
    wait.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> RegistryError {
        RegistryError::Status {
            host: String::new(),
            status,
            message: String::new(),
            retry_after: None,
        }
    }

    #[test]
    fn transient_statuses_match_the_list() {
        let list: Vec<u16> = (100..600).filter(|s| is_transient(&status(*s))).collect();
        assert_eq!(list, [408, 500, 502, 503, 504, 520, 521, 522, 523, 524]);
    }

    fn budget(retries: u32) -> Budget {
        let backoff = Duration::from_millis(10);
        Budget::of(&RegistryOptions { retries, backoff, ..RegistryOptions::default() })
    }

    /// A host that has answered, or not.
    fn host(answered: bool) -> Arc<HostState> {
        let host = Arc::new(HostState::default());
        if answered {
            host.count_received();
        }
        host
    }

    fn broken(down: bool) -> RegistryError {
        RegistryError::Network {
            host: "registry.example".to_owned(),
            cause: "".into(),
            down,
            proxy: None,
        }
    }

    #[test]
    fn budget_is_spent_by_failures_without_progress() {
        let (mut budget, host) = (budget(2), host(true));
        assert!(budget.wait_after(status(500), &host).is_ok());
        assert!(budget.wait_after(status(500), &host).is_ok());
        assert!(budget.wait_after(status(500), &host).is_err());
        budget.progress(16 << 10);
        assert!(budget.wait_after(status(503), &host).is_ok());
        assert!(budget.wait_after(status(404), &host).is_err());
    }

    #[test]
    fn budget_is_spent_by_a_server_that_sends_a_byte_per_connection() {
        let (mut budget, host) = (budget(2), host(true));
        budget.progress(1 << 30);
        for _ in 0..2 {
            assert!(budget.wait_after(broken(false), &host).is_ok());
            host.count_received();
            budget.progress(1);
        }
        let error = budget.wait_after(broken(false), &host).unwrap_err();
        assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    }

    #[test]
    fn budget_survives_connections_that_each_bring_some_kilobytes() {
        let (mut budget, host) = (budget(2), host(true));
        for _ in 0..100 {
            assert!(budget.wait_after(broken(false), &host).is_ok());
            host.count_received();
            budget.progress(10 << 10);
        }
    }

    #[test]
    fn backoff_after_many_failures_stays_below_a_minute() {
        let (mut budget, host) = (budget(100), host(true));
        for _ in 0..100 {
            assert!(budget.wait_after(status(500), &host).unwrap() <= MAX_WAIT);
        }
    }

    #[test]
    fn budget_for_a_registry_that_never_answered_allows_three_attempts() {
        let (mut budget, host) = (budget(50), host(false));
        assert!(budget.wait_after(broken(true), &host).is_ok());
        assert!(budget.wait_after(broken(true), &host).is_ok());
        assert!(budget.wait_after(broken(true), &host).is_err());
    }

    #[test]
    fn requests_that_a_host_never_answers_spend_the_retries() {
        let (mut budget, host) = (budget(2), host(false));
        for _ in 0..2 {
            assert!(budget.wait_after(broken(false), &host).is_ok());
        }
        assert!(budget.wait_after(broken(false), &host).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn host_that_answered_and_is_gone_gets_attempts_for_two_minutes() {
        for down in [true, false] {
            let (mut budget, host, began) = (budget(1), host(true), Instant::now());
            let mut attempts = 0;
            let error = loop {
                match budget.wait_after(broken(down), &host) {
                    Ok(wait) => {
                        assert!(wait <= MAX_WAIT_IN_OUTAGE, "{wait:?}");
                        tokio::time::sleep(wait).await;
                    }
                    Err(error) => break error,
                }
                attempts += 1;
            };
            assert!(matches!(error, RegistryError::Outage { .. }), "{error:?}");
            let silent = began.elapsed().as_secs();
            assert!((120..122).contains(&silent), "{silent}");
            assert!((60..200).contains(&attempts), "{attempts}");
            // It comes back, and is lost again.
            host.count_received();
            assert!(budget.wait_after(broken(true), &host).is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outage_is_measured_for_all_transfers_of_a_host_together() {
        let (mut first, mut second, host) = (budget(5), budget(5), host(true));
        assert!(first.wait_after(broken(true), &host).is_ok());
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(second.wait_after(broken(true), &host).is_ok());
        tokio::time::sleep(Duration::from_secs(30)).await;
        let error = second.wait_after(broken(true), &host).unwrap_err();
        assert!(matches!(error, RegistryError::Outage { .. }), "{error:?}");
    }

    #[test]
    fn no_retries_and_no_outage_timeout_switch_the_wait_for_a_lost_host_off() {
        assert!(budget(0).wait_after(broken(true), &host(true)).is_err());
        let (mut budget, host) = (budget(50), host(true));
        budget.outage_timeout = Duration::ZERO;
        assert!(budget.wait_after(broken(true), &host).is_ok());
        assert!(budget.wait_after(broken(true), &host).is_ok());
        let error = budget.wait_after(broken(true), &host).unwrap_err();
        assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    }

    #[test]
    fn retry_after_below_a_minute_is_respected_and_a_longer_one_fails() {
        let limited = |seconds| RegistryError::RateLimited {
            host: String::new(),
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let (mut budget, host) = (budget(5), host(true));
        assert_eq!(budget.wait_after(limited(7), &host).unwrap(), Duration::from_secs(7));
        assert!(budget.wait_after(limited(3600), &host).is_err());
    }
}
