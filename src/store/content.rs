//! Manifests, indexes and configs as they were served: an OCI image layout (OCI image-spec
//! image-layout.md) that a CI cache can save and restore as plain files.

use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use super::lock;
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;

const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const NAME: &str = "org.opencontainers.image.ref.name";

/// The content of a root.
#[derive(Debug)]
pub struct Content {
    layout: Layout,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Descriptor>,
}

impl Content {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// The path of a blob, whether or not it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.layout.content().join("blobs/sha256").join(digest.hex())
    }

    /// The directory of partial downloads, made if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn ingest(&self) -> Result<PathBuf, StoreError> {
        self.create()?;
        let dir = self.layout.ingest();
        fsutil::ensure_dir(&dir, 0o755)?;
        Ok(dir)
    }

    /// The bytes of a small blob, if it is there and whole. A damaged one is as good as
    /// absent: it can be had again.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes.into())),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("read", &path)?,
        }
    }

    /// Stores bytes under their digest.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.create()?;
        if self.get(digest)?.is_none() {
            fsutil::write_atomic(&self.path(digest), bytes, 0o644)?;
        }
        Ok(())
    }

    /// Lists a manifest or index in `index.json` under its name.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn name(
        &self,
        mut descriptor: Descriptor,
        reference: &Reference,
    ) -> Result<(), StoreError> {
        let _lock = lock::exclusive(&self.layout.lock("names"), &|_| {})?;
        descriptor.annotations.insert(NAME.to_owned(), reference.canonical());
        let mut index = self.index()?;
        let name = descriptor.annotations.get(NAME);
        let before = index.manifests.clone();
        index.manifests.retain(|entry| entry.annotations.get(NAME) != name);
        index.manifests.push(descriptor);
        if index.manifests != before { self.write_index(&index) } else { Ok(()) }
    }

    /// Removes blobs that no image needs, and takes them off `index.json`.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn forget(&self, gone: &[Digest]) -> Result<(), StoreError> {
        if !self.layout.content().is_dir() {
            return Ok(());
        }
        let _lock = lock::exclusive(&self.layout.lock("names"), &|_| {})?;
        let mut index = self.index()?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| !gone.contains(&entry.digest));
        if index.manifests.len() != before {
            self.write_index(&index)?;
        }
        for digest in gone {
            fsutil::remove(&self.path(digest))?;
        }
        Ok(())
    }

    fn index(&self) -> Result<IndexFile, StoreError> {
        let path = self.layout.content().join("index.json");
        let empty = IndexFile {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: Vec::new(),
        };
        let text = fsutil::read_optional(&path)?;
        // A list that cannot be read is begun anew: it names what is there, no more.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(empty))
    }

    fn write_index(&self, index: &IndexFile) -> Result<(), StoreError> {
        let path = self.layout.content().join("index.json");
        let json = serde_json::to_vec(index)
            .map_err(|e| StoreError::Damaged { path: path.clone(), why: e.to_string() })?;
        Ok(fsutil::write_atomic(&path, &json, 0o644)?)
    }

    fn create(&self) -> Result<(), StoreError> {
        let dir = self.layout.content();
        if dir.join("index.json").exists() {
            return Ok(());
        }
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).at("create directory", &blobs)?;
        fsutil::write_atomic(&dir.join("oci-layout"), MARKER, 0o644)?;
        self.write_index(&self.index()?)
    }
}
