//! The build context: a directory of this machine.

use std::path::Path;

use super::error::CopyError;
use super::ignore::Ignore;
use crate::fsutil::{At, read_optional_bytes};
use crate::overlay::{MergedLayer, MergedTree, OpaqueDirs};

/// Bytes of a `.dockerignore` file at most.
const MAX_IGNORE_SIZE: u64 = 1 << 20;

/// A directory from which COPY and ADD take files.
#[derive(Debug)]
pub struct Context {
    tree: MergedTree,
    ignore: Ignore,
}

impl Context {
    /// Opens the directory `dir` and reads which files are left out: from `DOCKERFILE.dockerignore` beside the
    /// Dockerfile at `dockerfile` if it exists, or from `.dockerignore` in `dir`.
    ///
    /// # Errors
    /// [`CopyError::Read`] if one of them cannot be read, [`CopyError::IgnorePattern`] for an invalid line.
    pub fn open(dir: &Path, dockerfile: &Path) -> Result<Self, CopyError> {
        // One layer without marks of overlayfs: the directory as it is.
        let layer = MergedLayer::open(dir, OpaqueDirs::Marked(Vec::new()))?;
        let tree = MergedTree::new(vec![layer]);
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        for file in [Path::new(&own), &dir.join(".dockerignore")] {
            let Some(text) = read_optional_bytes(file, MAX_IGNORE_SIZE)? else { continue };
            let text = String::from_utf8(text)
                .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e));
            let ignore = Ignore::parse(&text.at("read", file)?).map_err(|error| {
                let (file, line) = (file.to_owned(), error.line);
                CopyError::IgnorePattern { file, line, pattern: error.pattern }
            })?;
            return Ok(Self { tree, ignore });
        }
        Ok(Self { tree, ignore: Ignore::default() })
    }

    pub(super) fn tree(&self) -> &MergedTree {
        &self.tree
    }

    pub(super) fn ignore(&self) -> &Ignore {
        &self.ignore
    }
}
