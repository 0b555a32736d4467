//! Checks of a store: its records, and with [`Check::deep`] the contents of its layers.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::store::Store;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil::At;
use crate::layer::{self, LayerError};
use crate::oci::{ChainId, ImageId};
use crate::overlay::DiffDir;
use crate::store::{self, Damage, DamageClass, Findings, LayerRecord};

/// What a deep check has verified so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// The layers and blobs that were verified.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// The result of a [`Check`].
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The number of images that were checked.
    pub images: usize,
    /// The number of layers that were checked.
    pub layers: usize,
    /// Whether their contents were verified.
    pub deep: bool,
    /// What is damaged, one element per file.
    pub damage: Vec<Damage>,
}

impl CheckReport {
    /// Returns whether nothing is damaged.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A check of a store, which [`run`](Self::run) starts. It changes nothing, and works while dockerd
/// uses the store.
#[must_use = "a check starts with `run`"]
#[derive(Clone)]
pub struct Check {
    store: Store,
    images: Vec<String>,
    deep: bool,
    progress: Arc<dyn Fn(CheckProgress) + Send + Sync>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Check");
        debug.field("images", &self.images).field("deep", &self.deep).finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares a check of all images and layers.
    pub fn check(&self) -> Check {
        let store = self.clone();
        Check { store, images: Vec::new(), deep: false, progress: Arc::new(|_| {}) }
    }
}

/// What a deep check verifies.
enum Item {
    Layer(LayerRecord),
    Blob(Digest),
}

impl Check {
    /// Checks only `image`, which is given as for [`Store::image`], and those of other calls.
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.images.push(image.into());
        self
    }

    /// Verifies the contents of all layers and blobs, too, on all cores. A layer is reassembled from
    /// its files and its tar-split metadata, and must have its diff ID.
    pub fn deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// Calls `progress` after each layer of a deep check, on any thread.
    pub fn progress(mut self, progress: impl Fn(CheckProgress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// The store that is checked.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Checks the store.
    ///
    /// # Errors
    /// There is no such store or image, or a file cannot be read. Damage is not an error.
    pub fn run(&self) -> Result<CheckReport, Error> {
        self.run_on(None)
    }

    /// Does the same, but verifies only the contents of `chains` if they are given.
    pub(super) fn run_on(&self, chains: Option<&HashSet<ChainId>>) -> Result<CheckReport, Error> {
        let (found, _lock) = self.store.read_and_keep(|store| {
            store.must_exist()?;
            let ids = self.images.iter().map(|image| store.find(image));
            let ids = ids.collect::<Result<Vec<ImageId>, _>>()?;
            store.check((!ids.is_empty()).then_some(&ids[..]))
        })?;
        let mut report = CheckReport {
            images: found.images.len(),
            layers: found.layer_count,
            deep: self.deep,
            damage: found.damage.clone(),
        };
        if self.deep {
            let deep = self.verify_contents(&found, chains)?;
            let known: HashSet<_> = found.damage.iter().map(|it| it.path.clone()).collect();
            report.damage.extend(deep.into_iter().filter(|it| !known.contains(&it.path)));
            report.damage.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
        }
        Ok(report)
    }

    fn verify_contents(
        &self,
        found: &Findings,
        chains: Option<&HashSet<ChainId>>,
    ) -> Result<Vec<Damage>, Error> {
        let store = self.store.begin();
        let mut layers = found.layers.clone();
        layers.retain(|record| chains.is_none_or(|chains| chains.contains(&record.chain)));
        // The largest come first, so that no core waits long for the last one.
        layers.sort_by_key(|record| std::cmp::Reverse(record.size));
        let mut items: Vec<Item> = layers.into_iter().map(Item::Layer).collect();
        if self.images.is_empty() && chains.is_none() {
            items.extend(store.content().blobs()?.into_iter().map(Item::Blob));
        }
        let done = AtomicUsize::new(0);
        let work = |item: &Item| {
            let damage = match item {
                Item::Layer(record) => layer_damage(&store, record),
                Item::Blob(digest) => blob_damage(&store, digest),
            };
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(CheckProgress { done, total: items.len() });
            damage
        };
        let damage = store::on_all_cores(&items, work)?.into_iter().flatten();
        Ok(damage.map(|damage| found.with_images(damage)).collect())
    }
}

/// Verifies a layer by its diff ID, and if it differs, each of its files. What another process has
/// replaced or removed meanwhile is not reported.
fn layer_damage(store: &store::Store, record: &LayerRecord) -> Result<Vec<Damage>, Error> {
    let damage = match verify(store, record) {
        Ok(()) => return Ok(Vec::new()),
        Err(error) => damage_of(store, record, error)?,
    };
    let now = store.layers().get(&record.chain)?;
    let same = now.is_some_and(|now| now.cache_id == record.cache_id);
    Ok(if same { damage } else { Vec::new() })
}

fn verify(store: &store::Store, record: &LayerRecord) -> Result<(), Error> {
    let failed = |source| Error::Layer { layer: record.diff_id.digest(), source };
    let diff = open(&store.layers().diff_path(record)).map_err(failed)?;
    let tar_split = store.layers().tar_split(&record.chain)?;
    layer::verify(tar_split, &diff, record.diff_id).map_err(failed)
}

fn open(path: &Path) -> Result<DiffDir, LayerError> {
    DiffDir::open(path).map_err(|e| LayerError::open(path, e))
}

/// Returns what the error of [`verify`] means: damage, or that this user may not read the files.
fn damage_of(
    store: &store::Store,
    record: &LayerRecord,
    error: Error,
) -> Result<Vec<Damage>, Error> {
    let path = store.layers().diff_path(record);
    let damage =
        |class, path, why: String| vec![Damage::new(class, path, why).of_layer(record.chain)];
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    match &error {
        Error::Layer { source: LayerError::Open { source, .. }, .. } if !denied(source) => {
            Ok(damage(DamageClass::LayerDirectory, path, source.to_string()))
        }
        Error::Layer { source: LayerError::TarSplit(source), .. } if !denied(source) => {
            let path = store.layers().tar_split_path(&record.chain);
            Ok(damage(DamageClass::TarSplit, path, source.to_string()))
        }
        Error::Layer { source: LayerError::Damaged { why, .. }, .. } => {
            let failed = |source| Error::Layer { layer: record.diff_id.digest(), source };
            let tar_split = store.layers().tar_split(&record.chain)?;
            let diff = open(&path).map_err(failed)?;
            let files = layer::damaged_files(tar_split, &diff).map_err(failed)?;
            if files.is_empty() {
                return Ok(damage(DamageClass::LayerContent, path, why.clone()));
            }
            let one = |file: layer::DamagedFile| {
                let file_path = path.join(file.path.trim_start_matches('/'));
                damage(DamageClass::LayerContent, file_path, file.why)
            };
            Ok(files.into_iter().flat_map(one).collect())
        }
        Error::Store(store::StoreError::Fs(e)) if e.source.kind() == io::ErrorKind::NotFound => {
            let path = store.layers().tar_split_path(&record.chain);
            Ok(damage(DamageClass::TarSplit, path, "it is missing".to_owned()))
        }
        _ => Err(error),
    }
}

/// Verifies a blob of the content store by its digest.
pub(super) fn blob_damage(store: &store::Store, digest: &Digest) -> Result<Vec<Damage>, Error> {
    let Some(file) = store.content().open(digest)? else { return Ok(Vec::new()) };
    let path = store.content().blob_path(digest);
    let actual = Digest::of_reader(file).at("read", &path)?;
    if actual == *digest {
        return Ok(Vec::new());
    }
    let why = "its SHA-256 does not match its name";
    Ok(vec![Damage::new(DamageClass::ContentBlob, path, why)])
}
