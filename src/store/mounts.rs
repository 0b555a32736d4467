//! The directories of writable mounts:
//!
//! ```text
//! rpull/mounts/<16 hex digits>/   0700  locked while `mount --rw` creates and mounts it
//!     upper/                      0755  the changes
//!     work/                       0700  overlayfs's; not empty once it was mounted
//!     image                 file  0600  MountRecord: its name, and what it is based on
//! rpull/mounts/<16 hex digits>-discarded/   changes that are being removed
//! ```
//!
//! The next command that writes removes what a killed process left: a directory that was never
//! mounted, one without changes that is mounted nowhere, and the rest of discarded changes. A mount
//! whose name the user chose stays without changes, too, once it was mounted. Changes themselves are only
//! removed when the user says so: `upper` is removed with rmdir(2).
//!
//! A directory is locked (flock) in exclusive mode by a process that mounts or removes it, and in shared
//! mode by one that reads its changes. Its record is written under the `commit` lock, which makes names
//! unique.

mod run;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::StoreError;
use super::layout::Layout;
use super::lock;
use super::mount_name;
use super::mount_record::{MountRecord, now};
use crate::fsutil::{self, At, Durability, is_at, is_same};
use crate::overlay;

pub use run::stale;

const UPPER: &str = "upper";
const WORK: &str = "work";
const IMAGE: &str = "image";
const DISCARDED: &str = "-discarded";

/// The directory of a writable mount, locked to mount it. When dropped, a new one is removed unless it
/// was mounted.
#[derive(Debug)]
pub struct MountDir {
    path: PathBuf,
    record: MountRecord,
    is_new: bool,
    lock: File,
}

impl MountDir {
    /// Creates the directory with its record, whose name is `None` for a generated one.
    ///
    /// # Errors
    /// [`StoreError::MountName`] if it is not a name, [`StoreError::MountNameTaken`] if another mount has it,
    /// [`StoreError`] if the directory cannot be created.
    pub fn create(layout: &Layout, mut record: MountRecord) -> Result<Self, StoreError> {
        record.keep = record.name.is_some();
        record.created = Some(now());
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let path = layout.mounts().join(random);
        let dir = {
            // A sweep must not remove the directory before it is locked, and no other process may choose
            // the same name.
            let _commit = lock::commit_lock(layout)?;
            record.name = Some(unique_name(layout, record.name)?);
            fsutil::ensure_dir(&path, 0o700)?;
            let lock = File::open(&path).at("open", &path)?;
            lock.lock().at("lock", &path)?;
            let dir = Self { path, record, is_new: true, lock };
            dir.write(layout, &dir.record, Durability::Synced)?;
            dir
        };
        fsutil::ensure_dir(&dir.upper(), 0o755)?;
        fsutil::ensure_dir(&dir.work(), 0o700)?;
        Ok(dir)
    }

    fn write(
        &self,
        layout: &Layout,
        record: &MountRecord,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_vec(record).unwrap_or_default();
        Ok(layout.temporary().replace(&self.path.join(IMAGE), &text, 0o600, durability)?)
    }

    /// Records that it was mounted at `target`. A failure is ignored, because the mount is there: only
    /// the list of mounts then lacks the place.
    pub fn record_mount(&self, layout: &Layout, target: &Path) {
        let mut record = self.record.clone();
        record.mounted = Some(now());
        record.target = Some(target.to_string_lossy().into_owned());
        let _ = self.write(layout, &record, Durability::Unsynced);
    }

    /// Returns the record.
    pub fn record(&self) -> &MountRecord {
        &self.record
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.record.name.as_deref().unwrap_or_default()
    }

    /// Returns the directory of changes.
    pub fn upper(&self) -> PathBuf {
        self.path.join(UPPER)
    }

    /// Returns overlayfs's work directory.
    pub fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }
}

impl Drop for MountDir {
    fn drop(&mut self) {
        // A program can have mounted it by itself: then `work` is not empty.
        if self.is_new && is_empty(&self.upper()) && is_empty(&self.work()) {
            let _ = remove_without_changes(&self.path);
        }
    }
}

/// Returns `name` if no mount has it, or a new name. The caller holds the `commit` lock.
fn unique_name(layout: &Layout, name: Option<String>) -> Result<String, StoreError> {
    let all = KeptDir::all(layout)?;
    let holder = |name: &str| all.iter().find(|kept| kept.name() == name);
    let Some(name) = name else {
        return mount_name::generate(|name| holder(name).is_some());
    };
    mount_name::check(&name)?;
    match holder(&name) {
        None => Ok(name),
        Some(kept) => {
            let image = kept.record().map(|record| record.image);
            Err(StoreError::MountNameTaken { name, image })
        }
    }
}

/// A directory of changes that an earlier command created.
#[derive(Debug)]
pub struct KeptDir {
    path: PathBuf,
}

/// Whether a mount in another mount namespace counts as a use. A process that has a namespace of its own,
/// such as that of `unshare -m`, keeps a copy of each mount that it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It does.
    Counts,
    /// It does not: it is a copy of a mount that was just unmounted here, or the user said so.
    Ignored,
}

/// A directory of changes, locked for reading: no other process removes it or mounts it again.
#[derive(Debug)]
pub struct SharedDir {
    /// The directory.
    pub kept: KeptDir,
    /// Its record.
    pub record: Box<MountRecord>,
    _lock: File,
}

impl KeptDir {
    /// Returns all of them.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be listed.
    pub fn all(layout: &Layout) -> Result<Vec<Self>, StoreError> {
        let names = fsutil::names_in(&layout.mounts())?;
        let dirs = names.iter().filter(|name| is_random(name));
        Ok(dirs.map(|name| Self { path: layout.mounts().join(name) }).collect())
    }

    /// Returns the one whose changes are in `upper`, a path that may have another beginning: it is
    /// the one that the mounting process used.
    pub fn of_upper(layout: &Layout, upper: &Path) -> Option<Self> {
        let name = name_of(upper)?;
        let path = layout.mounts().join(name);
        let kept = Self { path };
        let is_other = upper.is_absolute() && upper.exists() && !is_same(upper, &kept.upper());
        (kept.path.is_dir() && !is_other).then_some(kept)
    }

    /// Returns the one at `path`, which is its directory or its directory of changes.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be listed.
    pub fn at(layout: &Layout, path: &Path) -> Result<Option<Self>, StoreError> {
        let all = Self::all(layout)?;
        Ok(all.into_iter().find(|kept| is_same(&kept.path, path) || is_same(&kept.upper(), path)))
    }

    /// Returns the one with a name.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be listed.
    pub fn named(layout: &Layout, name: &str) -> Result<Option<Self>, StoreError> {
        Ok(Self::all(layout)?.into_iter().find(|kept| kept.name() == name))
    }

    /// Returns the directory of changes.
    pub fn upper(&self) -> PathBuf {
        self.path.join(UPPER)
    }

    /// Returns overlayfs's work directory.
    pub fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// Returns the record; `None` if it is missing or damaged.
    pub fn record(&self) -> Option<MountRecord> {
        MountRecord::read(&self.path.join(IMAGE))
    }

    /// Returns the name. One of an earlier version without a name has that of its directory.
    pub fn name(&self) -> String {
        let recorded = self.record().and_then(|record| record.name);
        recorded.unwrap_or_else(|| self.id())
    }

    fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.upper())
    }

    /// Returns whether it is one of `uppers`, as a mounting process named them.
    pub fn is_among(&self, uppers: &[PathBuf]) -> bool {
        let id = self.id();
        uppers.iter().any(|upper| name_of(upper) == Some(&id))
    }

    /// Locks it for reading. Waits for a process that is mounting it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMount`] if another process removed it, [`StoreError::Damaged`] if its record is
    /// missing or damaged.
    pub fn share(self) -> Result<SharedDir, StoreError> {
        let name = self.name();
        let gone = || StoreError::NoSuchMount(name.clone());
        let dir = open_dir(&self.path)?.ok_or_else(gone)?;
        lock::wait(&|_| {}, || match dir.try_lock_shared() {
            Ok(()) => Ok(Ok(())),
            Err(fs::TryLockError::WouldBlock) => Ok(Err(name.clone())),
            Err(fs::TryLockError::Error(e)) => Err(e).at("lock", &self.path)?,
        })?;
        if !is_at(&dir, &self.path) {
            return Err(gone());
        }
        let record = Box::new(self.readable_record()?);
        Ok(SharedDir { kept: self, record, _lock: dir })
    }

    /// Locks it to mount it again.
    ///
    /// # Errors
    /// [`StoreError::MountInUse`] if it is mounted or another process uses it, [`StoreError::Damaged`] if its
    /// record is missing or damaged.
    pub fn mount_again(self) -> Result<MountDir, StoreError> {
        let lock = self.lock_unmounted("mount", Elsewhere::Counts)?;
        let mut record = self.readable_record()?;
        record.name = Some(self.name());
        // overlayfs of a killed process, or of a machine that stopped, may have left files.
        fsutil::ensure_dir(&self.work(), 0o700)?;
        fsutil::ensure_dir(&self.upper(), 0o755)?;
        Ok(MountDir { path: self.path, record, is_new: false, lock })
    }

    fn readable_record(&self) -> Result<MountRecord, StoreError> {
        let why = || "the record of a writable mount is missing or malformed".to_owned();
        let path = self.path.join(IMAGE);
        self.record().ok_or_else(|| StoreError::Damaged { path, why: why() })
    }

    /// Locks it to `act` on it while it is mounted nowhere.
    fn lock_unmounted(&self, act: &'static str, elsewhere: Elsewhere) -> Result<File, StoreError> {
        let name = self.name();
        let in_use = |why: String| StoreError::MountInUse { act, name: name.clone(), why };
        let Some(dir) = open_dir(&self.path)? else {
            return Err(StoreError::NoSuchMount(name));
        };
        if dir.try_lock().is_err() {
            return Err(in_use(format!("{} uses it", lock::holder(&self.path))));
        }
        if !is_at(&dir, &self.path) {
            return Err(StoreError::NoSuchMount(name));
        }
        if let Some(at) = self.targets()?.first() {
            return Err(in_use(format!("it is mounted at {}", at.display())));
        }
        if elsewhere == Elsewhere::Counts && self.is_among(&overlay::uppers_everywhere().0) {
            return Err(in_use("it is mounted in another mount namespace".to_owned()));
        }
        Ok(dir)
    }

    /// Returns the directories where this process sees it mounted.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if /proc cannot be read.
    pub fn targets(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mounts = overlay::mounts().at("list mounts of", &self.path)?;
        let own = mounts.into_iter().filter(|mount| {
            let upper = mount.overlay_dirs().and_then(|dirs| dirs.upper);
            upper.is_some_and(|upper| self.is_among(&[upper]))
        });
        Ok(own.map(|mount| mount.target).collect())
    }

    /// Removes the directory, which was just unmounted, if it has no changes and nothing uses it, unless the
    /// user chose its name. Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn remove_if_unneeded(&self) -> Result<bool, StoreError> {
        if !self.is_empty() || self.is_wanted() {
            return Ok(false);
        }
        match self.lock_unmounted("remove", Elsewhere::Ignored) {
            Ok(_lock) => remove_without_changes(&self.path).map(|()| true),
            Err(StoreError::NoSuchMount(_)) => Ok(true),
            Err(StoreError::MountInUse { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Returns whether it stays without changes.
    pub fn is_wanted(&self) -> bool {
        self.record().is_some_and(|record| record.keep && record.mounted.is_some())
    }

    /// Removes the directory with its changes. The next command that writes completes a removal
    /// that was killed.
    ///
    /// # Errors
    /// [`StoreError::MountInUse`] if it is mounted or another process uses it, [`StoreError::Fs`] if it
    /// cannot be removed.
    pub fn discard(&self, elsewhere: Elsewhere) -> Result<(), StoreError> {
        let _lock = self.lock_unmounted("remove", elsewhere)?;
        discard_dir(&self.path)
    }
}

/// Removes a locked directory with its changes.
fn discard_dir(path: &Path) -> Result<(), StoreError> {
    let mut name = path.to_owned().into_os_string();
    name.push(DISCARDED);
    let discarded = PathBuf::from(name);
    fs::rename(path, &discarded).at("remove", path)?;
    Ok(fsutil::remove(&discarded)?)
}

/// Removes what killed processes left. The caller holds the `commit` lock, so that no directory is
/// being created.
///
/// # Errors
/// [`StoreError::Fs`] if the directories cannot be read or removed.
pub(super) fn sweep(layout: &Layout) -> Result<(), StoreError> {
    let mut mounted_once = Vec::new();
    for name in fsutil::names_in(&layout.mounts())? {
        let path = layout.mounts().join(&name);
        let discarded = name.strip_suffix(DISCARDED).is_some_and(is_random);
        if !discarded && !is_random(&name) {
            continue;
        }
        let kept = KeptDir { path: path.clone() };
        let is_temporary = kept.record().is_some_and(|record| record.temporary);
        let unneeded = || is_temporary || kept.is_empty() && !kept.is_wanted();
        if !discarded && !unneeded() {
            continue;
        }
        // A process that mounts or removes it has locked it.
        let Some(lock) = lock_dir(&path)? else { continue };
        if discarded {
            fsutil::remove(&path)?;
        } else if is_empty(&path.join(WORK)) {
            remove_without_changes(&path)?;
        } else {
            mounted_once.push((name, path, is_temporary, lock));
        }
    }
    if mounted_once.is_empty() {
        return Ok(());
    }
    let (uppers, all) = overlay::uppers_everywhere();
    let is_mounted = |name: &str| uppers.iter().any(|upper| name_of(upper) == Some(name));
    for (name, path, is_temporary, _lock) in mounted_once {
        // In a container, /proc does not show a mount of another container.
        match all && !is_mounted(&name) {
            true if is_temporary => discard_dir(&path)?,
            true => remove_without_changes(&path)?,
            false => {}
        }
    }
    Ok(())
}

/// Removes a directory without changes. rmdir(2) fails if there are changes after all.
fn remove_without_changes(path: &Path) -> Result<(), StoreError> {
    let upper = path.join(UPPER);
    match fs::remove_dir(&upper) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
        Err(e) => return Err(e).at("remove", &upper)?,
    }
    Ok(fsutil::remove(path)?)
}

/// Locks a directory; `None` if another process has locked it or removed it.
fn lock_dir(path: &Path) -> Result<Option<File>, StoreError> {
    Ok(open_dir(path)?.filter(|dir| dir.try_lock().is_ok()))
}

/// Opens a directory; `None` if it does not exist.
fn open_dir(path: &Path) -> Result<Option<File>, StoreError> {
    let flags = OFlags::DIRECTORY.bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("open", path)?,
    }
}

/// Returns the name in `rpull/mounts` of a directory of changes.
fn name_of(upper: &Path) -> Option<&str> {
    let name = upper.parent()?.file_name()?.to_str()?;
    (upper.ends_with(UPPER) && is_random(name)).then_some(name)
}

fn is_random(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns whether a directory has no entries or does not exist.
fn is_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests;
