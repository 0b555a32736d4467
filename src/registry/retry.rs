//! What is tried again, and when. One function decides what is transient.

use std::time::Duration;

use super::RegistryError;

/// The longest that a registry's `Retry-After` is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A registry that nobody hears, or whose name is unknown, is given so many tries: enough
/// for a moment without DNS, and not half a minute for a typing error.
const TRIES_WHEN_DOWN: u32 = 3;

/// A failure is forgotten when this many bytes arrived after it. A server that sends a few
/// bytes per connection must not get endless retries.
const FORGOTTEN_AFTER: u64 = 16 << 10;

/// Whether the same request may succeed a little later.
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

/// 408 and the server errors that speak of a moment's trouble; 501 and 505 do not.
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 500 | 502 | 503 | 504 | 520..=524)
}

/// Counts failures without progress between them.
#[derive(Debug, Clone)]
pub struct Budget {
    allowed: u32,
    failed: u32,
    /// Bytes since the first of these failures.
    progress: u64,
    base: Duration,
}

impl Budget {
    /// Allows `allowed` failures in a row; waits `base` after the first, twice that after
    /// the second, and so on.
    pub fn new(allowed: u32, base: Duration) -> Self {
        Self { allowed, failed: 0, progress: 0, base }
    }

    /// Counts bytes that arrived.
    pub fn progress(&mut self, bytes: usize) {
        self.progress += bytes as u64;
        if self.progress >= FORGOTTEN_AFTER {
            (self.failed, self.progress) = (0, 0);
        }
    }

    /// Which try comes next, from 2 on.
    pub fn attempt(&self) -> u32 {
        self.failed + 1
    }

    /// How long to wait before the next try, or the error if there is none.
    ///
    /// # Errors
    /// `error`, if it is lasting or the budget is spent.
    pub fn wait_after(&mut self, error: RegistryError) -> Result<Duration, RegistryError> {
        let down = matches!(error, RegistryError::Network { down: true, .. });
        let spent = self.failed >= self.allowed || (down && self.attempt() >= TRIES_WHEN_DOWN);
        if spent || !is_transient(&error) {
            return Err(error);
        }
        if self.failed == 0 {
            self.progress = 0;
        }
        self.failed += 1;
        let asked = match &error {
            RegistryError::RateLimited { retry_after, .. }
            | RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        // A registry that wants more than a minute of patience gets none: a CI job waits
        // better outside.
        if asked.is_some_and(|asked| asked > LONGEST_WAIT) {
            return Err(error);
        }
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(self.failed - 1));
        let backoff = doubled.min(LONGEST_WAIT);
        Ok(asked.unwrap_or_default().max(jitter(backoff)))
    }
}

/// Between half of `wait` and all of it, so that many clients do not come back as one.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes there is no jitter, which harms nobody.
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
    fn the_transient_statuses_are_these() {
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
            assert!(budget.wait_after(status(500)).unwrap() <= LONGEST_WAIT);
        }
    }

    #[test]
    fn a_registry_that_is_down_is_not_waited_for_long() {
        let down = || RegistryError::Network { host: String::new(), cause: "".into(), down: true };
        let mut budget = Budget::new(5, Duration::from_millis(10));
        assert!(budget.wait_after(down()).is_ok());
        assert!(budget.wait_after(down()).is_ok());
        assert!(budget.wait_after(down()).is_err());
    }

    #[test]
    fn a_short_retry_after_is_obeyed_and_a_long_one_ends_it() {
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
