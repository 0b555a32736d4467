//! Limits on waiting for the network.
//!
//! Two limits apply to every response. The stall limit bounds each single wait: for the
//! headers of a response (which includes name resolution, the connection and the TLS
//! handshake), and for the next bytes of its body. The speed limit ends a body that
//! arrives too slowly.
//!
//! Only time that is spent waiting for the network counts. A wait ends when the network
//! wakes the task, not when the task is polled again: a busy reader, or a future that is
//! polled late, never makes a registry look slow.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::RegistryOptions;

/// Limits on waiting for one response.
#[derive(Debug, Clone, Copy)]
pub struct WaitLimits {
    /// The limit for a single wait.
    pub stall: Duration,
    /// Waiting time over which the speed of a body is averaged.
    window: Duration,
    /// Bytes that must arrive per window.
    minimum: u64,
}

impl WaitLimits {
    /// Returns the limits that `options` set.
    pub fn of(options: &RegistryOptions) -> Self {
        // A pause that the stall limit allows must not violate the speed limit.
        let window = options.speed_window.max(options.stall_timeout.saturating_mul(2));
        let minimum = (window.as_secs_f64() * options.min_speed as f64) as u64;
        Self { stall: options.stall_timeout, window, minimum }
    }
}

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitExceeded {
    /// No response, or no more bytes, in this time.
    Stall(Duration),
    /// This many bytes, fewer than required, in this waiting time.
    Speed(u64, Duration),
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stall(limit) => write!(f, "nothing received for {} seconds", limit.as_secs_f64()),
            Self::Speed(bytes, window) => {
                write!(f, "too slow, {bytes} bytes in {} seconds", window.as_secs_f64())
            }
        }
    }
}

/// The limits on one body, with its speed so far.
#[derive(Debug)]
pub struct SpeedLimit {
    limits: WaitLimits,
    /// Time waited in the current window.
    waited: Duration,
    /// Bytes received in the current window.
    bytes: u64,
}

impl SpeedLimit {
    /// Returns the limits for a body of which nothing has arrived yet.
    pub fn new(limits: WaitLimits) -> Self {
        Self { limits, waited: Duration::ZERO, bytes: 0 }
    }

    /// Awaits the next bytes of the body.
    ///
    /// # Errors
    /// [`LimitExceeded`] if they do not arrive within the limits.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, LimitExceeded> {
        let WaitLimits { stall, window, minimum } = self.limits;
        let met = self.bytes >= minimum;
        if met && self.waited >= window {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        let left = window.saturating_sub(self.waited);
        let limit = if met { stall } else { stall.min(left) };
        let (waited, output) = within(limit, next).await;
        self.waited += waited;
        output.ok_or(if limit < stall {
            LimitExceeded::Speed(self.bytes, window)
        } else {
            LimitExceeded::Stall(stall)
        })
    }

    /// Counts received bytes.
    pub fn received(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

/// Awaits `future` for at most `limit` of waiting time. Returns the time waited and the
/// output, `None` if the limit was exceeded.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> (Duration, Option<T>) {
    let mut future = pin!(future);
    let mut timer = pin!(tokio::time::sleep(limit));
    let timed = Arc::new(TimedWaker::default());
    let waker = Waker::from(timed.clone());
    let (mut waited, mut since) = (Duration::ZERO, None::<Instant>);
    poll_fn(|cx| {
        let woken = timed.set(cx.waker());
        if let Some(since) = since.take() {
            let until = woken.unwrap_or_else(Instant::now);
            waited += until.saturating_duration_since(since);
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Poll::Ready((waited, Some(output)));
        }
        let now = Instant::now();
        since = Some(now);
        loop {
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Poll::Ready((waited, None));
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The timer expired outside of waiting time; the remaining time still applies.
            timer.as_mut().reset(now + left);
        }
    })
    .await
}

/// A waker that forwards wake-ups and records the time of the first one.
#[derive(Default)]
struct TimedWaker(Mutex<(Option<Waker>, Option<Instant>)>);

impl TimedWaker {
    /// Forwards wake-ups to `waker` from now on; returns the recorded time, if any.
    fn set(&self, waker: &Waker) -> Option<Instant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.0 = Some(waker.clone());
        }
        state.1.take()
    }
}

impl Wake for TimedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.1.get_or_insert_with(Instant::now);
            state.0.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn speed(stall: u64, window: u64, min_speed: u64) -> SpeedLimit {
        SpeedLimit::new(WaitLimits::of(&RegistryOptions {
            stall_timeout: SECOND * u32::try_from(stall).unwrap(),
            speed_window: SECOND * u32::try_from(window).unwrap(),
            min_speed,
            ..RegistryOptions::default()
        }))
    }

    /// Receives `bytes` after each `pause` until a limit ends it, at most `times` times.
    async fn receive(
        speed: &mut SpeedLimit,
        pause: Duration,
        bytes: usize,
        times: u32,
    ) -> Option<LimitExceeded> {
        for _ in 0..times {
            match speed.wait(sleep(pause)).await {
                Ok(()) => speed.received(bytes),
                Err(exceeded) => return Some(exceeded),
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn wait_without_answer_ends_at_the_stall_limit() {
        let mut speed = speed(30, 60, 1024);
        let began = Instant::now();
        assert_eq!(speed.wait(pending::<()>()).await, Err(LimitExceeded::Stall(SECOND * 30)));
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn trickle_ends_after_one_window() {
        let mut speed = speed(30, 60, 1024);
        let began = Instant::now();
        let exceeded = receive(&mut speed, SECOND * 7, 1, u32::MAX).await;
        assert_eq!(exceeded, Some(LimitExceeded::Speed(8, SECOND * 60)));
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn trickle_after_a_fast_beginning_ends() {
        let mut speed = speed(30, 60, 1024);
        speed.received(1 << 30);
        let exceeded = receive(&mut speed, SECOND * 7, 1, 1000).await;
        assert!(matches!(exceeded, Some(LimitExceeded::Speed(..))), "{exceeded:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn body_at_the_minimum_speed_is_not_aborted() {
        let mut steady = speed(30, 60, 1024);
        assert_eq!(receive(&mut steady, SECOND, 1024, 1000).await, None);
        let mut bursts = speed(30, 60, 1024);
        assert_eq!(receive(&mut bursts, SECOND * 29, 40 << 10, 100).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_below_a_long_stall_limit_is_not_too_slow() {
        let mut speed = speed(300, 60, 1024);
        assert_eq!(receive(&mut speed, SECOND * 290, 1 << 20, 10).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_does_not_count_as_waiting() {
        let mut speed = speed(30, 60, 1024);
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move { while sender.send(()).await.is_ok() {} });
        for _ in 0..20 {
            speed.wait(receiver.recv()).await.unwrap().unwrap();
            speed.received(1);
            sleep(SECOND * 100).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn future_polled_late_waited_only_until_it_was_woken() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut waiting = pin!(within(SECOND * 30, async {
            receiver.recv().await;
            // Only the waiting time of both counts.
            receiver.recv().await
        }));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        sleep(SECOND * 2).await;
        sender.send(1).await.unwrap();
        sleep(SECOND * 100).await;
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        sender.send(2).await.unwrap();
        sleep(SECOND * 100).await;
        assert_eq!(waiting.await, (SECOND * 2, Some(Some(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn future_polled_late_still_ends_at_its_limit() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut waiting = pin!(within(SECOND * 30, async {
            receiver.recv().await;
            pending::<()>().await;
        }));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        sleep(SECOND * 10).await;
        sender.send(()).await.unwrap();
        sleep(SECOND * 100).await;
        let began = Instant::now();
        assert_eq!(waiting.await, (SECOND * 30, None));
        assert_eq!(began.elapsed().as_secs(), 20);
    }
}
