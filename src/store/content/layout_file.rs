//! `oci-layout`: marks a directory as an OCI image layout, with its version.

use super::dir::Dir;
use super::read;
use crate::fsutil::{At, FsError};

pub const NAME: &str = "oci-layout";

/// The content that rpull writes.
pub const TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const MAX_SIZE: u64 = 64 << 10;

/// Returns whether the file exists and contains a version.
///
/// # Errors
/// [`FsError`] if it cannot be read.
pub fn is_valid(root: &Dir) -> Result<bool, FsError> {
    let Some(file) = root.file(NAME)? else { return Ok(false) };
    let text = read(&file, MAX_SIZE).at("read", &root.path().join(NAME))?;
    let json = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    Ok(json.is_some_and(|json| json["imageLayoutVersion"].is_string()))
}
