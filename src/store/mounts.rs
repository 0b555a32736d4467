//! The directories of writable mounts:
//!
//! ```text
//! rpull/mounts/<16 hex digits>/   0700  locked while `mount --rw` creates and mounts it
//!     upper/                      0755  the changes
//!     work/                       0700  overlayfs's; not empty once it was mounted
//!     image                 file  0600  JSON: the image that was mounted
//! rpull/mounts/<16 hex digits>-discarded/   changes that are being removed
//! ```
//!
//! The next command that writes removes what a killed process left: a directory that was never
//! mounted, one without changes that is mounted nowhere, and the rest of discarded changes.
//! Changes themselves are only removed when the user says so: `upper` is removed with rmdir(2).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use super::lock;
use crate::fsutil::{self, At, is_same};
use crate::oci::ImageId;
use crate::overlay;

const UPPER: &str = "upper";
const WORK: &str = "work";
const IMAGE: &str = "image";
const DISCARDED: &str = "-discarded";

/// Bytes of the file [`IMAGE`] at most.
const MAX_IMAGE_SIZE: u64 = 64 << 10;

/// The image of a writable mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// The image as the user named it.
    pub image: String,
    /// The image ID.
    pub id: ImageId,
}

/// A new directory of a writable mount. When dropped, it is removed unless it was mounted.
#[derive(Debug)]
pub struct MountDir {
    path: PathBuf,
    _lock: File,
}

impl MountDir {
    /// Creates the directory, for a mount of `image`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be created.
    pub fn create(layout: &Layout, image: &MountedImage) -> Result<Self, StoreError> {
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let path = layout.mounts().join(random);
        let lock = {
            // Without the commit lock, a sweep could remove the directory before it is locked.
            let _commit = lock::commit_lock(layout)?;
            fsutil::ensure_dir(&path, 0o700)?;
            let lock = File::open(&path).at("open", &path)?;
            lock.lock().at("lock", &path)?;
            lock
        };
        let dir = Self { path, _lock: lock };
        fsutil::ensure_dir(&dir.upper(), 0o755)?;
        fsutil::ensure_dir(&dir.work(), 0o700)?;
        let text = serde_json::to_vec(image).unwrap_or_default();
        fsutil::write_new(&dir.path.join(IMAGE), &text, 0o600)?;
        Ok(dir)
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
        if is_empty(&self.upper()) && is_empty(&self.work()) {
            let _ = remove_without_changes(&self.path);
        }
    }
}

/// A directory of changes that an earlier command created.
#[derive(Debug)]
pub struct KeptDir {
    path: PathBuf,
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

    /// Returns the directory of changes.
    pub fn upper(&self) -> PathBuf {
        self.path.join(UPPER)
    }

    /// Returns the image that was mounted, if it is known.
    pub fn image(&self) -> Option<MountedImage> {
        serde_json::from_slice(&fsutil::read(&self.path.join(IMAGE), MAX_IMAGE_SIZE).ok()?).ok()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.upper())
    }

    /// Removes the directory, which has no changes and is not mounted, unless another process
    /// does so or mounts it.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn remove_if_empty(&self) -> Result<(), StoreError> {
        match lock_dir(&self.path)? {
            Some(_lock) if self.is_empty() => remove_without_changes(&self.path),
            _ => Ok(()),
        }
    }

    /// Removes the directory with its changes. The next command that writes completes a removal
    /// that was killed.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn discard(&self) -> Result<(), StoreError> {
        let Some(_lock) = lock_dir(&self.path)? else { return Ok(()) };
        let mut name = self.path.clone().into_os_string();
        name.push(DISCARDED);
        let discarded = PathBuf::from(name);
        fs::rename(&self.path, &discarded).at("remove", &self.path)?;
        Ok(fsutil::remove(&discarded)?)
    }
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
        let unchanged = is_random(&name) && is_empty(&path.join(UPPER));
        if !(discarded || unchanged) {
            continue;
        }
        // A process that mounts or removes it has locked it.
        let Some(lock) = lock_dir(&path)? else { continue };
        if discarded {
            fsutil::remove(&path)?;
        } else if is_empty(&path.join(WORK)) {
            remove_without_changes(&path)?;
        } else {
            mounted_once.push((name, path, lock));
        }
    }
    if mounted_once.is_empty() {
        return Ok(());
    }
    let (uppers, all) = overlay::uppers_everywhere();
    let is_mounted = |name: &str| uppers.iter().any(|upper| name_of(upper) == Some(name));
    for (name, path, _lock) in mounted_once {
        // In a container, /proc does not show a mount of another container.
        if all && !is_mounted(&name) {
            remove_without_changes(&path)?;
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
    let flags = OFlags::DIRECTORY.bits().cast_signed();
    let dir = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("open", path)?,
    };
    Ok(dir.try_lock().is_ok().then_some(dir))
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
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn image() -> MountedImage {
        let id = format!("{}", Digest::of(b"config")).parse().unwrap();
        MountedImage { image: "nginx".to_owned(), id }
    }

    /// Leaves a new directory as a killed process does: no lock, nothing removed.
    fn killed(layout: &Layout) -> KeptDir {
        let new = MountDir::create(layout, &image()).unwrap();
        let kept = KeptDir { path: new.path.clone() };
        let away = layout.root().join("away");
        fs::rename(&new.path, &away).unwrap();
        drop(new);
        fs::create_dir_all(away.join(UPPER)).unwrap();
        fs::create_dir_all(away.join(WORK)).unwrap();
        fs::rename(away, &kept.path).unwrap();
        kept
    }

    #[test]
    fn sweep_keeps_a_directory_that_is_being_mounted() {
        let (_dir, layout) = Layout::scratch();
        let new = MountDir::create(&layout, &image()).unwrap();
        sweep(&layout).unwrap();
        assert!(new.upper().is_dir() && new.work().is_dir());
        assert_eq!(KeptDir::all(&layout).unwrap()[0].image(), Some(image()));
        drop(new);
        assert!(is_empty(&layout.mounts()), "a directory that was never mounted stays");
    }

    #[test]
    fn sweep_removes_what_a_killed_mount_left_and_no_changes() {
        let (_dir, layout) = Layout::scratch();
        let (empty, once, changed) = (killed(&layout), killed(&layout), killed(&layout));
        fs::create_dir(once.path.join(WORK).join("work")).unwrap();
        fs::write(changed.upper().join("new"), "").unwrap();
        sweep(&layout).unwrap();
        assert!(!empty.path.exists());
        let (_, all) = overlay::uppers_everywhere();
        assert_eq!(once.path.exists(), !all);
        assert!(changed.upper().join("new").exists());
    }

    #[test]
    fn sweep_completes_a_killed_removal_of_changes() {
        let (_dir, layout) = Layout::scratch();
        let half = layout.mounts().join(format!("{:016x}{DISCARDED}", 7));
        fs::create_dir_all(half.join(UPPER).join("new")).unwrap();
        let foreign = layout.mounts().join("notes");
        fs::create_dir(&foreign).unwrap();
        sweep(&layout).unwrap();
        assert!(!half.exists());
        assert!(foreign.exists());
    }

    #[test]
    fn changes_are_found_by_the_path_that_the_mount_used() {
        let (dir, layout) = Layout::scratch();
        let kept = killed(&layout);
        let name = kept.path.file_name().unwrap().to_str().unwrap();
        let relative = Path::new("../rpull/mounts").join(name).join(UPPER);
        assert_eq!(KeptDir::of_upper(&layout, &relative).unwrap().path, kept.path);
        assert!(KeptDir::of_upper(&layout, &dir.path().join("upper")).is_none());
        let other = dir.path().join(name).join(UPPER);
        fs::create_dir_all(&other).unwrap();
        assert!(KeptDir::of_upper(&layout, &other).is_none());
        assert_eq!(KeptDir::at(&layout, &kept.upper()).unwrap().unwrap().path, kept.path);
        kept.discard().unwrap();
        assert!(is_empty(&layout.mounts()));
    }
}
