//! The documents of the OCI image spec and Docker's v2 schema 2, as far as a pull
//! reads them.

mod config;
mod descriptor;
mod document;
mod ids;
mod manifest;
pub mod media_type;
mod platform;

pub use config::ImageConfig;
pub use descriptor::Descriptor;
pub use document::Document;
pub use ids::{ChainId, DiffId, ImageId};
pub use manifest::{AnyManifest, Index, MAX_LAYERS, Manifest, ManifestError};
pub use platform::{Platform, PlatformError};

#[cfg(test)]
mod fuzz;
