//! The overlay2 directory format: IDs, confined file operations, whiteouts, mounts.

mod diff_dir;
mod ids;
mod layer_dir;
mod mount;
mod mountinfo;
mod probe;

pub use diff_dir::{
    DiffDir, DirHandle, XattrSpace, is_whiteout, list, make_dir, make_whiteout, proc_path, split,
    stat,
};
pub use ids::{CacheId, IdError, LinkId};
pub use layer_dir::OverlayRoot;
pub use mount::{Stack, Upper, unmount};
pub use mountinfo::{MountEntry, OverlayDirs, mount_at, mounts, uppers_everywhere};
pub use probe::{file_system, missing_for_layers};
