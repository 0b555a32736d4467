//! Waiting for what another process does.

use std::time::{Duration, Instant};

/// Waits for a condition that must come. The limit only keeps a failing test from hanging.
#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
