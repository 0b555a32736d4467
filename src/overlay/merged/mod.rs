//! The merged view of a stack of layers, read without mounting it: what overlayfs shows, by its
//! rules for whiteouts and opaque directories (Documentation/filesystems/overlayfs.rst).
//!
//! Names come from images and are hostile. The kernel resolves each of them in one open directory
//! of one layer (openat2(2) with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`), so no link leads out of a
//! layer. Symlinks are resolved by [`MergedTree::lookup`], inside the merged tree.

mod compare;
mod entry;
mod lookup;
mod stack;
mod walk;

pub use compare::{Difference, DifferenceKind};
pub(super) use entry::grow;
pub use entry::{Entry, Xattrs, open_in};
pub use lookup::{Follow, LookupError};
pub use stack::{MergedLayer, MergedTree, OpaqueDirs};
pub use walk::Walk;

#[cfg(test)]
mod tests;
