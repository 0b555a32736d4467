//! The files and directories that the sources of an instruction name.

use super::error::{CopyError, text};
use super::glob::{Glob, Wildcards, has_wildcards};
use super::ignore::clean;
use super::spec::CopyFrom;
use crate::overlay::{Entry, Follow, LookupError, MergedTree, split};

/// A file or directory to copy.
#[derive(Debug)]
pub struct FoundSource {
    /// The path as it is named: clean and relative. Symlinks in it are not resolved.
    pub path: Vec<u8>,
    /// The entry, which is not a symlink.
    pub entry: Entry,
}

impl FoundSource {
    /// Returns the name that a file keeps in a directory: that of the symlink that led to it.
    pub fn name(&self) -> &[u8] {
        split(&self.path).1
    }
}

/// Returns the paths that `sources` name, in which the wildcards are replaced.
///
/// # Errors
/// [`CopyError`] for a path that leads out of the context, and if no source is found.
pub fn expand(from: CopyFrom<'_>, sources: &[String]) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut found = Vec::new();
    for source in sources {
        let path = source.strip_prefix('/').unwrap_or(source);
        let path = path.strip_prefix("./").unwrap_or(path);
        if has_wildcards(path) {
            let parts = path.split('/').map(|part| Glob::new(part, Wildcards::Single));
            // As in docker, an invalid pattern matches nothing.
            if let Some(parts) = parts.collect::<Option<Vec<_>>>() {
                let tree = from.tree();
                matching(from, tree, &tree.root()?, &parts, &mut found)?;
            }
            continue;
        }
        let path = clean(&without_escapes(path));
        if path == ".." || path.starts_with("../") {
            return Err(CopyError::Outside(source.clone()));
        }
        let path = path.trim_start_matches('/');
        found.push(if path == "." { Vec::new() } else { path.as_bytes().to_vec() });
    }
    if found.is_empty() { Err(CopyError::NoSource) } else { Ok(found) }
}

/// Adds what matches in the directory `dir`, without following symlinks.
fn matching(
    from: CopyFrom<'_>,
    tree: &MergedTree,
    dir: &Entry,
    parts: &[Glob],
    found: &mut Vec<Vec<u8>>,
) -> Result<(), CopyError> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    for entry in tree.list(dir)? {
        if !part.matches(&String::from_utf8_lossy(entry.name())) || !is_present(from, &entry) {
            continue;
        }
        if rest.is_empty() {
            found.push(entry.path);
        } else if entry.is_dir() {
            matching(from, tree, &entry, rest, found)?;
        }
    }
    Ok(())
}

/// Finds the file at `path`, of which all symlinks are followed inside the context or stage.
///
/// # Errors
/// [`CopyError::NotFound`] if it does not exist or is excluded, [`CopyError::Unresolved`] if symlinks form a
/// loop, [`CopyError::Read`].
pub fn find(from: CopyFrom<'_>, path: Vec<u8>) -> Result<FoundSource, CopyError> {
    let path_of_source = path.clone();
    let lookup = |path: &[u8], follow| match from.tree().lookup(path, follow) {
        Ok(entry) if is_present(from, &entry) => Ok(entry),
        Ok(_) | Err(LookupError::NotFound | LookupError::NotADirectory) => {
            Err(not_found(from, &path_of_source))
        }
        Err(LookupError::Fs(e)) => Err(e.into()),
        Err(e @ LookupError::Loop) => {
            Err(CopyError::Unresolved { path: text(path), why: e.to_string() })
        }
    };
    // A symlink that is excluded leads nowhere, also in the middle.
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        lookup(&path[..end], Follow::No)?;
    }
    let entry = lookup(&path, Follow::Yes)?;
    Ok(FoundSource { path, entry })
}

fn not_found(from: CopyFrom<'_>, path: &[u8]) -> CopyError {
    match from {
        CopyFrom::Context(_) => CopyError::NotFound(text(path)),
        CopyFrom::Stage(_) => CopyError::NotInStage(text(path)),
    }
}

/// Returns whether docker would send the entry to the builder, or may, for a directory.
fn is_present(from: CopyFrom<'_>, entry: &Entry) -> bool {
    !from.excludes(&entry.path) || (entry.is_dir() && from.may_include_below(&entry.path))
}

/// Removes the backslashes before other characters.
fn without_escapes(path: &str) -> String {
    let mut out = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}
