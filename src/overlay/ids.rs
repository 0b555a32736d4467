//! Random names in overlay2: of a layer's directory and of its short link.

use std::fmt;
use std::io;
use std::str::FromStr;

use data_encoding::BASE32;

use crate::fsutil;

/// The name of a layer's directory: 64 hex digits (moby pkg/stringid), or 25 lower-case letters and
/// digits if BuildKit created it inside dockerd (moby identity.NewID).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheId(String);

/// The name of a layer's symlink in `l/`: 26 base32 digits, short so that many fit into a page of
/// mount options (moby overlay2.go `generateID`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(String);

/// The error for an invalid ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} '{text}'")]
pub struct IdError {
    what: &'static str,
    text: String,
}

impl CacheId {
    /// Generates a random ID.
    ///
    /// # Errors
    /// The kernel's random generator failed.
    pub fn generate() -> io::Result<Self> {
        loop {
            let hex = fsutil::random_hex::<32>()?;
            // Docker avoids IDs whose short form is a number.
            if !hex[..12].bytes().all(|b| b.is_ascii_digit()) {
                return Ok(Self(hex));
            }
        }
    }

    /// Parses the name of a directory that may belong to a container: dockerd appends `-init` to
    /// that of the layer below a container's layer (moby layer/layer_store.go `initMount`).
    pub fn of_container(text: &str) -> Option<Self> {
        let plain: Self = text.strip_suffix("-init").unwrap_or(text).parse().ok()?;
        Some(if plain.0 == text { plain } else { Self(text.to_owned()) })
    }

    /// Returns whether BuildKit created the directory. Its build cache refers to it, too.
    pub fn is_of_buildkit(&self) -> bool {
        is_buildkit_id(&self.0)
    }

    /// Returns the directory's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LinkId {
    /// Generates a random ID.
    ///
    /// # Errors
    /// The kernel's random generator failed.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; 17];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let mut text = BASE32.encode(&bytes);
        text.truncate(26);
        Ok(Self(text))
    }

    /// Returns the symlink's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CacheId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if (text.len() == 64 && text.bytes().all(hex)) || is_buildkit_id(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(IdError { what: "cache id", text: text.to_owned() })
    }
}

fn is_buildkit_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

impl FromStr for LinkId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let base32 = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        if text.len() == 26 && text.bytes().all(base32) {
            return Ok(Self(text.to_owned()));
        }
        Err(IdError { what: "link id", text: text.to_owned() })
    }
}

impl fmt::Display for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_have_the_form_of_docker() {
        let cache = CacheId::generate().unwrap();
        assert_eq!(cache.as_str().parse::<CacheId>().unwrap(), cache);
        let link = LinkId::generate().unwrap();
        assert_eq!(link.as_str().parse::<LinkId>().unwrap(), link);
        assert!("../../etc".parse::<CacheId>().is_err());
        let init = format!("{cache}-init");
        assert_eq!(CacheId::of_container(&init).unwrap().as_str(), init);
        assert_eq!(CacheId::of_container("../x-init"), None);
        assert!(!cache.is_of_buildkit());
        assert!("97hedujzdfi3nwntmld3hmxvt".parse::<CacheId>().unwrap().is_of_buildkit());
        assert!("97hedujzdfi3nwntmld3hmx..".parse::<CacheId>().is_err());
        assert!("lower".parse::<LinkId>().is_err());
    }
}
