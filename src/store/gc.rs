//! The removal of orphans.

use std::collections::HashSet;

use super::layer_record::cache_id_in;
use super::orphans::{OrphanKind, Orphans};
use super::{Store, StoreError, containers};
use crate::fsutil;
use crate::oci::ChainId;
use crate::overlay::CacheId;

impl Store {
    /// Removes all orphans and returns them. The caller holds the store lock in exclusive mode, so no
    /// pull is running. After a kill, the next call removes the rest.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read, something cannot be removed, or the list of image
    /// names is damaged.
    pub fn remove_orphans(&self) -> Result<Orphans, StoreError> {
        let orphans = self.orphans()?;
        self.remove_orphaned_layers(&orphans.layers)?;
        let overlay = self.overlay();
        for orphan in &orphans.all {
            match orphan.kind {
                // Removed with their records, and by the content store under its locks.
                OrphanKind::Layer | OrphanKind::PartialDownload | OrphanKind::ContentBlob => {}
                OrphanKind::Directory => {
                    let name = orphan.path.file_name().and_then(|name| name.to_str());
                    if let Some(id) = name.and_then(|name| name.parse::<CacheId>().ok()) {
                        overlay.remove_layer(&id, None)?;
                    }
                }
                _ => fsutil::remove(&orphan.path)?,
            }
        }
        self.remove_stale_omitted()?;
        self.trim_content()?;
        self.content().remove_partials()?;
        Ok(orphans)
    }

    /// Removes layers, topmost first, and the mark of having a child from the layers below them.
    fn remove_orphaned_layers(&self, layers: &[ChainId]) -> Result<(), StoreError> {
        let gone: HashSet<ChainId> = layers.iter().copied().collect();
        let records = self.layers().list()?;
        let below = records.iter().filter(|record| gone.contains(&record.chain));
        let below: HashSet<ChainId> = below.filter_map(|record| record.parent).collect();
        let mut with_child: HashSet<ChainId> =
            containers::parents(&self.layout)?.into_iter().collect();
        let left = || records.iter().filter(|record| !gone.contains(&record.chain));
        with_child.extend(left().filter_map(|record| record.parent));
        self.layers().remove(&mut self.layers().index.open()?, layers)?;
        for record in left().filter(|record| below.contains(&record.chain)) {
            let id = cache_id_in(&self.layout.layer(&record.chain))?;
            let own = id.filter(|id| !id.is_of_buildkit() && !with_child.contains(&record.chain));
            if let Some(id) = own {
                self.overlay().uncommit(&id)?;
            }
        }
        Ok(())
    }
}
