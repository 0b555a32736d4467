//! The output of `inspect`, `layers`, `history` and `images`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::layer_index::IndexView;
use super::{LayerRecord, LayerSelector, Store, StoreError};
use crate::digest::Digest;
use crate::oci::{ChainId, DiffId, ImageConfig, ImageId};
use crate::overlay::{CacheId, Stack};
use crate::reference::{Reference, Repository};

/// One line of `images`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ImageLine {
    /// The familiar name; `None` for an image without a name.
    pub repository: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The digest at the registry.
    pub digest: Option<Digest>,
    /// The image ID.
    pub id: ImageId,
    /// The time when it was built, RFC 3339; empty if unknown.
    pub created: String,
    /// The sum of its layers' sizes, bytes.
    pub size: u64,
    /// Whether it has no name, and another image was built on it: a step of a build.
    pub intermediate: bool,
}

/// One line of `layers`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LayerLine {
    /// The position from the base, which is 1.
    pub position: usize,
    /// The digest of the blob that it was pulled from.
    pub distribution_id: Option<Digest>,
    /// The SHA-256 of its tar.
    pub diff_id: DiffId,
    /// The key of its record.
    pub chain_id: ChainId,
    /// The name of its directory.
    pub cache_id: String,
    /// The size as Docker counts it, bytes.
    pub size: u64,
    /// The directory of its files.
    pub path: PathBuf,
}

/// One line of `history`, newest first.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HistoryLine {
    /// The image ID, in the newest line only.
    pub id: Option<ImageId>,
    /// The time, RFC 3339; empty if unknown.
    pub created: String,
    /// The instruction.
    pub created_by: String,
    /// The bytes that it added.
    pub size: u64,
    /// The comment.
    pub comment: String,
}

/// An image and all its layers.
struct LoadedImage {
    config: ImageConfig,
    json: Value,
    layers: Vec<LayerRecord>,
}

impl Store {
    fn load(&self, id: &ImageId) -> Result<LoadedImage, StoreError> {
        let (config, json) = self.load_config(id)?;
        let layers = self.layers().stack(config.diff_ids())?;
        let missing = || self.damaged(id, "a layer of it is missing");
        Ok(LoadedImage { config, json, layers: layers.ok_or_else(missing)? })
    }

    fn load_config(&self, id: &ImageId) -> Result<(ImageConfig, Value), StoreError> {
        let bytes = self.images().get(id)?;
        let bytes = bytes.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))?;
        let config = ImageConfig::parse(&bytes).map_err(|e| self.damaged(id, e))?;
        Ok((config, serde_json::from_slice(&bytes).map_err(|e| self.damaged(id, e))?))
    }

    fn damaged(&self, id: &ImageId, why: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.layout.image(id), why: why.to_string() }
    }

    /// Returns all images, one line per name, newest first as in `docker images`.
    ///
    /// # Errors
    /// [`StoreError`] if the store is missing or cannot be read.
    pub fn image_lines(&self) -> Result<Vec<ImageLine>, StoreError> {
        self.must_exist()?;
        let names = self.names().load()?.by_image();
        let parents = self.images().parents()?;
        let mut lines = Vec::new();
        let index = self.layers().index.open().unwrap_or(IndexView::Memory);
        for id in self.images().list()? {
            let Ok((config, json)) = self.load_config(&id) else { continue };
            // The layers of an image are read only if the index does not have their sizes.
            let size = match self.layers().index.size(&index, &id) {
                Some(size) => size,
                None => match self.layers().stack(config.diff_ids()) {
                    Ok(Some(layers)) => total_size(&layers),
                    // dockerd skips incomplete images, too.
                    Ok(None) | Err(_) => continue,
                },
            };
            let created = text(&json, "created");
            let of_image = names.get(&id).map_or(&[][..], Vec::as_slice);
            for (repository, tag, digest) in named_lines(of_image) {
                lines.push(ImageLine {
                    repository,
                    tag,
                    digest,
                    id,
                    created: created.clone(),
                    size,
                    intermediate: of_image.is_empty() && parents.contains(&id),
                });
            }
        }
        lines.sort_by_key(|line| std::cmp::Reverse(time(&line.created)));
        Ok(lines)
    }

    /// Returns the layers of an image, base first.
    ///
    /// # Errors
    /// [`StoreError`] if the image is missing or damaged, or cannot be read.
    pub fn layer_lines(&self, id: &ImageId) -> Result<Vec<LayerLine>, StoreError> {
        let image = self.load(id)?;
        let lines = image.layers.iter().enumerate();
        lines.map(|(i, layer)| self.layer_line(i + 1, layer)).collect()
    }

    /// Returns the line of a layer at `position`, counted from the base, which is 1.
    pub(super) fn layer_line(
        &self,
        position: usize,
        layer: &LayerRecord,
    ) -> Result<LayerLine, StoreError> {
        let sources = self.distribution().sources(&layer.diff_id)?;
        Ok(LayerLine {
            position,
            distribution_id: sources.last().map(|source| source.digest),
            diff_id: layer.diff_id,
            chain_id: layer.chain,
            cache_id: layer.cache_id.to_string(),
            size: layer.size,
            path: self.layers().diff_path(layer),
        })
    }

    /// Returns the history of an image, newest first (moby daemon/images/image_history.go).
    ///
    /// # Errors
    /// [`StoreError`] if the image is missing or damaged, or cannot be read.
    pub fn history_lines(&self, id: &ImageId) -> Result<Vec<HistoryLine>, StoreError> {
        let image = self.load(id)?;
        let mut sizes = image.layers.iter().map(|layer| layer.size);
        let none = Vec::new();
        let entries = image.json["history"].as_array().unwrap_or(&none);
        let line = |entry: &Value| HistoryLine {
            id: None,
            created: text(entry, "created"),
            created_by: text(entry, "created_by"),
            size: if entry["empty_layer"].as_bool() == Some(true) {
                0
            } else {
                sizes.next().unwrap_or(0)
            },
            comment: text(entry, "comment"),
        };
        let mut lines: Vec<HistoryLine> = entries.iter().map(line).collect();
        lines.reverse();
        if let Some(newest) = lines.first_mut() {
            newest.id = Some(*id);
        }
        Ok(lines)
    }

    /// Returns the read-only mount of an image, or of its layers up to `top`: the directories that
    /// dockerd would mount, with its options. Returns the layers as well, base first, whose marks may need
    /// another option. `name` is the image as the user named it.
    ///
    /// # Errors
    /// [`StoreError::NoLayers`]; [`StoreError::Damaged`] if dockerd would mount other directories;
    /// [`StoreError::NoSuchLayer`] or [`StoreError::AmbiguousLayer`] if not exactly one layer is `top`.
    pub fn mount_stack(
        &self,
        id: &ImageId,
        name: &str,
        top: Option<&LayerSelector>,
    ) -> Result<(Stack, Vec<LayerRecord>), StoreError> {
        let layers = self.load(id)?.layers;
        if layers.is_empty() {
            return Err(StoreError::NoLayers(name.to_owned()));
        }
        let layers = match top {
            Some(top) => self.layers_up_to(name, layers, top)?,
            None => layers,
        };
        Ok((self.stack_of(&layers)?, layers))
    }

    /// Returns an image as `docker inspect` shows it (moby api/types `ImageInspect`).
    ///
    /// # Errors
    /// [`StoreError`] if the image is missing or damaged, or cannot be read.
    pub fn inspect(&self, id: &ImageId) -> Result<Value, StoreError> {
        let LoadedImage { config, json, layers } = self.load(id)?;
        let names = self.names().load()?.of(*id);
        let (digests, tags): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| name.digest().is_some());
        let shown =
            |names: Vec<&Reference>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let size = total_size(&layers);
        let updated = self.images().last_updated(id)?;
        let parent = self.images().parent(id)?.map(|parent| parent.to_string()).unwrap_or_default();
        let mut shape = json!({
            "Id": id,
            "RepoTags": shown(tags),
            "RepoDigests": shown(digests),
            "Parent": parent,
            "Comment": comment(&json),
            "Created": json["created"].as_str().unwrap_or("0001-01-01T00:00:00Z"),
            "Container": text(&json, "container"),
            "ContainerConfig": json["container_config"],
            "DockerVersion": text(&json, "docker_version"),
            "Author": text(&json, "author"),
            "Config": json["config"],
            "Architecture": text(&json, "architecture"),
            "Os": text(&json, "os"),
            "Size": size,
            "VirtualSize": size,
            "GraphDriver": { "Data": self.graph_data(layers.last())?, "Name": "overlay2" },
            "RootFS": { "Type": "layers", "Layers": config.diff_ids() },
            "Metadata": { "LastTagTime": updated.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()) },
        });
        for (key, from) in [("Variant", "variant"), ("OsVersion", "os.version")] {
            if let (Some(value), Some(shape)) = (json[from].as_str(), shape.as_object_mut()) {
                shape.insert(key.to_owned(), value.into());
            }
        }
        Ok(shape)
    }

    /// Returns moby daemon/graphdriver/overlay2 `GetMetadata` of the top layer.
    fn graph_data(&self, top: Option<&LayerRecord>) -> Result<Value, StoreError> {
        let Some(top) = top else { return Ok(Value::Null) };
        let overlay = self.overlay();
        let id: &CacheId = &top.cache_id;
        let mut data = json!({
            "MergedDir": overlay.merged(id),
            "UpperDir": overlay.diff(id),
            "WorkDir": overlay.work(id),
        });
        let lower: Vec<String> =
            overlay.lower_diffs(id)?.iter().map(|path| path.display().to_string()).collect();
        if let (false, Some(data)) = (lower.is_empty(), data.as_object_mut()) {
            data.insert("LowerDir".to_owned(), lower.join(":").into());
        }
        Ok(data)
    }
}

type NamedLine = (Option<String>, Option<String>, Option<Digest>);

/// Returns the names with a tag, and those with a digest whose repository has no tag.
pub(super) fn listed(names: &[Reference]) -> impl Iterator<Item = &Reference> {
    let tagged = |repository: &Repository| {
        names.iter().any(|name| name.repository() == repository && name.tag().is_some())
    };
    names.iter().filter(move |name| name.tag().is_some() || !tagged(name.repository()))
}

/// Returns one line per listed name.
fn named_lines(names: &[Reference]) -> Vec<NamedLine> {
    let digest_of = |repository: &Repository| {
        let same = names.iter().filter(|name| name.repository() == repository);
        same.filter_map(Reference::digest).next_back()
    };
    let mut lines: Vec<NamedLine> = listed(names)
        .map(|name| {
            let digest = name.digest().or_else(|| digest_of(name.repository()));
            (Some(name.repository().to_string()), name.tag().map(str::to_owned), digest)
        })
        .collect();
    if lines.is_empty() {
        lines.push((None, None, None));
    }
    lines
}

/// Returns the sum of the layers' sizes. A damaged record can have any size.
fn total_size(layers: &[LayerRecord]) -> u64 {
    layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// Returns the comment of the image, or of its newest history entry, as dockerd shows it.
fn comment(json: &Value) -> String {
    let own = text(json, "comment");
    let last = json["history"].as_array().and_then(|history| history.last());
    if own.is_empty() { last.map(|entry| text(entry, "comment")).unwrap_or_default() } else { own }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Parses a time for sorting; an invalid one is the oldest.
fn time(created: &str) -> Option<DateTime<Utc>> {
    created.parse().ok()
}
