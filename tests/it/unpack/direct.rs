//! Unpacks one layer in this process, into a directory laid out like a root, so that
//! `support::judge` can read it. Many small layers are tested faster this way than through
//! a registry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rpull::internal::layer::{self, BufferPool, ImageUsage, Job, LayerError, Limits, Unpacked};
use rpull::internal::overlay::{self, DiffDir};
use tempfile::TempDir;

use crate::support::judge;
use crate::support::scratch;

/// Layers use each other's buffers, so that most need none of their own.
static POOL: LazyLock<BufferPool> = LazyLock::new(BufferPool::default);

/// The directory name that stands for the layer's chain id.
const CHAIN: &str = "layer";

/// One unpacked layer.
pub struct Layer {
    root: TempDir,
    pub unpacked: Unpacked,
}

impl Layer {
    /// Unpacks `tar` and checks that the layer can be reassembled to the same bytes.
    #[track_caller]
    pub fn of(tar: &[u8]) -> Self {
        let layer = Self::unpack(tar).unwrap_or_else(|e| panic!("unpack: {e}"));
        assert!(layer.reassembled() == Ok(tar.to_vec()), "{:?}", layer.reassembled().err());
        layer
    }

    /// Unpacks `tar`.
    pub fn unpack(tar: &[u8]) -> Result<Self, LayerError> {
        let root = scratch::in_memory();
        let record = root.path().join("image/overlay2/layerdb/sha256").join(CHAIN);
        let diff = root.path().join("overlay2/cache/diff");
        fs::create_dir_all(&record).unwrap();
        fs::create_dir_all(&diff).unwrap();
        let tar_split = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(record.join("tar-split.json.gz"))
            .unwrap();
        let abilities = overlay::probe(&root.path().join("probe")).unwrap().unwrap();
        let mut opened = DiffDir::open_to_fill(&diff, abilities.into()).unwrap();
        let job = Job {
            blob: None,
            plain: true,
            holes: false,
            diff: &mut opened,
            tar_split,
            limits: Limits::default(),
            meter: None,
            window: Box::new(|_| true),
            image: ImageUsage::default(),
            pool: POOL.clone(),
        };
        let unpacked = layer::unpack(rpull::internal::fsutil::buffers(tar), job)?;
        fs::write(record.join("cache-id"), "cache").unwrap();
        fs::write(record.join("diff"), unpacked.diff_id.to_string()).unwrap();
        Ok(Self { root, unpacked })
    }

    /// The layer's tar as its tar-split metadata and its files give it.
    pub fn reassembled(&self) -> Result<Vec<u8>, String> {
        judge::judge(self.root.path(), CHAIN)
    }

    /// The directory of the layer's files.
    pub fn diff(&self) -> PathBuf {
        self.root.path().join("overlay2/cache/diff")
    }

    /// The content of the file at `path`.
    #[track_caller]
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        let path = self.diff().join(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}
