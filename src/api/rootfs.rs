//! File systems made of the files of an image, by the tools of each file system.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FileType;

use super::files::Files;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil::{self, At, random_hex};
use crate::layer::{TreeTarError, TreeTarOptions};
use crate::overlay::NotCopied;

/// Bytes of a block of ext4.
const BLOCK: u64 = 4096;

/// Bytes of a tool's messages that are kept.
const MAX_MESSAGE: u64 = 4 << 10;

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    Ext4,
    Erofs,
    Squashfs,
}

impl FileSystem {
    fn of(path: &Path) -> Option<Self> {
        Some(match path.extension().and_then(OsStr::to_str)? {
            "ext4" => Self::Ext4,
            "erofs" => Self::Erofs,
            "squashfs" | "sqfs" => Self::Squashfs,
            _ => return None,
        })
    }
}

impl Files {
    /// Makes a root file system of all files at `to`: a file system in a file with the suffix `.ext4` (by
    /// mke2fs), `.erofs` (by mkfs.erofs) or `.squashfs` (by sqfstar), or otherwise a directory, which is empty
    /// or does not exist. The same image and the same version of the tool give the same bytes.
    ///
    /// sqfstar reads a stream, so owners are kept without root. The other tools read a copy of the files
    /// beside `to`, so this process needs the right to set owners, as root has it, also in a user namespace.
    ///
    /// # Errors
    /// The tool is not installed or fails, or a file cannot be read or written.
    pub fn export_rootfs(&self, to: impl AsRef<Path>) -> Result<NotCopied, Error> {
        let to = to.as_ref();
        let Some(kind) = FileSystem::of(to).filter(|_| !to.is_dir()) else {
            return self.export_to_dir(to);
        };
        if to.metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::Usage(format!("{} is not a regular file", to.display())));
        }
        let beside = Beside::new(to)?;
        let made = beside.path("image");
        let not_copied = match kind {
            FileSystem::Squashfs => self.squashfs(&made).map(|()| NotCopied::default())?,
            FileSystem::Erofs => self.staged(&beside, |dir| self.erofs(&made, dir))?,
            FileSystem::Ext4 => self.staged(&beside, |dir| self.ext4(&made, dir))?,
        };
        fs::rename(&made, to).at("create", to)?;
        Ok(not_copied)
    }

    /// Copies the files for a tool that reads a directory.
    fn staged(
        &self,
        beside: &Beside,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<NotCopied, Error> {
        let dir = beside.path("rootfs");
        let not_copied = self.export_to_dir(&dir)?;
        if not_copied != NotCopied::default() {
            return Err(Error::Usage(
                "this process may not set the owners, devices or attributes of all files: run as root, or \
                 make a squashfs, which needs no copy of the files"
                    .to_owned(),
            ));
        }
        make(&dir)?;
        Ok(not_copied)
    }

    fn squashfs(&self, to: &Path) -> Result<(), Error> {
        let root = self.tree.root()?;
        let (time, _) = self.latest_times().limit(&root);
        let mut command = Command::new("sqfstar");
        command.args([
            "-quiet",
            "-no-progress",
            "-exit-on-error",
            "-mkfs-time",
            &self.epoch().to_string(),
        ]);
        command.args(["-root-mode", &format!("{:o}", root.stat.st_mode & 0o7777)]);
        command.args(["-root-uid", &root.stat.st_uid.to_string()]);
        command.args(["-root-gid", &root.stat.st_gid.to_string()]);
        command.args(["-root-time", &time.clamp(0, u32::MAX.into()).to_string()]);
        // sqfstar accepts either the variable or the option.
        command.env_remove("SOURCE_DATE_EPOCH").arg(to);
        run(command, "squashfs-tools", |out| {
            let options = TreeTarOptions { sparse: false, latest: self.latest_times() };
            self.write_tar(out, options)
        })
    }

    fn erofs(&self, to: &Path, dir: &Path) -> Result<(), Error> {
        let mut command = Command::new("mkfs.erofs");
        command.args(["-d0", "-U", &self.uuid(), "-T", &self.epoch().to_string()]);
        run(command_with(command, [to, dir]), "erofs-utils", |_| Ok(()))
    }

    fn ext4(&self, to: &Path, dir: &Path) -> Result<(), Error> {
        let root = self.tree.root()?;
        let (bytes, files) = self.size_of_ext4()?;
        // e2fsprogs takes 0 for the current time.
        let (uuid, epoch) = (self.uuid(), self.epoch().max(1).to_string());
        let owner = format!("root_owner={}:{}", root.stat.st_uid, root.stat.st_gid);
        let file = fs::File::create(to).at("create", to)?;
        file.set_len(bytes).at("create", to)?;
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-U", &uuid]);
        command.args(["-b", &BLOCK.to_string(), "-N", &(files + 64).to_string()]);
        command.args(["-E", &format!("hash_seed={uuid},lazy_itable_init=0,{owner}")]);
        command.env("E2FSPROGS_FAKE_TIME", &epoch).arg("-d").arg(dir).arg(to);
        run(command, "e2fsprogs", |_| Ok(()))?;
        // mke2fs before 1.47.1 copies the times of changes and accesses of the copies, and never the mode of
        // the root.
        let mut command = Command::new("debugfs");
        command.args(["-w", "-f", "-"]).env("E2FSPROGS_FAKE_TIME", &epoch).arg(to);
        run(command, "e2fsprogs", |out| {
            let mut out = io::BufWriter::new(out);
            let mut lines = || -> io::Result<()> {
                for inode in std::iter::once(2).chain(11..=11 + files) {
                    for field in ["ctime", "atime"] {
                        writeln!(out, "set_inode_field <{inode}> {field} @{epoch}")?;
                        writeln!(out, "set_inode_field <{inode}> {field}_extra 0")?;
                    }
                }
                writeln!(out, "set_inode_field <2> mode 0{:o}", root.stat.st_mode)?;
                out.flush()
            };
            lines().map_err(|e| TreeTarError::Write(e).into())
        })
    }

    /// Returns the size of the file system and the number of its files besides the root.
    fn size_of_ext4(&self) -> Result<(u64, u64), Error> {
        let (mut blocks, mut files) = (0, 0);
        let mut links = std::collections::HashSet::new();
        for entry in self.tree.walk(&self.tree.root()?) {
            let entry = entry?;
            // Names take up to 263 bytes, and attributes one block.
            blocks += u64::from(files % 8 == 0);
            if entry.links() > 1
                && !entry.is_dir()
                && !links.insert((entry.stat.st_dev, entry.stat.st_ino))
            {
                continue;
            }
            files += 1;
            blocks += match entry.kind() {
                FileType::Directory => 1,
                _ => u64::try_from(entry.stat.st_size).unwrap_or(0).div_ceil(BLOCK),
            };
        }
        let bytes = blocks * BLOCK + files * 256;
        Ok(((bytes + bytes / 16 + (8 << 20)).next_multiple_of(1 << 20), files))
    }

    /// Returns the time of the file system: `SOURCE_DATE_EPOCH`, or that of the image, or 1970.
    fn epoch(&self) -> i64 {
        let latest = self.latest_times();
        let time = if latest.of_files == i64::MAX { latest.of_dirs } else { latest.of_files };
        if (0..=i64::from(u32::MAX)).contains(&time) { time } else { 0 }
    }

    /// Returns a UUID that depends on the name of the image only.
    fn uuid(&self) -> String {
        let hex = Digest::of(self.identity.as_bytes()).to_string().replace("sha256:", "");
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
        format!(
            "{}-{}-8{}-a{}-{}",
            part(0..8),
            part(8..12),
            part(13..16),
            part(17..20),
            part(20..32)
        )
    }
}

fn command_with<const N: usize>(mut command: Command, paths: [&Path; N]) -> Command {
    command.args(paths);
    command
}

/// Runs a tool of the package `package`, with what `feed` writes as its standard input.
fn run(
    mut command: Command,
    package: &str,
    feed: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::Other(format!("{tool} is not installed: install the package {package}"))
        }
        _ => Error::Other(format!("cannot start {tool}: {e}")),
    })?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // A tool that waits until its messages are read would not read its input.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let fed = match stdin {
        Some(mut stdin) => feed(&mut stdin),
        None => Ok(()),
    };
    if matches!(&fed, Err(error) if !matches!(error, Error::Tar(TreeTarError::Write(_)))) {
        // An archive that ends early must not become a file system.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| Error::Other(format!("cannot wait for {tool}: {e}")))?;
    let message = reader.join().unwrap_or_default();
    match fed {
        Err(error) if !matches!(error, Error::Tar(TreeTarError::Write(_))) => Err(error),
        _ if !status.success() => Err(Error::Other(format!("{tool} failed ({status}): {message}"))),
        fed => fed,
    }
}

/// A directory beside a file, for what becomes the file. It is removed when it is dropped.
struct Beside(PathBuf);

impl Beside {
    fn new(file: &Path) -> Result<Self, Error> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = format!(".rpull-{}", random_hex::<8>().at("create", file)?);
        let path = parent.unwrap_or(Path::new(".")).join(name);
        // Copies have the modes and owners of the image.
        fsutil::ensure_dir(&path, 0o700)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fsutil::remove(&self.0);
    }
}
