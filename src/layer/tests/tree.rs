//! The files of an unpacked layer, as text.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;

pub const WHITEOUT: &str = "whiteout";
pub const FIFO: &str = "fifo";
pub const CHAR_DEVICE: &str = "character device";
pub const BLOCK_DEVICE: &str = "block device";

/// One line per path, with the first path of its inode. Symlinks are not followed.
pub fn tree_of(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut first = HashMap::new();
    for path in walk(root) {
        let shown = path.strip_prefix(root).unwrap().to_str().unwrap();
        let shown = if shown.is_empty() { String::new() } else { format!("/{shown}") };
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        let first = first.entry(inode).or_insert_with(|| shown.clone());
        let line = format!("{}, inode of '{first}'", content(&path));
        lines.insert(shown.clone(), line);
    }
    lines
}

/// One line per path below `root`: permissions, the path in the layer, and its content.
pub fn listing(root: &Path) -> String {
    let line = |path: &PathBuf| {
        let mode = fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        let shown = path.strip_prefix(root).unwrap().to_str().unwrap();
        format!("{mode:o} {shown}: {}\n", content(path))
    };
    walk(root)[1..].iter().map(line).collect()
}

/// All paths of a tree, sorted.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    paths.sort();
    paths
}

fn content(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => directory(is_opaque(path)),
        () if kind.is_symlink() => symlink(&fs::read_link(path).unwrap()),
        () if kind.is_char_device() && meta.rdev() == 0 => WHITEOUT.to_owned(),
        () if kind.is_char_device() => CHAR_DEVICE.to_owned(),
        () if kind.is_block_device() => BLOCK_DEVICE.to_owned(),
        () if kind.is_fifo() => FIFO.to_owned(),
        () => file(&fs::read(path).unwrap()),
    }
}

/// Whether the directory has overlayfs's opaque mark, which depends on this process's privileges.
fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::lgetxattr(path, *name, &mut [0; 8][..]) == Ok(1))
}

pub fn directory(opaque: bool) -> String {
    format!("directory{}", if opaque { " opaque" } else { "" })
}

pub fn file(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if text.len() < 40 => format!("file {text:?}"),
        _ => format!("file of {} bytes, {}", data.len(), Digest::of(data)),
    }
}

pub fn symlink(target: &Path) -> String {
    format!("symlink {target:?}")
}
