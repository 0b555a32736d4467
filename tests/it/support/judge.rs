//! Puts every layer of a root together again from its tar-split metadata and its directory.

use std::fs;
use std::path::Path;

use super::image::sha256;
use super::snapshot::names;
use super::tar_split;

/// Judges every layer of `root` and gives how many there were.
#[track_caller]
pub fn judge_root(root: &Path) -> usize {
    let chains = names(&root.join("image/overlay2/layerdb/sha256"));
    for chain in &chains {
        judge(root, chain).unwrap_or_else(|e| panic!("layer {chain}: {e}"));
    }
    chains.len()
}

/// The layer's tar, if its metadata is what dockerd can read.
pub fn judge(root: &Path, chain: &str) -> Result<Vec<u8>, String> {
    let record = root.join("image/overlay2/layerdb/sha256").join(chain);
    let read =
        |name: &str| fs::read_to_string(record.join(name)).map_err(|e| format!("{name}: {e}"));
    let diff = root.join("overlay2").join(read("cache-id")?).join("diff");
    let tar = tar_split::assemble(&record.join("tar-split.json.gz"), &diff)?;
    let (expected, actual) = (read("diff")?, sha256(&tar));
    if expected != actual { Err(format!("{actual}, diff says {expected}")) } else { Ok(tar) }
}
