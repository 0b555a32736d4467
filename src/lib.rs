//! rpull: pull container images into Docker's own on-disk layout, without a daemon.
//!
//! # The modules, from below
//!
//! | module | owns |
//! | --- | --- |
//! | [`digest`] | hash values and hashing |
//! | [`fsutil`] | atomic, durable, well-reported file operations |
//! | [`printable`] | text from outside, made safe to print |
//! | [`mod@reference`] | names of images |
//! | [`oci`] | descriptors, manifests, indexes, configs, platforms, ids |
//! | [`progress`] | what happens, as events |
//! | [`overlay`] | overlay2 directories, confined file operations, mounts |
//! | [`registry`] | the wire; async only |
//! | [`layer`] | a compressed stream to verified files; blocking only |
//! | [`store`] | Docker's root as records; blocking only |
//! | [`pull`] | the operation, and the only one who knows the three before |
//! | [`error`] | what a command ends with |
//!
//! Who may import whom is a table in docs/ARCHITECTURE.md that a test enforces. The library
//! never touches the terminal. Its errors and events hold text from registries, images and
//! files as it came; a program that prints them passes them through [`printable`].
//!
//! # A pull
//!
//! ```text
//! Reference -> pull::resolve -> Manifest -> pull::plan -> pull::stage (parallel)
//!     registry::BlobStream -> pull::bridge -> layer::unpack -> overlay::DiffDir
//! -> pull::commit (in order): store::Layers -> store::Images -> store::Names
//! ```
//!
//! # Who writes what
//!
//! | on disk | by |
//! | --- | --- |
//! | `overlay2/<cache-id>/diff` | [`layer::unpack`] through [`overlay::DiffDir`] |
//! | `overlay2/<cache-id>/{link,lower,work,committed}` | [`overlay::OverlayRoot`] |
//! | `image/overlay2/layerdb/sha256/<chain-id>` | [`store::Layers`] |
//! | `image/overlay2/imagedb` | [`store::Images`] |
//! | `image/overlay2/distribution` | [`store::Distribution`] |
//! | `image/overlay2/repositories.json` | [`store::Names`] |
//! | `rpull/content` | [`store::Content`] |

pub mod digest;
pub mod error;
pub mod fsutil;
pub mod layer;
pub mod oci;
pub mod overlay;
pub mod printable;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;

pub use error::{Error, ErrorKind};

/// Credentials for registries, and sources of them.
pub mod credentials {
    pub use crate::registry::{Credential, CredentialSource, Found, Secret};
}
