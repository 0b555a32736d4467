//! The record of a writable mount. Earlier versions wrote only `image` and `id`.

use std::path::Path;

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::mount_name;
use crate::fsutil;
use crate::oci::{ChainId, ImageId};

/// Bytes of a record at most.
const MAX_SIZE: u64 = 64 << 10;

/// What a writable mount is, and what it is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountRecord {
    /// The name; `None` in a record of an earlier version.
    #[serde(default)]
    pub name: Option<String>,
    /// The image as the user named it.
    pub image: String,
    /// The image ID.
    pub id: ImageId,
    /// The topmost layer that it is based on; `None` in a record of an earlier version, whose mounts are
    /// based on the whole image.
    #[serde(default)]
    pub base: Option<ChainId>,
    /// Whether overlayfs's marks in its changes are in `user.overlay.*`.
    #[serde(default)]
    pub userxattr: bool,
    /// Whether it stays without changes, because the user chose its name.
    #[serde(default)]
    pub keep: bool,
    /// Whether it is removed with its changes once nothing uses it.
    #[serde(default)]
    pub temporary: bool,
    /// When it was created, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// When it was mounted last, RFC 3339.
    #[serde(default)]
    pub mounted: Option<String>,
    /// Where it was mounted last, for display only.
    #[serde(default)]
    pub target: Option<String>,
}

impl MountRecord {
    /// Creates the record of a mount of the layers up to `base`.
    pub fn new(image: String, id: ImageId, base: ChainId, userxattr: bool) -> Self {
        Self {
            name: None,
            image,
            id,
            base: Some(base),
            userxattr,
            keep: false,
            temporary: false,
            created: None,
            mounted: None,
            target: None,
        }
    }

    /// Reads a record; `None` if it is missing or malformed. A name that is not one counts as none.
    pub fn read(path: &Path) -> Option<Self> {
        let mut record: Self = serde_json::from_slice(&fsutil::read(path, MAX_SIZE).ok()?).ok()?;
        record.name = record.name.filter(|name| mount_name::check(name).is_ok());
        Some(record)
    }
}

/// Returns the time, RFC 3339.
pub fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}
