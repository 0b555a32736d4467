//! A byte counter that speaks at most ten times a second.

use std::time::{Duration, Instant};

use super::{Event, Image, Phase, Sender};
use crate::digest::Digest;

const INTERVAL: Duration = Duration::from_millis(100);

/// Counts the bytes of one layer's phase and sends [`Event::Bytes`] now and then.
pub struct Meter {
    sender: Sender,
    image: Image,
    layer: Digest,
    phase: Phase,
    done: u64,
    total: u64,
    said: Instant,
}

impl Meter {
    /// A meter at 0 of `total` bytes.
    pub fn new(sender: Sender, image: Image, layer: Digest, phase: Phase, total: u64) -> Self {
        Self { sender, image, layer, phase, done: 0, total, said: Instant::now() }
    }

    /// `bytes` more have passed.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done >= self.total || self.said.elapsed() >= INTERVAL {
            self.said = Instant::now();
            self.say();
        }
    }

    fn say(&self) {
        self.sender.send(Event::Bytes {
            image: self.image.clone(),
            layer: self.layer,
            phase: self.phase,
            done: self.done,
            total: self.total,
        });
    }
}
