//! The images of an OCI image layout (OCI image-spec image-layout.md).

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
    let entries = index.manifests.unwrap_or_default();
    let mut images: Vec<FoundImage> = Vec::new();
    for entry in entries {
        let (name, label) = (whole_name(&entry), entry.annotations.get(NAME).cloned());
        let is_same = |image: &&mut FoundImage| match &name {
            Some(name) => image.names.contains(name),
            None if label.is_some() => image.names.is_empty() && image.label == label,
            None => {
                let of_platform = |it: &Descriptor| it.platform.is_some();
                image.names.is_empty()
                    && image.label.is_none()
                    && of_platform(&entry)
                    && image.tops.iter().all(of_platform)
            }
        };
        if let Some(image) = images.iter_mut().find(is_same) {
            image.tops.push(entry);
            continue;
        }
        let of_digest =
            |image: &&mut FoundImage| image.tops.len() == 1 && image.tops[0].digest == entry.digest;
        match (name, images.iter_mut().find(of_digest)) {
            (Some(name), Some(image)) if !image.names.is_empty() => image.names.push(name),
            (name, _) => {
                images.push(FoundImage {
                    tops: vec![entry],
                    names: name.into_iter().collect(),
                    label,
                });
            }
        }
    }
    Ok(Found { images, ..Found::default() })
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
