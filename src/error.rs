//! The error that a command ends with: its kind (the exit code) and a hint for the user.

use std::io;

use crate::digest::Digest;
use crate::fsutil::FsError;
use crate::layer::LayerError;
use crate::oci::{DiffId, ManifestError, PlatformError};
use crate::reference::ReferenceError;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Anything that can end a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Invalid image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Invalid platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A manifest or config cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A request to a registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A store operation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer could not be unpacked.
    #[error("layer {}: {source}", layer.short())]
    Layer {
        /// The blob.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// The layer's diff id differs from the one in the image's config.
    #[error(
        "filesystem layer verification failed for {layer}: the diff id is {actual}, the image's config says {expected}"
    )]
    DiffId {
        /// The blob.
        layer: Digest,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// `--policy never`, and the image is not there.
    #[error("{0} is not in the store, and --policy never forbids a pull")]
    NotPresent(String),
    /// `--policy never`, and the image that is there is damaged.
    #[error("{image} is damaged in the store ({why}), and --policy never forbids a repair")]
    Damaged {
        /// The image as it was named.
        image: String,
        /// What is wrong with it.
        why: String,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// A mount failed.
    #[error("cannot mount at {target}: {source}")]
    Mount {
        /// Where.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// A part of rpull panicked: a bug in rpull.
    #[error("internal error: {0}")]
    Internal(String),
    /// Something that does not fit elsewhere.
    #[error("{0}")]
    Other(String),
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}

/// The category of an error; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// None of the others.
    Other = 1,
    /// Invalid arguments.
    Usage = 2,
    /// It does not exist.
    NotFound = 3,
    /// Credentials are wrong or missing.
    Auth = 4,
    /// No connection.
    Network = 5,
    /// Content is not what it should be.
    Integrity = 6,
    /// The disk is full, or files cannot be written.
    Storage = 7,
    /// Another process uses it.
    Busy = 8,
    /// Too many requests.
    RateLimited = 9,
    /// By Ctrl-C.
    Interrupted = 130,
}

impl Error {
    /// Returns the category, which decides the exit code.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reference(_) | Self::Platform(_) | Self::Usage(_) => Kind::Usage,
            Self::Manifest(ManifestError::NoPlatform { .. }) | Self::NotPresent(_) => {
                Kind::NotFound
            }
            Self::Manifest(_) => Kind::Integrity,
            Self::Registry(error) => of_registry(error),
            Self::Store(error) => of_store(error),
            Self::Layer { source, .. } => of_layer(source),
            Self::DiffId { .. } | Self::Damaged { .. } => Kind::Integrity,
            Self::Interrupted => Kind::Interrupted,
            Self::Mount { source, .. } => of_io(source),
            Self::Internal(_) | Self::Other(_) => Kind::Other,
        }
    }

    /// Returns what the user can do about it, in the imperative.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Internal(_) | Self::Registry(RegistryError::Internal(_)) => {
                Some("this is a bug in rpull: report it with this message, the command and `rpull --version`".to_owned())
            }
            Self::Registry(error) => hint_registry(error),
            Self::Store(error) => hint_store(error),
            Self::Manifest(error) => Some(hint_manifest(error).to_owned()),
            Self::Layer { source, .. } => hint_layer(source),
            Self::DiffId { .. } => Some(INVALID_IMAGE.to_owned()),
            Self::NotPresent(_) => Some("pull it without --policy never".to_owned()),
            Self::Damaged { .. } => {
                Some("pull it without --policy never, which repairs the store".to_owned())
            }
            Self::Reference(_) => Some(
                "use a name like nginx, nginx:1.27 or quay.io/org/image@sha256:<digest>".to_owned(),
            ),
            Self::Platform(_) => Some("use a platform like linux/arm64 or linux/arm/v7".to_owned()),
            Self::Mount { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root, or let another tool mount what `rpull mount --print` shows".to_owned())
            }
            _ => None,
        }
    }
}

fn of_registry(error: &RegistryError) -> Kind {
    match error {
        RegistryError::NotFound { .. } => Kind::NotFound,
        RegistryError::Network { .. }
        | RegistryError::Tls { .. }
        | RegistryError::Status { .. } => Kind::Network,
        RegistryError::Protocol { .. } => Kind::Network,
        RegistryError::InsecureRedirect { .. } => Kind::Network,
        RegistryError::Token { status: 0 | 300..=399 | 500.., .. } => Kind::Network,
        RegistryError::Token { status: 429, .. } | RegistryError::RateLimited { .. } => {
            Kind::RateLimited
        }
        RegistryError::Token { .. }
        | RegistryError::Denied { .. }
        | RegistryError::Unauthorized { .. } => Kind::Auth,
        RegistryError::Credentials { .. } | RegistryError::InsecureRealm { .. } => Kind::Auth,
        RegistryError::Digest { .. }
        | RegistryError::Size { .. }
        | RegistryError::TooLarge { .. } => Kind::Integrity,
        RegistryError::Certificates { .. } => Kind::Usage,
        RegistryError::Internal(_) => Kind::Other,
    }
}

fn of_store(error: &StoreError) -> Kind {
    match error {
        StoreError::Fs(error) => of_io(&error.source),
        StoreError::NoStore(_) | StoreError::NoSuchImage(_) => Kind::NotFound,
        StoreError::Damaged { .. } | StoreError::DamagedNames { .. } => Kind::Integrity,
        StoreError::Ambiguous { .. } | StoreError::Reference(_) => Kind::Usage,
        StoreError::Dockerd { .. } | StoreError::InUse { .. } => Kind::Busy,
        StoreError::Interrupted => Kind::Interrupted,
        StoreError::Random(_) => Kind::Other,
    }
}

fn of_layer(error: &LayerError) -> Kind {
    match error {
        // An archive whose entries stand in each other's way: no disk would take it.
        LayerError::Write { source, .. } if is_of_paths(source.kind()) => Kind::Integrity,
        LayerError::Write { .. } | LayerError::Open { .. } | LayerError::TarSplit(_) => {
            Kind::Storage
        }
        LayerError::Thread { .. } => Kind::Other,
        LayerError::Source(_) => Kind::Network,
        LayerError::Cancelled => Kind::Interrupted,
        _ => Kind::Integrity,
    }
}

fn is_of_paths(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound};
    matches!(kind, AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | NotFound)
}

fn of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::ResourceBusy => Kind::Busy,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
        _ => Kind::Storage,
    }
}

/// For content whose digest is right, so that neither the registry nor the network altered it.
const INVALID_IMAGE: &str =
    "the image itself is invalid; ask its publisher to build and push it again";

/// For content that is not what its digest or size promises.
const ALTERED: &str = "check that no proxy alters content, then retry; nothing was kept";

fn hint_store(error: &StoreError) -> Option<String> {
    Some(
        match error {
            StoreError::Fs(error) => return hint_storage(&error.source),
            StoreError::Dockerd { .. } => {
                "stop dockerd, run the command, and start dockerd again; or choose another --root"
            }
            StoreError::NoStore(_) => {
                "pull an image first, or choose a store with --root or RPULL_ROOT"
            }
            StoreError::NoSuchImage(_) => "run `rpull images` to list the images of the store",
            StoreError::Ambiguous { .. } => "give more digits of the id",
            StoreError::InUse { .. } => "remove or unmount what uses it first",
            StoreError::DamagedNames { .. } => {
                "restore this file from a backup, or move it away and pull the images again"
            }
            StoreError::Damaged { .. } => "pull the image again, which repairs the store",
            StoreError::Reference(_) => {
                "use a name like nginx, nginx:1.27 or quay.io/org/image@sha256:<digest>"
            }
            StoreError::Interrupted | StoreError::Random(_) => return None,
        }
        .to_owned(),
    )
}

fn hint_manifest(error: &ManifestError) -> &'static str {
    match error {
        ManifestError::NoPlatform { .. } => "choose one of the offered platforms with --platform",
        ManifestError::Schema1 => "ask its publisher to push the image again with a current tool",
        ManifestError::NotAnImage { .. } | ManifestError::MediaType(_) => {
            "check the name and tag: rpull pulls container images only"
        }
        ManifestError::Layer { .. } => {
            "ask the publisher for an image whose layers are tar archives (plain, gzip or zstd)"
        }
        ManifestError::TooManyLayers(_) => "ask the publisher for an image with fewer layers",
        _ => INVALID_IMAGE,
    }
}

fn hint_layer(error: &LayerError) -> Option<String> {
    Some(match error {
        LayerError::Limit { flag, .. } => {
            format!("if you trust the image, raise the limit with {flag}")
        }
        LayerError::Digest { .. } | LayerError::Size { .. } => ALTERED.to_owned(),
        LayerError::Damaged { .. } => "pull the image again, which repairs the store".to_owned(),
        LayerError::Compression(_) => {
            "ask the publisher for an image with gzip or zstd layers".to_owned()
        }
        LayerError::Write { source, .. } if is_of_paths(source.kind()) => INVALID_IMAGE.to_owned(),
        LayerError::Write { source, .. }
        | LayerError::Open { source, .. }
        | LayerError::TarSplit(source) => return hint_storage(source),
        LayerError::Thread { .. } => "close other programs, or lower --jobs, then retry".to_owned(),
        LayerError::Source(_) | LayerError::Cancelled => return None,
        _ => INVALID_IMAGE.to_owned(),
    })
}

fn hint_storage(source: &io::Error) -> Option<String> {
    Some(
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space or choose another --root, then retry; complete layers are kept"
            }
            io::ErrorKind::PermissionDenied => {
                "run as the owner of the root, or choose another with --root"
            }
            io::ErrorKind::ReadOnlyFilesystem => "choose a writable directory with --root",
            _ => return None,
        }
        .to_owned(),
    )
}

fn hint_registry(error: &RegistryError) -> Option<String> {
    Some(
        match error {
            RegistryError::NotFound { .. } => "check the name and tag",
            RegistryError::Denied { .. } => {
                "check the name; for a private repository, log in (docker login, podman login) or give --username and --password-stdin"
            }
            RegistryError::Unauthorized { source_of: None, .. } => {
                "log in (docker login, podman login) or give --username and --password-stdin"
            }
            RegistryError::Unauthorized { source_of: Some(from), .. } => {
                return Some(format!(
                    "the registry rejected the credentials from {from}: correct them or log in again"
                ));
            }
            RegistryError::Token { status: 401 | 403, .. } => {
                "the token server rejected the credentials: log in again"
            }
            RegistryError::Token { status: 0 | 300..=399 | 500.., .. } => {
                "check that the token server is running and that no proxy interferes, then retry"
            }
            RegistryError::InsecureRealm { https: true, .. } => {
                "ask the registry's administrator for an https:// realm; pull public images without credentials"
            }
            RegistryError::InsecureRealm { https: false, .. } => {
                "if you trust the network, give --plain-http"
            }
            RegistryError::InsecureRedirect { .. } => {
                "ask the registry's administrator to redirect to https://; if you trust the network, --plain-http uses plain HTTP for everything"
            }
            RegistryError::Tls { .. } => {
                "put the registry's CA into a certs.d directory as <host[:port]>/ca.crt; if the registry only serves plain HTTP, use --plain-http"
            }
            RegistryError::Network { down: true, .. } => {
                "check the registry's name and port, and that it is running"
            }
            RegistryError::RateLimited { .. } => {
                "log in for a higher limit, or retry later; complete layers are kept"
            }
            RegistryError::Size { .. } | RegistryError::Digest { .. } => ALTERED,
            RegistryError::TooLarge { .. } => "check that the host is a registry",
            RegistryError::Network { .. }
            | RegistryError::Status { .. }
            | RegistryError::Protocol { .. } => {
                "check that the host is a registry and that no proxy interferes, then retry"
            }
            _ => return None,
        }
        .to_owned(),
    )
}

#[cfg(test)]
mod tests;
