//! Saves images of a store to an archive.

use std::collections::HashSet;

use super::collect::{CollectedImage, CollectedLayer, collect};
use super::copy::copy;
use super::documents::{self, ArchiveFormat, DockerItem};
use super::error::ArchiveError;
use super::sink::Sink;
use crate::digest::Digest;
use crate::oci::ImageId;
use crate::reference::{Query, Reference};
use crate::store::{Store, StoreError};

/// An image that was saved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SavedImage {
    /// The image.
    pub id: ImageId,
    /// Its names in the archive.
    pub names: Vec<Reference>,
    /// The digest of its manifest in the archive; `None` in a docker-archive.
    pub digest: Option<Digest>,
}

/// The content of an archive, before it is written.
pub struct SavePlan {
    format: ArchiveFormat,
    images: Vec<CollectedImage>,
}

/// A file of an archive.
enum File<'a> {
    Document(String, Vec<u8>),
    Layer(String, &'a CollectedLayer),
}

impl SavePlan {
    /// Collects the images that `images` name, as `docker save` does: a name without a tag stands for
    /// all tags of its repository, and an image that is given by an ID has no name in the archive. The
    /// caller holds the lock of a command that reads until the archive is written.
    ///
    /// # Errors
    /// [`ArchiveError`] if an image does not exist or is damaged.
    pub fn new(
        store: &Store,
        images: &[String],
        format: ArchiveFormat,
    ) -> Result<Self, ArchiveError> {
        let mut chosen: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        for image in images {
            for (id, name) in named(store, image)? {
                let at = chosen.iter().position(|(other, _)| *other == id).unwrap_or_else(|| {
                    chosen.push((id, Vec::new()));
                    chosen.len() - 1
                });
                let names = &mut chosen[at].1;
                names.extend(name.filter(|name| !names.contains(name)));
            }
        }
        let collect = |(id, names)| collect(store, id, names, format);
        let images = chosen.into_iter().map(collect).collect::<Result<_, _>>()?;
        Ok(Self { format, images })
    }

    /// Returns the images, in the order of the archive.
    pub fn images(&self) -> Vec<SavedImage> {
        let image = |image: &CollectedImage| SavedImage {
            id: image.id,
            names: image.names.clone(),
            digest: (self.format != ArchiveFormat::Docker).then_some(image.descriptor.digest),
        };
        self.images.iter().map(image).collect()
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// [`ArchiveError`] if a layer is damaged or cannot be read, or the sink cannot be written.
    pub fn write<S: Sink>(&self, store: &Store, sink: &mut S) -> Result<(), ArchiveError> {
        let json = |e: serde_json::Error| ArchiveError::Write(e.into());
        let mut files = self.files().map_err(json)?;
        if S::REFERRERS_LAST {
            files.reverse();
        }
        for file in files {
            match file {
                File::Document(path, bytes) => {
                    sink.begin(&path, bytes.len() as u64)?;
                    sink.data(&bytes)?;
                    sink.end()?;
                }
                File::Layer(path, layer) => layer
                    .with(store, |source| copy(sink, &path, (layer.digest, layer.size), source))?,
            }
        }
        sink.finish()
    }

    /// Returns the files, those that refer to others first: a reader of a stream knows then what
    /// follows.
    fn files(&self) -> Result<Vec<File<'_>>, serde_json::Error> {
        let mut files = Vec::new();
        let document = |name: &str, bytes: &[u8]| File::Document(name.to_owned(), bytes.to_owned());
        if self.format != ArchiveFormat::Docker {
            let images = self.images.iter().map(|image| (&image.descriptor, &image.names[..]));
            files.push(document("oci-layout", documents::LAYOUT_TEXT));
            files.push(document("index.json", &documents::index(images)?));
        }
        if self.format != ArchiveFormat::Oci {
            let items: Vec<DockerItem> =
                self.images.iter().map(|it| self.docker_item(it)).collect();
            files.push(document("manifest.json", &serde_json::to_vec(&items)?));
        }
        let mut seen = HashSet::new();
        for image in &self.images {
            let manifest = &image.descriptor.digest;
            if self.format != ArchiveFormat::Docker && seen.insert(*manifest) {
                files.push(document(&blob(manifest), &image.manifest));
            }
            if seen.insert(image.id.digest()) {
                files.push(document(&self.config(image), &image.config));
            }
        }
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            if seen.insert(layer.digest) {
                files.push(File::Layer(self.layer(layer), layer));
            }
        }
        Ok(files)
    }

    fn docker_item(&self, image: &CollectedImage) -> DockerItem {
        let names = image.names.iter().map(ToString::to_string).collect::<Vec<_>>();
        DockerItem {
            config: self.config(image),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: image.layers.iter().map(|layer| self.layer(layer)).collect(),
        }
    }

    fn config(&self, image: &CollectedImage) -> String {
        match self.format {
            ArchiveFormat::Docker => format!("{}.json", image.id.hex()),
            ArchiveFormat::Both | ArchiveFormat::Oci => blob(&image.id.digest()),
        }
    }

    fn layer(&self, layer: &CollectedLayer) -> String {
        match self.format {
            ArchiveFormat::Docker => format!("{}.tar", layer.digest.hex()),
            ArchiveFormat::Both | ArchiveFormat::Oci => blob(&layer.digest),
        }
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns the images that `text` names, with the name that the archive gives them (moby
/// image/tarexport `parseNames`).
fn named(store: &Store, text: &str) -> Result<Vec<(ImageId, Option<Reference>)>, ArchiveError> {
    let id = |text: &str| Ok(vec![(store.find(text)?, None)]);
    let name = match Query::parse(text).map_err(StoreError::from)? {
        Query::Name { name, .. } => name,
        Query::Id(_) | Query::Prefix(_) => return id(text),
    };
    store.must_exist()?;
    let names = store.names().load()?;
    if name.digest().is_some() {
        return id(text);
    }
    let is_wanted = |other: &Reference| match name.tag() {
        Some(_) => *other == name,
        None => other.repository() == name.repository() && other.tag().is_some(),
    };
    let found: Vec<_> = names.iter().filter(|(other, _)| is_wanted(other)).collect();
    match found.is_empty() {
        // The beginning of an ID, or nothing.
        true => id(text),
        false => Ok(found.into_iter().map(|(name, id)| (id, Some(name))).collect()),
    }
}
