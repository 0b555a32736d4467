//! The path of an entry below the layer's root.

use crate::layer::{LayerError, LimitKind};

/// The path that an entry's name means.
#[derive(Debug, PartialEq, Eq)]
pub struct CleanPath {
    /// Relative to the layer's root, without `.`, `..` or empty parts; empty for the root.
    pub path: Vec<u8>,
    /// Whether the name has a `..`, even one that stays inside the root.
    pub has_dot_dot: bool,
    /// Whether it is the root as a relative name (`.`, `./`), which dockerd ignores.
    pub relative_root: bool,
}

/// The meaning of a name for the overlay (moby pkg/archive `overlayWhiteoutConverter`).
#[derive(Debug, PartialEq, Eq)]
pub enum NameClass {
    /// An ordinary name.
    Ordinary,
    /// `.wh..wh..opq`: its directory hides the content of that directory in lower layers.
    Opaque,
    /// `.wh.NAME`: hides `NAME` of lower layers. Has the path with that name.
    Whiteout(Vec<u8>),
}

/// Cleans `name` as Go's `filepath.Clean` does and joins it to the root as dockerd does.
///
/// # Errors
/// [`LayerError::Refused`] if it leads out of the root, [`LayerError::Limit`] if it has more than
/// `depth` parts.
pub fn clean(name: &[u8], depth: usize) -> Result<CleanPath, LayerError> {
    let absolute = name.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut has_dot_dot = false;
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                has_dot_dot = true;
                if parts.pop().is_none() && !absolute {
                    return Err(LayerError::refused(name, "the name climbs out of the layer"));
                }
            }
            part => parts.push(part),
        }
    }
    if parts.len() > depth {
        return Err(LayerError::Limit { what: LimitKind::Depth, limit: depth as u64 });
    }
    let path = parts.join(&b'/');
    let relative_root = path.is_empty() && !absolute;
    Ok(CleanPath { path, has_dot_dot, relative_root })
}

/// Classifies the last part of `path`.
///
/// # Errors
/// [`LayerError::Refused`] for `.wh.`, `.wh..` and `.wh...`, which would hide nothing, the
/// directory itself or its parent.
pub fn classify(path: &[u8]) -> Result<NameClass, LayerError> {
    let start = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let Some(hidden) = path[start..].strip_prefix(b".wh.") else { return Ok(NameClass::Ordinary) };
    match hidden {
        b".wh..opq" => Ok(NameClass::Opaque),
        b"" | b"." | b".." => {
            Err(LayerError::refused(path, "a whiteout without the name of a file"))
        }
        hidden => Ok(NameClass::Whiteout([&path[..start], hidden].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &[u8]) -> Option<Vec<u8>> {
        clean(name, 10).ok().map(|name| name.path)
    }

    #[test]
    fn name_is_cleaned_and_stays_below_the_root() {
        assert_eq!(path(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(path(b"/a").unwrap(), b"a");
        assert_eq!(path(b"a/../b").unwrap(), b"b");
        assert_eq!(path(b"/../b").unwrap(), b"b");
        assert_eq!(path(b"a/../../b"), None);
        assert_eq!(path(b".."), None);
        assert!(clean(b"./", 10).unwrap().relative_root);
        assert!(!clean(b"/", 10).unwrap().relative_root);
        assert!(clean(b"a/../b", 10).unwrap().has_dot_dot);
        assert!(clean(b"1/2/3", 2).is_err());
    }

    #[test]
    fn whiteout_has_the_path_that_it_hides() {
        assert_eq!(classify(b"d/.wh.f").unwrap(), NameClass::Whiteout(b"d/f".to_vec()));
        assert_eq!(classify(b".wh..wh..opq").unwrap(), NameClass::Opaque);
        assert_eq!(classify(b"d/f.wh.").unwrap(), NameClass::Ordinary);
        for bad in [&b"d/.wh."[..], b".wh..", b"d/.wh..."] {
            assert!(classify(bad).is_err());
        }
    }
}
