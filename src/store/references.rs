//! `repositories.json`: the image names (moby reference/store.go). One line of JSON, keys sorted,
//! no newline:
//!
//! ```text
//! {"Repositories":{"nginx":{"nginx:latest":"sha256:<image>","nginx@sha256:<manifest>":"sha256:<image>"}}}
//! ```

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use super::lock;
use crate::fsutil::{self, Durability};
use crate::oci::ImageId;
use crate::reference::Reference;

/// All names of a root at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    #[serde(rename = "Repositories", default)]
    repositories: BTreeMap<String, BTreeMap<String, ImageId>>,
}

impl References {
    /// Returns the image of `reference`. A digest takes precedence over a tag.
    pub fn lookup(&self, reference: &Reference) -> Option<ImageId> {
        let key = key(reference);
        self.repositories.get(&reference.repository().to_string())?.get(&key).copied()
    }

    /// Returns every name with its image, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (Reference, ImageId)> {
        let all = self.repositories.values().flatten();
        all.filter_map(|(name, id)| Some((Reference::from_str(name).ok()?, *id)))
    }

    /// Returns the names of one image, sorted.
    pub fn of(&self, id: ImageId) -> Vec<Reference> {
        let all = self.repositories.values().flatten().filter(|(_, other)| **other == id);
        all.filter_map(|(name, _)| Reference::from_str(name).ok()).collect()
    }

    /// Returns the names of each image, sorted.
    pub fn by_image(&self) -> HashMap<ImageId, Vec<Reference>> {
        let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
        self.iter().for_each(|(name, id)| names.entry(id).or_default().push(name));
        names
    }

    /// Points `reference` at `id`. Returns whether this is a change.
    pub fn set(&mut self, reference: &Reference, id: ImageId) -> bool {
        let names = self.repositories.entry(reference.repository().to_string()).or_default();
        names.insert(key(reference), id) != Some(id)
    }

    /// Removes `reference` and returns its image.
    pub fn remove(&mut self, reference: &Reference) -> Option<ImageId> {
        let repository = reference.repository().to_string();
        let names = self.repositories.get_mut(&repository)?;
        let id = names.remove(&key(reference));
        if names.is_empty() {
            self.repositories.remove(&repository);
        }
        id
    }
}

/// Returns the key of a name: its digest if it has one (moby `favorDigest`).
fn key(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest).to_string(),
        None => reference.clone().with_default_tag().0.to_string(),
    }
}

/// Bytes of the file of names at most.
const MAX_NAMES_SIZE: u64 = 256 << 20;

/// The file of names.
#[derive(Debug)]
pub struct Names {
    layout: Layout,
}

impl Names {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Reads all names.
    ///
    /// # Errors
    /// [`StoreError::DamagedNames`] if the file cannot be parsed, [`StoreError::Fs`] if it cannot
    /// be read.
    pub fn load(&self) -> Result<References, StoreError> {
        let path = self.layout.repositories();
        let json = match fsutil::read_optional_bytes(&path, MAX_NAMES_SIZE) {
            Ok(Some(json)) => json,
            Ok(None) => return Ok(References::default()),
            Err(e) if fsutil::is_damage(&e.source) => {
                return Err(StoreError::DamagedNames { path, why: e.source.to_string() });
            }
            Err(e) => return Err(e)?,
        };
        serde_json::from_slice(&json)
            .map_err(|e| StoreError::DamagedNames { path, why: e.to_string() })
    }

    /// Changes the names under their lock. Writes the file only if `change` changed something.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be locked, read or written.
    pub fn update<T>(&self, change: impl FnOnce(&mut References) -> T) -> Result<T, StoreError> {
        let _lock = lock::exclusive(&self.layout.lock("names"), &|_| {})?;
        let before = self.load()?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            let path = self.layout.repositories();
            let json = serde_json::to_vec(&after)
                .map_err(|e| StoreError::Damaged { path: path.clone(), why: e.to_string() })?;
            self.layout.temporary().replace(&path, &json, 0o600, Durability::Synced)?;
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn repositories_file_matches_the_one_of_docker() {
        let id = ImageId(Digest::of(b"config"));
        let tag: Reference = "nginx:1".parse().unwrap();
        let digest = tag.with_digest(Digest::of(b"manifest"));
        let mut names = References::default();
        assert!(names.set(&tag, id) && names.set(&digest, id) && !names.set(&tag, id));
        let json = serde_json::to_string(&names).unwrap();
        let expected =
            format!(r#"{{"Repositories":{{"nginx":{{"nginx:1":"{id}","{digest}":"{id}"}}}}}}"#);
        assert_eq!(json, expected);
        assert_eq!(names.lookup(&tag), Some(id));
        assert_eq!(names.of(id).len(), 2);
        assert_eq!(names.by_image(), [(id, names.of(id))].into());
        names.remove(&tag);
        names.remove(&digest);
        assert_eq!(serde_json::to_string(&names).unwrap(), r#"{"Repositories":{}}"#);
    }
}
