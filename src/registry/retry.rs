//! Retries: which errors are transient, and the backoff between attempts.

use std::time::Duration;

use super::RegistryError;

/// The longest `Retry-After` that is respected, and the longest backoff.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Attempts for an unreachable registry (connection refused, DNS failure): enough for a short
/// DNS outage, and a mistyped name fails within seconds.
const MAX_ATTEMPTS_UNREACHABLE: u32 = 3;

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

/// Counts consecutive failures without progress.
#[derive(Debug, Clone)]
pub struct Budget {
    allowed: u32,
    failed: u32,
    /// Bytes received since the first of these failures.
    progress: u64,
    base: Duration,
}

impl Budget {
    /// Allows `allowed` consecutive failures. The backoff is `base` after the first and doubles
    /// with each further one.
    pub fn new(allowed: u32, base: Duration) -> Self {
        Self { allowed, failed: 0, progress: 0, base }
    }

    /// Counts received bytes.
    pub fn progress(&mut self, bytes: usize) {
        self.progress += bytes as u64;
        if self.progress >= RESET_AFTER {
            (self.failed, self.progress) = (0, 0);
        }
    }

    /// Returns the number of the next attempt.
    pub fn attempt(&self) -> u32 {
        self.failed + 1
    }

    /// Returns the wait before the next attempt.
    ///
    /// # Errors
    /// `error`, if it is not transient or the budget is spent.
    pub fn wait_after(&mut self, error: RegistryError) -> Result<Duration, RegistryError> {
        let unreachable = matches!(error, RegistryError::Network { down: true, .. });
        let spent = self.failed >= self.allowed
            || (unreachable && self.attempt() >= MAX_ATTEMPTS_UNREACHABLE);
        if spent || !is_transient(&error) {
            return Err(error);
        }
        if self.failed == 0 {
            self.progress = 0;
        }
        self.failed += 1;
        let requested = match &error {
            RegistryError::RateLimited { retry_after, .. }
            | RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        // A wait of more than a minute is left to the caller, for example a CI job.
        if requested.is_some_and(|requested| requested > MAX_WAIT) {
            return Err(error);
        }
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(self.failed - 1));
        let backoff = doubled.min(MAX_WAIT);
        Ok(requested.unwrap_or_default().max(jitter(backoff)))
    }
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

    #[test]
    fn budget_is_spent_by_failures_without_progress() {
        let mut budget = Budget::new(2, Duration::from_millis(10));
        assert!(budget.wait_after(status(500)).is_ok());
        assert!(budget.wait_after(status(500)).is_ok());
        assert!(budget.wait_after(status(500)).is_err());
        budget.progress(16 << 10);
        assert!(budget.wait_after(status(503)).is_ok());
        assert!(budget.wait_after(status(404)).is_err());
    }

    #[test]
    fn budget_is_spent_by_a_server_that_sends_a_byte_per_connection() {
        let mut budget = Budget::new(2, Duration::from_millis(10));
        budget.progress(1 << 30);
        for _ in 0..2 {
            assert!(budget.wait_after(status(500)).is_ok());
            budget.progress(1);
        }
        assert!(budget.wait_after(status(500)).is_err());
    }

    #[test]
    fn budget_survives_connections_that_each_bring_some_kilobytes() {
        let mut budget = Budget::new(2, Duration::from_millis(10));
        for _ in 0..100 {
            assert!(budget.wait_after(status(500)).is_ok());
            budget.progress(10 << 10);
        }
    }

    #[test]
    fn backoff_after_many_failures_stays_below_a_minute() {
        let mut budget = Budget::new(100, Duration::from_millis(500));
        for _ in 0..100 {
            assert!(budget.wait_after(status(500)).unwrap() <= MAX_WAIT);
        }
    }

    #[test]
    fn budget_for_an_unreachable_registry_allows_three_attempts() {
        let down = || RegistryError::Network { host: String::new(), cause: "".into(), down: true };
        let mut budget = Budget::new(5, Duration::from_millis(10));
        assert!(budget.wait_after(down()).is_ok());
        assert!(budget.wait_after(down()).is_ok());
        assert!(budget.wait_after(down()).is_err());
    }

    #[test]
    fn retry_after_below_a_minute_is_respected_and_a_longer_one_fails() {
        let limited = |seconds| RegistryError::RateLimited {
            host: String::new(),
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let mut budget = Budget::new(5, Duration::from_millis(10));
        assert_eq!(budget.wait_after(limited(7)).unwrap(), Duration::from_secs(7));
        assert!(budget.wait_after(limited(3600)).is_err());
    }
}
