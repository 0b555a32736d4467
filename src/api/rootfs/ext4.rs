//! An ext4, by mke2fs and debugfs (e2fsprogs).

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use rustix::fs::FileType;

use super::beside::Beside;
use super::debugfs::{Missing, Script};
use super::tool::{reads_tar, run};
use crate::api::files::Files;
use crate::error::Error;
use crate::fsutil::At;
use crate::layer::{TreeTarError, TreeTarOptions};
use crate::overlay::{Abilities, CopyMetadata, NotCopied};

/// The package of the tools.
const PACKAGE: &str = "e2fsprogs";

/// Bytes of a block of ext4.
const BLOCK: u64 = 4096;

impl Files {
    /// Makes an ext4 in the file `to`, which is in the directory `beside`. mke2fs since 1.47.1, with
    /// libarchive, reads a stream; 1.47.4 ignores the attributes in it, which debugfs sets afterwards. An older one reads a copy of the files; where this process may not set all
    /// metadata of the copy, debugfs sets it in the file system.
    pub(super) fn ext4(&self, to: &Path, beside: &Beside) -> Result<(), Error> {
        let (bytes, files) = self.size_of_ext4()?;
        let image = fs::File::create(to).at("create", to)?;
        image.set_len(bytes).at("create", to)?;
        let name = Path::new(to.file_name().unwrap_or_default());
        // A directory with the name `-` must not be read instead of the stream.
        let command = |program: &str| {
            let mut command = Command::new(program);
            // e2fsprogs takes 0 for the current time.
            command.env("E2FSPROGS_FAKE_TIME", self.epoch().max(1).to_string());
            command.current_dir(beside.path(""));
            command
        };
        let mut probe = command("mke2fs");
        probe.args(["-q", "-F", "-t", "ext4", "-d", "-", "probe", "8M"]);
        if reads_tar(probe, PACKAGE)? {
            let mut mke2fs = command("mke2fs");
            mke2fs.args(self.ext4_options(files)?).args(["-d", "-"]).arg(name);
            run(mke2fs, PACKAGE, |out| {
                let options = TreeTarOptions { sparse: false, latest: self.latest_times() };
                self.write_tar(out, options)
            })?;
            return self.debugfs(
                command("debugfs"),
                name,
                files,
                (beside, Some(Missing::Attributes)),
            );
        }
        let can_copy_all = Abilities::expected().is_complete();
        let metadata = if can_copy_all { CopyMetadata::Owners } else { CopyMetadata::Readable };
        let not_copied = self.copy_all(&beside.path("rootfs"), metadata)?;
        if not_copied != NotCopied::default() {
            return Err(Error::Usage(format!(
                "the file system of {} does not keep all owners, devices or attributes",
                to.display()
            )));
        }
        let mut mke2fs = command("mke2fs");
        mke2fs.args(self.ext4_options(files)?).args(["-d", "rootfs"]).arg(name);
        run(mke2fs, PACKAGE, |_| Ok(()))?;
        let missing = (!can_copy_all).then_some(Missing::All);
        self.debugfs(command("debugfs"), name, files, (beside, missing))
    }

    fn ext4_options(&self, files: u64) -> Result<Vec<String>, Error> {
        let (root, uuid) = (self.tree.root()?, self.uuid());
        let owner = format!("root_owner={}:{}", root.stat.st_uid, root.stat.st_gid);
        let extended = format!("hash_seed={uuid},lazy_itable_init=0,{owner}");
        let (block, inodes) = (BLOCK.to_string(), (files + 64).to_string());
        let options = ["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-U", &uuid];
        let sizes = ["-b", &block, "-N", &inodes, "-E", &extended];
        Ok(options.iter().chain(&sizes).map(|option| (*option).to_owned()).collect())
    }

    /// Sets what mke2fs before 1.47.1 copies of the times of changes and accesses; mode and owner of the root,
    /// which no version takes from the image; and what is missing otherwise, with values in files in `beside`.
    fn debugfs(
        &self,
        mut command: Command,
        image: &Path,
        files: u64,
        (beside, missing): (&Beside, Option<Missing>),
    ) -> Result<(), Error> {
        let (epoch, root) = (self.epoch().max(1), self.tree.root()?.stat);
        let (mode, uid, gid) = (root.st_mode, root.st_uid, root.st_gid);
        command.args(["-w", "-f", "-"]).arg(image);
        let messages = run(command, PACKAGE, |out| {
            let mut script = Script::new(io::BufWriter::new(out));
            if let Some(missing) = missing {
                let (latest, dir) = (self.latest_times(), beside.path(""));
                script.metadata(missing, &self.tree, latest, &dir)?;
            }
            let mut lines = || -> io::Result<()> {
                for inode in std::iter::once(2).chain(11..=11 + files) {
                    for field in ["ctime", "atime"] {
                        writeln!(script.out, "set_inode_field <{inode}> {field} @{epoch}")?;
                        writeln!(script.out, "set_inode_field <{inode}> {field}_extra 0")?;
                    }
                }
                writeln!(script.out, "set_inode_field <2> mode 0{mode:o}")?;
                writeln!(script.out, "set_inode_field <2> uid {uid}")?;
                writeln!(script.out, "set_inode_field <2> gid {gid}")?;
                script.out.flush()
            };
            lines().map_err(|e| TreeTarError::Write(e).into())
        })?;
        // Its exit status does not tell whether a line failed.
        match messages.lines().find(|line| !line.starts_with("debugfs 1.")) {
            Some(message) => Err(Error::Other(format!("debugfs failed: {message}"))),
            None => Ok(()),
        }
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
}
