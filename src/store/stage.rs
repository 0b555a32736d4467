//! Staged layers: a directory in `overlay2` and a write set in `layerdb/tmp`, not committed yet.
//! The name of the write set shows the state of the layer:
//!
//! ```text
//! write-set-<random>                           being unpacked by the process that staged it
//! complete-<blob>-<diff id>-<random>           unpacked and verified: any process may commit it
//! replacing-<random>                           being exchanged with a broken record, which the
//!                                              write set holds afterwards
//! ```
//!
//! Both names are hex digits without `sha256:`; `<blob>` is `copy` for a layer that was copied
//! from another chain. A commit renames the write set into `layerdb/sha256`, so a staged layer
//! exists exactly as long as its write set does.
//!
//! Any process may commit a complete layer, so each blob is fetched once: a process that waited
//! for the download of another process commits the layer that was staged there.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use super::journal::{Journal, JournalEntry};
use super::layer_record::cache_id_in;
use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use super::{lock, omitted};
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::{ChainId, DiffId};
use crate::overlay::{CacheId, LinkId, Omitted};

const UNPACKING: &str = "write-set-";
const COMPLETE: &str = "complete-";
const REPLACING: &str = "replacing-";

/// Hex digits of a cache ID at the end of the name of its write set.
const WRITE_SET_DIGITS: usize = 10;

/// A layer that this process staged. It is removed if it is dropped before any process has
/// committed it. After a kill, the next process that writes finds it in the journal.
#[derive(Debug)]
pub struct StagedLayer {
    layout: Layout,
    journal: Arc<Journal>,
    entry: JournalEntry,
}

impl StagedLayer {
    pub(super) fn new(layout: &Layout, journal: Arc<Journal>) -> Result<Self, StoreError> {
        let cache_id = CacheId::generate().map_err(StoreError::Random)?;
        let link_id = LinkId::generate().map_err(StoreError::Random)?;
        // After a power failure, names are all that tells which directory belongs to a write set.
        let random = cache_id.as_str()[..WRITE_SET_DIGITS].to_owned();
        let entry = JournalEntry { cache_id, link_id, random };
        journal.add(&entry)?;
        let staged = Self { layout: layout.clone(), journal, entry };
        fsutil::ensure_dir(&staged.write_set(), 0o700)?;
        layout.overlay().create_layer(&staged.entry.cache_id, &staged.entry.link_id)?;
        Ok(staged)
    }

    /// Returns the directory for the layer's files, initially empty.
    pub fn diff_path(&self) -> PathBuf {
        self.layout.overlay().diff(&self.entry.cache_id)
    }

    /// Creates the tar-split file, open for reading and writing.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be created.
    pub fn create_tar_split(&self) -> Result<File, StoreError> {
        let path = self.write_set().join(TAR_SPLIT);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .at("create", &path)?;
        fsutil::set_mode(&path, 0o644)?;
        Ok(file)
    }

    /// Marks the layer as unpacked and verified: its tar has the SHA-256 `diff_id`, its files have
    /// `size` bytes (as Docker counts), and `blob` unpacks to it unless it is a copy. `omitted` is what
    /// it lacks, if it was unpacked without a capability. From now on any process may commit it.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the record's files cannot be written.
    pub fn complete(
        &self,
        blob: Option<&Digest>,
        diff_id: &DiffId,
        size: u64,
        omitted: Option<&Omitted>,
    ) -> Result<(), StoreError> {
        if let Some(omitted) = omitted {
            omitted::record(&self.layout, &self.entry.cache_id, omitted)?;
        }
        let set = self.write_set();
        let put =
            |name: &str, text: String| fsutil::write_new(&set.join(name), text.as_bytes(), 0o644);
        put(DIFF, diff_id.to_string())?;
        put(SIZE, size.to_string())?;
        put(CACHE_ID, self.entry.cache_id.to_string())?;
        let blob = blob.map_or_else(|| "copy".to_owned(), Digest::hex);
        let name = format!("{COMPLETE}{blob}-{}-{}", diff_id.hex(), self.entry.random);
        let complete = self.layout.write_sets().join(name);
        Ok(fs::rename(&set, &complete).at("complete", &complete)?)
    }

    fn write_set(&self) -> PathBuf {
        unpacking(&self.layout, &self.entry)
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        // If something is left, the journal is kept for a later sweep.
        let removed = discard(&self.layout, &self.entry);
        self.journal.close_entry(matches!(removed, Ok(true)));
    }
}

/// A complete staged layer of any process.
pub(super) struct CompleteLayer {
    /// The directory of its write set.
    pub path: PathBuf,
    /// The blob that unpacks to it; `None` for a copy.
    pub blob: Option<Digest>,
    /// The SHA-256 of its tar.
    pub diff_id: DiffId,
}

/// Returns all complete staged layers.
///
/// # Errors
/// [`FsError`] if the directory cannot be listed.
pub(super) fn all_complete(layout: &Layout) -> Result<Vec<CompleteLayer>, FsError> {
    let dir = layout.write_sets();
    let parse = |name: &String| {
        let mut parts = name.strip_prefix(COMPLETE)?.split('-');
        let blob = Digest::from_hex(parts.next()?).ok();
        let diff_id = DiffId(Digest::from_hex(parts.next()?).ok()?);
        Some(CompleteLayer { path: dir.join(name), blob, diff_id })
    };
    Ok(fsutil::names_in(&dir)?.iter().filter_map(parse).collect())
}

/// Returns the beginning of the cache ID of a write set, by its name.
pub(super) fn directory_prefix(name: &str) -> Option<&str> {
    let known = is_write_set(name);
    let digits = name.rsplit('-').next().filter(|digits| digits.len() == WRITE_SET_DIGITS)?;
    (known && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

fn is_write_set(name: &str) -> bool {
    [UNPACKING, COMPLETE, REPLACING].iter().any(|state| name.starts_with(state))
}

/// Renames the write set of a complete layer, so that its process can exchange it with a broken record
/// and no process can commit that record after a kill. Returns the new path.
///
/// # Errors
/// [`FsError`] if it cannot be renamed.
pub(super) fn withdraw_to_replace(layout: &Layout, set: &Path) -> Result<PathBuf, FsError> {
    let name = set.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let random = name.rsplit('-').next().unwrap_or_default();
    let replacing = layout.write_sets().join(format!("{REPLACING}{random}"));
    fs::rename(set, &replacing).at("withdraw", set)?;
    Ok(replacing)
}

/// Returns the write set of a committed layer that holds the record which the layer replaced, if a
/// process was killed before it removed that.
///
/// # Errors
/// [`FsError`] if the write sets cannot be read.
pub(super) fn replaced_record(
    layout: &Layout,
    entry: &JournalEntry,
) -> Result<Option<PathBuf>, FsError> {
    let replacing = layout.write_sets().join(format!("{REPLACING}{}", entry.random));
    let exchanged =
        replacing.exists() && cache_id_in(&replacing)?.as_ref() != Some(&entry.cache_id);
    Ok(exchanged.then_some(replacing))
}

/// Removes a staged layer, unless it is committed. After its write set is renamed back, no
/// process can commit it, so its files are removed without the lock. Returns false if a record that
/// the layer replaced is left, which [`Layers::finish_replacement`](super::layers::Layers) removes.
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be removed; the write set then stays.
pub(super) fn discard(layout: &Layout, entry: &JournalEntry) -> Result<bool, StoreError> {
    // The layer is already committed or removed.
    if write_set_of(layout, &entry.random)?.is_none() {
        return Ok(true);
    }
    let unpacking = unpacking(layout, entry);
    let parent = {
        let _commit = lock::commit_lock(layout)?;
        let Some(set) = write_set_of(layout, &entry.random)? else { return Ok(true) };
        if replaced_record(layout, entry)?.is_some() {
            return Ok(false);
        }
        give_back_link(layout, entry, &set)?;
        if set != unpacking {
            fs::rename(&set, &unpacking).at("withdraw", &set)?;
        }
        parent_of(layout, &entry.cache_id)
    };
    let overlay = layout.overlay();
    overlay.remove_layer(&entry.cache_id, Some(&entry.link_id))?;
    omitted::forget(layout, &entry.cache_id)?;
    // `lower` is written only just before the commit, together with the parent's mark.
    if let Some(parent) = parent {
        let _commit = lock::commit_lock(layout)?;
        if !has_child(layout, &parent) {
            overlay.uncommit(&parent)?;
        }
    }
    fsutil::remove(&unpacking)?;
    Ok(true)
}

/// Points the link that a staged layer took over from a broken layer to that layer again, so that
/// the layers above stay mounted as they were.
fn give_back_link(layout: &Layout, entry: &JournalEntry, set: &Path) -> Result<(), FsError> {
    let overlay = layout.overlay();
    let Some(link) = overlay.link(&entry.cache_id)?.filter(|link| *link != entry.link_id) else {
        return Ok(());
    };
    let digest = |name: &str| -> Result<Option<Digest>, FsError> {
        Ok(fsutil::read_optional(&set.join(name))?.and_then(|text| text.parse().ok()))
    };
    let Some(diff_id) = digest(DIFF)?.map(DiffId) else { return Ok(()) };
    let chain = ChainId::above(digest(PARENT)?.map(ChainId), diff_id);
    match cache_id_in(&layout.layer(&chain))? {
        Some(broken) if overlay.diff(&broken).is_dir() => overlay.point_link(&link, &broken),
        _ => Ok(()),
    }
}

/// Returns the write set of a layer that is being unpacked or discarded.
fn unpacking(layout: &Layout, entry: &JournalEntry) -> PathBuf {
    layout.write_sets().join(format!("{UNPACKING}{}", entry.random))
}

fn write_set_of(layout: &Layout, random: &str) -> Result<Option<PathBuf>, FsError> {
    let dir = layout.write_sets();
    let ours = |name: &String| is_write_set(name) && name.rsplit('-').next() == Some(random);
    Ok(fsutil::names_in(&dir)?.into_iter().find(ours).map(|name| dir.join(name)))
}

fn parent_of(layout: &Layout, id: &CacheId) -> Option<CacheId> {
    let overlay = layout.overlay();
    overlay.layer_at(&overlay.lower_links(id).ok()?.into_iter().next()?)
}

/// Returns whether `parent` is the parent of any layer in `overlay2`, committed or not.
fn has_child(layout: &Layout, parent: &CacheId) -> bool {
    let overlay = layout.overlay();
    let Ok(Some(link)) = overlay.link(parent) else { return true };
    let is_child =
        |id: &CacheId| overlay.lower_links(id).is_ok_and(|lower| lower.first() == Some(&link));
    overlay.all().map_or(true, |ids| ids.iter().any(is_child))
}

/// Returns the size in the record in `dir`, bytes.
///
/// # Errors
/// [`FsError`] if the file cannot be read.
pub(super) fn size_in(dir: &Path) -> Result<Option<u64>, FsError> {
    Ok(fsutil::read_optional(&dir.join(SIZE))?.and_then(|text| text.parse().ok()))
}
