//! Staged layers: a directory in `overlay2` and a write set in `layerdb/tmp` that no record
//! refers to yet. The name of the write set tells how far the layer has come:
//!
//! ```text
//! write-set-<random>                           being unpacked by the process that staged it
//! complete-<blob>-<diff id>-<random>           unpacked and verified: any process may commit it
//! ```
//!
//! Both names are hex digits without `sha256:`; `<blob>` is `copy` for a layer that was copied
//! from another chain. Committing renames the write set into `layerdb/sha256`, so a staged
//! layer exists exactly as long as its write set does.
//!
//! A complete layer belongs to all processes, so that each blob is fetched once: a process
//! that waited for another one's download commits what that one staged.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use super::journal::{Entry, Journal};
use super::layout::{CACHE_ID, DIFF, Layout, SIZE, TAR_SPLIT};
use super::lock;
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::DiffId;
use crate::overlay::{CacheId, LinkId};

const UNPACKING: &str = "write-set-";
const COMPLETE: &str = "complete-";

/// A layer that this process staged. Dropped before anyone committed it, it is removed; a
/// process that is killed leaves it to the next one that writes, which finds it in the journal.
#[derive(Debug)]
pub struct Staged {
    layout: Layout,
    journal: Arc<Journal>,
    entry: Entry,
}

impl Staged {
    pub(super) fn new(layout: &Layout, journal: Arc<Journal>) -> Result<Self, StoreError> {
        let cache_id = CacheId::generate().map_err(StoreError::Random)?;
        let link_id = LinkId::generate().map_err(StoreError::Random)?;
        let random = fsutil::random_hex::<5>().map_err(StoreError::Random)?;
        let entry = Entry { cache_id, link_id, random };
        journal.add(&entry)?;
        let staged = Self { layout: layout.clone(), journal, entry };
        fsutil::ensure_dir(&staged.write_set(), 0o700)?;
        layout.overlay().create_layer(&staged.entry.cache_id, &staged.entry.link_id)?;
        Ok(staged)
    }

    /// The directory for the layer's files, empty at first.
    pub fn diff_path(&self) -> PathBuf {
        self.layout.overlay().diff(&self.entry.cache_id)
    }

    /// Makes the empty tar-split file, readable and writable.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
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

    /// Declares that the layer is unpacked and verified: its tar has the sha256 `diff_id`, its
    /// files have `size` bytes (Docker's count), and `blob` unpacks to it unless it is a copy.
    /// From now on any process may commit it.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the record's files cannot be written.
    pub fn complete(
        &self,
        blob: Option<&Digest>,
        diff_id: &DiffId,
        size: u64,
    ) -> Result<(), StoreError> {
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

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now stays in the journal, and the journal stays.
        let clean = give_up(&self.layout, &self.entry).is_ok();
        self.journal.settle(clean);
    }
}

/// A complete staged layer of any process.
pub(super) struct Complete {
    /// Its write set.
    pub path: PathBuf,
    /// The blob that unpacks to it; `None` for a copy.
    pub blob: Option<Digest>,
    /// The sha256 of its tar.
    pub diff_id: DiffId,
}

/// All complete staged layers.
///
/// # Errors
/// [`FsError`] if the directory cannot be listed.
pub(super) fn all_complete(layout: &Layout) -> Result<Vec<Complete>, FsError> {
    let dir = layout.write_sets();
    let parse = |name: &String| {
        let mut parts = name.strip_prefix(COMPLETE)?.split('-');
        let blob = Digest::from_hex(parts.next()?).ok();
        let diff_id = DiffId(Digest::from_hex(parts.next()?).ok()?);
        Some(Complete { path: dir.join(name), blob, diff_id })
    };
    Ok(fsutil::names_in(&dir)?.iter().filter_map(parse).collect())
}

/// Removes a staged layer, unless it is committed. No process can commit it
/// once its write set has its first name again, so its files are removed without the lock.
///
/// # Errors
/// [`StoreError::Fs`]; the write set then stays.
pub(super) fn give_up(layout: &Layout, entry: &Entry) -> Result<(), StoreError> {
    // Once committed or removed, it stays so.
    if write_set_of(layout, &entry.random)?.is_none() {
        return Ok(());
    }
    let unpacking = unpacking(layout, entry);
    let parent = {
        let _commit = lock::commit(layout)?;
        let Some(set) = write_set_of(layout, &entry.random)? else { return Ok(()) };
        if set != unpacking {
            fs::rename(&set, &unpacking).at("withdraw", &set)?;
        }
        parent_of(layout, &entry.cache_id)
    };
    let overlay = layout.overlay();
    overlay.remove_layer(&entry.cache_id, Some(&entry.link_id))?;
    // `lower` is written only just before the commit, together with the parent's mark.
    if let Some(parent) = parent {
        let _commit = lock::commit(layout)?;
        if !has_child(layout, &parent) {
            overlay.uncommit(&parent)?;
        }
    }
    Ok(fsutil::remove(&unpacking)?)
}

/// The write set of a layer that is being unpacked or given up.
fn unpacking(layout: &Layout, entry: &Entry) -> PathBuf {
    layout.write_sets().join(format!("{UNPACKING}{}", entry.random))
}

fn write_set_of(layout: &Layout, random: &str) -> Result<Option<PathBuf>, FsError> {
    let dir = layout.write_sets();
    let ours = |name: &String| {
        let known = name.starts_with(UNPACKING) || name.starts_with(COMPLETE);
        known && name.rsplit('-').next() == Some(random)
    };
    Ok(fsutil::names_in(&dir)?.into_iter().find(ours).map(|name| dir.join(name)))
}

fn parent_of(layout: &Layout, id: &CacheId) -> Option<CacheId> {
    let overlay = layout.overlay();
    overlay.layer_at(&overlay.lower_links(id).ok()?.into_iter().next()?)
}

/// Whether any layer in `overlay2`, committed, staged or dockerd's, stands on `parent`.
fn has_child(layout: &Layout, parent: &CacheId) -> bool {
    let overlay = layout.overlay();
    let Ok(Some(link)) = overlay.link(parent) else { return true };
    let stands_on =
        |id: &CacheId| overlay.lower_links(id).is_ok_and(|lower| lower.first() == Some(&link));
    overlay.all().map_or(true, |ids| ids.iter().any(stands_on))
}

/// The cache id that the record in `dir` names.
///
/// # Errors
/// [`FsError`] if the file cannot be read.
pub(super) fn cache_id_in(dir: &Path) -> Result<Option<CacheId>, FsError> {
    Ok(fsutil::read_optional(&dir.join(CACHE_ID))?.and_then(|text| text.parse().ok()))
}

/// The size that the record in `dir` states, bytes.
///
/// # Errors
/// [`FsError`] if the file cannot be read.
pub(super) fn size_in(dir: &Path) -> Result<Option<u64>, FsError> {
    Ok(fsutil::read_optional(&dir.join(SIZE))?.and_then(|text| text.parse().ok()))
}
