//! Lines of debugfs(8) that set the metadata of files.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::FileType;

use crate::error::Error;
use crate::fsutil::At;
use crate::layer::{LatestTimes, TreeTarError};
use crate::overlay::{Entry, MergedTree, split};

/// Bytes of a line that debugfs reads at most, less those of a command.
const MAX_LINE: usize = 8000;

/// What mke2fs did not write of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Extended attributes.
    Attributes,
    /// Attributes, owners, modes and devices.
    All,
}

/// Writes lines for debugfs.
pub struct Script<W> {
    pub out: W,
    /// The number of values in files.
    values: u64,
}

impl<W: Write> Script<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, values: 0 }
    }

    /// Sets what is missing of the metadata of all files of `tree`. A device with several names becomes several
    /// devices. The values of attributes are in files in `dir`, in which debugfs runs.
    ///
    /// # Errors
    /// A file cannot be read or written, or debugfs cannot read its name.
    pub fn metadata(
        &mut self,
        missing: Missing,
        tree: &MergedTree,
        latest: LatestTimes,
        dir: &Path,
    ) -> Result<(), Error> {
        let mut linked = HashSet::new();
        for entry in tree.walk(&tree.root()?) {
            let entry = entry?;
            let is_device =
                matches!(entry.kind(), FileType::CharacterDevice | FileType::BlockDevice);
            let key = (entry.stat.st_dev, entry.stat.st_ino);
            let is_several = is_device && missing == Missing::All;
            if entry.kind() == FileType::Socket
                || (entry.links() > 1 && !entry.is_dir() && !is_several && !linked.insert(key))
            {
                continue;
            }
            let xattrs = entry.xattrs()?;
            if missing == Missing::Attributes && xattrs.is_empty() {
                continue;
            }
            let path = quote(&[b"/", entry.path.as_slice()].concat())?;
            if missing == Missing::All {
                if is_device {
                    self.device(&entry, &path, latest)?;
                }
                self.owner_and_mode(&entry, &path)?;
            }
            for (name, value) in xattrs {
                let file = format!("value-{}", self.values);
                self.values += 1;
                let at = dir.join(&file);
                fs::write(&at, value).at("write", &at)?;
                let name = quote(&name)?;
                self.line(&[b"ea_set -f ", file.as_bytes(), b" ", &path, b" ", &name])?;
            }
        }
        Ok(())
    }

    fn owner_and_mode(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Error> {
        let stat = &entry.stat;
        let fields = [
            ("mode", format!("0{:o}", stat.st_mode)),
            ("uid", stat.st_uid.to_string()),
            ("gid", stat.st_gid.to_string()),
        ];
        for (field, value) in fields {
            self.line(&[b"set_inode_field ", path, format!(" {field} {value}").as_bytes()])?;
        }
        Ok(())
    }

    fn device(&mut self, entry: &Entry, path: &[u8], latest: LatestTimes) -> Result<(), Error> {
        let (parent, name) = split(&entry.path);
        let number = entry.stat.st_rdev;
        let kind = if entry.kind() == FileType::CharacterDevice { "c" } else { "b" };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        self.line(&[b"cd ", &quote(&[b"/", parent].concat())?])?;
        let numbers = format!(" {kind} {major} {minor}");
        self.line(&[b"mknod ", &quote(name)?, numbers.as_bytes()])?;
        let time = format!(" mtime @{}", latest.limit(entry).0);
        self.line(&[b"set_inode_field ", path, time.as_bytes()])?;
        self.line(&[b"set_inode_field ", path, b" mtime_extra 0"])
    }

    fn line(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        let mut write = || -> io::Result<()> {
            parts.iter().try_for_each(|part| self.out.write_all(part))?;
            self.out.write_all(b"\n")
        };
        write().map_err(|e| TreeTarError::Write(e).into())
    }
}

/// Returns a name as one word of a line.
fn quote(name: &[u8]) -> Result<Vec<u8>, Error> {
    let mut word = b"\"".to_vec();
    for &byte in name {
        word.push(byte);
        if byte == b'"' {
            word.push(byte);
        }
    }
    word.push(b'"');
    if word.len() > MAX_LINE || name.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(Error::Usage(format!(
            "debugfs cannot read the name {:?}, whose metadata it must set: make a squashfs instead",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(word)
}
