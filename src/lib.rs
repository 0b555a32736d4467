//! rpull pulls container images from registries into Docker's own on-disk layout, verified and
//! ready to mount, without a daemon.
//!
//! ```no_run
//! # async fn example() -> Result<(), rpull::Error> {
//! let store = rpull::Store::open("/var/lib/images")?;
//! let image = rpull::Client::from_env().pull("nginx:1.27").into(&store).await?;
//! for layer in image.layers()? {
//!     println!("{} {}", layer.chain_id(), layer.diff_dir().display());
//! }
//! image.mount("/mnt")?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | set credentials, certificates and timeouts | [`ClientBuilder`] |
//! | look up credentials in a place of your own | [`credentials::CredentialSource`] |
//! | set the platform, the policy and limits; receive events | [`Pull`] |
//! | list, find, tag and remove images | [`Store`] |
//! | commit the changes of a writable mount | [`Commit`] |
//! | add layers from tars, and images made of them | [`Import`] |
//! | get the layers, config and mount of an image | [`Image`] |
//! | see which layers images share | [`LayerTree`] |
//! | read or export the files of an image | [`Files`] |
//! | mount without root | [`enter_user_namespace`] |
//! | find and repair damage of a store | [`Check`], [`Client::repair`] |
//! | measure a store; remove orphans and unused images | [`Usage`], [`Removal`] |
//! | decide what to do about an error | [`Error::kind`] |
//!
//! The library never writes to the terminal. Its errors and events contain text from registries,
//! images and files unchanged; a program that prints them passes them through [`printable`].
//!
//! Each operation takes the locks that it needs, so any number of programs, the `rpull` command
//! among them, can use one store at the same time.

#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct Examples;

// docs/ARCHITECTURE.md shows which module may import which, and who writes which file.
mod api; // the public face
mod archive; // images as archives: docker-archive, OCI image layout
mod build; // images from Dockerfiles; blocking
mod bundle; // config.json of OCI runtimes
mod copy; // from registry to registry, without a store
mod digest; // hash values and hashing
pub mod error;
mod fsutil; // atomic and durable file operations
mod import; // layers and images from this machine; blocking
mod layer; // from a compressed stream to verified files; blocking only
mod namespace; // user and mount namespaces, to mount without root
mod oci; // descriptors, manifests, indexes, configs, platforms, IDs
mod overlay; // overlay2 directories, confined file operations, mounts
pub mod printable;
mod progress; // what happens during a pull, as events
mod pull; // the operation, which joins registry, layer and store
mod push; // the way back: from the store to a registry
mod reference; // names of images
mod registry; // HTTP, credentials, manifests, blobs; async only
mod store; // Docker's root as records; blocking only

pub use api::{
    Archive, ArchivedImage, BaseImage, Build, BuildHost, Built, Bundle, Check, CheckProgress,
    CheckReport, Client, ClientBuilder, Commit, CommittedImage, Container, ContainerEnd,
    ContainerSignals, ContainerStdin, Copy, CopyOwners, Difference, DifferenceKind, FileInfo,
    FileKind, Files, Image, ImageLayer, Import, ImportedLayer, LastLink, LoadedImage, MountPlan,
    OciRuntime, PreparedBuild, Pull, Push, Removal, RepairReport, Resolution, RunOptions, Save,
    Source, Store, Unmounted, Unrepaired, enter_user_namespace,
};
pub use archive::{ArchiveFormat, ArchiveLocation, SavedImage};
pub use bundle::{EnvChange, Network, Volume, parse_env_file};
pub use copy::Copied;
pub use digest::Digest;
pub use error::{Error, ErrorKind};
pub use import::Source as LayerSource;
pub use layer::Limits;
pub use namespace::MappedIds;
pub use oci::{ChainId, DiffId, ImageId, Platform};
pub use overlay::{NotCopied, quote as shell_quote};
pub use progress::Event;
pub use pull::Policy;
pub use push::{ManifestFormat, Pushed};
pub use reference::{Reference, Repository};
pub use store::{
    Damage, DamageClass, HistoryLine as HistoryEntry, ImageLine as ImageSummary, ImageUsage,
    LayerSelector, LayerTree, MountLine as MountSummary, NotShown, Orphan, OrphanKind, Orphans,
    Prune, Pruned, PrunedImage, Removed, TreeImage, TreeLayer, Usage, WritableMount,
};

/// Credentials for registries, and sources of them.
pub mod credentials {
    pub use crate::registry::{Credential, CredentialSource, Found, Secret};
}

/// What happens during a pull.
pub mod event {
    pub use crate::progress::{Event, Image as ImageRef, LayerState, Phase, PushState, Status};
}

/// What this package's own command, tests and benchmarks need of the library. There is no
/// promise of stability: anything here can change or disappear in any version.
#[doc(hidden)]
pub mod internal {
    pub use crate::pull::{reserve_threads, try_threads};
    pub use crate::store::stop_waiting;

    #[doc(hidden)]
    pub mod digest {
        pub use crate::digest::*;
    }
    #[doc(hidden)]
    pub mod fsutil {
        pub use crate::fsutil::*;
    }
    #[doc(hidden)]
    pub mod layer {
        pub use crate::layer::*;
    }
    #[doc(hidden)]
    pub mod oci {
        pub use crate::oci::*;
    }
    #[doc(hidden)]
    pub mod overlay {
        pub use crate::overlay::*;
    }
    #[doc(hidden)]
    pub mod progress {
        pub use crate::progress::*;
    }
    #[doc(hidden)]
    pub mod reference {
        pub use crate::reference::*;
    }
    #[doc(hidden)]
    pub mod registry {
        pub use crate::registry::*;
    }
}
