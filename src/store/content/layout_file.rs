//! `oci-layout`: says that a directory is an OCI image layout, and of which version.

use super::dir::Dir;
use super::read;
use crate::fsutil::{At, FsError};

pub const NAME: &str = "oci-layout";

/// What rpull writes into it.
pub const TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const LARGEST: u64 = 64 << 10;

/// Whether the file is there and names a version. One of another tool is left as it is.
///
/// # Errors
/// [`FsError`].
pub fn is_valid(root: &Dir) -> Result<bool, FsError> {
    let Some(file) = root.file(NAME)? else { return Ok(false) };
    let text = read(&file, LARGEST).at("read", &root.path().join(NAME))?;
    let json = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    Ok(json.is_some_and(|json| json["imageLayoutVersion"].is_string()))
}
