//! The error that a command ends with: its kind (which is its exit code) and what to do.

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
    /// A name is no name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A platform is no platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A manifest or config cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A registry did not give what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store could not take or give something.
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
    /// A layer unpacked to something else than its config says.
    #[error(
        "filesystem layer verification failed for {layer}: it unpacks to {actual}, the image's config says {expected}"
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
    #[error("{0} is not in the store, and the policy is never to pull")]
    NotPresent(String),
    /// `--policy never`, and the image that is there is damaged.
    #[error("{image} is damaged in the store ({why}), and the policy is never to pull")]
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
    /// The command was given something that makes no sense.
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

/// What kind of end it is; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// None of the others.
    Other = 1,
    /// The command was given something wrong.
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
    /// Someone else is using it.
    Busy = 8,
    /// Too many requests.
    RateLimited = 9,
    /// By Ctrl-C.
    Interrupted = 130,
}

impl Error {
    /// The kind.
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

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Internal(_) | Self::Registry(RegistryError::Internal(_)) => {
                Some("this is a bug in rpull: report it with this message, the command and `rpull --version`".to_owned())
            }
            Self::Registry(error) => hint_registry(error),
            Self::Store(StoreError::Dockerd { .. }) => {
                Some("stop dockerd, pull, and start it again; or pull into another --root".to_owned())
            }
            Self::Store(StoreError::NoStore(_)) => {
                Some("pull an image first, or name the store with --root or RPULL_ROOT".to_owned())
            }
            Self::Store(StoreError::NoSuchImage(_)) => Some("`rpull images` lists what is there".to_owned()),
            Self::Store(StoreError::Ambiguous { .. }) => Some("give more digits of the id".to_owned()),
            Self::Store(StoreError::InUse { .. }) => Some("remove or unmount what uses it first".to_owned()),
            Self::Manifest(ManifestError::NoPlatform { .. }) => {
                Some("choose one of the offered platforms with --platform".to_owned())
            }
            Self::Layer { source: LayerError::Limit { flag, .. }, .. } => {
                Some(format!("if the image is trusted, raise the limit with {flag}"))
            }
            Self::NotPresent(_) => Some("pull it without --policy never".to_owned()),
            Self::Damaged { .. } => {
                Some("pull it without --policy never: that repairs it".to_owned())
            }
            Self::Store(StoreError::DamagedNames { .. }) => {
                Some("restore this file from a backup, or move it away and pull the images again".to_owned())
            }
            Self::Store(StoreError::Damaged { .. }) => {
                Some("pull the image again: that repairs what is damaged in the store".to_owned())
            }
            Self::Reference(_) => {
                Some("names look like nginx, nginx:1.27 or quay.io/org/image@sha256:<digest>".to_owned())
            }
            Self::Platform(_) => Some("platforms look like linux/arm64 or linux/arm/v7".to_owned()),
            Self::Mount { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("mounting needs root; `rpull mount --print` shows the line for another tool".to_owned())
            }
            _ if self.kind() == Kind::Integrity => {
                Some("the registry, or something on the way, altered or lost content; nothing of it was kept".to_owned())
            }
            _ if self.kind() == Kind::Storage => self.hint_storage(),
            _ => None,
        }
    }

    fn hint_storage(&self) -> Option<String> {
        let source = match self {
            Self::Store(StoreError::Fs(error)) => &error.source,
            Self::Layer {
                source: LayerError::Write { source, .. } | LayerError::TarSplit(source),
                ..
            } => source,
            _ => return None,
        };
        Some(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or choose another --root; the layers that were complete are kept"
                    .to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "run as the user who owns the root, or choose another with --root".to_owned()
            }
            io::ErrorKind::ReadOnlyFilesystem => "choose a --root that can be written".to_owned(),
            _ => return None,
        })
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
        LayerError::Write { .. } | LayerError::TarSplit(_) => Kind::Storage,
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

fn hint_registry(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::NotFound { .. } => "check the name and the tag".to_owned(),
        RegistryError::Denied { .. } => {
            "check the name; if the repository is private, log in (docker login, podman login) or give --username and --password-stdin".to_owned()
        }
        RegistryError::Unauthorized { source_of: None, .. } => {
            "log in (docker login, podman login) or give --username and --password-stdin".to_owned()
        }
        RegistryError::Unauthorized { source_of: Some(from), .. } => format!("the credentials from {from} were not accepted"),
        RegistryError::Token { status: 401 | 403, .. } => "the credentials were not accepted there; log in again".to_owned(),
        RegistryError::Token { status: 0 | 300..=399 | 500.., .. } => {
            "check that the token server is running and that no proxy interferes, then retry".to_owned()
        }
        RegistryError::InsecureRealm { https: true, .. } => {
            "the registry's administrator must set an https:// realm; a public image can be pulled without credentials".to_owned()
        }
        RegistryError::InsecureRealm { https: false, .. } => {
            "give --plain-http if the network between here and there can be trusted".to_owned()
        }
        RegistryError::InsecureRedirect { .. } => {
            "the registry's administrator must redirect to https://; --plain-http uses plain HTTP for everything, if the network can be trusted".to_owned()
        }
        RegistryError::Tls { .. } => {
            "put the registry's CA into a certs.d directory as <host[:port]>/ca.crt, or, if it speaks only HTTP, use --plain-http".to_owned()
        }
        RegistryError::Network { down: true, .. } => "is the registry's name right, and is it running?".to_owned(),
        RegistryError::RateLimited { .. } => "log in for a higher limit, or wait; what is pulled stays".to_owned(),
        RegistryError::Size { .. } | RegistryError::Digest { .. } => {
            "the registry, or something on the way, altered or lost content; nothing of it was kept".to_owned()
        }
        RegistryError::TooLarge { .. } => "no image needs one so large; is this a registry?".to_owned(),
        RegistryError::Network { .. } | RegistryError::Status { .. } | RegistryError::Protocol { .. } => {
            "is this a registry, and is something between it and you? if so, try again later".to_owned()
        }
        _ => return None,
    })
}
