//! The destination of a copy: a path in the image, of which the symlinks of the image are followed.

use std::collections::VecDeque;

use rustix::fs::FileType;

use super::error::{CopyError, text};
use crate::overlay::{Entry, Follow, LookupError, MergedTree};

/// Symlinks of one path at most, as in the kernel.
const MAX_LINKS: usize = 40;

/// A resolved destination.
#[derive(Debug)]
pub struct Destination {
    /// The path: clean, relative, without symlinks.
    pub path: Vec<u8>,
    /// Whether it is meant to be a directory, or is one.
    pub is_dir: bool,
}

/// Resolves the clean path `destination` in `base`; a directory is wanted if it ends with a slash. What does
/// not exist can be created.
///
/// # Errors
/// [`CopyError::Destination`] if a file is in place of a directory, or symlinks form a loop.
pub fn resolve(base: Option<&MergedTree>, destination: &[u8]) -> Result<Destination, CopyError> {
    let refused =
        |why: &str| CopyError::Destination { path: text(destination), why: why.to_owned() };
    let wants_dir = destination.ends_with(b"/");
    let mut remaining: VecDeque<Vec<u8>> = parts(destination).collect();
    let mut path: Vec<u8> = Vec::new();
    let mut links = 0;
    let mut is_dir = true;
    while let Some(part) = remaining.pop_front() {
        if part == b".." {
            path.truncate(crate::overlay::split(&path).0.len());
            continue;
        }
        if part == b"." {
            continue;
        }
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&part);
        let found = entry(base, &path)?;
        match found.map(|entry| (entry.kind(), entry)) {
            Some((FileType::Symlink, link)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refused("too many levels of symbolic links"));
                }
                let target = link.read_link()?;
                path.truncate(if target.starts_with(b"/") { 0 } else { parent });
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    remaining.push_front(part);
                }
                is_dir = true;
            }
            Some((FileType::Directory, _)) => is_dir = true,
            Some(_) if wants_dir || !remaining.is_empty() => {
                return Err(refused("not a directory"));
            }
            Some(_) | None => is_dir = false,
        }
    }
    Ok(Destination { path, is_dir: is_dir || wants_dir })
}

/// Returns what the image has at `path`, of which all but the last part are directories or absent.
///
/// # Errors
/// [`CopyError::Read`].
pub fn entry(base: Option<&MergedTree>, path: &[u8]) -> Result<Option<Entry>, CopyError> {
    let Some(base) = base else { return Ok(None) };
    match base.lookup(path, Follow::No) {
        Ok(entry) => Ok(Some(entry)),
        Err(LookupError::NotFound | LookupError::NotADirectory) => Ok(None),
        Err(LookupError::Fs(e)) => Err(e.into()),
        Err(e @ LookupError::Loop) => {
            Err(CopyError::Destination { path: text(path), why: e.to_string() })
        }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec)
}
