//! The error of an operation, and its kind.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::oci::DiffId;

pub use crate::archive::ArchiveError;
pub use crate::bundle::BundleError;
pub use crate::digest::DigestError;
pub use crate::fsutil::FsError;
pub use crate::layer::{LayerError, LimitKind, TreeTarError};
pub use crate::namespace::{NamespaceError, Setting as NamespaceSetting};
pub use crate::oci::{ManifestError, PlatformError};
pub use crate::overlay::{ChangesError, LookupError};
pub use crate::reference::{Reason as ReferenceReason, ReferenceError};
pub use crate::registry::{Cause, RegistryError, TlsProblem};
pub use crate::store::{ImageUser, StoreError};

/// The error of a pull or of an operation on a store.
///
/// [`kind`](Self::kind) tells what a program can do about it. The text names what failed and the
/// cause in one line; `source()` leads to the errors that caused it.
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
    /// An archive cannot be written or read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A layer could not be unpacked.
    #[error("layer {}: {source}", layer.short())]
    Layer {
        /// The blob.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// A layer from this machine could not be added.
    #[error("{name}: {source}")]
    Import {
        /// What it was read from.
        name: String,
        /// Why.
        source: LayerError,
    },
    /// A layer from this machine is not the one that was required.
    #[error("{name}: the diff id is {actual}, expected {expected}")]
    ImportedDiffId {
        /// What it was read from.
        name: String,
        /// What was required.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// An image in the store is damaged, so that nothing can be built on it.
    #[error("{image} is damaged in the store: {why}")]
    DamagedImage {
        /// The image as it was named.
        image: String,
        /// What is wrong with it.
        why: String,
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
    /// The image is not in the store, and [`Policy::Never`](crate::pull::Policy::Never) forbids a
    /// pull.
    #[error("{0} is not in the store, and the policy forbids a pull")]
    NotPresent(String),
    /// The image in the store is damaged, and [`Policy::Never`](crate::pull::Policy::Never) forbids
    /// a repair.
    #[error("{image} is damaged in the store ({why}), and the policy forbids a repair")]
    Damaged {
        /// The image as it was named.
        image: String,
        /// What is wrong with it.
        why: String,
    },
    /// A check found damage in the store.
    #[error("found {count} damaged file{} in {}", if *count == 1 { "" } else { "s" }, root.display())]
    DamagedStore {
        /// The root.
        root: PathBuf,
        /// The number of damaged files and directories.
        count: usize,
    },
    /// A container cannot be described.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// No OCI runtime is installed.
    #[error("there is no OCI runtime in PATH: {0}")]
    NoRuntime(String),
    /// The OCI runtime did not start a container.
    #[error("{runtime} cannot start the container: {message}")]
    Runtime {
        /// The name of the runtime.
        runtime: String,
        /// What it says.
        message: String,
        /// What failed.
        cause: StartFailure,
    },
    /// This process cannot have a namespace of its own.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A Dockerfile cannot be used.
    #[error("{file}:{line}: {why}")]
    Dockerfile {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A command of a build failed.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    BuildCommand {
        /// The command.
        command: String,
        /// Its exit code.
        code: u8,
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
    /// A mount, or this process, would show files that the image deletes, since it could not read all
    /// marks of overlayfs.
    #[error(
        "cannot show the files of {image}: the marks of deleted files in layer {layer} are trusted.overlay.*, and {why}"
    )]
    Marks {
        /// The image as it was named.
        image: String,
        /// The short chain ID of the layer.
        layer: String,
        /// Why they have no effect.
        why: &'static str,
    },
    /// Unmounting failed.
    #[error("cannot unmount {target}: {source}")]
    Unmount {
        /// Where.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path leads to no file of an image.
    #[error("{image}:{}: {source}", path.display())]
    Path {
        /// The image as it was named.
        image: String,
        /// The path in the image.
        path: PathBuf,
        /// Why.
        source: LookupError,
    },
    /// The files of an image cannot be written as a tar stream.
    #[error(transparent)]
    Tar(#[from] TreeTarError),
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// The system refuses to start threads.
    #[error("cannot start a thread: {0}")]
    Threads(#[source] io::Error),
    /// A part of rpull panicked: a bug in rpull.
    #[error("internal error: {0}")]
    Internal(String),
    /// Something that does not fit elsewhere.
    #[error("{0}")]
    Other(String),
}

/// Why a container did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFailure {
    /// The command does not exist in the image.
    NotFound,
    /// The command cannot be executed.
    NotExecutable,
    /// The runtime failed before it came to the command.
    Other,
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}

/// The category of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// None of the others, such as a bug in rpull.
    Other,
    /// Invalid arguments.
    Usage,
    /// The image, tag, platform or store does not exist.
    NotFound,
    /// Credentials are missing or were rejected.
    Auth,
    /// The registry is unreachable or does not work.
    Network,
    /// Content failed verification or is damaged.
    Integrity,
    /// The disk is full, or files cannot be written.
    Storage,
    /// A running dockerd, a mount, a container or another program uses it or removed it meanwhile.
    Busy,
    /// The registry limits requests.
    RateLimited,
    /// The operation was cancelled.
    Interrupted,
}

impl Error {
    /// Returns the category.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_) | Self::Platform(_) | Self::Usage(_) => ErrorKind::Usage,
            Self::Dockerfile { .. } => ErrorKind::Usage,
            Self::Manifest(
                ManifestError::NoPlatform { .. } | ManifestError::OtherPlatform { .. },
            )
            | Self::NotPresent(_) => ErrorKind::NotFound,
            Self::Manifest(_) => ErrorKind::Integrity,
            Self::Registry(error) => of_registry(error),
            Self::Store(error) => of_store(error),
            Self::Archive(error) => of_archive(error),
            Self::Layer { source, .. } | Self::Import { source, .. } => of_layer(source),
            Self::ImportedDiffId { .. } | Self::DamagedImage { .. } => ErrorKind::Integrity,
            Self::DiffId { .. } | Self::Damaged { .. } | Self::DamagedStore { .. } => {
                ErrorKind::Integrity
            }
            Self::Path { source: LookupError::Fs(error), .. } => of_io(&error.source),
            Self::Path { .. } => ErrorKind::NotFound,
            Self::Tar(TreeTarError::Read(error)) => of_io(&error.source),
            Self::Tar(TreeTarError::Write(source)) => of_io(source),
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Bundle(BundleError::Config(_)) => ErrorKind::Integrity,
            Self::Bundle(_) => ErrorKind::Usage,
            Self::NoRuntime(_) => ErrorKind::NotFound,
            Self::Runtime { cause: StartFailure::NotFound, .. } => ErrorKind::NotFound,
            Self::Runtime { cause: StartFailure::NotExecutable, .. } => ErrorKind::Usage,
            Self::Runtime { .. } => ErrorKind::Other,
            Self::Namespace(NamespaceError::NotNeeded) => ErrorKind::Usage,
            Self::Namespace(_) => ErrorKind::Other,
            Self::Marks { .. } => ErrorKind::Storage,
            // The layers exist as long as the plan, so it is a directory that the user named.
            Self::Mount { source, .. } if is_of_paths(source.kind()) => ErrorKind::Usage,
            Self::Mount { source, .. } | Self::Unmount { source, .. } => of_io(source),
            Self::BuildCommand { .. } => ErrorKind::Other,
            Self::Threads(_) | Self::Internal(_) | Self::Other(_) => ErrorKind::Other,
        }
    }
}

fn of_registry(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::NotFound { .. } => ErrorKind::NotFound,
        RegistryError::Network { .. }
        | RegistryError::Outage { .. }
        | RegistryError::Tls { .. }
        | RegistryError::PushRefused { .. }
        | RegistryError::Status { .. } => ErrorKind::Network,
        RegistryError::Protocol { .. } | RegistryError::Html { .. } => ErrorKind::Network,
        RegistryError::InsecureRedirect { .. } => ErrorKind::Network,
        RegistryError::Token { status: 0 | 300..=399 | 500.., .. } => ErrorKind::Network,
        RegistryError::Token { status: 429, .. } | RegistryError::RateLimited { .. } => {
            ErrorKind::RateLimited
        }
        RegistryError::Token { .. }
        | RegistryError::Denied { .. }
        | RegistryError::PushDenied { .. }
        | RegistryError::Renewed
        | RegistryError::Unauthorized { .. } => ErrorKind::Auth,
        RegistryError::Credentials { .. } | RegistryError::InsecureRealm { .. } => ErrorKind::Auth,
        RegistryError::Digest { .. }
        | RegistryError::Size { .. }
        | RegistryError::TooLarge { .. } => ErrorKind::Integrity,
        RegistryError::NoHelper { .. } => ErrorKind::Auth,
        RegistryError::Certificates { .. } | RegistryError::Proxy { .. } => ErrorKind::Usage,
        RegistryError::Internal(_) | RegistryError::Source => ErrorKind::Other,
    }
}

fn of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::Fs(error) => of_io(&error.source),
        StoreError::NotADirectory(_) => ErrorKind::Usage,
        StoreError::NoStore(_)
        | StoreError::NoContent(_)
        | StoreError::NoSuchImage(_)
        | StoreError::NoSuchMount(_)
        | StoreError::NoSuchSource(_)
        | StoreError::NoSuchLayer { .. }
        | StoreError::MountBase { .. } => ErrorKind::NotFound,
        StoreError::Damaged { .. } | StoreError::DamagedNames { .. } => ErrorKind::Integrity,
        StoreError::Ambiguous { .. }
        | StoreError::AmbiguousLayer { .. }
        | StoreError::LayerId(_)
        | StoreError::NoLayers(_)
        | StoreError::MountName(_)
        | StoreError::Reference(_)
        | StoreError::OtherStore { .. }
        | StoreError::NotMounted(_)
        | StoreError::ForeignMount { .. } => ErrorKind::Usage,
        StoreError::Dockerd { .. }
        | StoreError::InUse { .. }
        | StoreError::MountInUse { .. }
        | StoreError::MountNameTaken { .. }
        | StoreError::SeveralNames { .. } => ErrorKind::Busy,
        StoreError::Interrupted => ErrorKind::Interrupted,
        StoreError::FileSystem { .. } => ErrorKind::Storage,
        StoreError::Random(_) => ErrorKind::Other,
    }
}

fn of_archive(error: &ArchiveError) -> ErrorKind {
    match error {
        ArchiveError::Store(error) => of_store(error),
        ArchiveError::Layer { source, .. } => of_layer(source),
        ArchiveError::DamagedBlob { .. } | ArchiveError::Manifest(_) => ErrorKind::Integrity,
        ArchiveError::Open { source, .. } if is_of_paths(source.kind()) => ErrorKind::NotFound,
        ArchiveError::Tar(LayerError::Source(_)) => ErrorKind::Storage,
        ArchiveError::Tar(_)
        | ArchiveError::Invalid(_)
        | ArchiveError::Missing(_)
        | ArchiveError::Digest { .. } => ErrorKind::Integrity,
        ArchiveError::NoSuchImage(_) => ErrorKind::NotFound,
        ArchiveError::Several(_) => ErrorKind::Usage,
        ArchiveError::Create { source, .. } if is_of_paths(source.kind()) => ErrorKind::Usage,
        ArchiveError::Create { .. }
        | ArchiveError::Write(_)
        | ArchiveError::Open { .. }
        | ArchiveError::Read(_)
        | ArchiveError::Spool(_) => ErrorKind::Storage,
        ArchiveError::NotEmpty { .. } => ErrorKind::Usage,
        ArchiveError::Thread(_) => ErrorKind::Other,
    }
}

fn of_layer(error: &LayerError) -> ErrorKind {
    match error {
        // An archive whose entries stand in each other's way: no disk would take it.
        LayerError::Write { source, .. } if is_of_paths(source.kind()) => ErrorKind::Integrity,
        // A download reports its own errors; this is a file.
        LayerError::Source(_)
        | LayerError::Write { .. }
        | LayerError::Open { .. }
        | LayerError::TarSplit(_) => ErrorKind::Storage,
        LayerError::Thread { .. } => ErrorKind::Other,
        LayerError::Changes(error) => of_changes(error),
        LayerError::Cancelled => ErrorKind::Interrupted,
        _ => ErrorKind::Integrity,
    }
}

fn of_changes(error: &ChangesError) -> ErrorKind {
    match error {
        ChangesError::Fs(error) => of_io(&error.source),
        ChangesError::Changed { .. } => ErrorKind::Busy,
        ChangesError::Marks { .. } => ErrorKind::Storage,
        ChangesError::Unsupported { .. } => ErrorKind::Other,
    }
}

fn is_of_paths(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound};
    matches!(kind, AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | NotFound)
}

fn of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        // What is not there is no error where it may be absent: another program removed it.
        io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound => ErrorKind::Busy,
        // A thread was refused.
        io::ErrorKind::WouldBlock => ErrorKind::Other,
        // Something else is in place of a file of the store.
        io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory => ErrorKind::Integrity,
        _ => ErrorKind::Storage,
    }
}

#[cfg(test)]
mod tests;
