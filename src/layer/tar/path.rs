//! What an entry's name means below the layer's root.

use crate::layer::LayerError;

/// A name that was looked at before anything is done with it.
#[derive(Debug, PartialEq, Eq)]
pub struct CleanName {
    /// Relative to the layer's root, without `.`, `..` or empty parts; empty for the root.
    pub path: Vec<u8>,
    /// Whether the name had a `..` in it, even one that stayed inside.
    pub dotted: bool,
    /// Whether it is the root named relatively (`.`, `./`): dockerd passes over that.
    pub dot: bool,
}

/// What a name asks of the overlay (moby pkg/archive `overlayWhiteoutConverter`).
#[derive(Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: it is an ordinary name.
    None,
    /// `.wh..wh..opq`: its directory hides what lower layers have in it.
    Opaque,
    /// `.wh.NAME`: lower layers' `NAME` is hidden. Holds the path with that name.
    Whiteout(Vec<u8>),
}

/// Cleans `name` as Go's `filepath.Clean` and dockerd's join below a root do.
///
/// # Errors
/// [`LayerError::Refused`] if it climbs out of the root or is deeper than `depth` parts.
pub fn clean(name: &[u8], depth: usize) -> Result<CleanName, LayerError> {
    let absolute = name.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut dotted = false;
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                dotted = true;
                if parts.pop().is_none() && !absolute {
                    return Err(LayerError::refused(name, "the name climbs out of the layer"));
                }
            }
            part => parts.push(part),
        }
    }
    if parts.len() > depth {
        return Err(LayerError::Limit {
            what: "the depth of a path",
            limit: depth as u64,
            flag: "--max-path-depth",
        });
    }
    let path = parts.join(&b'/');
    let dot = path.is_empty() && !absolute;
    Ok(CleanName { path, dotted, dot })
}

/// Tells whiteouts from names.
///
/// # Errors
/// [`LayerError::Refused`] for `.wh.`, `.wh..` and `.wh...`, which would hide nothing, the
/// directory itself or its parent.
pub fn mark(path: &[u8]) -> Result<Mark, LayerError> {
    let start = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let Some(hidden) = path[start..].strip_prefix(b".wh.") else { return Ok(Mark::None) };
    match hidden {
        b".wh..opq" => Ok(Mark::Opaque),
        b"" | b"." | b".." => {
            Err(LayerError::refused(path, "a whiteout without the name of a file"))
        }
        hidden => Ok(Mark::Whiteout([&path[..start], hidden].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &[u8]) -> Option<Vec<u8>> {
        clean(name, 10).ok().map(|name| name.path)
    }

    #[test]
    fn names_are_cleaned_and_never_climb() {
        assert_eq!(path(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(path(b"/a").unwrap(), b"a");
        assert_eq!(path(b"a/../b").unwrap(), b"b");
        assert_eq!(path(b"/../b").unwrap(), b"b");
        assert_eq!(path(b"a/../../b"), None);
        assert_eq!(path(b".."), None);
        assert!(clean(b"./", 10).unwrap().dot);
        assert!(!clean(b"/", 10).unwrap().dot);
        assert!(clean(b"a/../b", 10).unwrap().dotted);
        assert!(clean(b"1/2/3", 2).is_err());
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        assert_eq!(mark(b"d/.wh.f").unwrap(), Mark::Whiteout(b"d/f".to_vec()));
        assert_eq!(mark(b".wh..wh..opq").unwrap(), Mark::Opaque);
        assert_eq!(mark(b"d/f.wh.").unwrap(), Mark::None);
        for bad in [&b"d/.wh."[..], b".wh..", b"d/.wh..."] {
            assert!(mark(bad).is_err());
        }
    }
}
