//! Descriptors (OCI image-spec descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::platform::Platform;
use crate::digest::Digest;

/// A descriptor of content: its media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; may be empty in old manifests.
    #[serde(default)]
    pub media_type: String,
    /// The SHA-256 of the content.
    pub digest: Digest,
    /// The size of the content in bytes; at most 2^63 - 1, as in Docker.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// The platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Further URLs of the content ("foreign layers").
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = i64::deserialize(deserializer)?;
    u64::try_from(size).map_err(|_| D::Error::custom(format!("the size {size} is negative")))
}
