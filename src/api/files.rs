//! The files of an image, read without a mount.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FileType;
use serde_json::Value;

use super::image::Image;
use super::marks;
use super::store::Store;
use super::writable::Source;
use crate::error::Error;
use crate::fsutil::{At, NewFile};
use crate::layer::{LatestTimes, TreeTar, TreeTarOptions};
use crate::overlay::{
    Abilities, Entry, Follow, LookupError, MergedLayer, MergedTree, OpaqueDirs, XattrSpace,
};
use crate::store::{LayerSelector, Lock, StoreError, WritableMount};

/// Bytes of a tar that are written at once.
const BUFFER_SIZE: usize = 256 << 10;

/// The files of an image or a writable mount, as a mount shows them. They are read from the layers, without a
/// mount: whiteouts and opaque directories hide files of lower layers, and symlinks are resolved inside the
/// image. While it exists, no image can be removed from the store.
#[derive(Debug)]
pub struct Files {
    pub(super) tree: MergedTree,
    pub(super) name: String,
    /// When the image was created, seconds since 1970; `None` for a writable mount, whose files are newer.
    pub(super) created: Option<i64>,
    /// What the identifiers of a file system depend on: the image ID, or the name of a writable mount.
    pub(super) identity: String,
    _kept: Kept,
}

/// What keeps the layers.
#[derive(Debug)]
enum Kept {
    Image { _lock: Option<Lock> },
    Writable { _mount: WritableMount },
}

impl Store {
    /// Opens the files of a writable mount or of an image, which are given as for
    /// [`find_source`](Self::find_source). A writable mount need not be mounted.
    ///
    /// # Errors
    /// As for [`find_source`](Self::find_source), or a layer cannot be read; this process cannot read
    /// overlayfs's marks of the changes ([`Error::Marks`]).
    pub fn files(&self, source: &str) -> Result<Files, Error> {
        let mount = match self.find_source(source)? {
            Source::Image(image) => return image.files(),
            Source::Writable(mount) => mount,
        };
        let space = if mount.userxattr() { XattrSpace::User } else { XattrSpace::Trusted };
        if space == XattrSpace::Trusted && Abilities::expected().space == XattrSpace::User {
            let layer = mount.layers().last().map(|layer| layer.chain.short()).unwrap_or_default();
            let why = "this process cannot read those of the changes above it";
            return Err(Error::Marks { image: source.to_owned(), layer, why });
        }
        let upper = MergedLayer::open(&mount.upper(), OpaqueDirs::Marked(vec![space]))?;
        let lower = marks::open_layers(&self.begin(), mount.lower(), mount.layers())?;
        let tree = MergedTree::new(std::iter::once(upper).chain(lower).collect());
        let kept = Kept::Writable { _mount: mount };
        Ok(Files {
            tree,
            name: source.to_owned(),
            created: None,
            identity: source.to_owned(),
            _kept: kept,
        })
    }
}

impl Image {
    /// Opens the files of the image.
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn files(&self) -> Result<Files, Error> {
        self.files_of(None)
    }

    /// Opens the files of the layers up to `top`.
    ///
    /// # Errors
    /// As for [`files`](Self::files); not exactly one layer of the image is `top`.
    pub fn files_at(&self, top: &LayerSelector) -> Result<Files, Error> {
        self.files_of(Some(top))
    }

    fn files_of(&self, top: Option<&LayerSelector>) -> Result<Files, Error> {
        let (layers, lock) = match self.stack(top) {
            Ok(((stack, layers), lock)) => {
                (marks::open_layers(&self.store().begin(), &stack.lower, &layers)?, lock)
            }
            // Nothing of the store needs to be kept.
            Err(Error::Store(StoreError::NoLayers(_))) if top.is_none() => (Vec::new(), None),
            Err(error) => return Err(error),
        };
        let config: Value = serde_json::from_slice(&self.config()?).unwrap_or_default();
        let created =
            config["created"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
        Ok(Files {
            tree: MergedTree::new(layers),
            name: self.name().to_owned(),
            created: created.map(|created| created.timestamp()),
            identity: self.id().to_string(),
            _kept: Kept::Image { _lock: lock },
        })
    }
}

/// What the last part of a path means, if it is a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// The file that it leads to.
    Follow,
    /// The symlink itself.
    Keep,
}

impl Files {
    /// Returns what is known of the file at `path`.
    ///
    /// # Errors
    /// There is no such file, or a layer cannot be read.
    pub fn stat(&self, path: impl AsRef<Path>, link: LastLink) -> Result<FileInfo, Error> {
        FileInfo::new(&self.find(path.as_ref(), link)?)
    }

    /// Calls `each` with the entries of the directory at `path`, sorted by name, and with the content of
    /// its directories if `recursive`; or with the file that is there.
    ///
    /// # Errors
    /// There is no such file, or a layer cannot be read; the error of `each`.
    pub fn list(
        &self,
        path: impl AsRef<Path>,
        recursive: bool,
        mut each: impl FnMut(FileInfo) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let found = self.find(path.as_ref(), LastLink::Follow)?;
        if !found.is_dir() {
            return each(FileInfo::new(&found)?);
        }
        let mut walk = self.tree.walk(&found);
        while let Some(entry) = walk.next() {
            each(FileInfo::new(&entry?)?)?;
            if !recursive {
                walk.skip_content();
            }
        }
        Ok(())
    }

    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// There is no such file, it is not a regular file, or this user may not read it.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        let path = path.as_ref();
        let entry = self.find(path, LastLink::Follow)?;
        let what = match entry.kind() {
            FileType::RegularFile => return Ok(entry.open()?),
            FileType::Directory => "is a directory",
            _ => "is not a regular file",
        };
        Err(Error::Usage(format!("{}:{} {what}", self.name, path.display())))
    }

    /// Writes all files as a tar stream, sorted by name: owners, modes, times, extended attributes, hard
    /// links, devices and sparse files. Sockets are left out. An image gives the same bytes in every store: no
    /// time is later than the environment variable `SOURCE_DATE_EPOCH`, and no time of a directory later than
    /// the creation of the image. (A directory that no layer describes has the time of the pull.)
    ///
    /// # Errors
    /// A file cannot be read, or the output cannot be written.
    pub fn export(&self, out: impl Write) -> Result<(), Error> {
        self.write_tar(out, TreeTarOptions { sparse: true, latest: self.latest_times() })
    }

    pub(super) fn write_tar(&self, out: impl Write, options: TreeTarOptions) -> Result<(), Error> {
        let tar = TreeTar::new(BufWriter::with_capacity(BUFFER_SIZE, out), options);
        self.write_content(tar)
    }

    /// Does the same, and writes an entry for the root first.
    pub(super) fn write_tar_with_root(
        &self,
        out: impl Write,
        options: TreeTarOptions,
    ) -> Result<(), Error> {
        let mut tar = TreeTar::new(BufWriter::with_capacity(BUFFER_SIZE, out), options);
        tar.entry(&self.tree.root()?, b".")?;
        self.write_content(tar)
    }

    fn write_content(&self, mut tar: TreeTar<impl Write>) -> Result<(), Error> {
        tar.content(&self.tree, &self.tree.root()?, b"")?;
        tar.finish()?;
        Ok(())
    }

    /// Does the same to the file `path`, which gets the archive whole or stays as it was, with the mode 0600.
    /// What is not a regular file, such as a FIFO, is written directly.
    ///
    /// # Errors
    /// As for [`export`](Self::export).
    pub fn export_to_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        if path.metadata().is_ok_and(|meta| !meta.is_file()) {
            let file = File::options().write(true).open(path).at("open", path)?;
            return self.export(file);
        }
        // What a symbolic link leads to is replaced, as a shell does it.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut file = NewFile::create(&target, 0o600)?;
        self.export(&mut file)?;
        Ok(file.commit()?)
    }

    /// Writes the file or directory at `path` as a tar stream, whose names begin with its last part, as
    /// `docker cp` does.
    ///
    /// # Errors
    /// As for [`export`](Self::export), or there is no such file.
    pub fn export_path(
        &self,
        path: impl AsRef<Path>,
        link: LastLink,
        out: impl Write,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        let entry = self.find(path, link)?;
        let options = TreeTarOptions { sparse: true, latest: self.latest_times() };
        let mut tar = TreeTar::new(BufWriter::with_capacity(BUFFER_SIZE, out), options);
        let name = name_in_archive(path, &entry);
        tar.entry(&entry, &name)?;
        if entry.is_dir() {
            tar.content(&self.tree, &entry, &[&name, &b"/"[..]].concat())?;
        }
        tar.finish()?;
        Ok(())
    }

    pub(super) fn latest_times(&self) -> LatestTimes {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
        let of_files = epoch.unwrap_or(i64::MAX);
        LatestTimes { of_dirs: self.created.unwrap_or(i64::MAX).min(of_files), of_files }
    }

    pub(super) fn find(&self, path: &Path, link: LastLink) -> Result<Entry, Error> {
        let follow = match link {
            LastLink::Follow => Follow::Yes,
            LastLink::Keep => Follow::No,
        };
        self.tree.lookup(path.as_os_str().as_bytes(), follow).map_err(|error| match error {
            LookupError::Fs(error) => error.into(),
            source => Error::Path { image: self.name.clone(), path: path.to_owned(), source },
        })
    }
}

/// Returns whether a path stands for the content of a directory, as in `docker cp`.
pub(super) fn is_content(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    matches!(path, b"" | b"." | b"/") || path.ends_with(b"/.")
}

/// Returns the name of the first entry: the last part of the path that was asked for, or `.` where it stands
/// for the content of a directory.
pub(super) fn name_in_archive(path: &Path, entry: &Entry) -> Vec<u8> {
    match path.file_name() {
        _ if is_content(path) => b".".to_vec(),
        Some(name) => name.as_bytes().to_vec(),
        None => entry.name().to_vec(),
    }
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What is known of a file of an image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileInfo {
    /// The path, from the root of the image.
    pub path: PathBuf,
    /// The type.
    pub kind: FileKind,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size in bytes; of a symlink, that of its target.
    pub size: u64,
    /// The number of names that the file has in its layer.
    pub links: u64,
    /// The modification time, seconds since 1970.
    pub modified: i64,
    /// The target of a symlink, as it is in the image.
    pub target: Option<PathBuf>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
}

impl FileInfo {
    pub(super) fn new(entry: &Entry) -> Result<Self, Error> {
        let stat = &entry.stat;
        let kind = match entry.kind() {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharacterDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::File,
        };
        let target = match kind {
            FileKind::Symlink => Some(path_of(&entry.read_link()?)),
            _ => None,
        };
        let device = matches!(kind, FileKind::CharacterDevice | FileKind::BlockDevice)
            .then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
        Ok(Self {
            path: path_of(&[b"/", entry.path.as_slice()].concat()),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: entry.links(),
            modified: stat.st_mtime,
            target,
            device,
        })
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
