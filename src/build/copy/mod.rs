//! COPY and ADD: files of a build context or of another stage become a layer.
//!
//! Which file gets which name, mode, owner and time is what docker's classic builder does (moby
//! builder/dockerfile/copy.go and builder/remotecontext). Two things differ, so that equal sources give equal
//! layers: a directory that the copy creates gets the time of its source, and a directory that exists
//! keeps its time.
//!
//! Both contexts and images are hostile. They are read through the merged view, in which the kernel
//! resolves each name in one open directory, so that no symlink leads out of them.

mod context;
mod destination;
mod error;
mod glob;
mod hashing;
mod ignore;
mod plan;
mod prepared;
mod sources;
mod spec;
mod unpacked;

pub use context::Context;
pub use error::CopyError;
pub use prepared::prepare;
pub use spec::{CopyFrom, CopySpec};

#[cfg(test)]
mod tests;
