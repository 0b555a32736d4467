//! Digests and hashing.
//!
//! ```text
//! digest    := "sha256:" 64 * lowercase-hex
//! ```
//!
//! The grammar is OCI image-spec `descriptor.md` ("Digests"), narrowed to the one
//! algorithm that Docker's store has directories for.

mod hasher;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

pub use hasher::Hasher;

/// Bytes that are read per step of hashing.
const STEP_SIZE: usize = 256 << 10;

/// A SHA-256 digest, displayed as `sha256:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// The error for an invalid digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The text has no `algorithm:` prefix or invalid hex digits.
    #[error("invalid checksum digest format: '{0}' (expected sha256:<64 hex digits>)")]
    Format(String),
    /// The algorithm is not supported.
    #[error("unsupported digest algorithm '{0}' (rpull verifies sha256)")]
    Algorithm(String),
    /// The number of hex digits is not 64.
    #[error("invalid checksum digest length: {0} hex digits (sha256 has 64)")]
    Length(usize),
}

impl Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Computes the digest of all bytes of `reader`.
    ///
    /// # Errors
    /// The reader's error.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; STEP_SIZE]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Returns the 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Returns the first 12 hex digits, Docker's short form.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..6])
    }

    /// Parses 64 hex digits without the algorithm.
    ///
    /// # Errors
    /// [`DigestError::Length`] or [`DigestError::Format`] if they are not 64 lower-case digits.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        if hex.len() != 64 {
            return Err(DigestError::Length(hex.len()));
        }
        let mut value = [0; 32];
        match HEXLOWER.decode_mut(hex.as_bytes(), &mut value) {
            Ok(32) => Ok(Self(value)),
            _ => Err(DigestError::Format(hex.to_owned())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(DigestError::Format(text.to_owned()));
        };
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.to_owned()));
        }
        Self::from_hex(hex)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Hasher::new().finish());
    }

    #[test]
    fn digest_with_an_invalid_part_names_it() {
        assert!(matches!("abc".parse::<Digest>(), Err(DigestError::Format(_))));
        assert!(
            matches!("sha512:ab".parse::<Digest>(), Err(DigestError::Algorithm(a)) if a == "sha512")
        );
        assert!(matches!("sha256:ab".parse::<Digest>(), Err(DigestError::Length(2))));
        let upper = format!("sha256:{}", "A".repeat(64));
        assert!(matches!(upper.parse::<Digest>(), Err(DigestError::Format(_))));
    }
}
