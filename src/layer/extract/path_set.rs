//! A set of paths that takes a few bytes per path.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// A set of paths by their hash, with a random key: two of a million paths have the same hash with
/// a probability of one to ten million.
#[derive(Default)]
pub struct PathSet {
    hashes: HashSet<u64>,
    key: RandomState,
}

impl PathSet {
    /// Adds a path. Returns whether it is new.
    pub fn insert(&mut self, path: &[u8]) -> bool {
        self.hashes.insert(self.key.hash_one(path))
    }

    /// Returns whether the set has the path.
    pub fn contains(&self, path: &[u8]) -> bool {
        self.hashes.contains(&self.key.hash_one(path))
    }
}
