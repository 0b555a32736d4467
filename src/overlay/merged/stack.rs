//! The stack of layers, and its directories.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Entry, LayerRoot, open_in};
use crate::fsutil::{At, FsError};
use crate::overlay::{XattrSpace, is_whiteout};

/// Flags to open a directory of a layer.
const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How the opaque directories of a layer are known.
#[derive(Debug, Clone)]
pub enum OpaqueDirs {
    /// They are marked in one of these namespaces.
    Marked(Vec<XattrSpace>),
    /// They have these paths, because this process cannot read the marks.
    Named(HashSet<Vec<u8>>),
}

/// One layer of a stack.
#[derive(Debug)]
pub struct MergedLayer {
    root: Arc<LayerRoot>,
    opaque: OpaqueDirs,
    /// Device and inode number of the directory.
    identity: (u64, u64),
}

impl MergedLayer {
    /// Opens the layer whose files are in the directory `diff`.
    ///
    /// # Errors
    /// [`FsError`] with the error of open(2).
    pub fn open(diff: &Path, opaque: OpaqueDirs) -> Result<Self, FsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(diff, flags, Mode::empty()).at("open", diff)?;
        let stat = fs::fstat(&fd).at("open", diff)?;
        let root = Arc::new(LayerRoot { fd, path: diff.to_owned() });
        Ok(Self { root, opaque, identity: (stat.st_dev, stat.st_ino) })
    }
}

/// A stack of layers as one tree. Without layers, it is an empty directory.
#[derive(Debug)]
pub struct MergedTree {
    layers: Vec<MergedLayer>,
}

/// A directory of the merged tree, open in each of its layers.
#[derive(Debug)]
pub struct OpenDir {
    path: Vec<u8>,
    /// The layers whose content it shows, topmost first.
    parts: Vec<(u16, Arc<OwnedFd>)>,
}

/// A name in a directory.
#[derive(Debug)]
pub struct Child {
    pub name: Vec<u8>,
    layers: Vec<u16>,
}

/// What is known of a name while the layers are read from the top.
#[derive(Default)]
struct Seen {
    layers: Vec<u16>,
    /// Whether lower layers add nothing.
    is_complete: bool,
}

impl MergedTree {
    /// Creates the view of `layers`, topmost first.
    pub fn new(layers: Vec<MergedLayer>) -> Self {
        Self { layers }
    }

    /// Returns the directory at the top of the tree.
    ///
    /// # Errors
    /// [`FsError`] if the topmost layer cannot be read.
    pub fn root(&self) -> Result<Entry, FsError> {
        let dir = self.open_root()?;
        let Some((top, fd)) = dir.parts.first() else { return empty_root() };
        let root = self.layer(*top).root.clone();
        let stat = fs::fstat(&**fd).at("read", &root.path)?;
        let layers = dir.parts.iter().map(|(layer, _)| *layer).collect();
        Ok(Entry { path: Vec::new(), stat, layers, root, parent: fd.clone() })
    }

    /// Returns the device and inode numbers of the layers that a directory or file is made of. Equal ones
    /// mean equal content, in another stack too.
    pub fn identities(&self, entry: &Entry) -> Vec<(u64, u64)> {
        entry.layers.iter().map(|&layer| self.layer(layer).identity).collect()
    }

    fn layer(&self, index: u16) -> &MergedLayer {
        &self.layers[usize::from(index)]
    }

    pub(super) fn open_root(&self) -> Result<OpenDir, FsError> {
        let all = (0..).take(self.layers.len()).collect::<Vec<u16>>();
        self.open_at(b"", &all)
    }

    /// Opens the directory at `path`, which the layers `layers` have.
    pub(super) fn open_at(&self, path: &[u8], layers: &[u16]) -> Result<OpenDir, FsError> {
        let mut parts = Vec::new();
        for &layer in layers {
            let root = &self.layer(layer).root;
            let mut fd = open_in(&root.fd, b".", DIRECTORY).at("open", &root.path)?;
            for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
                fd = open_in(&fd, name, DIRECTORY).at("open", &host_path(root, path))?;
            }
            parts.push((layer, Arc::new(fd)));
        }
        self.above_opaque(path.to_vec(), parts)
    }

    /// Opens the directory `child` of `parent`.
    pub(super) fn open_child(&self, parent: &OpenDir, child: &Entry) -> Result<OpenDir, FsError> {
        let mut parts = Vec::new();
        for (layer, dir) in parent.parts.iter().filter(|(layer, _)| child.layers.contains(layer)) {
            let root = &self.layer(*layer).root;
            let fd = open_in(&**dir, child.name(), DIRECTORY)
                .at("open", &host_path(root, &child.path))?;
            parts.push((*layer, Arc::new(fd)));
        }
        self.above_opaque(child.path.clone(), parts)
    }

    /// Leaves out the layers below an opaque directory.
    fn above_opaque(
        &self,
        path: Vec<u8>,
        mut parts: Vec<(u16, Arc<OwnedFd>)>,
    ) -> Result<OpenDir, FsError> {
        // overlayfs does not look for the mark of a layer's root.
        let last = parts.len().saturating_sub(if path.is_empty() { parts.len() } else { 1 });
        for at in 0..last {
            let (layer, fd) = &parts[at];
            if self.is_opaque(*layer, fd, &path)? {
                parts.truncate(at + 1);
                break;
            }
        }
        Ok(OpenDir { path, parts })
    }

    fn is_opaque(&self, layer: u16, dir: &OwnedFd, path: &[u8]) -> Result<bool, FsError> {
        let layer = self.layer(layer);
        let spaces = match &layer.opaque {
            OpaqueDirs::Named(names) => return Ok(names.contains(path)),
            OpaqueDirs::Marked(spaces) => spaces,
        };
        // A descriptor that was opened with O_PATH has no attributes; its path in /proc has.
        let proc = format!("/proc/self/fd/{}", dir.as_raw_fd());
        for space in spaces {
            let mut value = [0; 1];
            match fs::getxattr(&proc, space.opaque(), &mut value) {
                Ok(1) if value == *b"y" => return Ok(true),
                Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
                Err(e) => return Err(e).at("read the marks of", &host_path(&layer.root, path))?,
            }
        }
        Ok(false)
    }

    /// Returns the names in a directory, sorted.
    pub(super) fn children(&self, dir: &OpenDir) -> Result<Vec<Child>, FsError> {
        let mut seen = BTreeMap::<Vec<u8>, Seen>::new();
        for (layer, fd) in &dir.parts {
            let host = || host_path(&self.layer(*layer).root, &dir.path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let list = fs::openat(&**fd, ".", flags, Mode::empty()).at("list", &host())?;
            for found in Dir::read_from(&list).at("list", &host())? {
                let found = found.at("list", &host())?;
                let name = found.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let kind = match found.file_type() {
                    // Only its number tells whether it is a whiteout.
                    FileType::Unknown | FileType::CharacterDevice => kind_in(fd, name),
                    kind => Ok(Some(kind)),
                };
                let kind = kind.at("read", &host())?;
                seen.entry(name.to_vec()).or_default().add(*layer, kind);
            }
        }
        let shown = seen.into_iter().filter(|(_, seen)| !seen.layers.is_empty());
        Ok(shown.map(|(name, seen)| Child { name, layers: seen.layers }).collect())
    }

    /// Returns the entry `name` of a directory, if there is one.
    pub(super) fn child(&self, dir: &OpenDir, name: &[u8]) -> Result<Option<Entry>, FsError> {
        let mut seen = Seen::default();
        for (layer, fd) in &dir.parts {
            let stat =
                stat_in(fd, name).at("read", &host_path(&self.layer(*layer).root, &dir.path))?;
            if let Some(stat) = stat {
                let kind = FileType::from_raw_mode(stat.st_mode);
                seen.add(*layer, (!is_whiteout(&stat)).then_some(kind));
            }
            if seen.is_complete {
                break;
            }
        }
        if seen.layers.is_empty() {
            return Ok(None);
        }
        self.entry(dir, Child { name: name.to_vec(), layers: seen.layers })
    }

    /// Returns the entry of a name; `None` if another process removed it.
    pub(super) fn entry(&self, dir: &OpenDir, child: Child) -> Result<Option<Entry>, FsError> {
        let Child { name, layers } = child;
        let part = dir.parts.iter().find(|(layer, _)| Some(layer) == layers.first());
        let Some((layer, parent)) = part else { return Ok(None) };
        let root = self.layer(*layer).root.clone();
        let mut path = dir.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let stat = stat_in(parent, &name).at("read", &host_path(&root, &path))?;
        Ok(stat.map(|stat| Entry { path, stat, layers, root, parent: parent.clone() }))
    }
}

/// Returns the directory at the top of a tree without layers. A directory without attributes, of which
/// nothing else is shown, stands for it.
fn empty_root() -> Result<Entry, FsError> {
    let path = Path::new("/proc");
    let fd = Arc::new(fs::open(path, DIRECTORY, Mode::empty()).at("open", path)?);
    let mut stat = fs::fstat(&*fd).at("read", path)?;
    stat.st_mode = FileType::Directory.as_raw_mode() | 0o755;
    (stat.st_uid, stat.st_gid) = (0, 0);
    (stat.st_mtime, stat.st_mtime_nsec) = (0, 0);
    let root = fs::open(path, DIRECTORY, Mode::empty()).at("open", path)?;
    let root = Arc::new(LayerRoot { fd: root, path: path.to_owned() });
    Ok(Entry { path: Vec::new(), stat, layers: Vec::new(), root, parent: fd })
}

impl Seen {
    /// Adds what a lower layer has at the name; a whiteout has no type.
    fn add(&mut self, layer: u16, kind: Option<FileType>) {
        let is_dir = kind == Some(FileType::Directory);
        if !self.is_complete && kind.is_some() && (is_dir || self.layers.is_empty()) {
            self.layers.push(layer);
        }
        self.is_complete |= !is_dir;
    }
}

impl OpenDir {
    /// Returns its layers.
    pub(super) fn layers(&self) -> Vec<u16> {
        self.parts.iter().map(|(layer, _)| *layer).collect()
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }
}

fn stat_in(dir: &OwnedFd, name: &[u8]) -> Result<Option<fs::Stat>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns the type of a file; `None` for a whiteout, and for a file that another process removed.
fn kind_in(dir: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, Errno> {
    let stat = stat_in(dir, name)?.filter(|stat| !is_whiteout(stat));
    Ok(stat.map(|stat| FileType::from_raw_mode(stat.st_mode)))
}

fn host_path(root: &LayerRoot, path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    root.path.join(std::ffi::OsStr::from_bytes(path))
}
