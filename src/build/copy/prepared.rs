//! A copy whose checksum is known, and its layer.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use super::destination;
use super::error::{CopyError, text};
use super::hashing::HashingReader;
use super::ignore::clean;
use super::plan::{Content, Node, Part, Plan};
use super::sources::{self, FoundSource};
use super::spec::{CopyFrom, CopySpec};
use crate::digest::{Digest, Hasher};
use crate::layer::{EntryType, NewEntry, TarDataError, TarTime, TarWriter};
use crate::overlay::{Follow, MergedTree};

/// A copy whose sources were read once.
#[derive(Debug)]
pub struct Prepared<'a> {
    tree: &'a MergedTree,
    parts: Vec<Part>,
    checksum: Digest,
    kind: &'static str,
}

/// Finds the sources of an instruction, reads them and decides where they go in an image with the files
/// `base`; `None` stands for an image without layers.
///
/// # Errors
/// [`CopyError`].
pub fn prepare<'a>(
    from: CopyFrom<'a>,
    spec: &CopySpec,
    base: Option<&MergedTree>,
) -> Result<Prepared<'a>, CopyError> {
    let paths = sources::expand(from, &spec.sources)?;
    if paths.len() > 1 && !spec.destination.ends_with('/') {
        return Err(CopyError::DestinationNotDirectory(spec.verb()));
    }
    let mut destination = clean(&format!("/{}", spec.destination));
    if spec.destination.ends_with('/') && destination != "/" {
        destination.push('/');
    }
    let destination = destination::resolve(base, destination.as_bytes())?;
    let mut plan = Plan::new(from, spec, base);
    let mut kind = "multi";
    let is_single = paths.len() == 1;
    for path in paths {
        let source: FoundSource = sources::find(from, path)?;
        if is_single {
            kind = if source.entry.is_dir() { "dir" } else { "file" };
        }
        plan.add(&source, &destination)?;
    }
    let parts = plan.into_parts();
    Ok(Prepared { tree: from.tree(), checksum: checksum(&parts), parts, kind })
}

impl Prepared<'_> {
    /// Returns the checksum of what is copied: names, types, modes, owners, capabilities, targets and contents.
    /// Times are not part of it.
    #[cfg(test)]
    pub fn checksum(&self) -> Digest {
        self.checksum
    }

    /// Returns the checksum with its prefix, as docker has it in the history of images: `file:`, `dir:` or
    /// `multi:`, and 64 hexadecimal digits.
    pub fn checksum_text(&self) -> String {
        format!("{}:{}", self.kind, self.checksum.hex())
    }

    /// Writes the layer as a tar: sorted, with the directories that lead to the copies. Equal sources give equal
    /// bytes.
    ///
    /// # Errors
    /// [`CopyError::Changed`] if a file is not what the checksum was computed of, [`CopyError::Write`],
    /// [`CopyError::Read`].
    pub fn write(self, out: impl Write) -> Result<(), CopyError> {
        let mut tar = TarWriter::new(out);
        for part in &self.parts {
            match part {
                Part::Nodes(nodes) => self.nodes(nodes, &mut tar)?,
                Part::Archive(archive) => archive.write(self.tree, &mut tar)?,
            }
        }
        tar.finish().map_err(CopyError::Write)?;
        Ok(())
    }

    fn nodes(
        &self,
        nodes: &BTreeMap<Vec<u8>, Node>,
        tar: &mut TarWriter<impl Write>,
    ) -> Result<(), CopyError> {
        let mut links: HashMap<_, (&[u8], Digest)> = HashMap::new();
        for (path, node) in nodes {
            let dir_name = [path, &b"/"[..]].concat();
            let header = NewEntry {
                name: if node.is_dir() { &dir_name } else { path },
                link: &node.target,
                kind: node.kind,
                mode: node.mode,
                uid: node.owner.0,
                gid: node.owner.1,
                mtime: TarTime { seconds: node.mtime, nanos: 0 },
                device: node.device,
                xattrs: &node.xattrs,
                ..NewEntry::file()
            };
            let Some(content) = &node.content else {
                tar.entry(&header).map_err(CopyError::Write)?;
                continue;
            };
            let first = content.link.and_then(|key| links.get(&key));
            if let Some((first, _)) = first.filter(|(_, digest)| *digest == content.digest) {
                let kind = EntryType::Hardlink;
                let header = NewEntry { kind, link: first, xattrs: &[], ..header };
                tar.entry(&header).map_err(CopyError::Write)?;
                continue;
            }
            let header = NewEntry { size: content.size, ..header };
            tar.entry(&header).map_err(CopyError::Write)?;
            self.content(content, tar)?;
            if let Some(key) = content.link {
                links.insert(key, (path, content.digest));
            }
        }
        Ok(())
    }

    fn content(&self, content: &Content, tar: &mut TarWriter<impl Write>) -> Result<(), CopyError> {
        if content.size == 0 {
            return Ok(());
        }
        let changed = || CopyError::Changed(text(&content.path));
        let entry = self.tree.lookup(&content.path, Follow::No).map_err(|_| changed())?;
        if u64::try_from(entry.stat.st_size) != Ok(content.size) {
            return Err(changed());
        }
        let file = entry.open().map_err(|_| changed())?;
        let mut reader = HashingReader::new(file);
        tar.data(&mut reader, content.size).map_err(|error| match error {
            TarDataError::Write(e) => CopyError::Write(e),
            TarDataError::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => changed(),
            TarDataError::Read(source) => {
                let path = entry.host_path();
                crate::fsutil::FsError { op: "read", path, source }.into()
            }
        })?;
        if reader.finish() == content.digest { Ok(()) } else { Err(changed()) }
    }
}

/// Hashes what is copied. Each field has its length before it, so that different copies are different text.
fn checksum(parts: &[Part]) -> Digest {
    let mut hasher = Hasher::new();
    for part in parts {
        match part {
            Part::Nodes(nodes) => {
                let copies = nodes.iter().filter(|(_, node)| !node.is_parent);
                copies.for_each(|(path, node)| hash_node(&mut hasher, path, node));
            }
            Part::Archive(archive) => {
                hash_fields(
                    &mut hasher,
                    [&archive.to, &b"archive"[..], archive.digest.hex().as_bytes()],
                );
            }
        }
    }
    hasher.finish()
}

fn hash_node(hasher: &mut Hasher, path: &[u8], node: &Node) {
    let owner = format!("{}:{}", node.owner.0, node.owner.1);
    let kind = format!("{:?} {:o} {:?}", node.kind, node.mode, node.device);
    let content = node.content.as_ref().map(|content| content.digest.hex()).unwrap_or_default();
    let fields = [path, kind.as_bytes(), owner.as_bytes(), &node.target, content.as_bytes()];
    let xattrs = node.xattrs.iter().flat_map(|(name, value)| [name.as_slice(), value]);
    hash_fields(hasher, fields.into_iter().chain(xattrs));
}

fn hash_fields<'a>(hasher: &mut Hasher, fields: impl IntoIterator<Item = &'a [u8]>) {
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.update(&[0xff; 8]);
}
