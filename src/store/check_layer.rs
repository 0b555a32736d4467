//! The check of one layer's record and of its files in `overlay2` that dockerd mounts by. It reads
//! no contents.

use std::collections::HashMap;
use std::path::Path;

use super::StoreError;
use super::damage::{Damage, DamageClass};
use super::layer_record::{LayerRecord, could_be_gzip};
use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use super::links;
use crate::fsutil::{self, FsError};
use crate::oci::ChainId;
use crate::overlay::{CacheId, LinkId, OverlayRoot};

/// A record that was read, and what is wrong with it.
pub struct CheckedRecord {
    /// The record, if it is well-formed.
    pub record: Option<LayerRecord>,
    /// The damage of its files.
    pub damage: Vec<Damage>,
}

/// Reads and checks the record of `chain`. dockerd drops a malformed one at its start, and cannot
/// replace it (moby#44909).
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be read.
pub fn record(layout: &Layout, chain: ChainId) -> Result<CheckedRecord, StoreError> {
    let dir = layout.layer(&chain);
    let damaged = |name: &str, why: &str| {
        Damage::new(DamageClass::LayerRecord, dir.join(name), why).of_layer(chain)
    };
    if !dir.is_dir() {
        let missing = Damage::new(DamageClass::LayerRecord, dir.clone(), "the record is missing");
        return Ok(CheckedRecord { record: None, damage: vec![missing.of_layer(chain)] });
    }
    if fsutil::names_in(&dir)?.is_empty() {
        let empty = Damage::new(DamageClass::LayerRecord, dir.clone(), "the record is empty");
        return Ok(CheckedRecord { record: None, damage: vec![empty.of_layer(chain)] });
    }
    let mut damage = Vec::new();
    let diff = parsed(&dir, DIFF)?;
    let size = parsed::<u64>(&dir, SIZE)?;
    let cache_id = parsed(&dir, CACHE_ID)?;
    let parent = parsed(&dir, PARENT)?;
    for (name, why) in [
        (DIFF, why(&diff, "a diff ID")),
        (SIZE, why(&size, "a number of bytes")),
        (CACHE_ID, why(&cache_id, "the name of a directory")),
        (PARENT, why(&parent, "a chain ID").filter(|_| !matches!(parent, Parsed::Missing))),
    ] {
        damage.extend(why.map(|why| damaged(name, &why)));
    }
    let tar_split = dir.join(TAR_SPLIT);
    if !could_be_gzip(&tar_split)? {
        let why = match tar_split.exists() {
            true => "it is truncated or not a gzip file",
            false => "it is missing",
        };
        damage.push(Damage::new(DamageClass::TarSplit, tar_split, why).of_layer(chain));
    }
    let parent = match parent {
        Parsed::Value(parent) => Some(parent),
        Parsed::Missing => None,
        Parsed::Malformed => return Ok(CheckedRecord { record: None, damage }),
    };
    let (Parsed::Value(diff_id), Parsed::Value(size), Parsed::Value(cache_id)) =
        (diff, size, cache_id)
    else {
        return Ok(CheckedRecord { record: None, damage });
    };
    if ChainId::above(parent, diff_id) != chain {
        let why = "with its parent it does not give the chain ID of the record";
        damage.push(damaged(DIFF, why));
        return Ok(CheckedRecord { record: None, damage });
    }
    Ok(CheckedRecord {
        record: Some(LayerRecord { chain, parent, diff_id, cache_id, size }),
        damage,
    })
}

enum Parsed<T> {
    Value(T),
    Missing,
    Malformed,
}

/// Reads a file that must have exactly the text of a value.
fn parsed<T: std::str::FromStr + ToString>(dir: &Path, name: &str) -> Result<Parsed<T>, FsError> {
    let Some(text) = fsutil::read_optional(&dir.join(name))? else { return Ok(Parsed::Missing) };
    let value = text.parse::<T>().ok().filter(|value| value.to_string() == text);
    Ok(value.map_or(Parsed::Malformed, Parsed::Value))
}

fn why<T>(parsed: &Parsed<T>, what: &str) -> Option<String> {
    match parsed {
        Parsed::Value(_) => None,
        Parsed::Missing => Some("it is missing".to_owned()),
        Parsed::Malformed => Some(format!("it is not {what}")),
    }
}

/// The links of directories, each read once.
#[derive(Default)]
pub struct Links(HashMap<CacheId, Option<LinkId>>);

impl Links {
    fn of(&mut self, overlay: &OverlayRoot, id: &CacheId) -> Result<Option<LinkId>, FsError> {
        if let Some(link) = self.0.get(id) {
            return Ok(link.clone());
        }
        let link = overlay.link(id)?;
        self.0.insert(id.clone(), link.clone());
        Ok(link)
    }
}

/// Returns the damage of a layer in `overlay2`. `below` has the records of all layers below it,
/// nearest first; `None` if one of them is damaged, which that layer reports.
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be read.
pub fn directory(
    overlay: &OverlayRoot,
    known: &mut Links,
    record: &LayerRecord,
    below: Option<&[&LayerRecord]>,
) -> Result<Vec<Damage>, StoreError> {
    let id = &record.cache_id;
    let mut damage = Vec::new();
    let mut add = |class, path, why: &str| {
        damage.push(Damage::new(class, path, why).of_layer(record.chain));
    };
    if !overlay.dir(id).is_dir() {
        add(DamageClass::LayerDirectory, overlay.dir(id), "the directory is missing");
        return Ok(damage);
    }
    if !overlay.diff(id).is_dir() {
        add(DamageClass::LayerDirectory, overlay.diff(id), "the directory is missing");
    }
    match known.of(overlay, id)? {
        None => add(DamageClass::LayerLink, overlay.link_file(id), "it is missing or malformed"),
        Some(link) if !overlay.points_to(&link, id) => {
            let why = format!("it does not point to the layer in {}", overlay.diff(id).display());
            add(DamageClass::LayerLink, overlay.link_path(&link), &why);
        }
        Some(_) => {}
    }
    let Some(below) = below else { return Ok(damage) };
    if !lists(overlay, known, id, below)? {
        let why = "it does not list the layers below this one";
        add(DamageClass::LayerLower, overlay.lower_file(id), why);
    }
    let Some(parent) = below.first() else { return Ok(damage) };
    if !overlay.work(id).is_dir() {
        add(DamageClass::LayerWork, overlay.work(id), "the directory is missing");
    }
    // BuildKit can base a layer on a directory of its cache that has the content of the parent.
    let marked = id.is_of_buildkit() || overlay.is_committed(&parent.cache_id);
    if !marked && overlay.dir(&parent.cache_id).is_dir() {
        let path = overlay.committed(&parent.cache_id);
        let mark = Damage::new(DamageClass::CommittedMark, path, "the mark is missing");
        damage.push(mark.of_layer(parent.chain));
    }
    Ok(damage)
}

/// Returns whether `lower` of a layer lists the layers `below`. A layer below without a valid link
/// has its own damage, so any entry is accepted for it.
fn lists(
    overlay: &OverlayRoot,
    known: &mut Links,
    id: &CacheId,
    below: &[&LayerRecord],
) -> Result<bool, StoreError> {
    let Some(text) = overlay.lower(id)? else { return Ok(below.is_empty()) };
    let entries: Vec<&str> = text.split(':').collect();
    if entries.len() != below.len() {
        return Ok(false);
    }
    for (entry, record) in entries.iter().zip(below) {
        let Some(link) = known.of(overlay, &record.cache_id)? else { continue };
        let right = *entry == OverlayRoot::lower_entry(&link)
            || links::in_build_cache(overlay, entry).is_some();
        if !right {
            return Ok(false);
        }
    }
    Ok(true)
}
