//! What the index knows: facts about layers and images, one per line.
//!
//! ```text
//! diff <diff id> <chain id>
//! parent <chain id of the parent> <chain id>
//! directory <cache id> <chain id> <inode> <change time>
//! user <chain id> <image id>
//! total <image id> <chain id of its topmost layer> <layers> <bytes>
//! ```
//!
//! IDs are hex digits without `sha256:`. Inode and change time (nanoseconds) are those of the
//! record's directory when it was read. A `total` is there only if all layers of the image were
//! complete; its bytes are the sum of their sizes.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::digest::Digest;
use crate::oci::{ChainId, DiffId, ImageId};
use crate::overlay::CacheId;
use crate::store::layer_record::LayerRecord;

/// Hex digits in the name of a shard. A shard of 4,096 has 14 KB if the store has 100,000 layers.
const SHARD_DIGITS: usize = 3;

/// Returns whether a file of this name is a shard.
pub fn is_shard(name: &str) -> bool {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    name.len() == SHARD_DIGITS && name.bytes().all(hex)
}

/// What a layer or an image is looked up by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Layers by their content.
    Diff(DiffId),
    /// Layers by the layer below.
    Parent(ChainId),
    /// Layers by their directory in `overlay2`.
    Directory(CacheId),
    /// Images by one of their layers.
    User(ChainId),
    /// The topmost layer of an image.
    Total(ImageId),
}

impl Key {
    /// Returns the beginning of the lines with this key.
    pub fn prefix(&self) -> String {
        match self {
            Self::Diff(id) => format!("diff {} ", id.hex()),
            Self::Parent(id) => format!("parent {} ", id.hex()),
            Self::Directory(id) => format!("directory {id} "),
            Self::User(id) => format!("user {} ", id.hex()),
            Self::Total(id) => format!("total {} ", id.hex()),
        }
    }

    /// Returns the name of the file with the facts about this key: its first hex digits.
    pub fn shard(&self) -> String {
        let mut hex = match self {
            Self::Diff(DiffId(id))
            | Self::Parent(ChainId(id))
            | Self::User(ChainId(id))
            | Self::Total(ImageId(id)) => id.hex(),
            Self::Directory(id) => id.to_string(),
        };
        hex.truncate(SHARD_DIGITS);
        hex
    }
}

/// Identifies one record's directory: another one of the same name has another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    inode: u64,
    changed: i128,
}

impl Version {
    /// Returns the version of the directory at `path`; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = path.symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
        let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
        Some(Self { inode: meta.ino(), changed })
    }
}

/// The layers of an image, all of which are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Total {
    /// Their number.
    pub layers: usize,
    /// The sum of their sizes, bytes.
    pub bytes: u64,
}

/// What a line has besides its key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    None,
    /// The version of the record, for [`Key::Directory`].
    Version(Version),
    /// The sum of the layers, for [`Key::Total`].
    Total(Total),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// What `value` is found by.
    pub key: Key,
    /// The chain ID or, for [`Key::User`], the image ID.
    pub value: Digest,
    /// The rest.
    pub detail: Detail,
}

impl Fact {
    fn new(key: Key, value: Digest) -> Self {
        Self { key, value, detail: Detail::None }
    }

    /// Returns the facts about a record of which `version` was read.
    pub fn of(record: &LayerRecord, version: Option<Version>) -> Vec<Self> {
        let chain = record.chain.digest();
        let mut facts = vec![Self::new(Key::Diff(record.diff_id), chain)];
        facts.extend(record.parent.map(|parent| Self::new(Key::Parent(parent), chain)));
        facts.push(Self::directory(record.cache_id.clone(), record.chain, version));
        facts
    }

    /// Returns the fact that the record of `chain` names the directory `id`.
    pub fn directory(id: CacheId, chain: ChainId, version: Option<Version>) -> Self {
        let version = version.unwrap_or(Version { inode: 0, changed: 0 });
        let (key, value) = (Key::Directory(id), chain.digest());
        Self { key, value, detail: Detail::Version(version) }
    }

    /// Returns the facts about an image with the layers `chains`, base first. `bytes` is the sum of
    /// their sizes, if all are complete.
    pub fn of_image(id: ImageId, chains: &[ChainId], bytes: Option<u64>) -> Vec<Self> {
        let user = |chain: &ChainId| Self::new(Key::User(*chain), id.digest());
        let mut facts: Vec<Self> = chains.iter().map(user).collect();
        if let (Some(top), Some(bytes)) = (chains.last(), bytes) {
            let (key, layers) = (Key::Total(id), chains.len());
            let detail = Detail::Total(Total { layers, bytes });
            facts.push(Self { key, value: top.digest(), detail });
        }
        facts
    }

    /// Parses a line without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (kind, id, value) = (words.next()?, words.next()?, words.next()?);
        let digest = || Digest::from_hex(id).ok();
        let key = match kind {
            "diff" => Key::Diff(DiffId(digest()?)),
            "parent" => Key::Parent(ChainId(digest()?)),
            "directory" => Key::Directory(id.parse().ok()?),
            "user" => Key::User(ChainId(digest()?)),
            "total" => Key::Total(ImageId(digest()?)),
            _ => return None,
        };
        let detail = match key {
            Key::Directory(_) => Detail::Version(Version {
                inode: words.next()?.parse().ok()?,
                changed: words.next()?.parse().ok()?,
            }),
            Key::Total(_) => Detail::Total(Total {
                layers: words.next()?.parse().ok()?,
                bytes: words.next()?.parse().ok()?,
            }),
            _ => Detail::None,
        };
        let value = Digest::from_hex(value).ok()?;
        words.next().is_none().then_some(Self { key, value, detail })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key.prefix(), self.value.hex())?;
        match self.detail {
            Detail::None => writeln!(f),
            Detail::Version(Version { inode, changed }) => writeln!(f, " {inode} {changed}"),
            Detail::Total(Total { layers, bytes }) => writeln!(f, " {layers} {bytes}"),
        }
    }
}

/// Returns the first three words of a line, which may end with a newline: kind, key and value.
pub fn words_in(line: &str) -> Option<[&str; 3]> {
    let mut words = line.trim_end().split(' ');
    Some([words.next()?, words.next()?, words.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_is_parsed_as_it_is_written() {
        let (base, diff_id) = (ChainId(Digest::of(b"base")), DiffId(Digest::of(b"layer")));
        let record = LayerRecord {
            chain: ChainId::above(Some(base), diff_id),
            parent: Some(base),
            diff_id,
            cache_id: CacheId::generate().unwrap(),
            size: 1,
        };
        let mut facts = Fact::of(&record, Version::of(Path::new("/")));
        let image = ImageId(Digest::of(b"config"));
        facts.extend(Fact::of_image(image, &[base, record.chain], Some(7)));
        assert_eq!(facts.len(), 6);
        for fact in facts {
            let line = fact.to_string();
            assert!(line.starts_with(&fact.key.prefix()), "{line}");
            let line = line.strip_suffix('\n').unwrap();
            assert_eq!(words_in(line).map(|words| words[2].to_owned()), Some(fact.value.hex()));
            assert_eq!(Fact::parse(line), Some(fact));
            assert_eq!(Fact::parse(&line[..line.len() / 2]), None, "{line}");
            assert_eq!(Fact::parse(&format!("{line} 1")), None);
        }
    }
}
