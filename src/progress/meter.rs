//! A byte counter that sends at most ten events per second.

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
