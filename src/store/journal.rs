//! What is staged, and by whom. A journal is a file that its process holds locked; each
//! line names one staged layer:
//!
//! ```text
//! <cache id> <link id> write-set-<random>\n
//! ```
//!
//! A journal that nobody holds belongs to a process that died. What it names, and no
//! committed layer owns, is swept.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::StoreError;
use super::layers::{LayerRecord, Layers};
use super::layout::Layout;
use crate::fsutil::{self, At, FsError};
use crate::overlay::{CacheId, LinkId};

/// A staged layer that may have been left over.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// Its directory.
    pub cache_id: CacheId,
    /// Its symlink.
    pub link_id: LinkId,
    /// Its write set's name.
    pub write_set: String,
}

impl Leftover {
    /// Removes all of it.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn remove(&self, layout: &Layout) -> Result<(), FsError> {
        let overlay = layout.overlay();
        let parent = self.parent(layout);
        fsutil::remove(&layout.write_sets().join(&self.write_set))?;
        overlay.remove_layer(&self.cache_id, Some(&self.link_id))?;
        // `lower` was written: its parent was marked as having a child.
        match parent.filter(|parent| !has_child(layout, parent)) {
            Some(parent) => overlay.uncommit(&parent),
            None => Ok(()),
        }
    }

    fn parent(&self, layout: &Layout) -> Option<CacheId> {
        let lower = layout.overlay().lower(&self.cache_id).ok()?;
        let link = lower.split(':').next()?.strip_prefix("l/")?.parse().ok()?;
        layout.overlay().behind(&link)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (cache, link, set) = (words.next()?, words.next()?, words.next()?);
        let plain = set.starts_with("write-set-") && !set.contains('/');
        let write_set = plain.then(|| set.to_owned())?;
        Some(Self { cache_id: cache.parse().ok()?, link_id: link.parse().ok()?, write_set })
    }
}

/// Whether any layer of `overlay2`, committed, staged or dockerd's, stands on `parent`.
fn has_child(layout: &Layout, parent: &CacheId) -> bool {
    let overlay = layout.overlay();
    let Ok(link) = overlay.link(parent) else { return true };
    let above = format!("l/{link}");
    let stands =
        |id: &CacheId| overlay.lower(id).is_ok_and(|lower| lower.split(':').next() == Some(&above));
    overlay.cache_ids().map_or(true, |ids| ids.iter().any(stands))
}

/// This process's journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    open: usize,
    left_over: bool,
}

impl Journal {
    /// Starts a journal.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn start(layout: &Layout) -> Result<Self, StoreError> {
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let path = layout.journals().join(format!("{}-{random}", std::process::id()));
        // A sweeper that sees the file before it is locked finds it empty, and may take it
        // away; the lines then go to a file without a name, and a crash in that moment
        // leaves rubbish but never a wrong layer. So: a hidden name until it is locked.
        let hidden = layout.journals().join(format!(".{random}"));
        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&hidden)
            .at("create", &hidden)?;
        file.lock().at("lock", &hidden)?;
        fs::rename(&hidden, &path).at("create", &path)?;
        let state = Mutex::new(State { file, open: 0, left_over: false });
        Ok(Self { path, state })
    }

    pub(super) fn add(&self, staged: &Leftover) -> Result<(), StoreError> {
        let line = format!("{} {} {}\n", staged.cache_id, staged.link_id, staged.write_set);
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.file.write_all(line.as_bytes()).at("write", &self.path)?;
        state.file.sync_data().at("sync", &self.path)?;
        state.open += 1;
        Ok(())
    }

    pub(super) fn settle(&self, clean: bool) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.open -= 1;
        state.left_over |= !clean;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.open == 0 && !state.left_over {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what dead processes left. The number of layers swept.
///
/// # Errors
/// [`StoreError::Fs`].
pub fn sweep(layout: &Layout, layers: &Layers) -> Result<usize, StoreError> {
    let mut swept = 0;
    let mut committed: Option<HashSet<CacheId>> = None;
    for name in fsutil::names_in(&layout.journals())?.iter().filter(|name| !name.starts_with('.')) {
        let path = layout.journals().join(name);
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path)?,
        }
        let text = fs::read_to_string(&path).at("read", &path)?;
        let known = match &committed {
            Some(known) => known,
            None => committed.insert(cache_ids(layers.list()?)),
        };
        for leftover in text.lines().filter_map(Leftover::parse) {
            let there = layout.overlay().dir(&leftover.cache_id).exists()
                || layout.write_sets().join(&leftover.write_set).exists();
            if there && !known.contains(&leftover.cache_id) {
                leftover.remove(layout)?;
                swept += 1;
            }
        }
        fsutil::remove(&path)?;
    }
    Ok(swept)
}

fn cache_ids(records: Vec<LayerRecord>) -> HashSet<CacheId> {
    records.into_iter().map(|record| record.cache_id).collect()
}
