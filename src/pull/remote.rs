//! What a reference means at its registry, without a store.

use super::documents::{Documents, Next};
use super::resolve::LARGEST_CONFIG;
use crate::error::Error;
use crate::oci::{ImageConfig, ManifestError, Platform};
use crate::reference::Reference;
use crate::registry::{ManifestInfo, Registry};

/// Requests the manifest of the image that `name` has for `platform`.
///
/// # Errors
/// [`Error::Registry`], or [`Error::Manifest`] if there is no image for the platform.
pub async fn manifest_for(
    registry: &Registry,
    name: &Reference,
    platform: &Platform,
) -> Result<ManifestInfo, Error> {
    let mut documents = Documents::new(Some(platform));
    let mut next = name.digest();
    let (digest, manifest) = loop {
        let by = next.map(|digest| digest.to_string());
        let by = by.as_deref().or(name.tag()).unwrap_or_default();
        let raw = registry.manifest(name.repository(), by).await?;
        let digest = raw.digest;
        match documents.add(raw)? {
            Next::Document(digest) => next = Some(digest),
            Next::Manifest(manifest) => break (digest, manifest),
        }
    };
    if !documents.is_listed() {
        let config = &manifest.parsed.config;
        let bytes = registry.blob_bytes(name.repository(), config, LARGEST_CONFIG).await?;
        let config = ImageConfig::parse(&bytes)?;
        if !config.runs_on(platform) {
            let (wanted, actual) = (platform.clone(), config.platform().to_string());
            return Err(ManifestError::OtherPlatform { wanted, actual }.into());
        }
    }
    Ok(ManifestInfo { digest, media_type: manifest.media_type })
}
