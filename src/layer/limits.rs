//! Limits on the content of an archive, against archive bombs.

use super::error::{LayerError, LimitKind};

/// The limits on one layer, and on what is unpacked of one image.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Uncompressed bytes at most.
    pub bytes: u64,
    /// The ratio of uncompressed to compressed size at most, for layers over 1 GiB.
    pub ratio: u64,
    /// Entries at most.
    pub entries: u64,
    /// Parts of a path at most.
    pub depth: usize,
    /// Bytes of one PAX or GNU extended header at most.
    pub pax: u64,
    /// Uncompressed bytes of all layers of an image at most.
    pub image_bytes: u64,
    /// Entries of all layers of an image at most.
    pub image_entries: u64,
}

/// A layer of at most this many bytes may have any ratio: zeros compress by a factor of 1000.
const RATIO_FROM: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Self {
        // Go's reader, and so dockerd, accepts extended headers of up to 1 MiB.
        Self {
            bytes: 1 << 40,
            ratio: 200,
            entries: 10_000_000,
            depth: 1024,
            pax: 1 << 20,
            image_bytes: 2 << 40,
            image_entries: 20_000_000,
        }
    }
}

impl Limits {
    /// Checks the uncompressed `bytes` and the `entries` read so far; `blob` is the compressed size.
    ///
    /// # Errors
    /// [`LayerError::Limit`].
    pub fn check(&self, bytes: u64, blob: Option<u64>, entries: u64) -> Result<(), LayerError> {
        if bytes > self.bytes {
            return Err(limit(LimitKind::Bytes, self.bytes));
        }
        if entries > self.entries {
            return Err(limit(LimitKind::Entries, self.entries));
        }
        let over = |blob: u64| bytes > RATIO_FROM && bytes / self.ratio.max(1) > blob;
        if blob.is_some_and(over) {
            return Err(limit(LimitKind::Ratio, self.ratio));
        }
        Ok(())
    }
}

fn limit(what: LimitKind, limit: u64) -> LayerError {
    LayerError::Limit { what, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_over_a_limit_is_an_error() {
        let limits = Limits { bytes: 4 << 30, entries: 10, ..Limits::default() };
        assert!(limits.check(4 << 30, Some(1 << 30), 10).is_ok());
        assert!(limits.check((4 << 30) + 1, None, 0).is_err());
        assert!(limits.check(0, None, 11).is_err());
        assert!(limits.check(2 << 30, Some(1 << 20), 0).is_err());
        assert!(
            limits.check(1 << 30, Some(1 << 10), 0).is_ok(),
            "a small layer may have any ratio"
        );
    }
}
