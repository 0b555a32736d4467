//! The paths of a root. Only this file defines them, except those below `overlay2/`, which
//! `overlay` defines.
//!
//! ```text
//! <root>/                                             0710
//! ├── image/overlay2/                                 0700
//! │   ├── repositories.json                     file  0600  References; replaced whole
//! │   ├── imagedb/                                    0700
//! │   │   ├── content/sha256/<image id>         file  0600  Images; the config as served
//! │   │   └── metadata/sha256/<image id>/             0700  dockerd (parent); References (lastUpdated)
//! │   ├── distribution/                               0700
//! │   │   ├── diffid-by-digest/sha256/<digest>  file  0644  Distribution
//! │   │   └── v2metadata-by-diffid/sha256/<diff id>   0644  Distribution
//! │   └── layerdb/                                    0700
//! │       ├── sha256/<chain id>/                      0700  Layers; renamed into place whole
//! │       │   ├── cache-id, diff, parent, size  file  0644
//! │       │   └── tar-split.json.gz             file  0644
//! │       ├── mounts/<container>/                     0755  dockerd
//! │       └── tmp/{write-set,complete}-*/             0755  StagedLayer; swept by the journal
//! ├── overlay2/                                       0710  overlay::OverlayRoot
//! ├── containers/                                           dockerd; read before a removal
//! ├── buildkit/*.db                                         dockerd; names layers of the build cache
//! └── rpull/                                          0700  rpull only
//!     ├── content/                                    0755  Content, with a tree there
//!     ├── layer-index/                                0700  LayerIndex, with a tree there
//!     ├── journal/<random>                      file  0600  Journal; staged layers
//!     ├── mounts/<random>/{upper,work,image}          0700  MountDir; writable mounts
//!     │       {run,volumes}/                        0700  api; while a container runs in it
//!     ├── omitted/<cache id>                    file  0600  omitted; what a layer lacks
//!     ├── probe/                                      0700  Store; while a pull checks the file system
//!     ├── tmp/<random>                          file  0600  Temporary; on its way to another name
//!     ├── unsynced/<boot id>/<layer>            file  0600  unsynced; to verify after another boot
//!     ├── used/<image id>                       file  0600  last_use; its time of change counts
//!     └── locks/*                               file  0600  Lock
//! ```
//!
//! dockerd empties `<root>/tmp` at every start, so rpull does not use it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::fsutil::{self, FsError, Temporary};
use crate::oci::{ChainId, DiffId, ImageId};
use crate::overlay::OverlayRoot;

/// The diff ID, in a layer's record `layerdb/sha256/<chain id>/`, like the files below.
pub const DIFF: &str = "diff";
/// The size of the layer as Docker counts it, decimal bytes.
pub const SIZE: &str = "size";
/// The name of its directory in `overlay2/`.
pub const CACHE_ID: &str = "cache-id";
/// The chain ID of the parent; absent for a base layer.
pub const PARENT: &str = "parent";
/// The metadata from which its tar is reassembled.
pub const TAR_SPLIT: &str = "tar-split.json.gz";

/// The paths of one root.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    content: PathBuf,
}

impl Layout {
    /// Creates the layout of the root at `root`, with its content at `content` if given.
    pub fn new(root: &Path, content: Option<&Path>) -> Self {
        let content = content.map_or_else(|| own_content(root), Path::to_owned);
        Self { root: root.to_owned(), content }
    }

    /// Returns the root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates all directories that dockerd creates at its start, and those of rpull.
    ///
    /// # Errors
    /// [`FsError`] if a directory cannot be created.
    pub fn create(&self) -> Result<(), FsError> {
        if let Some(parent) = self.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            use crate::fsutil::At;
            std::fs::create_dir_all(parent).at("create directory", parent)?;
        }
        fsutil::ensure_dir(&self.root, 0o710)?;
        for (path, mode) in [
            ("image", 0o700),
            ("image/overlay2", 0o700),
            ("image/overlay2/imagedb", 0o700),
            ("image/overlay2/imagedb/content", 0o700),
            ("image/overlay2/imagedb/content/sha256", 0o700),
            ("image/overlay2/imagedb/metadata", 0o700),
            ("image/overlay2/imagedb/metadata/sha256", 0o700),
            ("image/overlay2/distribution", 0o700),
            ("image/overlay2/distribution/diffid-by-digest", 0o755),
            ("image/overlay2/distribution/diffid-by-digest/sha256", 0o755),
            ("image/overlay2/distribution/v2metadata-by-diffid", 0o755),
            ("image/overlay2/distribution/v2metadata-by-diffid/sha256", 0o755),
            ("image/overlay2/layerdb", 0o700),
            ("image/overlay2/layerdb/sha256", 0o755),
            ("image/overlay2/layerdb/mounts", 0o755),
            ("image/overlay2/layerdb/tmp", 0o755),
            ("rpull", 0o700),
            ("rpull/journal", 0o700),
            ("rpull/locks", 0o700),
            ("rpull/tmp", 0o700),
            ("rpull/unsynced", 0o700),
            ("rpull/mounts", 0o700),
        ] {
            fsutil::ensure_dir(&self.root.join(path), mode)?;
        }
        self.overlay().create()
    }

    fn docker(&self, path: &str) -> PathBuf {
        self.root.join("image/overlay2").join(path)
    }

    /// Returns the root or the content directory if it is a file, or below one.
    pub fn file_as_directory(&self) -> Option<&Path> {
        [self.root(), self.content()].into_iter().find(|path| match path.metadata() {
            Ok(meta) => !meta.is_dir(),
            Err(e) => e.kind() == io::ErrorKind::NotADirectory,
        })
    }

    /// Returns whether the root contains a store.
    pub fn exists(&self) -> bool {
        self.docker("").is_dir()
    }

    /// Returns `overlay2/`.
    pub fn overlay(&self) -> OverlayRoot {
        OverlayRoot::new(self.root.join("overlay2"), self.temporary())
    }

    /// Returns the file of image names.
    pub fn repositories(&self) -> PathBuf {
        self.docker("repositories.json")
    }

    /// Returns the directory of image configs.
    pub fn images(&self) -> PathBuf {
        self.docker("imagedb/content/sha256")
    }

    /// Returns the file of an image config.
    pub fn image(&self, id: &ImageId) -> PathBuf {
        self.images().join(id.hex())
    }

    /// Returns the directory of the images' metadata.
    pub fn images_metadata(&self) -> PathBuf {
        self.docker("imagedb/metadata/sha256")
    }

    /// Returns the directory of an image's metadata.
    pub fn image_metadata(&self, id: &ImageId) -> PathBuf {
        self.images_metadata().join(id.hex())
    }

    /// Returns the file with the diff ID of a blob.
    pub fn diff_id_by_digest(&self, digest: &Digest) -> PathBuf {
        self.diff_ids_by_digest().join(digest.hex())
    }

    /// Returns the file with the sources of a layer.
    pub fn sources_by_diff_id(&self, diff_id: &DiffId) -> PathBuf {
        self.all_sources().join(diff_id.hex())
    }

    /// Returns the directory of layer records.
    pub fn layers(&self) -> PathBuf {
        self.docker("layerdb/sha256")
    }

    /// Returns the directory of a layer's record.
    pub fn layer(&self, chain: &ChainId) -> PathBuf {
        self.layers().join(chain.hex())
    }

    /// Returns the name of a layer's record while it is being removed.
    pub fn layer_removing(record: &Path, random: &str) -> PathBuf {
        let mut name = record.as_os_str().to_owned();
        name.push(format!("-{random}-removing"));
        PathBuf::from(name)
    }

    /// Returns the directory of records that are not committed yet.
    pub fn write_sets(&self) -> PathBuf {
        self.docker("layerdb/tmp")
    }

    /// Returns the directory of the layers of dockerd's containers.
    pub fn container_mounts(&self) -> PathBuf {
        self.docker("layerdb/mounts")
    }

    /// Returns the directory of dockerd's containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Returns the content directory in use.
    pub fn content(&self) -> &Path {
        &self.content
    }

    /// Returns the default content directory.
    pub fn own_content(&self) -> PathBuf {
        own_content(&self.root)
    }

    /// Returns the directory of journals.
    pub fn journals(&self) -> PathBuf {
        self.root.join("rpull/journal")
    }

    /// Returns the directory of the index of layers.
    pub fn layer_index(&self) -> PathBuf {
        self.root.join("rpull/layer-index")
    }

    /// Returns the directory of writable mounts.
    pub fn mounts(&self) -> PathBuf {
        self.root.join("rpull/mounts")
    }

    /// Returns the directory for temporary files.
    pub fn temporary(&self) -> Temporary {
        Temporary::new(self.root.join("rpull/tmp"))
    }

    /// Returns the directory of the lists of layers that are not synced, one per boot.
    pub fn unsynced(&self) -> PathBuf {
        self.root.join("rpull/unsynced")
    }

    /// Returns the directory of the records of what layers lack.
    pub fn omitted(&self) -> PathBuf {
        self.root.join("rpull/omitted")
    }

    /// Returns the directory that exists while the file system is checked.
    pub fn probe(&self) -> PathBuf {
        self.root.join("rpull/probe")
    }

    /// Returns the directory of the times of last use.
    pub fn uses(&self) -> PathBuf {
        self.root.join("rpull/used")
    }

    /// Returns the directory of dockerd's build cache.
    pub fn build_cache(&self) -> PathBuf {
        self.root.join("buildkit")
    }

    /// Returns the directory of the files with the diff IDs of blobs.
    pub fn diff_ids_by_digest(&self) -> PathBuf {
        self.docker("distribution/diffid-by-digest/sha256")
    }

    /// Returns the directory of the files with the sources of layers.
    pub fn all_sources(&self) -> PathBuf {
        self.docker("distribution/v2metadata-by-diffid/sha256")
    }

    /// Returns the lock file `name`.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.root.join("rpull/locks").join(name)
    }
}

fn own_content(root: &Path) -> PathBuf {
    root.join("rpull/content")
}

#[cfg(test)]
impl Layout {
    /// Creates a root for a unit test.
    pub fn scratch() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Self::new(dir.path(), None);
        layout.create().unwrap();
        (dir, layout)
    }
}
