//! An entry of an archive, with the values from all of its headers.

use super::header::Time;
use super::sparse::SparseMap;

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    Hardlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A PAX global header, which creates no file.
    Global,
}

/// One entry of a layer.
#[derive(Debug)]
pub struct TarEntry {
    /// The name from the header that wins, unchanged.
    pub name: Vec<u8>,
    /// The link's target, unchanged.
    pub link: Vec<u8>,
    /// Its type.
    pub kind: EntryType,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Modification time.
    pub mtime: Time,
    /// Access time, if the archive has one.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (i64, i64),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size in the header, bytes, whether or not data follows.
    pub header_size: u64,
    /// Bytes of data that follow in the archive.
    pub data_size: u64,
    /// The layout of a sparse file.
    pub sparse: Option<SparseMap>,
}

impl TarEntry {
    /// Returns the entry of a PAX global header.
    pub fn global(name: Vec<u8>) -> Self {
        Self {
            name,
            link: Vec::new(),
            kind: EntryType::Global,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: None,
            device: (0, 0),
            xattrs: Vec::new(),
            header_size: 0,
            data_size: 0,
            sparse: None,
        }
    }
}
