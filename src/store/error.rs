//! Errors of the store.

use std::path::PathBuf;

use crate::fsutil::FsError;
use crate::reference::ReferenceError;

/// The error of an operation on the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The root contains no store.
    #[error("there is no image store at {}", .0.display())]
    NoStore(PathBuf),
    /// The content directory is not an OCI image layout.
    #[error("there is no OCI image layout at {}", .0.display())]
    NoContent(PathBuf),
    /// The root or the content directory is a file.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A file has invalid content.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The image has no layers, so a mount would have no files.
    #[error("{0} has no layers, so there is nothing to mount")]
    NoLayers(String),
    /// The list of names cannot be parsed. dockerd does not start on such a root either.
    #[error("the list of image names in {} is damaged: {why}", path.display())]
    DamagedNames {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No image has that name or ID.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// No writable mount has that name.
    #[error("no such writable mount: {0}")]
    NoSuchMount(String),
    /// No writable mount has that name, and no image that name or ID.
    #[error("no such writable mount or image: {0}")]
    NoSuchSource(String),
    /// The name of a writable mount is invalid.
    #[error(
        "'{0}' is not a name of a writable mount: use up to 128 letters, digits, '_', '.' and '-', and begin with a letter or digit"
    )]
    MountName(String),
    /// Another writable mount has the name.
    #[error("the name {name} is in use by a writable mount of {}", image.as_deref().unwrap_or("an unknown image"))]
    MountNameTaken {
        /// The name.
        name: String,
        /// The image of the mount that has it, if it is known.
        image: Option<String>,
    },
    /// A writable mount cannot be mounted, unmounted or removed.
    #[error("cannot {act} {name}: {why}")]
    MountInUse {
        /// What was to be done: `mount`, `unmount` or `remove`.
        act: &'static str,
        /// The name of the writable mount.
        name: String,
        /// What uses it.
        why: String,
    },
    /// A layer that a writable mount is based on is not in the store: another program removed it.
    #[error("{name} is based on {image}, whose layer {layer} is not in the store")]
    MountBase {
        /// The name of the writable mount.
        name: String,
        /// The image as the user named it.
        image: String,
        /// The short chain ID of the layer, or the short ID of an image that is missing.
        layer: String,
    },
    /// The image has no such layer.
    #[error("{image} has no layer {layer}: it has {count} layer{}", if *count == 1 { "" } else { "s" })]
    NoSuchLayer {
        /// The image as the user named it.
        image: String,
        /// The position or the ID.
        layer: String,
        /// The number of its layers.
        count: usize,
    },
    /// Several layers of the image have that ID, or one that begins in this way.
    #[error("the layer id '{id}' is ambiguous: {}", matches.join(", "))]
    AmbiguousLayer {
        /// The ID, or its beginning.
        id: String,
        /// The layers: the position, and the ID that matches.
        matches: Vec<String>,
    },
    /// The text is not an ID of a layer.
    #[error("'{0}' is not a layer id: use at least 12 hex digits, with or without 'sha256:'")]
    LayerId(String),
    /// Several image IDs begin with the prefix.
    #[error("the id '{prefix}' is ambiguous: {}", matches.join(", "))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// The short IDs that begin with it.
        matches: Vec<String>,
    },
    /// Invalid image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A running dockerd uses the root.
    #[error("{} is in use by a running dockerd ({who}), which keeps its image list in memory and would lose the changes", root.display())]
    Dockerd {
        /// The root.
        root: PathBuf,
        /// Its process, or its socket.
        who: String,
    },
    /// The root belongs to another image store: images pulled there would not be shown, or would hide
    /// what the other store has.
    #[error("{} belongs to another image store: {why}", root.display())]
    OtherStore {
        /// The root.
        root: PathBuf,
        /// What was found.
        why: String,
        /// The settings of the dockerd whose root it is, if they are known. With the storage driver
        /// `overlay2` there, and without containerd's image store, the root is accepted.
        setting: Option<PathBuf>,
    },
    /// The image cannot be removed.
    #[error("cannot remove {image}: {by}")]
    InUse {
        /// The name or ID that the user typed.
        image: String,
        /// What uses it.
        by: ImageUser,
    },
    /// Removing the image by its ID would remove several names.
    #[error("cannot remove {image}: it has several names ({})", names.join(", "))]
    SeveralNames {
        /// The ID that the user typed.
        image: String,
        /// Its names.
        names: Vec<String>,
    },
    /// The file system of the root cannot hold layers, and dockerd does not use it either.
    #[error("{} is on {file_system}, which cannot hold layers: {why}", root.display())]
    FileSystem {
        /// The root.
        root: PathBuf,
        /// The name of the file system.
        file_system: String,
        /// What it lacks.
        why: String,
    },
    /// Nothing is mounted at the directory.
    #[error("nothing is mounted at {}", .0.display())]
    NotMounted(PathBuf),
    /// What is mounted at the directory is not an image of this store.
    #[error("cannot unmount {}: {what} is mounted there, which is not an image of this store", target.display())]
    ForeignMount {
        /// The directory.
        target: PathBuf,
        /// What is mounted there.
        what: String,
    },
    /// The process was interrupted while it waited for a lock.
    #[error("interrupted while waiting for another process")]
    Interrupted,
    /// The kernel's random generator failed.
    #[error("cannot get random bytes: {0}")]
    Random(#[source] std::io::Error),
}

/// What uses an image, so that it cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageUser {
    /// A container of dockerd, by its short ID.
    #[error("the container {0} uses it")]
    Container(String),
    /// An image that was built on it, by its short ID.
    #[error("the image {0} was built on it")]
    Image(String),
    /// A mount, by its directory.
    #[error("it is mounted at {0}")]
    Mount(String),
    /// A writable mount, by its name. It may be unmounted.
    #[error("the writable mount {0} is based on it")]
    Writable(String),
}
