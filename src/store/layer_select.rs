//! The choice of one layer of an image.

use super::{LayerRecord, Store, StoreError};

/// Hex digits of an ID at least.
const MIN_DIGITS: usize = 12;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerSelector {
    /// Its position, from the base, which is 1.
    Position(usize),
    /// Its diff ID, its chain ID or the digest of its blob, or at least 12 hex digits of the beginning of
    /// one, with or without `sha256:`.
    Id(String),
}

impl Store {
    /// Returns the layers up to the selected one, base first.
    ///
    /// # Errors
    /// [`StoreError::NoSuchLayer`] or [`StoreError::AmbiguousLayer`] if not exactly one layer matches,
    /// [`StoreError::LayerId`] if it is not an ID.
    pub(super) fn layers_up_to(
        &self,
        image: &str,
        mut layers: Vec<LayerRecord>,
        selector: &LayerSelector,
    ) -> Result<Vec<LayerRecord>, StoreError> {
        let none = |layer: &str| StoreError::NoSuchLayer {
            image: image.to_owned(),
            layer: layer.to_owned(),
            count: layers.len(),
        };
        let position = match selector {
            LayerSelector::Position(position) if (1..=layers.len()).contains(position) => *position,
            LayerSelector::Position(position) => return Err(none(&position.to_string())),
            LayerSelector::Id(text) => {
                let found = self.matches(&layers, digits(text)?)?;
                match found.as_slice() {
                    [] => return Err(none(text)),
                    [(position, _)] => *position,
                    many => {
                        let name = |(position, id): &(usize, String)| format!("{position} ({id})");
                        return Err(StoreError::AmbiguousLayer {
                            id: text.clone(),
                            matches: many.iter().map(name).collect(),
                        });
                    }
                }
            }
        };
        layers.truncate(position);
        Ok(layers)
    }

    /// Returns the positions of the layers with an ID that begins with `digits`, with that ID.
    fn matches(
        &self,
        layers: &[LayerRecord],
        digits: &str,
    ) -> Result<Vec<(usize, String)>, StoreError> {
        let mut found = Vec::new();
        for (position, layer) in (1..).zip(layers) {
            let sources = self.distribution().sources(&layer.diff_id)?;
            let blobs = sources.iter().map(|source| ("blob", source.digest));
            let ids = [("diff ID", layer.diff_id.digest()), ("chain ID", layer.chain.digest())];
            let id = ids.into_iter().chain(blobs).find(|(_, id)| id.hex().starts_with(digits));
            found.extend(id.map(|(kind, id)| (position, format!("{kind} {id}"))));
        }
        Ok(found)
    }
}

/// Returns the hex digits of an ID.
fn digits(text: &str) -> Result<&str, StoreError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match is_hex && (MIN_DIGITS..=64).contains(&digits.len()) {
        true => Ok(digits),
        false => Err(StoreError::LayerId(text.to_owned())),
    }
}
