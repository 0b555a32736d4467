//! A byte counter that sends at most ten events per second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, Image, Phase, Sender};
use crate::digest::Digest;

const INTERVAL: Duration = Duration::from_millis(100);

/// Counts the bytes of one phase of a layer and sends [`Event::Bytes`] every 100 ms at most.
pub struct Meter {
    sender: Sender,
    image: Image,
    layer: Digest,
    phase: Phase,
    done: u64,
    total: u64,
    sent_at: Instant,
}

impl Meter {
    /// Creates a meter at 0 of `total` bytes.
    pub fn new(sender: Sender, image: Image, layer: Digest, phase: Phase, total: u64) -> Self {
        Self { sender, image, layer, phase, done: 0, total, sent_at: Instant::now() }
    }

    /// Continues at `done` bytes.
    pub fn starting_at(self, done: u64) -> Self {
        Self { done, ..self }
    }

    /// Counts `bytes` more.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done >= self.total || self.sent_at.elapsed() >= INTERVAL {
            self.sent_at = Instant::now();
            self.send();
        }
    }

    fn send(&self) {
        self.sender.send(Event::Bytes {
            image: self.image.clone(),
            layer: self.layer,
            phase: self.phase,
            done: self.done,
            total: self.total,
        });
    }
}

/// Returns what receives the number of bytes of `layer` that were sent, of about `total`, and sends
/// [`Event::Bytes`] every 100 ms at most. The number can become smaller.
pub fn upload_meter(
    sender: Sender,
    image: Image,
    layer: Digest,
    total: u64,
) -> Box<dyn Fn(u64) + Send + Sync> {
    let sent_at = Mutex::new(None::<Instant>);
    Box::new(move |done| {
        let mut sent_at = sent_at.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && sent_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        *sent_at = Some(Instant::now());
        let (image, phase) = (image.clone(), Phase::Upload);
        sender.send(Event::Bytes { image, layer, phase, done, total });
    })
}
