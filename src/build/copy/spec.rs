//! What to copy, and from where.

use super::context::Context;
use crate::overlay::MergedTree;

/// Where the sources are.
#[derive(Debug, Clone, Copy)]
pub enum CopyFrom<'a> {
    /// In the build context, without what `.dockerignore` excludes. Files lose their owners, set-user-ID
    /// bits and capabilities, as in docker.
    Context(&'a Context),
    /// In the files of another stage, or of an image. They keep their owners if no other one is given.
    Stage(&'a MergedTree),
}

impl<'a> CopyFrom<'a> {
    /// Returns the files.
    pub(super) fn tree(self) -> &'a MergedTree {
        match self {
            Self::Context(context) => context.tree(),
            Self::Stage(tree) => tree,
        }
    }

    /// Returns whether `.dockerignore` excludes the file at `path`. A directory that it excludes may have
    /// files that it does not.
    pub(super) fn excludes(self, path: &[u8]) -> bool {
        matches!(self, Self::Context(context) if context.ignore().excludes(path))
    }

    /// Returns whether a directory that is excluded can have files that are not.
    pub(super) fn may_include_below(self, dir: &[u8]) -> bool {
        matches!(self, Self::Context(context) if context.ignore().may_include_below(dir))
    }
}

/// A COPY or ADD instruction.
#[derive(Debug, Clone)]
pub struct CopySpec {
    /// Paths of the sources, in which `*`, `?` and `[...]` match names of one directory each.
    pub sources: Vec<String>,
    /// The absolute path of the destination. A slash at its end means a directory.
    pub destination: String,
    /// User and group of the copies.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of the copies, 0 to 07777.
    pub mode: Option<u32>,
    /// Whether tar archives are unpacked, as ADD does. They keep their owners and modes.
    pub unpack: bool,
}

impl CopySpec {
    /// Returns the name of the instruction.
    pub(super) fn verb(&self) -> &'static str {
        if self.unpack { "ADD" } else { "COPY" }
    }
}
