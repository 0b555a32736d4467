//! What no image, container, mount or running pull needs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layer_record::LayerRecord;
use super::layer_record::cache_id_in;
use super::mounted::Mounts;
use super::{Store, StoreError, containers, journal};
use crate::digest::Digest;
use crate::fsutil;
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// The kind of an [`Orphan`]. The names are stable: they are shown in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OrphanKind {
    /// A committed layer that no image, container or layer above it needs.
    Layer,
    /// A directory in `overlay2` that nothing names.
    Directory,
    /// A short link to a directory that does not exist.
    Link,
    /// A record of a layer that was never committed.
    StagedRecord,
    /// A mapping between blobs and a layer that does not exist.
    Distribution,
    /// What arrived of a blob before its pull ended.
    PartialDownload,
    /// A document or layer of the content store that no image needs.
    ContentBlob,
    /// The time of last use of an image that does not exist.
    LastUse,
}

impl OrphanKind {
    /// Returns the name that JSON and tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::StagedRecord => "staged-record",
            Self::Distribution => "distribution",
            Self::PartialDownload => "partial-download",
            Self::ContentBlob => "content-blob",
            Self::LastUse => "last-use",
        }
    }
}

/// A file or directory that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Orphan {
    /// The kind.
    pub kind: OrphanKind,
    /// The file, or the directory with all that is in it.
    pub path: PathBuf,
    /// Its size, bytes: for a layer the size that Docker counts, else what it takes on the disk.
    pub bytes: u64,
}

/// All orphans of a root.
#[derive(Debug, Default)]
pub struct Orphans {
    /// The orphans, in the order in which they can be removed.
    pub all: Vec<Orphan>,
    /// The chain IDs of the orphaned layers, topmost first.
    pub layers: Vec<ChainId>,
    /// Why layers without an image are kept, if they are.
    pub layers_kept: Option<String>,
}

impl Orphans {
    fn add(&mut self, kind: OrphanKind, path: PathBuf, bytes: u64) {
        self.all.push(Orphan { kind, path, bytes });
    }
}

/// The records of all layers, as far as they can be read.
struct Records {
    known: BTreeMap<ChainId, LayerRecord>,
    /// All records, malformed ones too.
    chains: Vec<ChainId>,
}

impl Records {
    /// Adds the layers `next` and all layers below them.
    fn add_with_parents(&self, mut next: Vec<ChainId>, needed: &mut HashSet<ChainId>) {
        while let Some(chain) = next.pop() {
            if needed.insert(chain) {
                next.extend(self.known.get(&chain).and_then(|record| record.parent));
            }
        }
    }
}

impl Store {
    /// Finds all orphans. What a running pull has staged is not one. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read, or the list of image names is damaged.
    pub fn orphans(&self) -> Result<Orphans, StoreError> {
        let mounts = Mounts::read()?;
        let chains = self.layers().chains()?;
        let known = self.layers().list()?.into_iter().map(|record| (record.chain, record));
        let records = Records { known: known.collect(), chains };
        let mut orphans = Orphans::default();
        match self.needed_layers(&records, &mounts)? {
            Ok(needed) => self.orphaned_layers(&records, &needed, &mut orphans),
            Err(why) => orphans.layers_kept = Some(why),
        }
        let staged = self.staged_text()?;
        self.orphaned_directories(&mounts, &staged, &mut orphans)?;
        self.orphaned_staged_records(&staged, &mut orphans)?;
        self.orphaned_distribution(&records, &mut orphans)?;
        self.orphaned_content(&mut orphans.all)?;
        self.orphaned_uses(&mut orphans)?;
        Ok(orphans)
    }

    /// Returns the layers that images, containers, mounts and the build cache need, with all layers
    /// below them; or why that is unknown.
    fn needed_layers(
        &self,
        records: &Records,
        mounts: &Mounts,
    ) -> Result<Result<HashSet<ChainId>, String>, StoreError> {
        let mut next: Vec<ChainId> = Vec::new();
        let named = self.names().load()?;
        let mut ids: HashSet<_> = named.iter().map(|(_, id)| id).collect();
        ids.extend(self.images().list()?);
        for id in ids {
            match self.any_config(&id)? {
                Some(config) => next.extend(ChainId::stack(config.diff_ids())),
                None => {
                    return Ok(Err(format!("the config of the image {} is damaged", id.short())));
                }
            }
        }
        for parent in containers::parents(&self.layout)? {
            if !records.known.contains_key(&parent) {
                return Ok(Err(format!("the layer {} of a container is damaged", parent.short())));
            }
            next.push(parent);
        }
        next.extend(self.build_cache()?);
        for mount in self.mount_users()? {
            // Another program can have removed the layer: then nothing is left to keep.
            let Some(base) = mount.base.filter(|base| records.chains.contains(base)) else {
                continue;
            };
            if !records.known.contains_key(&base) {
                let (layer, name) = (base.short(), mount.name);
                return Ok(Err(format!(
                    "the layer {layer} of the writable mount {name} is damaged"
                )));
            }
            next.push(base);
        }
        let mut needed = HashSet::new();
        records.add_with_parents(next, &mut needed);
        // Last, because a machine with containers has long mounts.
        let overlay = self.overlay();
        for record in records.known.values() {
            let unneeded = !needed.contains(&record.chain);
            if unneeded && mounts.of_layer(&overlay, &record.cache_id).is_some() {
                records.add_with_parents(vec![record.chain], &mut needed);
            }
        }
        Ok(Ok(needed))
    }

    fn orphaned_layers(&self, records: &Records, needed: &HashSet<ChainId>, orphans: &mut Orphans) {
        let depth = |chain: &ChainId| {
            let mut depth = 0;
            let mut next = records.known.get(chain).and_then(|record| record.parent);
            while let Some(record) = next.and_then(|chain| records.known.get(&chain)) {
                depth += 1;
                next = record.parent;
            }
            depth
        };
        let mut chains = records.chains.clone();
        chains.retain(|chain| !needed.contains(chain));
        chains.sort_by_cached_key(|chain| std::cmp::Reverse(depth(chain)));
        for chain in &chains {
            let bytes = records.known.get(chain).map_or(0, |record| record.size);
            orphans.add(OrphanKind::Layer, self.layout.layer(chain), bytes);
        }
        orphans.layers = chains;
    }

    /// Returns the journals of all processes, which name staged layers.
    fn staged_text(&self) -> Result<String, StoreError> {
        let dir = self.layout.journals();
        let mut text = String::new();
        for name in fsutil::names_in(&dir)? {
            let bytes = fsutil::read(&dir.join(name), journal::MAX_SIZE).unwrap_or_default();
            text += &String::from_utf8_lossy(&bytes);
            text.push('\n');
        }
        Ok(text)
    }

    /// Finds directories in `overlay2` with names as dockerd's and rpull's, and short links to
    /// nothing. A directory beside which there is one with `-init` belongs to a container.
    fn orphaned_directories(
        &self,
        mounts: &Mounts,
        staged: &str,
        orphans: &mut Orphans,
    ) -> Result<(), StoreError> {
        let overlay = self.overlay();
        let mut named: HashSet<CacheId> =
            containers::directories(&self.layout)?.into_iter().collect();
        for dir in [self.layout.layers(), self.layout.write_sets()] {
            for name in fsutil::names_in(&dir)? {
                named.extend(cache_id_in(&dir.join(name))?);
            }
        }
        let all: HashSet<CacheId> = overlay.all()?.into_iter().collect();
        for id in &all {
            let plain = id.as_str().parse::<CacheId>().is_ok() && !id.is_of_buildkit();
            let init = CacheId::of_container(&format!("{id}-init"));
            let of_container = init.is_some_and(|init| all.contains(&init));
            let used = named.contains(id) || staged.contains(id.as_str());
            if plain && !of_container && !used && mounts.of_layer(&overlay, id).is_none() {
                let bytes = disk_bytes(&overlay.dir(id));
                orphans.add(OrphanKind::Directory, overlay.dir(id), bytes);
            }
        }
        for name in fsutil::names_in(&overlay.links())? {
            let path = overlay.links().join(&name);
            let Some(id) = name.parse().ok().and_then(|link| overlay.layer_at(&link)) else {
                continue;
            };
            let used = named.contains(&id) || staged.contains(id.as_str());
            if !used && !overlay.dir(&id).exists() {
                orphans.add(OrphanKind::Link, path, 0);
            }
        }
        Ok(())
    }

    /// Finds records of dead processes in the directory of staged layers. rpull's own are removed by
    /// the sweep of every command that writes; these are of dockerd, or of a lost journal.
    fn orphaned_staged_records(
        &self,
        staged: &str,
        orphans: &mut Orphans,
    ) -> Result<(), StoreError> {
        let dir = self.layout.write_sets();
        for name in fsutil::names_in(&dir)? {
            let known = ["write-set-", "complete-", "replacing-", "layer-"];
            let known = known.iter().any(|it| name.starts_with(it));
            let random = name.rsplit('-').next().unwrap_or_default();
            if known && !staged.contains(&format!("write-set-{random}")) {
                let path = dir.join(name);
                let bytes = disk_bytes(&path);
                orphans.add(OrphanKind::StagedRecord, path, bytes);
            }
        }
        Ok(())
    }

    fn orphaned_distribution(
        &self,
        records: &Records,
        orphans: &mut Orphans,
    ) -> Result<(), StoreError> {
        // If a record is malformed, its diff ID is unknown, and a repair may need it.
        if records.known.len() != records.chains.len() && orphans.layers_kept.is_some() {
            return Ok(());
        }
        let gone: HashSet<ChainId> = orphans.layers.iter().copied().collect();
        let kept = records.known.values().filter(|record| !gone.contains(&record.chain));
        let kept: HashSet<DiffId> = kept.map(|record| record.diff_id).collect();
        let is_kept =
            |text: &str| text.parse().is_ok_and(|diff_id: DiffId| kept.contains(&diff_id));
        let dir = self.layout.diff_ids_by_digest();
        for name in fsutil::names_in(&dir)?.iter().filter(|name| Digest::from_hex(name).is_ok()) {
            let path = dir.join(name);
            let text = fsutil::read_optional(&path)?;
            if text.is_some_and(|text| !is_kept(&text)) {
                orphans.add(OrphanKind::Distribution, path.clone(), disk_bytes(&path));
            }
        }
        let dir = self.layout.all_sources();
        for name in fsutil::names_in(&dir)? {
            if Digest::from_hex(&name).is_ok_and(|digest| !kept.contains(&DiffId(digest))) {
                let path = dir.join(&name);
                orphans.add(OrphanKind::Distribution, path.clone(), disk_bytes(&path));
            }
        }
        Ok(())
    }

    fn orphaned_uses(&self, orphans: &mut Orphans) -> Result<(), StoreError> {
        let dir = self.layout.uses();
        let images: HashSet<String> = self.images().list()?.iter().map(|id| id.hex()).collect();
        for name in fsutil::names_in(&dir)? {
            if Digest::from_hex(&name).is_ok() && !images.contains(&name) {
                orphans.add(OrphanKind::LastUse, dir.join(name), 0);
            }
        }
        Ok(())
    }
}

/// Returns the bytes that a file or a tree takes on the disk. What cannot be read counts nothing.
pub fn disk_bytes(path: &Path) -> u64 {
    let mut links = HashMap::new();
    let mut next = vec![path.to_owned()];
    let mut sum = 0;
    while let Some(path) = next.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.nlink() > 1
            && !meta.is_dir()
            && links.insert((meta.dev(), meta.ino()), ()).is_some()
        {
            continue;
        }
        sum += meta.blocks() * 512;
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            next.extend(entries.map(|entry| entry.path()));
        }
    }
    sum
}
