//! Outages: hosts that answered and then stopped, as all requests of a client see them.
//!
//! A host that answered once in a run will probably come back: a registry restarts, a connection to
//! a network is lost for a moment. Its requests are therefore repeated for a time and not for a
//! number of attempts, and the time is shared: it begins with the first request of any transfer
//! that fails, and ends with the next byte that the host sends to any of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two reports about a host at least.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time between two reports about a host that stays silent.
const LONGEST_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Failures that are further apart belong to two outages: the client was not used in between.
const SEPARATE_OUTAGES: Duration = Duration::from_secs(60);

/// What is known of each host.
#[derive(Default)]
pub struct Outages(Mutex<HashMap<String, Arc<HostState>>>);

impl Outages {
    /// Returns the state of `host` (`name[:port]`).
    pub fn of(&self, host: &str) -> Arc<HostState> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(host) {
            Some(state) => state.clone(),
            None => {
                let state = Arc::new(HostState { name: host.to_owned(), ..HostState::default() });
                hosts.insert(host.to_owned(), state.clone());
                state
            }
        }
    }
}

/// Whether a host sends anything, and which transfers wait for it.
#[derive(Debug, Default)]
pub struct HostState {
    name: String,
    /// Responses and chunks of bodies so far.
    received: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The outage that goes on, unless the host sent something since.
    outage: Option<Outage>,
    /// Transfers that wait for their next attempt.
    transfers: usize,
    /// The last report.
    reported: Option<Report>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    /// The first failure.
    since: Instant,
    /// The last failure.
    last: Instant,
    /// What had been received then.
    received: u64,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    at: Instant,
    /// The time to the next one, if the host stays silent.
    interval: Duration,
    /// What had been received then.
    received: u64,
}

impl HostState {
    /// Returns the host and port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a response, or a chunk of its body.
    pub fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of responses and chunks so far. The host answered if it is not zero.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Notes a request without a response. Returns for how long requests have failed, while the
    /// host sent nothing to anyone. `limit` is the time after which requests are abandoned.
    pub fn fail(&self, now: Instant, limit: Duration) -> Duration {
        let received = self.received();
        let mut waiting = self.lock();
        let separate = limit.max(SEPARATE_OUTAGES);
        let current = waiting.outage.filter(|outage| {
            outage.received == received && now.saturating_duration_since(outage.last) < separate
        });
        let since = current.map_or(now, |outage| outage.since);
        waiting.outage = Some(Outage { since, last: now, received });
        now.saturating_duration_since(since)
    }

    /// Counts a transfer that waits for its next attempt, until the result is dropped.
    pub fn wait(self: &Arc<Self>) -> WaitingTransfer {
        self.lock().transfers += 1;
        WaitingTransfer(self.clone())
    }

    /// Returns the number of transfers that wait, if it is time to report it: once per second, and
    /// less and less often while the host stays silent.
    pub fn report(&self, now: Instant) -> Option<usize> {
        let received = self.received();
        let mut waiting = self.lock();
        let interval = match waiting.reported {
            None => REPORT_INTERVAL,
            Some(last) => {
                let silent = last.received == received;
                let due = if silent { last.interval } else { REPORT_INTERVAL };
                if now.saturating_duration_since(last.at) < due {
                    return None;
                }
                if silent { (due * 2).min(LONGEST_REPORT_INTERVAL) } else { REPORT_INTERVAL }
            }
        };
        waiting.reported = Some(Report { at: now, interval, received });
        Some(waiting.transfers)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transfer that waits for its next attempt.
#[derive(Debug)]
pub struct WaitingTransfer(Arc<HostState>);

impl Drop for WaitingTransfer {
    fn drop(&mut self) {
        self.0.lock().transfers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn outage_lasts_from_its_first_failure_to_the_next_byte() {
        let (host, start) = (HostState::default(), Instant::now());
        let fail = |seconds| host.fail(at(start, seconds), LIMIT).as_secs();
        assert_eq!([fail(10), fail(11), fail(40)], [0, 1, 30]);
        host.count_received();
        assert_eq!([fail(41), fail(100)], [0, 59]);
    }

    #[test]
    fn failure_long_after_the_last_one_begins_another_outage() {
        let (host, start) = (HostState::default(), Instant::now());
        assert_eq!(host.fail(start, LIMIT).as_secs(), 0);
        assert_eq!(host.fail(at(start, 119), LIMIT).as_secs(), 119);
        assert_eq!(host.fail(at(start, 119 + 120), LIMIT).as_secs(), 0);
    }

    #[test]
    fn transfers_of_a_host_are_reported_together_and_less_often_while_it_is_silent() {
        let (hosts, start) = (Outages::default(), Instant::now());
        let host = hosts.of("registry.example");
        let _transfers = [host.wait(), hosts.of("registry.example").wait()];
        let reported: Vec<u64> =
            (0..120).filter(|n| host.report(at(start, *n)) == Some(2)).collect();
        assert_eq!(reported, [0, 1, 3, 7, 15, 31, 61, 91]);
        host.count_received();
        assert_eq!(host.report(at(start, 92)), Some(2));
        drop(_transfers);
        assert_eq!(host.report(at(start, 200)), Some(0));
    }
}
