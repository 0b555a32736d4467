//! The differences of two merged trees, as `docker diff` finds them (moby pkg/archive/changes.go and
//! changes_unix.go, `ChangesDirs`).

use std::cmp::Ordering;

use rustix::fs::Stat;

use super::entry::Entry;
use super::stack::MergedTree;
use super::walk::Walk;
use crate::fsutil::FsError;

/// The attribute with the capabilities of a file.
const CAPABILITY: &[u8] = b"security.capability";

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DifferenceKind {
    /// Only the new tree has the file.
    Added,
    /// Both have it, with another type, mode, owner, device number or capabilities; or, not for
    /// directories, another size or time of modification; or something in the directory differs.
    Changed,
    /// Only the old tree has the file or directory. What was in the directory is not listed.
    Deleted,
}

/// A file or directory that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What differs.
    pub kind: DifferenceKind,
    /// The path below the root: clean and relative.
    pub path: Vec<u8>,
    /// The metadata in the old tree; `None` if it was added.
    pub old: Option<Stat>,
    /// The metadata in the new tree; `None` if it was deleted.
    pub new: Option<Stat>,
}

impl MergedTree {
    /// Calls `each` with what differs in this tree from `old`, sorted by name in each directory, a directory
    /// before its content. What both have from the same layers is not read.
    ///
    /// # Errors
    /// A layer cannot be read; the error of `each`.
    pub fn differences<E: From<FsError>>(
        &self,
        old: &MergedTree,
        mut each: impl FnMut(Difference) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut new_walk = Side::new(self.walk(&self.root()?))?;
        let mut old_walk = Side::new(old.walk(&old.root()?))?;
        // The directories above the current entry that both trees have and that were not reported.
        let mut above: Vec<Difference> = Vec::new();
        let mut report = |above: &mut Vec<Difference>, difference: Difference| {
            above.drain(..).try_for_each(&mut each)?;
            each(difference)
        };
        loop {
            let order = match (&new_walk.next, &old_walk.next) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(new), Some(old)) => by_parts(&new.path, &old.path),
            };
            let path = match order {
                Ordering::Greater => old_walk.path(),
                Ordering::Less | Ordering::Equal => new_walk.path(),
            };
            above.retain(|dir| is_below(path, &dir.path));
            match order {
                Ordering::Less => {
                    let new = new_walk.take()?;
                    report(&mut above, Difference::of(DifferenceKind::Added, None, new))?;
                }
                Ordering::Greater => {
                    old_walk.walk.skip_content();
                    let old = old_walk.take()?;
                    report(&mut above, Difference::of(DifferenceKind::Deleted, old, None))?;
                }
                Ordering::Equal => {
                    let (Some(new), Some(old_entry)) = (&new_walk.next, &old_walk.next) else {
                        return Ok(());
                    };
                    let same = self.identities(new) == old.identities(old_entry);
                    let changed = !same && is_changed(old_entry, new)?;
                    if same || !new.is_dir() {
                        new_walk.walk.skip_content();
                        old_walk.walk.skip_content();
                    }
                    let may_contain = new.is_dir() && !same;
                    let (new, old) = (new_walk.take()?, old_walk.take()?);
                    let difference = Difference::of(DifferenceKind::Changed, old, new);
                    if changed {
                        report(&mut above, difference)?;
                    } else if may_contain {
                        above.push(difference);
                    }
                }
            }
        }
    }
}

/// One of the trees: the entry to compare next, which its walk returned last.
struct Side<'a> {
    walk: Walk<'a>,
    next: Option<Entry>,
}

impl<'a> Side<'a> {
    fn new(mut walk: Walk<'a>) -> Result<Self, FsError> {
        let next = walk.next().transpose()?;
        Ok(Self { walk, next })
    }

    fn path(&self) -> &[u8] {
        self.next.as_ref().map_or(b"", |entry| &entry.path)
    }

    /// Returns the entry and goes on to the next one.
    fn take(&mut self) -> Result<Option<Entry>, FsError> {
        let next = self.walk.next().transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

impl Difference {
    fn of(kind: DifferenceKind, old: Option<Entry>, new: Option<Entry>) -> Self {
        let (old_stat, new_stat) = (old.as_ref().map(|it| it.stat), new.as_ref().map(|it| it.stat));
        let path = new.or(old).map(|entry| entry.path).unwrap_or_default();
        Self { kind, path, old: old_stat, new: new_stat }
    }
}

/// Compares paths in the order of a walk: name by name.
fn by_parts(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|&byte| byte == b'/').cmp(b.split(|&byte| byte == b'/'))
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

fn is_changed(old: &Entry, new: &Entry) -> Result<bool, FsError> {
    let (a, b) = (&old.stat, &new.stat);
    let same =
        (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) == (b.st_mode, b.st_uid, b.st_gid, b.st_rdev);
    let same_content = new.is_dir() || (a.st_size == b.st_size && is_same_time(old, new));
    Ok(!same || !same_content || capability(old)? != capability(new)?)
}

/// A tar may have had whole seconds only.
fn is_same_time(old: &Entry, new: &Entry) -> bool {
    let (a, b) = (&old.stat, &new.stat);
    let is_whole = a.st_mtime_nsec == 0 || b.st_mtime_nsec == 0;
    a.st_mtime == b.st_mtime && (a.st_mtime_nsec == b.st_mtime_nsec || is_whole)
}

fn capability(entry: &Entry) -> Result<Option<Vec<u8>>, FsError> {
    let mut xattrs = entry.xattrs()?.into_iter();
    Ok(xattrs.find(|(name, _)| name == CAPABILITY).map(|(_, value)| value))
}
