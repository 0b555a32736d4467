//! Differences against what docker would compare: two mounts, read whole.

use std::os::unix::fs::FileTypeExt;

use super::*;
use crate::fsutil::FsError;

/// Lines of a directory, as moby's `FileInfo.addChanges` (pkg/archive/changes.go) adds them.
///
/// `old` is `None` below what is not a directory there: a path must not lead through a symlink.
fn of_dirs(old: Option<&Path>, new: &Path, below: &Path, lines: &mut Vec<String>) {
    let names = |dir: &Path| {
        let entries = stdfs::read_dir(dir.join(below)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name());
        // A mount of one layer lists its whiteouts.
        let is_there = |name: &std::ffi::OsString| {
            let meta = dir.join(below).join(name).symlink_metadata();
            meta.is_ok_and(|meta| !(meta.file_type().is_char_device() && meta.rdev() == 0))
        };
        names.filter(is_there).collect::<std::collections::BTreeSet<_>>()
    };
    let is_dir = |dir: &Path| dir.join(below).symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !is_dir(new) {
        return;
    }
    let old = old.filter(|old| is_dir(old));
    let (old_names, new_names) = (old.map(names).unwrap_or_default(), names(new));
    for name in old_names.union(&new_names) {
        let path = below.join(name);
        let shown = path.display();
        if !new_names.contains(name) {
            lines.push(format!("D {shown}"));
            continue;
        }
        let (at, mut inner) = (lines.len(), Vec::new());
        of_dirs(old, new, &path, &mut inner);
        let new_meta = new.join(&path).symlink_metadata().unwrap();
        let kind = match old.filter(|_| old_names.contains(name)) {
            None => Some("A"),
            Some(old) => {
                let old_meta = old.join(&path).symlink_metadata().unwrap();
                let owner =
                    |meta: &stdfs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
                let time = |meta: &stdfs::Metadata| (meta.mtime(), meta.mtime_nsec(), meta.size());
                let content = new_meta.is_dir() || time(&old_meta) == time(&new_meta);
                (owner(&old_meta) != owner(&new_meta) || !content).then_some("C")
            }
        };
        lines.extend(inner);
        if let Some(kind) = kind.or((lines.len() > at).then_some("C")) {
            lines.insert(at, format!("{kind} {shown}"));
        }
    }
}

fn of_trees(old: &MergedTree, new: &MergedTree) -> Vec<String> {
    let mut lines = Vec::new();
    let each = |it: Difference| {
        let kind = match it.kind {
            DifferenceKind::Added => "A",
            DifferenceKind::Changed => "C",
            DifferenceKind::Deleted => "D",
        };
        assert_eq!((it.old.is_none(), it.new.is_none()), (kind == "A", kind == "D"));
        lines.push(format!("{kind} {}", Path::new(OsStr::from_bytes(&it.path)).display()));
        Ok::<_, FsError>(())
    };
    new.differences(old, each).unwrap();
    lines
}

#[test]
fn differences_of_random_stacks_are_those_that_docker_finds() {
    check(150, layers(), |layers| {
        let whole = Scratch::new(&layers);
        for from in 1..whole.lower.len() {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            stdfs::create_dir(dir.path().join("m")).unwrap();
            let below = Scratch { dir, lower: whole.lower[from..].to_vec() };
            for (old, new) in [(&below, &whole), (&whole, &below)] {
                let (old_mount, new_mount) = (old.mount(), new.mount());
                let mut expected = Vec::new();
                of_dirs(Some(&old_mount.0), &new_mount.0, Path::new(""), &mut expected);
                prop_assert_eq!(of_trees(&old.tree(), &new.tree()), expected);
            }
        }
        Ok(())
    });
}

#[test]
fn capabilities_of_files_and_whole_seconds_are_compared_as_docker_does() {
    let scratch = Scratch::new(&[vec![Op::File("a".into(), 1)], vec![Op::File("a".into(), 1)]]);
    let base = MergedLayer::open(&scratch.lower[1], OpaqueDirs::Marked(Vec::new())).unwrap();
    let old = MergedTree::new(vec![base]);
    let set_time = |seconds, nanoseconds| {
        let time = fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = fs::Timestamps { last_access: time, last_modification: time };
        let at = scratch.lower[0].join("a");
        fs::utimensat(CWD, at, &times, fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    let lines = || of_trees(&old, &scratch.tree());
    assert_eq!(lines(), ["C a"]);
    set_time(0, 5);
    assert!(lines().is_empty());
    set_time(0, 6);
    assert_eq!(lines(), ["C a"]);
    // An archive with whole seconds.
    set_time(0, 0);
    assert!(lines().is_empty());
    // VFS_CAP_REVISION_2 with cap_net_bind_service.
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let at = scratch.lower[0].join("a");
    fs::setxattr(&at, "security.capability", &value, XattrFlags::empty()).unwrap();
    set_time(0, 5);
    assert_eq!(lines(), ["C a"]);
}

#[test]
fn differences_need_few_descriptors_for_deep_directories() {
    let deep = vec!["d"; 300].join("/");
    let scratch = Scratch::new(&[
        vec![Op::Dir(deep.clone(), false)],
        vec![Op::File(format!("{deep}/new"), 1)],
    ]);
    let base = MergedLayer::open(&scratch.lower[1], OpaqueDirs::Marked(Vec::new())).unwrap();
    let (old, new) = (MergedTree::new(vec![base]), scratch.tree());
    let descriptors = || stdfs::read_dir("/proc/self/fd").unwrap().count();
    let (before, mut most, mut lines) = (descriptors(), 0, 0);
    let each = |_| {
        most = most.max(descriptors());
        lines += 1;
        Ok::<_, FsError>(())
    };
    new.differences(&old, each).unwrap();
    // Tests of other threads use descriptors, too.
    assert!(most < before + 200, "{most} after {before}");
    assert_eq!(lines, 301);
}
