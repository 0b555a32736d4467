//! The fields of an image config that rpull reads (OCI image-spec config.md).

use serde::Deserialize;

use super::ids::DiffId;
use super::manifest::ManifestError;
use super::platform::Platform;

/// An image config. All other fields are ignored, so invalid ones cannot fail a pull.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    rootfs: Option<RootFs>,
    #[serde(default)]
    history: Option<Vec<HistoryEntry>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<DiffId>>,
}

#[derive(Debug, Clone, Deserialize)]
struct HistoryEntry {
    #[serde(default)]
    empty_layer: bool,
}

impl ImageConfig {
    /// Parses a config.
    ///
    /// # Errors
    /// [`ManifestError::Config`] if it is not JSON of the right structure, has no `rootfs`, or has
    /// more layers in its history than in `rootfs`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wrong = |what: String| ManifestError::Config(what);
        let config: Self = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if config.rootfs.is_none() {
            return Err(wrong("rootfs, which lists the layers, is missing".to_owned()));
        }
        let count_layers =
            |history: &Vec<HistoryEntry>| history.iter().filter(|entry| !entry.empty_layer).count();
        let (layers, non_empty) =
            (config.diff_ids().len(), config.history.as_ref().map_or(0, count_layers));
        // dockerd refuses such an image when it loads its store.
        if non_empty > layers {
            return Err(wrong(format!(
                "too many non-empty layers in its history: {non_empty}, for {layers} layers"
            )));
        }
        Ok(config)
    }

    /// Returns the diff IDs of the layers, base first.
    pub fn diff_ids(&self) -> &[DiffId] {
        self.rootfs.as_ref().and_then(|rootfs| rootfs.diff_ids.as_deref()).unwrap_or(&[])
    }

    /// Checks that there is a diff ID for each of `layers` layers.
    ///
    /// # Errors
    /// [`ManifestError::LayerCount`] if the numbers differ.
    pub fn check_layers(&self, layers: usize) -> Result<(), ManifestError> {
        let diff_ids = self.diff_ids().len();
        if diff_ids == layers {
            Ok(())
        } else {
            Err(ManifestError::LayerCount { layers, diff_ids })
        }
    }

    /// Returns the platform of the image.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }

    /// Returns whether the image runs on `wanted`. An image without a platform does, and so does
    /// one without a variant (moby `OnlyPlatformWithFallback`).
    pub fn runs_on(&self, wanted: &Platform) -> bool {
        if self.os.is_empty() && self.architecture.is_empty() {
            return true;
        }
        let own = self.platform();
        let is_base = self.variant.is_empty()
            && (&own.os, &own.architecture) == (&wanted.os, &wanted.architecture);
        is_base || wanted.rank(&own).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_with_odd_fields_is_parsed() {
        let json = br#"{"created":"yesterday","os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":null},"config":7}"#;
        let config = ImageConfig::parse(json).unwrap();
        assert_eq!(config.diff_ids(), []);
        assert!(config.check_layers(1).is_err());
        assert!(config.runs_on(&"linux/amd64/v3".parse().unwrap()));
        assert!(!config.runs_on(&"linux/arm64".parse().unwrap()));
        let arm = br#"{"os":"linux","architecture":"arm","rootfs":{"diff_ids":[]}}"#;
        let arm = ImageConfig::parse(arm).unwrap();
        assert!(arm.runs_on(&"linux/arm/v6".parse().unwrap()), "it has no variant");
        assert!(!arm.runs_on(&"linux/amd64".parse().unwrap()));
        assert!(ImageConfig::parse(b"{}").is_err());
        let history = br#"{"rootfs":{"diff_ids":[]},"history":[{"created_by":"x"}]}"#;
        assert!(ImageConfig::parse(history).is_err());
    }
}
