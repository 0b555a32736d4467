//! An index of the layer db and the image db, so that the cost of a command does not depend on the
//! number of layers and images in the store.
//!
//! ```text
//! <root>/rpull/layer-index/stamp      the state of both for which the index is complete
//! <root>/rpull/layer-index/<3 hex>    the facts whose key begins with these digits (see `facts`)
//! ```
//!
//! A fact about a layer is only a hint where to look: every layer that is found is verified by
//! reading its record, and `stamp` tells whether layers can be missing. Facts about an image are
//! used as they are: its layers follow from its ID. The index is written under the `commit` lock:
//! first the facts about a new layer or image, then its record, then the stamp. After a kill at any
//! step, and after any change by another program, the stamp does not match the two databases. Then
//! the index is rebuilt: the names in them are compared with the facts, and only the records that are
//! new or were replaced are read (`rebuild`). Nothing is synced; the stamp contains the boot ID, so
//! nothing that was written before a power failure is used without this comparison.
//!
//! Where the index cannot be written, such as on a read-only root, the records are read into
//! memory instead. What the index does not notice is a file that is edited in place.

mod facts;
mod known;
mod rebuild;
mod stamp;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::StoreError;
use super::layer_record::LayerRecord;
use super::layout::Layout;
use super::lock;
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::{ChainId, ImageId};

pub(super) use facts::Key;

use facts::{Detail, Fact, Total, Version};
use known::Known;
use stamp::Stamp;

/// Bytes of a shard at most.
const MAX_SHARD_SIZE: u64 = 64 << 20;

const STAMP: &str = "stamp";

/// The end of a record's name while it is being removed.
pub(super) const REMOVING: &str = "-removing";

/// The index of one root.
#[derive(Debug)]
pub(super) struct LayerIndex {
    layout: Layout,
    /// What the facts lead to, where the files cannot be used.
    memory: Mutex<Option<HashMap<Key, Vec<Digest>>>>,
}

/// The index as it is at one moment. Only the holder of the `commit` lock may use it after
/// changing the layer db.
#[derive(Debug)]
pub(super) enum IndexView {
    /// The files are complete for this state. Without `confirmed`, they have no
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
        let stamp = Stamp::of(&self.layout)?;
        let confirmed = stamp.is_in(&self.path(STAMP));
        confirmed.then_some(IndexView::Files { stamp, confirmed })
    }

    /// Returns the layers that may have `key`, for the caller to verify.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub fn find(&self, view: &mut IndexView, key: &Key) -> Result<Vec<ChainId>, StoreError> {
        Ok(self.values(view, key)?.into_iter().map(ChainId).collect())
    }

    /// Returns the images that have the layer `chain`, in any position.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub fn users(&self, view: &mut IndexView, chain: &ChainId) -> Result<Vec<ImageId>, StoreError> {
        let ids = self.values(view, &Key::User(*chain))?.into_iter().map(ImageId);
        // A process was killed before it wrote the image, or while it removed it.
        Ok(ids.filter(|id| self.layout.image(id).exists()).collect())
    }

    /// Returns the sum of the sizes of an image's layers, bytes; `None` if it is unknown. Then a
    /// layer can be missing.
    pub fn size(&self, view: &IndexView, id: &ImageId) -> Option<u64> {
        let IndexView::Files { .. } = view else { return None };
        let total = self.facts_in_files(&Key::Total(*id))?.pop()?;
        match total.detail {
            Detail::Total(Total { bytes, .. }) => Some(bytes),
            Detail::None | Detail::Version(_) => None,
        }
    }

    fn values(&self, view: &mut IndexView, key: &Key) -> Result<Vec<Digest>, StoreError> {
        if matches!(view, IndexView::Files { .. }) {
            if let Some(facts) = self.facts_in_files(key) {
                let mut values: Vec<Digest> = facts.into_iter().map(|fact| fact.value).collect();
                values.sort_unstable();
                values.dedup();
                return Ok(values);
            }
            self.give_up(view);
        }
        let mut memory = self.memory();
        if memory.is_none() {
            *memory = Some(by_key(self.read(&Known::default())?.facts));
        }
        Ok(memory.as_ref().and_then(|memory| memory.get(key)).cloned().unwrap_or_default())
    }

    /// Returns the facts with `key`; `None` if the files are damaged.
    fn facts_in_files(&self, key: &Key) -> Option<Vec<Fact>> {
        let bytes = fsutil::read_optional_bytes(&self.shard(key), MAX_SHARD_SIZE).ok()?;
        let bytes = bytes.unwrap_or_default();
        let lines = bytes.strip_suffix(b"\n").or(bytes.is_empty().then_some(&[]))?;
        let prefix = key.prefix();
        let lines = lines.split(|b| *b == b'\n').filter(|line| line.starts_with(prefix.as_bytes()));
        lines.map(|line| Fact::parse(std::str::from_utf8(line).ok()?)).collect()
    }

    /// Adds a layer whose record is about to be committed. The caller holds the `commit` lock.
    pub fn add(&self, view: &mut IndexView, record: &LayerRecord) {
        self.add_facts(view, &Fact::of(record, None));
    }

    /// Adds an image whose config is about to be written. All its layers, base first, are committed.
    /// The caller holds the `commit` lock.
    pub fn add_image(&self, view: &mut IndexView, id: ImageId, layers: &[LayerRecord]) {
        if self.size(view, &id).is_some() {
            return;
        }
        let chains: Vec<ChainId> = layers.iter().map(|record| record.chain).collect();
        let bytes = layers.iter().fold(0, |sum: u64, record| sum.saturating_add(record.size));
        self.add_facts(view, &Fact::of_image(id, &chains, Some(bytes)));
    }

    fn add_facts(&self, view: &mut IndexView, facts: &[Fact]) {
        if let Some(memory) = self.memory().as_mut() {
            facts.iter().for_each(|fact| insert(memory, fact));
        }
        self.append(view, facts);
    }

    /// Removes layers whose records were removed. The caller holds the `commit` lock or the store
    /// lock in exclusive mode.
    pub fn remove(&self, view: &mut IndexView, records: &[LayerRecord]) {
        let facts: Vec<Fact> = records.iter().flat_map(|record| Fact::of(record, None)).collect();
        self.remove_facts(view, &facts);
    }

    /// Removes an image with the layers `chains` whose config was removed. The caller holds the
    /// `commit` lock or the store lock in exclusive mode.
    pub fn remove_image(&self, view: &mut IndexView, id: ImageId, chains: &[ChainId]) {
        self.remove_facts(view, &Fact::of_image(id, chains, Some(0)));
    }

    /// Removes the lines with the keys and values of `facts`.
    fn remove_facts(&self, view: &mut IndexView, facts: &[Fact]) {
        self.forget();
        let shards: BTreeSet<String> = facts.iter().map(|fact| fact.key.shard()).collect();
        let gone: HashSet<String> =
            facts.iter().map(|fact| format!("{}{}", fact.key.prefix(), fact.value.hex())).collect();
        let kept =
            |line: &&str| facts::words_in(line).is_some_and(|it| !gone.contains(&it.join(" ")));
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

    /// Confirms that the index is complete after the caller changed the image db or the layer db: it
    /// committed the layers `added` and removed the records of `removed` others. The caller holds
    /// the `commit` lock or the store lock in exclusive mode.
    pub fn confirm(&self, view: &mut IndexView, added: &[&LayerRecord], removed: usize) {
        let facts = added.iter().map(|record| {
            let version = Version::of(&self.layout.layer(&record.chain));
            Fact::directory(record.cache_id.clone(), record.chain, version)
        });
        self.append(view, &facts.collect::<Vec<_>>());
        let IndexView::Files { stamp: before, confirmed: true } = view else { return };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let change = count(added.len()) - count(removed);
        let now = Stamp::of(&self.layout).filter(|now| now.follows(before, change));
        match now {
            Some(now) if replace(&self.path(STAMP), &now.to_string()).is_ok() => *before = now,
            _ => self.give_up(view),
        }
    }

    fn append(&self, view: &mut IndexView, facts: &[Fact]) {
        let append = |fact: &Fact| {
            let path = self.shard(&fact.key);
            let mut options = File::options();
            // A FIFO would block, and a device take the line.
            let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
            options.append(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
            let mut file = options.open(&path)?;
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
        let _ = fsutil::remove(&self.path(STAMP));
        *view = IndexView::Memory;
    }

    fn memory(&self) -> MutexGuard<'_, Option<HashMap<Key, Vec<Digest>>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.layer_index().join(name)
    }

    fn shard(&self, key: &Key) -> PathBuf {
        self.path(&key.shard())
    }
}

fn by_key(facts: Vec<Fact>) -> HashMap<Key, Vec<Digest>> {
    let mut map = HashMap::new();
    facts.iter().for_each(|fact| insert(&mut map, fact));
    map
}

fn insert(map: &mut HashMap<Key, Vec<Digest>>, fact: &Fact) {
    let values = map.entry(fact.key.clone()).or_default();
    if !values.contains(&fact.value) {
        values.push(fact.value);
    }
}

/// Replaces a file atomically, but not durably.
fn replace(path: &Path, text: &str) -> Result<(), FsError> {
    let random = fsutil::random_hex::<6>().at("write", path)?;
    let temporary = path.with_file_name(format!(".tmp-{random}"));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fsutil::rename_over(&temporary, path)
    };
    let written = write().at("write", path);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
