//! What a copy puts into the layer: names, metadata and the checksums of contents.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::{self, FileType};

use super::destination::{self, Destination};
use super::error::{CopyError, text};
use super::sources::FoundSource;
use super::spec::{CopyFrom, CopySpec};
use super::unpacked::{Unpacked, is_archive};
use crate::digest::Digest;
use crate::fsutil::At;
use crate::layer::EntryType;
use crate::overlay::{Entry, MergedTree, Xattrs, split};

/// The mode of a directory that the copy creates.
const CREATED_MODE: u32 = 0o755;

/// The beginning of names that hide files of lower layers.
const WHITEOUT: &[u8] = b".wh.";

/// The attribute with the capabilities of a file.
const CAPABILITY: &[u8] = b"security.capability";

/// A file or directory of the layer.
#[derive(Debug)]
pub struct Node {
    pub kind: EntryType,
    pub mode: u32,
    pub owner: (u32, u32),
    /// The time of modification, seconds since 1970.
    pub mtime: i64,
    pub xattrs: Xattrs,
    /// The target of a symlink.
    pub target: Vec<u8>,
    pub device: (u32, u32),
    /// Whether it is a directory on the path to a copy, which is not part of the checksum.
    pub is_parent: bool,
    /// The content of a regular file.
    pub content: Option<Content>,
}

/// The content of a regular file.
#[derive(Debug)]
pub struct Content {
    /// The path in the context or stage.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
    /// Equal for the names of one file, if it has several.
    pub link: Option<(usize, u64, u64)>,
}

/// A part of the layer. A later one replaces files of an earlier one.
#[derive(Debug)]
pub enum Part {
    /// Files by their paths.
    Nodes(BTreeMap<Vec<u8>, Node>),
    /// The content of an archive.
    Archive(Unpacked),
}

/// The files of the layer.
#[derive(Debug)]
pub struct Plan<'a> {
    from: CopyFrom<'a>,
    spec: &'a CopySpec,
    base: Option<&'a MergedTree>,
    /// The parts that are complete.
    parts: Vec<Part>,
    /// The directories of those parts.
    dirs: BTreeSet<Vec<u8>>,
    /// The files of the part after them.
    nodes: BTreeMap<Vec<u8>, Node>,
    /// The number of sources so far.
    sources: usize,
}

impl<'a> Plan<'a> {
    /// Creates the plan of a layer above `base` without files.
    pub fn new(from: CopyFrom<'a>, spec: &'a CopySpec, base: Option<&'a MergedTree>) -> Self {
        let (parts, dirs, nodes) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Self { from, spec, base, parts, dirs, nodes, sources: 0 }
    }

    /// Returns the parts, in their order.
    pub fn into_parts(mut self) -> Vec<Part> {
        self.end_part();
        self.parts
    }

    fn end_part(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        if nodes.is_empty() {
            return;
        }
        let dirs = nodes.iter().filter(|(_, node)| node.is_dir()).map(|(path, _)| path.clone());
        self.dirs.extend(dirs);
        self.parts.push(Part::Nodes(nodes));
    }

    fn has_dir(&self, path: &[u8]) -> bool {
        match self.nodes.get(path) {
            Some(node) => node.is_dir(),
            None => self.dirs.contains(path),
        }
    }

    /// Adds the content of an archive.
    fn archive(&mut self, archive: &Entry, to: &Destination) -> Result<(), CopyError> {
        if !to.is_dir && destination::entry(self.base, &to.path)?.is_some() {
            return Err(not_a_directory(to));
        }
        self.parents(&join(&to.path, b"x"), (0, 0), archive.stat.st_mtime)?;
        let base = self.base;
        let unpacked = Unpacked::read(archive, &to.path, base, |path, mtime| {
            self.parents(path, (0, 0), mtime)
        })?;
        self.end_part();
        self.parts.push(Part::Archive(unpacked));
        Ok(())
    }

    /// Adds a source, as docker copies it after the sources before.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn add(&mut self, source: &FoundSource, to: &Destination) -> Result<(), CopyError> {
        self.sources += 1;
        if source.entry.is_dir() {
            return self.dir(source, to);
        }
        if self.spec.unpack && is_archive(&source.entry)? {
            return self.archive(&source.entry, to);
        }
        let mut path = to.path.clone();
        if to.is_dir {
            path = join(&path, source.name());
        }
        let node = self.node(&source.entry)?;
        self.parents(&path, self.spec.owner.unwrap_or((0, 0)), node.mtime)?;
        self.insert(path, node);
        Ok(())
    }

    /// Adds the content of a directory.
    fn dir(&mut self, source: &FoundSource, to: &Destination) -> Result<(), CopyError> {
        if !to.is_dir && destination::entry(self.base, &to.path)?.is_some() {
            return Err(not_a_directory(to));
        }
        let dir = &source.entry;
        self.parents(&to.path, (0, 0), dir.stat.st_mtime)?;
        self.destination_dir(&to.path, dir)?;
        let skipped = if dir.path.is_empty() { 0 } else { dir.path.len() + 1 };
        let mut is_empty = true;
        // Directories that are excluded, and may have files that are not.
        let mut waiting: Vec<(Vec<u8>, Entry)> = Vec::new();
        let tree = self.from.tree();
        let mut walk = tree.walk(dir);
        while let Some(entry) = walk.next() {
            let entry = entry?;
            let path = join(&to.path, &entry.path[skipped..]);
            if self.from.excludes(&entry.path) {
                if entry.is_dir() && self.from.may_include_below(&entry.path) {
                    waiting.retain(|(_, dir)| is_below(&entry.path, &dir.path));
                    waiting.push((path, entry));
                } else if entry.is_dir() {
                    walk.skip_content();
                }
                continue;
            }
            if entry.kind() == FileType::Socket {
                continue;
            }
            is_empty = false;
            for (path, dir) in waiting.drain(..) {
                if is_below(&entry.path, &dir.path) {
                    let node = self.node(&dir)?;
                    self.insert(path, node);
                }
            }
            let node = self.node(&entry)?;
            self.insert(path, node);
        }
        if is_empty && self.from.excludes(&dir.path) {
            return Err(CopyError::NotFound(text(&source.path)));
        }
        Ok(())
    }

    /// Adds the directory to which a directory is copied. One that exists stays as it is.
    fn destination_dir(&mut self, path: &[u8], source: &Entry) -> Result<(), CopyError> {
        if path.is_empty() || self.has_dir(path) {
            return Ok(());
        }
        let node = match destination::entry(self.base, path)? {
            Some(entry) if entry.is_dir() => Node::existing(&entry)?,
            _ => {
                let owner = self.spec.owner.unwrap_or((0, 0));
                let mode = self.spec.mode.unwrap_or(CREATED_MODE);
                Node { mode, ..Node::created(owner, source.stat.st_mtime) }
            }
        };
        self.insert(path.to_vec(), node);
        Ok(())
    }

    /// Adds the directories that lead to `path`: as they are in the image, or new ones.
    fn parents(&mut self, path: &[u8], owner: (u32, u32), mtime: i64) -> Result<(), CopyError> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for dir in ends.map(|end| &path[..end]) {
            if self.has_dir(dir) {
                continue;
            }
            let found = destination::entry(self.base, dir)?.filter(Entry::is_dir);
            let node = match found {
                Some(entry) => Node::existing(&entry)?,
                None => Node::created(owner, mtime),
            };
            self.insert(dir.to_vec(), node);
        }
        Ok(())
    }

    /// Adds a file, in place of what a source before put there.
    fn insert(&mut self, path: Vec<u8>, node: Node) {
        if !node.is_dir() {
            let below = [&path[..], b"/"].concat();
            let replaced = self.nodes.range(below.clone()..).map(|(path, _)| path);
            let replaced: Vec<_> =
                replaced.take_while(|path| path.starts_with(&below)).cloned().collect();
            for path in replaced {
                self.nodes.remove(&path);
            }
        }
        self.nodes.insert(path, node);
    }

    /// Describes the copy of an entry.
    fn node(&self, entry: &Entry) -> Result<Node, CopyError> {
        let refused = |why| CopyError::Refused { path: text(&entry.path), why };
        if split(&entry.path).1.starts_with(WHITEOUT) {
            return Err(refused("names that begin with .wh. hide files in a layer"));
        }
        let stat = &entry.stat;
        let of_stage = matches!(self.from, CopyFrom::Stage(_));
        let kind = match entry.kind() {
            FileType::RegularFile => EntryType::File,
            FileType::Directory => EntryType::Dir,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice if of_stage => EntryType::Char,
            FileType::BlockDevice if of_stage => EntryType::Block,
            FileType::Fifo if of_stage => EntryType::Fifo,
            _ => return Err(refused("it is not a file, a directory or a symbolic link")),
        };
        // Without another owner, docker copies files of a stage as they are. It changes the owner of all
        // others, upon which the kernel removes the set-user-ID bits and capabilities of files.
        let is_kept = of_stage && self.spec.owner.is_none();
        let mut mode = stat.st_mode & 0o7777;
        let mut xattrs = Vec::new();
        if is_kept {
            xattrs = entry.xattrs()?;
            xattrs.retain(|(name, _)| name == CAPABILITY);
        } else if kind == EntryType::File {
            mode &= if mode & 0o010 == 0 { !0o4000 } else { !0o6000 };
        }
        let kept_owner = if is_kept { (stat.st_uid, stat.st_gid) } else { (0, 0) };
        let is_symlink = kind == EntryType::Symlink;
        Ok(Node {
            kind,
            mode: self.spec.mode.filter(|_| !is_symlink).unwrap_or(mode),
            owner: self.spec.owner.unwrap_or(kept_owner),
            mtime: stat.st_mtime,
            xattrs,
            target: if is_symlink { entry.read_link()? } else { Vec::new() },
            device: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
            is_parent: false,
            content: if kind == EntryType::File { Some(self.content(entry)?) } else { None },
        })
    }

    fn content(&self, entry: &Entry) -> Result<Content, CopyError> {
        let stat = &entry.stat;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // An empty file can be copied without the right to read it.
        let digest = if size == 0 {
            Digest::of(b"")
        } else {
            use std::io::Read;
            let limited = entry.open()?.take(size);
            Digest::of_reader(limited).at("read", &entry.host_path())?
        };
        let link = (entry.links() > 1).then_some((self.sources, stat.st_dev, stat.st_ino));
        Ok(Content { path: entry.path.clone(), size, digest, link })
    }
}

impl Node {
    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == EntryType::Dir
    }

    /// A directory of the image, which stays as it is.
    fn existing(entry: &Entry) -> Result<Self, CopyError> {
        let stat = &entry.stat;
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            xattrs: entry.xattrs()?,
            ..Self::created((stat.st_uid, stat.st_gid), stat.st_mtime)
        })
    }

    /// A new directory.
    fn created(owner: (u32, u32), mtime: i64) -> Self {
        Self {
            kind: EntryType::Dir,
            mode: CREATED_MODE,
            owner,
            mtime,
            xattrs: Vec::new(),
            target: Vec::new(),
            device: (0, 0),
            is_parent: true,
            content: None,
        }
    }
}

fn not_a_directory(to: &Destination) -> CopyError {
    let path = format!("/{}", text(&to.path));
    CopyError::Destination { path, why: "not a directory".to_owned() }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}
