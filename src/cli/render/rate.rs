//! The rate of a download, smoothed over the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// The time between two samples.
const STEP: Duration = Duration::from_millis(250);

/// The shortest time that gives a rate.
const SHORTEST: Duration = Duration::from_millis(500);

/// The longest remaining time that is shown.
const LONGEST: u64 = 100 * 3600;

/// Received bytes and when they arrived.
#[derive(Debug, Default)]
pub struct Rate {
    /// Times and the bytes received until then, oldest first.
    samples: VecDeque<(Duration, u64)>,
    received: u64,
}

impl Rate {
    /// Notes that `bytes` more were received until `now`.
    pub fn add(&mut self, bytes: u64, now: Duration) {
        self.received += bytes;
        if self.samples.back().is_none_or(|(at, _)| now >= *at + STEP) {
            self.samples.push_back((now, self.received));
        }
        // One sample older than the window stays: a span begins there.
        while self.samples.get(1).is_some_and(|(at, _)| now >= *at + WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Returns the bytes per second until `now`; `None` before it is known.
    pub fn per_second(&self, now: Duration) -> Option<u64> {
        let recent = |(at, _): &&(Duration, u64)| now < *at + WINDOW;
        let (since, before) = self.samples.iter().find(recent).or(self.samples.back())?;
        let span = now.checked_sub(*since).filter(|span| *span >= SHORTEST)?;
        Some(((self.received - before) as f64 / span.as_secs_f64()) as u64)
    }
}

/// Returns the time for `bytes` at `rate`, such as `1m05s`; `None` if it cannot be told.
pub fn remaining(bytes: u64, rate: u64) -> Option<String> {
    let seconds = bytes.checked_add(rate.checked_sub(1)?)?.checked_div(rate)?;
    (seconds <= LONGEST).then(|| whole_seconds(seconds))
}

/// Returns a number of seconds as `7s`, `1m05s` or `2h03m`.
pub fn whole_seconds(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match () {
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(at(10)), None);
        rate.add(0, at(1000));
        for n in 1..=100 {
            rate.add(1000, at(1000 + 100 * n));
        }
        let steady = rate.per_second(at(11_000)).unwrap();
        assert!((9_500..=10_500).contains(&steady), "{steady}");
        for n in 1..=100 {
            rate.add(100, at(11_000 + 100 * n));
        }
        let slow = rate.per_second(at(21_000)).unwrap();
        assert!((950..=1050).contains(&slow), "{slow}");
        assert!(rate.samples.len() < 30, "{}", rate.samples.len());
    }

    #[test]
    fn rate_falls_to_zero_without_bytes() {
        let mut rate = Rate::default();
        rate.add(0, at(0));
        rate.add(5000, at(100));
        assert_eq!(rate.per_second(at(400)), None);
        assert_eq!(rate.per_second(at(1000)), Some(5000));
        assert_eq!(rate.per_second(at(4000)), Some(1250));
        rate.add(0, at(9000));
        assert_eq!(rate.per_second(at(10_000)), Some(0));
    }

    #[test]
    fn remaining_time_is_never_infinite() {
        assert_eq!(remaining(1000, 0), None);
        assert_eq!(remaining(u64::MAX, 1), None);
        assert_eq!(remaining(u64::MAX, u64::MAX), None);
        assert_eq!(remaining(0, 10).unwrap(), "0s");
        assert_eq!(remaining(11, 10).unwrap(), "2s");
        assert_eq!(remaining(65, 1).unwrap(), "1m05s");
        assert_eq!(remaining(7380, 1).unwrap(), "2h03m");
        assert_eq!(remaining(LONGEST + 1, 1), None);
    }
}
