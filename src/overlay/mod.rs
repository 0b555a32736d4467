//! The overlay2 directory format: IDs, confined file operations, whiteouts, the merged view,
//! mounts.

mod abilities;
mod changes;
mod copy_out;
mod diff_dir;
mod ids;
mod layer_dir;
mod merged;
mod mount;
mod mount_points;
mod mountinfo;
mod omitted;
mod private;
mod probe;

pub use abilities::{Abilities, Capability, NewOwner, Owners, XattrSpace, in_user_namespace};
pub use changes::{Change, ChangeKind, ChangeWalk, Changes, ChangesError};
pub use copy_out::{CopyMetadata, CopyOut, NotCopied};
pub use diff_dir::{
    DiffDir, DirHandle, is_whiteout, list, make_dir, make_whiteout, proc_path, split, stat,
};
pub use ids::{CacheId, IdError, LinkId};
pub use layer_dir::OverlayRoot;
pub use merged::{
    Difference, DifferenceKind, Entry, Follow, LookupError, MergedLayer, MergedTree, OpaqueDirs,
    Walk, Xattrs,
};
pub use mount::{Stack, Upper, detach, quote, unmount};
pub use mount_points::create_mount_points;
pub use mountinfo::{MountEntry, OverlayDirs, mount_at, mounts, uppers_everywhere};
pub use omitted::{Omitted, plural};
pub use private::{in_private_mounts, may_mount};
pub use probe::{file_system, probe, remove_probe};
