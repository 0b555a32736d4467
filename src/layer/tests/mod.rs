//! Tests of the engine as a whole, in this process: archives go in, files and tar-split metadata
//! come out. They need no tools, and no root except for devices.

mod archives;
mod entries;
mod fuzz;
mod model;
mod refusals;
mod round_trip;
#[allow(dead_code)]
#[path = "../../../tests/it/support/tar.rs"]
mod tar;
#[path = "../../../tests/it/support/tar_split.rs"]
mod tar_split;
mod tree;
mod trees;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use tempfile::TempDir;

use super::{
    BlobSpec, BufferPool, ImageUsage, Job, LayerError, Limits, TarAssembler, Unpacked, unpack,
};
use crate::digest::Digest;
use crate::overlay::{self, DiffDir};

/// Layers use each other's buffers.
static POOL: LazyLock<BufferPool> = LazyLock::new(BufferPool::default);

/// An unpacked layer.
struct Layer {
    dir: TempDir,
    unpacked: Unpacked,
}

impl Layer {
    /// Unpacks the uncompressed `tar`.
    fn of(tar: &[u8]) -> Result<Self, LayerError> {
        Self::read(tar, None, 1 << 18, Limits::default())
    }

    /// Unpacks `bytes`, which arrive in buffers of `size` bytes. With `blob`, they may be
    /// compressed and must have its size and digest.
    fn read(
        bytes: &[u8],
        blob: Option<BlobSpec>,
        size: usize,
        limits: Limits,
    ) -> Result<Self, LayerError> {
        let dir = scratch();
        let diff = dir.path().join("diff");
        fs::create_dir(&diff).unwrap();
        let tar_split =
            File::options().read(true).write(true).create_new(true).open(dir.path().join(METADATA));
        let abilities = overlay::probe(&dir.path().join("probe")).unwrap().unwrap();
        let job = Job {
            blob,
            plain: blob.is_none(),
            holes: false,
            diff: &mut DiffDir::open_to_fill(&diff, abilities.into()).unwrap(),
            tar_split: tar_split.unwrap(),
            limits,
            meter: None,
            pool: POOL.clone(),
            window: Box::new(|_| true),
            image: ImageUsage::default(),
        };
        let source = bytes.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part)));
        let unpacked = unpack(source, job)?;
        Ok(Self { dir, unpacked })
    }

    /// The directory of the layer's files.
    fn diff(&self) -> PathBuf {
        self.dir.path().join("diff")
    }

    /// The layer's tar, assembled by [`TarAssembler`] and by a strict reader that shares no code
    /// with it.
    fn assembled(&self) -> Result<Vec<u8>, String> {
        let metadata = self.dir.path().join(METADATA);
        let diff = DiffDir::open(&self.diff()).unwrap();
        let mut tar = Vec::new();
        TarAssembler::new(File::open(&metadata).unwrap(), &diff)
            .read_to_end(&mut tar)
            .map_err(|e| e.to_string())?;
        if tar != tar_split::assemble(&metadata, &self.diff())? {
            return Err("the two readers assemble different archives".to_owned());
        }
        let (actual, expected) = (Digest::of(&tar), self.unpacked.diff_id.digest());
        if actual != expected {
            return Err(format!("the archive is {actual}, its diff ID {expected}"));
        }
        Ok(tar)
    }
}

/// The name of the metadata file.
const METADATA: &str = "metadata";

/// A directory on tmpfs where there is one: the tests make many small trees.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}
