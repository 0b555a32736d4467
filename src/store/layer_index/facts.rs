//! What the index knows: facts about layers, one per line.
//!
//! ```text
//! diff <diff id> <chain id>
//! parent <chain id of the parent> <chain id>
//! directory <cache id> <chain id> <inode> <change time>
//! ```
//!
//! IDs are hex digits without `sha256:`. Inode and change time (nanoseconds) are those of the
//! record's directory when it was read.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::digest::Digest;
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;
use crate::store::layer_record::LayerRecord;

/// Hex digits in the name of a shard. A shard of 4,096 has 10 KB if the store has 100,000 layers.
const SHARD_DIGITS: usize = 3;

/// Returns whether a file of this name is a shard.
pub fn is_shard(name: &str) -> bool {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    name.len() == SHARD_DIGITS && name.bytes().all(hex)
}

/// What a layer is looked up by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Its content.
    Diff(DiffId),
    /// The layer below it.
    Parent(ChainId),
    /// Its directory in `overlay2`.
    Directory(CacheId),
}

impl Key {
    /// Returns the beginning of the lines with this key.
    pub fn prefix(&self) -> String {
        match self {
            Self::Diff(id) => format!("diff {} ", id.hex()),
            Self::Parent(id) => format!("parent {} ", id.hex()),
            Self::Directory(id) => format!("directory {id} "),
        }
    }

    /// Returns the name of the file with the facts about this key: its first hex digits.
    pub fn shard(&self) -> String {
        let mut hex = match self {
            Self::Diff(DiffId(id)) | Self::Parent(ChainId(id)) => id.hex(),
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

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// What `chain` is found by.
    pub key: Key,
    /// The layer.
    pub chain: ChainId,
    /// The version of its record, for [`Key::Directory`].
    pub version: Option<Version>,
}

impl Fact {
    /// Returns the facts about a record of which `version` was read.
    pub fn of(record: &LayerRecord, version: Option<Version>) -> Vec<Self> {
        let chain = record.chain;
        let mut facts = vec![Self { key: Key::Diff(record.diff_id), chain, version: None }];
        let parent = record.parent.map(Key::Parent);
        facts.extend(parent.map(|key| Self { key, chain, version: None }));
        facts.push(Self::directory(record.cache_id.clone(), chain, version));
        facts
    }

    /// Returns the fact that the record of `chain` names the directory `id`.
    pub fn directory(id: CacheId, chain: ChainId, version: Option<Version>) -> Self {
        let version = version.or(Some(Version { inode: 0, changed: 0 }));
        Self { key: Key::Directory(id), chain, version }
    }

    /// Parses a line without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (kind, id, chain) = (words.next()?, words.next()?, words.next()?);
        let digest = || Digest::from_hex(id).ok();
        let key = match kind {
            "diff" => Key::Diff(DiffId(digest()?)),
            "parent" => Key::Parent(ChainId(digest()?)),
            "directory" => Key::Directory(id.parse().ok()?),
            _ => return None,
        };
        let version = match key {
            Key::Directory(_) => Some(Version {
                inode: words.next()?.parse().ok()?,
                changed: words.next()?.parse().ok()?,
            }),
            _ => None,
        };
        let chain = ChainId(Digest::from_hex(chain).ok()?);
        words.next().is_none().then_some(Self { key, chain, version })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key.prefix(), self.chain.hex())?;
        match self.version {
            Some(Version { inode, changed }) => writeln!(f, " {inode} {changed}"),
            None => writeln!(f),
        }
    }
}

/// Returns the hex digits of the layer of a line, which may end with a newline.
pub fn chain_in(line: &str) -> Option<&str> {
    line.trim_end().split(' ').nth(2)
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
        let version = Version::of(Path::new("/"));
        let facts = Fact::of(&record, version);
        assert_eq!(facts.len(), 3);
        for fact in facts {
            let line = fact.to_string();
            assert!(line.starts_with(&fact.key.prefix()), "{line}");
            let line = line.strip_suffix('\n').unwrap();
            assert_eq!(chain_in(line), Some(record.chain.hex().as_str()));
            assert_eq!(Fact::parse(line), Some(fact));
            assert_eq!(Fact::parse(&line[..line.len() / 2]), None, "{line}");
            assert_eq!(Fact::parse(&format!("{line} 1")), None);
        }
    }
}
