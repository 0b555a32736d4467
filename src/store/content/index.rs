//! `index.json`: which manifests are in the content store, and under which names.
//!
//! Other tools write it, too (skopeo copies into the same layout). Fields and entries that are
//! unknown to rpull are kept byte for byte.

use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;

/// The annotation with an entry's name (OCI image-spec annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with the whole name, where [`NAME`] is only a tag (containerd
/// core/images/annotations.go; `docker save` writes it too).
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The annotation that distinguishes rpull's entries from those of other tools.
const PULLED: &str = "rpull.pulled";

const MANIFESTS: &str = "manifests";

/// The parsed file.
#[derive(Debug)]
pub struct IndexFile {
    fields: Fields,
    entries: Vec<Box<RawValue>>,
}

/// The fields of a JSON object, in order.
#[derive(Debug)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl IndexFile {
    /// Creates an index without entries.
    ///
    /// # Errors
    /// None in practice: its text is JSON.
    pub fn empty() -> Result<Self, serde_json::Error> {
        let kind = media_type::OCI_INDEX;
        Self::parse(
            format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[]}}"#).as_bytes(),
        )
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// The text is not a JSON object whose `manifests` is an array.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut fields: Fields = serde_json::from_slice(text)?;
        let entries = match fields.0.iter().find(|(name, _)| name == MANIFESTS) {
            Some((_, raw)) => serde_json::from_str::<Option<_>>(raw.get())?.unwrap_or_default(),
            None => {
                fields.0.push((MANIFESTS.to_owned(), RawValue::from_string("[]".to_owned())?));
                Vec::new()
            }
        };
        Ok(Self { fields, entries })
    }

    /// Returns the file's text.
    ///
    /// # Errors
    /// None in practice: its parts are JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let entries = serde_json::value::to_raw_value(&self.entries)?;
        let fields = self.fields.0.iter().map(|(name, value)| match name.as_str() {
            MANIFESTS => (name.clone(), entries.clone()),
            _ => (name.clone(), value.clone()),
        });
        serde_json::to_vec(&Fields(fields.collect()))
    }

    /// Lists `descriptor` under each of `names`, replacing entries of these names. Returns whether this
    /// changed the index. Takes time in proportion to the entries and names.
    ///
    /// # Errors
    /// None in practice: a descriptor is JSON.
    pub fn set(
        &mut self,
        descriptor: &Descriptor,
        names: &[String],
    ) -> Result<bool, serde_json::Error> {
        let mut wanted = HashMap::with_capacity(names.len());
        for name in names {
            let mut descriptor = descriptor.clone();
            descriptor.annotations.insert(NAME.to_owned(), name.clone());
            descriptor.annotations.insert(PULLED.to_owned(), "true".to_owned());
            wanted.insert(name.as_str(), Some(serde_json::value::to_raw_value(&descriptor)?));
        }
        let mut changed = false;
        self.entries.retain_mut(|entry| {
            let name = name_of(entry);
            let Some(raw) = name.and_then(|name| wanted.get_mut(name.as_str())) else {
                return true;
            };
            // Only the first entry of a name stays.
            let Some(raw) = raw.take() else {
                changed = true;
                return false;
            };
            if entry.get() != raw.get() {
                *entry = raw;
                changed = true;
            }
            true
        });
        for name in names {
            if let Some(raw) = wanted.get_mut(name.as_str()).and_then(Option::take) {
                self.entries.push(raw);
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Removes rpull's entries whose digest `gone` accepts. Returns whether there were any.
    pub fn remove(&mut self, gone: impl Fn(&Digest) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !(is_ours(entry) && digest(entry).is_some_and(|d| gone(&d))));
        self.entries.len() != before
    }

    /// Returns the digests of the entries that are named `reference`, in their order. Other tools write
    /// names in any form, such as `nginx:1.27`; a tag alone could be of any repository.
    pub fn lookup(&self, reference: &Reference) -> Vec<Digest> {
        let wanted = reference.canonical();
        let is_it = |entry: &serde_json::Value| {
            let annotations = &entry["annotations"];
            let name = annotations[IMAGE_NAME].as_str().or(annotations[NAME].as_str());
            let name = name.and_then(|name| name.parse::<Reference>().ok());
            name.is_some_and(|name| {
                (name.tag().is_some() || name.digest().is_some()) && name.canonical() == wanted
            })
        };
        let entries = self.entries.iter().map(|entry| value(entry)).filter(is_it);
        entries.filter_map(|entry| entry["digest"].as_str()?.parse().ok()).collect()
    }

    /// Returns the digests of all entries.
    pub fn all(&self) -> Vec<Digest> {
        self.digests(|_| true)
    }

    /// Returns the digests of the entries that other tools wrote.
    pub fn foreign(&self) -> Vec<Digest> {
        self.digests(|entry| !is_ours(entry))
    }

    /// Returns the digests of rpull's entries.
    pub fn ours(&self) -> Vec<Digest> {
        self.digests(is_ours)
    }

    /// Returns rpull's entries: their names and digests.
    pub fn ours_with_names(&self) -> Vec<(Reference, Digest)> {
        let ours = self.entries.iter().filter(|entry| is_ours(entry)).map(|entry| value(entry));
        let pair = |entry: serde_json::Value| {
            let name = entry["annotations"][NAME].as_str()?.parse().ok()?;
            Some((name, entry["digest"].as_str()?.parse().ok()?))
        };
        ours.filter_map(pair).collect()
    }

    fn digests(&self, which: impl Fn(&RawValue) -> bool) -> Vec<Digest> {
        let entries = self.entries.iter().filter(|entry| which(entry));
        entries.filter_map(|entry| digest(entry)).collect()
    }
}

fn value(entry: &RawValue) -> serde_json::Value {
    serde_json::from_str(entry.get()).unwrap_or_default()
}

fn name_of(entry: &RawValue) -> Option<String> {
    Some(value(entry)["annotations"][NAME].as_str()?.to_owned())
}

fn is_ours(entry: &RawValue) -> bool {
    value(entry)["annotations"][PULLED] == "true"
}

fn digest(entry: &RawValue) -> Option<Digest> {
    value(entry)["digest"].as_str()?.parse().ok()
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image index")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(mark: &str) -> Descriptor {
        let text =
            format!(r#"{{"mediaType":"m","digest":"{}","size":1}}"#, Digest::of(mark.as_bytes()));
        serde_json::from_str(&text).unwrap()
    }

    fn text(index: &IndexFile) -> String {
        String::from_utf8(index.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn foreign_fields_and_entries_are_kept_byte_for_byte() {
        let foreign = r#"{"x" : 1e400,"digest":"sha256:no","n":123456789012345678901234567890}"#;
        let begun =
            format!(r#"{{"z":{{"b":1,"a":2}},"manifests":[{foreign},7],"schemaVersion":2}}"#);
        let mut index = IndexFile::parse(begun.as_bytes()).unwrap();
        assert_eq!(text(&index), begun);
        assert!(index.set(&descriptor("one"), &["host/one:1".to_owned()]).unwrap());
        index.remove(|_| true);
        assert_eq!(text(&index), begun);
    }

    #[test]
    fn entry_of_the_same_name_is_replaced_in_place() {
        let mut index = IndexFile::empty().unwrap();
        assert!(index.set(&descriptor("one"), &["host/a:1".to_owned()]).unwrap());
        assert!(index.set(&descriptor("two"), &["host/b:1".to_owned()]).unwrap());
        assert!(!index.set(&descriptor("one"), &["host/a:1".to_owned()]).unwrap());
        assert!(index.set(&descriptor("three"), &["host/a:1".to_owned()]).unwrap());
        let digests: Vec<_> = index.entries.iter().filter_map(|entry| digest(entry)).collect();
        assert_eq!(digests, [Digest::of(b"three"), Digest::of(b"two")]);
    }

    #[test]
    fn several_names_are_listed_at_once() {
        let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let mut index = IndexFile::empty().unwrap();
        assert!(index.set(&descriptor("one"), &names(&["h/a:1", "h/b:1"])).unwrap());
        assert!(index.set(&descriptor("two"), &names(&["h/c:1", "h/b:1", "h/c:1"])).unwrap());
        assert!(!index.set(&descriptor("two"), &names(&["h/b:1", "h/c:1"])).unwrap());
        assert!(!index.set(&descriptor("three"), &[]).unwrap());
        let listed: Vec<_> =
            index.entries.iter().map(|it| (name_of(it).unwrap(), digest(it).unwrap())).collect();
        let expected = [("h/a:1", "one"), ("h/b:1", "two"), ("h/c:1", "two")];
        assert_eq!(listed, expected.map(|(n, mark)| (n.to_owned(), Digest::of(mark.as_bytes()))));
    }

    #[test]
    fn entries_of_other_tools_are_foreign() {
        let mut index = IndexFile::empty().unwrap();
        index.set(&descriptor("ours"), &["host/a:1".to_owned()]).unwrap();
        assert_eq!((index.foreign(), index.ours()), (vec![], vec![Digest::of(b"ours")]));
        let theirs = text(&index).replace("rpull.pulled", "other");
        assert_eq!(IndexFile::parse(theirs.as_bytes()).unwrap().foreign(), [Digest::of(b"ours")]);
    }

    #[test]
    fn entries_are_found_by_names_in_any_form() {
        let entry = |mark: &str, annotations: &str| {
            format!(
                r#"{{"digest":"{}","annotations":{{{annotations}}}}}"#,
                Digest::of(mark.as_bytes())
            )
        };
        let (name, full) = ("org.opencontainers.image.ref.name", "io.containerd.image.name");
        let entries = [
            entry(
                "ours",
                &format!(r#""{name}":"docker.io/library/nginx:1","rpull.pulled":"true""#),
            ),
            entry("short", &format!(r#""{name}":"nginx:1""#)),
            entry("docker", &format!(r#""{name}":"1","{full}":"docker.io/library/nginx:1""#)),
            entry("tag", &format!(r#""{name}":"1""#)),
            entry("untagged", &format!(r#""{name}":"nginx""#)),
            entry("other", &format!(r#""{name}":"quay.io/library/nginx:1""#)),
            "7".to_owned(),
        ];
        let text = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let index = IndexFile::parse(text.as_bytes()).unwrap();
        let of =
            |marks: &[&str]| marks.iter().map(|it| Digest::of(it.as_bytes())).collect::<Vec<_>>();
        let lookup = |name: &str| index.lookup(&name.parse().unwrap());
        assert_eq!(lookup("nginx:1"), of(&["ours", "short", "docker"]));
        assert_eq!(lookup("nginx:latest"), []);
        assert_eq!(index.all().len(), 6);
    }

    #[test]
    fn text_that_is_not_an_index_is_refused() {
        for text in ["", "{", "[]", "7", r#"{"manifests":{}}"#, r#"{"manifests":[}"#, "{}{}"] {
            assert!(IndexFile::parse(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["{}", r#"{"manifests":null}"#] {
            let mut index = IndexFile::parse(text.as_bytes()).unwrap();
            assert!(index.set(&descriptor("one"), &["host/a:1".to_owned()]).unwrap());
            assert!(
                super::IndexFile::parse(&index.to_bytes().unwrap()).unwrap().entries.len() == 1
            );
        }
    }
}
