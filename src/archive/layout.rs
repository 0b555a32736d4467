//! The images of an OCI image layout (OCI image-spec image-layout.md).

use std::collections::HashMap;

use serde::Deserialize;

use super::documents::{IMAGE_NAME, NAME};
use super::error::ArchiveError;
use super::files::Files;
use super::found::{Found, FoundImage};
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::reference::Reference;

/// The path of the list of images.
pub const INDEX: &str = "index.json";

#[derive(Deserialize)]
struct IndexFile {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Returns the path of a blob.
pub fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns the images that `index.json` lists. Entries with one name, or all without a name if each has
/// a platform, are one image for several platforms. Several names of one entry are one image.
///
/// # Errors
/// [`ArchiveError::Invalid`] if it is not an index.
pub fn images(files: &Files) -> Result<Found, ArchiveError> {
    let bytes = files.document(INDEX)?.unwrap_or_default();
    let invalid = |e: serde_json::Error| ArchiveError::Invalid(format!("{INDEX}: {e}"));
    let index: IndexFile = serde_json::from_slice(&bytes).map_err(invalid)?;
    let mut images: Vec<FoundImage> = Vec::new();
    // Where images are in the list, so that an archive of many names takes no more time for each.
    let mut by_key: HashMap<Key, usize> = HashMap::new();
    let mut by_digest: HashMap<Digest, usize> = HashMap::new();
    for entry in index.manifests.unwrap_or_default() {
        let (name, label) = (whole_name(&entry), entry.annotations.get(NAME).cloned());
        let key = match (&name, &label) {
            (Some(name), _) => Some(Key::Name(name.clone())),
            (None, Some(label)) => Some(Key::Label(label.clone())),
            (None, None) => entry.platform.is_some().then_some(Key::Platforms),
        };
        if let Some(at) = key.as_ref().and_then(|key| by_key.get(key)) {
            images[*at].tops.push(entry);
            continue;
        }
        let named = by_digest.get(&entry.digest).copied().filter(|at| images[*at].tops.len() == 1);
        let at = match (name, named) {
            (Some(name), Some(at)) => {
                images[at].names.push(name);
                at
            }
            (name, _) => {
                if name.is_some() {
                    by_digest.insert(entry.digest, images.len());
                }
                let names = name.into_iter().collect();
                images.push(FoundImage { tops: vec![entry], names, label });
                images.len() - 1
            }
        };
        by_key.extend(key.map(|key| (key, at)));
    }
    Ok(Found { images, ..Found::default() })
}

/// What entries of one image have in common.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// The whole name.
    Name(Reference),
    /// A name of any form, without a whole one.
    Label(String),
    /// That they have a platform, and no name.
    Platforms,
}

/// Returns the name of an entry, if it is a whole one: a word alone is a tag of an unknown repository.
fn whole_name(entry: &Descriptor) -> Option<Reference> {
    let name = entry.annotations.get(IMAGE_NAME);
    let name = name.or_else(|| entry.annotations.get(NAME).filter(|it| it.contains([':', '/'])));
    let name = name?.parse::<Reference>().ok()?;
    name.digest().is_none().then(|| name.with_default_tag().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entries: &str) -> Vec<FoundImage> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(r#"{{"manifests":[{entries}]}}"#);
        std::fs::write(dir.path().join(INDEX), text).unwrap();
        images(&Files::of_dir(dir.path()).unwrap()).unwrap().images
    }

    fn entry(mark: &str, rest: &str) -> String {
        let digest = Digest::of(mark.as_bytes());
        format!(r#"{{"mediaType":"m","digest":"{digest}","size":1{rest}}}"#)
    }

    #[test]
    fn entries_are_grouped_by_name_and_platform() {
        let named = |key: &str, name: &str| format!(r#","annotations":{{"{key}":"{name}"}}"#);
        let platform =
            |arch: &str| format!(r#","platform":{{"os":"linux","architecture":"{arch}"}}"#);
        let all = [
            entry("a", &named(IMAGE_NAME, "docker.io/library/a:1")),
            entry("a", &named(IMAGE_NAME, "docker.io/library/a:2")),
            entry("b", &named(NAME, "1.0")),
            entry("c", &platform("amd64")),
            entry("d", &platform("arm64")),
            entry("e", &(named(NAME, "q.io/e:1") + &platform("amd64"))),
            entry("f", &(named(NAME, "q.io/e:1") + &platform("arm64"))),
        ];
        let found = found(&all.join(","));
        let shown: Vec<_> = found
            .iter()
            .map(|it| {
                let names: Vec<_> = it.names.iter().map(ToString::to_string).collect();
                (names.join(" "), it.tops.len())
            })
            .collect();
        let expected = [("a:1 a:2", 1), ("", 1), ("", 2), ("q.io/e:1", 2)];
        assert_eq!(shown, expected.map(|(names, tops)| (names.to_owned(), tops)));
        assert_eq!(found[1].label.as_deref(), Some("1.0"));
    }
}
