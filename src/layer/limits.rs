//! Bounds on what an archive may ask for: guards against bombs.

use super::LayerError;

/// The bounds. Each has a flag.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Uncompressed bytes of one layer.
    pub bytes: u64,
    /// How many times larger than its blob a layer may become, once it is over 1 GiB.
    pub ratio: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Parts of a path.
    pub depth: usize,
    /// Bytes of one PAX or GNU auxiliary header.
    pub pax: u64,
}

/// Below this many bytes a layer may have any ratio: zeros compress a thousandfold.
const RATIO_FROM: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Self {
        // Go's reader, and so dockerd, takes auxiliary headers of up to 1 MiB.
        Self { bytes: 1 << 40, ratio: 200, entries: 10_000_000, depth: 1024, pax: 1 << 20 }
    }
}

impl Limits {
    /// Checks what an archive has come to.
    ///
    /// # Errors
    /// [`LayerError::Limit`].
    pub fn check(&self, bytes: u64, blob: Option<u64>, entries: u64) -> Result<(), LayerError> {
        if bytes > self.bytes {
            return Err(limit("its unpacked size in bytes", self.bytes, "--max-layer-size"));
        }
        if entries > self.entries {
            return Err(limit("its number of entries", self.entries, "--max-entries"));
        }
        let over = |blob: u64| bytes > RATIO_FROM && bytes / self.ratio.max(1) > blob;
        if blob.is_some_and(over) {
            return Err(limit(
                "its ratio of unpacked to compressed size",
                self.ratio,
                "--max-ratio",
            ));
        }
        Ok(())
    }
}

fn limit(what: &'static str, limit: u64, flag: &'static str) -> LayerError {
    LayerError::Limit { what, limit, flag }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds() {
        let limits = Limits { bytes: 4 << 30, entries: 10, ..Limits::default() };
        assert!(limits.check(4 << 30, Some(1 << 30), 10).is_ok());
        assert!(limits.check((4 << 30) + 1, None, 0).is_err());
        assert!(limits.check(0, None, 11).is_err());
        assert!(limits.check(2 << 30, Some(1 << 20), 0).is_err());
        assert!(limits.check(1 << 30, Some(1 << 10), 0).is_ok(), "small layers of zeros are fine");
    }
}
