//! An index of the layer db, so that the cost of a command does not depend on the number of
//! layers in the store.
//!
//! ```text
//! <root>/rpull/layer-index/stamp      the state of the layer db for which the index is complete
//! <root>/rpull/layer-index/<3 hex>    the facts whose key begins with these digits (see `facts`)
//! ```
//!
//! A fact is only a hint where to look: every layer that is found is verified by reading its
//! record, and `stamp` tells whether layers can be missing. The index is written under the
//! `commit` lock: first the facts about a new layer, then its record, then the stamp. After a kill
//! at any step, and after any change by another program, the stamp does not match the layer db.
//! Then the index is rebuilt: the names in the layer db are compared with the facts, and only the
//! records that are new or were replaced are read. Nothing is synced; the stamp contains the boot
//! ID, so nothing that was written before a power failure is used without this comparison.
//!
//! Where the index cannot be written, such as on a read-only root, the records are read into
//! memory instead. What the index does not notice is a record whose files are edited in place.

mod facts;
mod known;
mod stamp;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::layer_record::{self, LayerRecord};
use super::layout::Layout;
use super::lock;
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::ChainId;

pub(super) use facts::Key;

use facts::{Fact, Version, is_shard};
use known::Known;
use stamp::Stamp;

const STAMP: &str = "stamp";

/// The end of a record's name while it is being removed.
pub(super) const REMOVING: &str = "-removing";

/// The index of one root.
#[derive(Debug)]
pub(super) struct LayerIndex {
    layout: Layout,
    /// The facts of all records, where the files cannot be used.
    memory: Mutex<Option<HashMap<Key, Vec<ChainId>>>>,
}

/// The index as it is at one moment. Only the holder of the `commit` lock may use it after
/// changing the layer db.
#[derive(Debug)]
pub(super) enum IndexView {
    /// The files are complete for the layer db with this state. Without `confirmed`, they have no
    /// stamp, because a killed process left layers that are partly removed.
    Files { stamp: Stamp, confirmed: bool },
    /// The files cannot be used.
    Memory,
}

impl IndexView {
    /// Returns whether no process left layers that are partly removed.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Files { confirmed: true, .. })
    }

    /// Notes that the caller removed what was left of layers that were partly removed.
    pub fn removals_are_finished(&mut self) {
        if let Self::Files { confirmed, .. } = self {
            *confirmed = true;
        }
    }
}

impl LayerIndex {
    pub fn new(layout: Layout) -> Self {
        Self { layout, memory: Mutex::new(None) }
    }

    /// Returns the current index. The caller does not hold the `commit` lock; it is taken to
    /// rebuild the index.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub fn open(&self) -> Result<IndexView, StoreError> {
        if let Some(view) = self.current() {
            return Ok(view);
        }
        match lock::commit_lock(&self.layout) {
            Ok(_commit) => self.open_locked(),
            Err(StoreError::Fs(e)) if lock::is_inaccessible(&e.source) => Ok(IndexView::Memory),
            Err(e) => Err(e),
        }
    }

    /// Returns the current index. The caller holds the `commit` lock.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub fn open_locked(&self) -> Result<IndexView, StoreError> {
        if let Some(view) = self.current() {
            return Ok(view);
        }
        // What another process committed meanwhile must be found in memory, too.
        self.forget();
        self.rebuild()
    }

    /// Makes the next look-up in memory read the records again.
    pub fn forget(&self) {
        *self.memory() = None;
    }

    fn current(&self) -> Option<IndexView> {
        let stamp = Stamp::of(&self.layout.layers())?;
        let confirmed = stamp.is_in(&self.path(STAMP));
        confirmed.then_some(IndexView::Files { stamp, confirmed })
    }

    /// Returns the layers that may have `key`, for the caller to verify.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub fn find(&self, view: &mut IndexView, key: &Key) -> Result<Vec<ChainId>, StoreError> {
        if matches!(view, IndexView::Files { .. }) {
            if let Some(chains) = self.find_in_files(key) {
                return Ok(chains);
            }
            self.give_up(view);
        }
        let mut memory = self.memory();
        if memory.is_none() {
            *memory = Some(by_key(self.read_records(&BTreeMap::new())?.0));
        }
        Ok(memory.as_ref().and_then(|memory| memory.get(key)).cloned().unwrap_or_default())
    }

    /// Returns the layers with `key`; `None` if the files are damaged.
    fn find_in_files(&self, key: &Key) -> Option<Vec<ChainId>> {
        let bytes = fsutil::read_optional_bytes(&self.shard(key)).ok()?;
        let bytes = bytes.unwrap_or_default();
        let lines = bytes.strip_suffix(b"\n").or(bytes.is_empty().then_some(&[]))?;
        let prefix = key.prefix();
        let mut chains = Vec::new();
        for line in lines.split(|b| *b == b'\n').filter(|line| line.starts_with(prefix.as_bytes()))
        {
            let chain = Fact::parse(std::str::from_utf8(line).ok()?)?.chain;
            if !chains.contains(&chain) {
                chains.push(chain);
            }
        }
        Some(chains)
    }

    /// Adds a layer whose record is about to be committed. The caller holds the `commit` lock.
    pub fn add(&self, view: &mut IndexView, record: &LayerRecord) {
        let facts = Fact::of(record, None);
        if let Some(memory) = self.memory().as_mut() {
            facts.iter().for_each(|fact| insert(memory, fact));
        }
        self.append(view, &facts);
    }

    /// Removes layers whose records were removed. The caller holds the `commit` lock or the store
    /// lock in exclusive mode.
    pub fn remove(&self, view: &mut IndexView, records: &[LayerRecord]) {
        self.forget();
        let chains: HashSet<String> = records.iter().map(|record| record.chain.hex()).collect();
        let facts = records.iter().flat_map(|record| Fact::of(record, None));
        let shards: BTreeSet<String> = facts.map(|fact| fact.key.shard()).collect();
        let kept = |line: &&str| facts::chain_in(line).is_some_and(|it| !chains.contains(it));
        let rewrite = |shard: String| {
            let path = self.path(&shard);
            let lines = fsutil::read_optional(&path)?.unwrap_or_default();
            let kept: String = lines.split_inclusive('\n').filter(kept).collect();
            match kept.is_empty() {
                true => fsutil::remove(&path),
                false => replace(&path, &kept),
            }
        };
        if matches!(view, IndexView::Files { .. })
            && shards.into_iter().try_for_each(rewrite).is_err()
        {
            self.give_up(view);
        }
    }

    /// Confirms that the index is complete after the caller changed the layer db: it committed
    /// the layers `added` and removed the records of `removed` others. The caller holds the
    /// `commit` lock or the store lock in exclusive mode.
    pub fn confirm(&self, view: &mut IndexView, added: &[&LayerRecord], removed: usize) {
        let facts = added.iter().map(|record| {
            let version = Version::of(&self.layout.layer(&record.chain));
            Fact::directory(record.cache_id.clone(), record.chain, version)
        });
        self.append(view, &facts.collect::<Vec<_>>());
        let IndexView::Files { stamp: before, confirmed: true } = view else { return };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let change = count(added.len()) - count(removed);
        let now = Stamp::of(&self.layout.layers()).filter(|now| now.follows(before, change));
        match now {
            Some(now) if replace(&self.path(STAMP), &now.to_string()).is_ok() => *before = now,
            _ => self.give_up(view),
        }
    }

    fn append(&self, view: &mut IndexView, facts: &[Fact]) {
        let append = |fact: &Fact| {
            let path = self.shard(&fact.key);
            let mut file = File::options().append(true).create(true).mode(0o600).open(&path)?;
            // One call, so that no kill leaves a part of a line.
            let line = fact.to_string();
            match file.write(line.as_bytes())? {
                n if n == line.len() => Ok(()),
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        };
        if matches!(view, IndexView::Files { .. })
            && facts.iter().try_for_each(append).is_err_and(|_: io::Error| true)
        {
            self.give_up(view);
        }
    }

    /// Makes the files invalid, so that the next command rebuilds them.
    fn give_up(&self, view: &mut IndexView) {
        let _ = fs::remove_file(self.path(STAMP));
        *view = IndexView::Memory;
    }

    /// Compares the files with the layer db and completes them. The caller holds the `commit`
    /// lock.
    fn rebuild(&self) -> Result<IndexView, StoreError> {
        let layers = self.layout.layers();
        let Some(stamp) = Stamp::of(&layers) else { return Ok(IndexView::Memory) };
        let (facts, removing) = match self.known() {
            Ok(known) => self.read_records(&known)?,
            Err(_) => return Ok(IndexView::Memory),
        };
        // Another program is changing the layer db.
        if Stamp::of(&layers).as_ref() != Some(&stamp) {
            return Ok(IndexView::Memory);
        }
        let confirmed = !removing;
        let written = self.write(&facts).and_then(|()| match confirmed {
            true => replace(&self.path(STAMP), &stamp.to_string()),
            false => Ok(()),
        });
        if written.is_err() {
            *self.memory() = Some(by_key(facts));
            return Ok(IndexView::Memory);
        }
        Ok(IndexView::Files { stamp, confirmed })
    }

    /// Makes the files invalid, and returns what they contain: for each layer its latest facts.
    fn known(&self) -> Result<BTreeMap<ChainId, Known>, FsError> {
        let dir = self.layout.layer_index();
        fsutil::ensure_dir(&dir, 0o700)?;
        fsutil::remove(&self.path(STAMP))?;
        let mut known: BTreeMap<ChainId, Known> = BTreeMap::new();
        for name in fsutil::names_in(&dir)? {
            let path = dir.join(&name);
            if !is_shard(&name) {
                // A temporary file of a killed process.
                fsutil::remove(&path)?;
                continue;
            }
            for fact in parse(&fsutil::read_optional(&path)?.unwrap_or_default()) {
                known.entry(fact.chain).or_default().learn(fact);
            }
        }
        Ok(known)
    }

    /// Returns the facts of all records, and whether the layer db has partly removed ones. Reads
    /// only the records that are not `known`.
    fn read_records(
        &self,
        known: &BTreeMap<ChainId, Known>,
    ) -> Result<(Vec<Fact>, bool), StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        let removing = names.iter().any(|name| name.ends_with(REMOVING));
        let mut facts = Vec::with_capacity(names.len() * 3);
        for chain in names.iter().filter_map(|name| Digest::from_hex(name).ok()).map(ChainId) {
            let dir = self.layout.layer(&chain);
            let version = Version::of(&dir);
            if let Some(known) = known.get(&chain).and_then(|known| known.facts(chain, version)) {
                facts.extend(known);
            } else if let Some(record) = LayerRecord::read(&self.layout, &chain)? {
                facts.extend(Fact::of(&record, version));
            } else if let Some(id) = layer_record::cache_id_in(&dir)? {
                facts.push(Fact::directory(id, chain, version));
            }
        }
        Ok((facts, removing))
    }

    /// Writes the shards that differ.
    fn write(&self, facts: &[Fact]) -> Result<(), FsError> {
        let mut shards: BTreeMap<String, Vec<&Fact>> = BTreeMap::new();
        facts.iter().for_each(|fact| shards.entry(fact.key.shard()).or_default().push(fact));
        for name in fsutil::names_in(&self.layout.layer_index())? {
            if !shards.contains_key(&name) {
                fsutil::remove(&self.path(&name))?;
            }
        }
        for (name, mut facts) in shards {
            let path = self.path(&name);
            facts.sort_unstable();
            let text: String = facts.into_iter().map(Fact::to_string).collect();
            if fsutil::read_optional_bytes(&path)?.as_deref() != Some(text.as_bytes()) {
                replace(&path, &text)?;
            }
        }
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Option<HashMap<Key, Vec<ChainId>>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.layer_index().join(name)
    }

    fn shard(&self, key: &Key) -> PathBuf {
        self.path(&key.shard())
    }
}

fn by_key(facts: Vec<Fact>) -> HashMap<Key, Vec<ChainId>> {
    let mut map = HashMap::new();
    facts.iter().for_each(|fact| insert(&mut map, fact));
    map
}

fn insert(map: &mut HashMap<Key, Vec<ChainId>>, fact: &Fact) {
    let chains = map.entry(fact.key.clone()).or_default();
    if !chains.contains(&fact.chain) {
        chains.push(fact.chain);
    }
}

fn parse(text: &str) -> Vec<Fact> {
    text.lines().filter_map(Fact::parse).collect()
}

/// Replaces a file atomically, but not durably.
fn replace(path: &Path, text: &str) -> Result<(), FsError> {
    let random = fsutil::random_hex::<6>().at("write", path)?;
    let temporary = path.with_file_name(format!(".tmp-{random}"));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    let written = write().at("write", path);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
