//! What all layers of one image unpack to, for the limits on the whole image.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LayerError;
use super::error::LimitKind;
use super::limits::Limits;

/// What the layers of one image unpacked so far. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct ImageUsage(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    entries: AtomicU64,
}

/// What one layer adds to its image. It is subtracted again unless the layer is kept.
#[derive(Debug)]
pub struct LayerUsage {
    image: ImageUsage,
    bytes: u64,
    entries: u64,
    is_kept: bool,
}

impl LayerUsage {
    /// Begins a layer of `image`.
    pub fn new(image: ImageUsage) -> Self {
        Self { image, bytes: 0, entries: 0, is_kept: false }
    }

    /// Notes how many `bytes` and `entries` the layer has so far, and checks those of the image.
    ///
    /// # Errors
    /// [`LayerError::Limit`].
    pub fn update(&mut self, bytes: u64, entries: u64, limits: &Limits) -> Result<(), LayerError> {
        let add = |count: &AtomicU64, before: &mut u64, now: u64| {
            let more = now.saturating_sub(*before);
            *before += more;
            count.fetch_add(more, Ordering::Relaxed).saturating_add(more)
        };
        let Counts { bytes: all_bytes, entries: all_entries } = &*self.image.0;
        let all_bytes = add(all_bytes, &mut self.bytes, bytes);
        let all_entries = add(all_entries, &mut self.entries, entries);
        for (what, all, limit) in [
            (LimitKind::ImageBytes, all_bytes, limits.image_bytes),
            (LimitKind::ImageEntries, all_entries, limits.image_entries),
        ] {
            if all > limit {
                return Err(LayerError::Limit { what, limit });
            }
        }
        Ok(())
    }

    /// Keeps what the layer added.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for LayerUsage {
    fn drop(&mut self) {
        if !self.is_kept {
            self.image.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            self.image.0.entries.fetch_sub(self.entries, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_count_together_unless_they_failed() {
        let limits = Limits { image_bytes: 100, image_entries: 10, ..Limits::default() };
        let image = ImageUsage::default();
        let layer = || LayerUsage::new(image.clone());
        let mut one = layer();
        one.update(40, 1, &limits).unwrap();
        one.update(60, 4, &limits).unwrap();
        one.keep();
        let mut failed = layer();
        let error = failed.update(41, 1, &limits).unwrap_err();
        assert!(matches!(error, LayerError::Limit { what: LimitKind::ImageBytes, limit: 100 }));
        drop(failed);
        let mut two = layer();
        two.update(40, 6, &limits).unwrap();
        let error = two.update(40, 7, &limits).unwrap_err();
        assert!(matches!(error, LayerError::Limit { what: LimitKind::ImageEntries, limit: 10 }));
        assert!(layer().update(u64::MAX, 0, &limits).is_err());
    }
}
