//! The library's public face: a client, a store, and the images in it.

mod archive;
mod build;
mod check;
mod clean;
mod client;
mod commit;
mod copy;
mod copy_out;
mod diff;
mod files;
mod image;
mod import;
mod marks;
mod mount;
mod namespace;
mod pull;
mod push;
mod repair;
mod rootfs;
mod run;
mod save;
mod store;
mod writable;

pub use archive::{Archive, ArchivedImage};
pub use build::{BaseImage, Build, BuildHost, Built, PreparedBuild};
pub use check::{Check, CheckProgress, CheckReport};
pub use client::{Client, ClientBuilder, Resolution};
pub use commit::{Commit, CommittedImage};
pub use copy::Copy;
pub use copy_out::CopyOwners;
pub use diff::{Difference, DifferenceKind};
pub use files::{FileInfo, FileKind, Files, LastLink};
pub use image::{Image, ImageLayer};
pub use import::{Import, ImportedLayer};
pub use mount::MountPlan;
pub use namespace::enter_user_namespace;
pub use pull::{LoadedImage, Pull};
pub use push::Push;
pub use repair::{RepairReport, Unrepaired};
pub use run::{
    Bundle, Container, Ended as ContainerEnd, RunOptions, Runtime as OciRuntime,
    Signals as ContainerSignals, Stdin as ContainerStdin,
};
pub use save::Save;
pub use store::{Removal, Store};
pub use writable::{Source, Unmounted};
