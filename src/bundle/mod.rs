//! OCI runtime bundles: the `config.json` with which an OCI runtime runs a container of an image
//! (runtime-spec, config.md). A container gets what dockerd gives it: the environment, user, mounts,
//! capabilities and hidden paths. Pure functions; the caller reads and writes all files.

mod env;
mod etc;
mod image;
mod security;
mod spec;
mod user;
mod volume;

pub use env::{EnvChange, parse_env_file};
pub use etc::EtcFiles;
pub use image::RunConfig;
pub use spec::{Bind, Cgroup, ContainerSpec, Network};
pub use user::{Accounts, ExecUser};
pub use volume::Volume;

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The `config` of the image's config has another structure.
    #[error("the image's config is invalid: {0}")]
    Config(String),
    /// Neither the image nor the caller names a command.
    #[error("no command specified, and the image has none")]
    NoCommand,
    /// A user or group name without an entry.
    #[error("unable to find {kind} {name}: no matching entries in the image's {file}")]
    NoAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The file that was read.
        file: &'static str,
    },
    /// A numeric user or group that the kernel cannot have.
    #[error("the {kind} ID {id} is not in the range from 0 to 2147483647")]
    IdRange {
        /// `user` or `group`.
        kind: &'static str,
        /// What was given.
        id: String,
    },
    /// A relative working directory.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    WorkingDir(String),
    /// A volume in another form.
    #[error("invalid volume '{volume}': {why}")]
    Volume {
        /// As it was given.
        volume: String,
        /// Why.
        why: String,
    },
    /// A variable in another form.
    #[error("invalid environment variable: {0}")]
    Variable(String),
    /// A value that a C string cannot express.
    #[error("the {0} contains a NUL character")]
    Nul(&'static str),
    /// The types of the specification refuse a value.
    #[error("cannot describe the container: {0}")]
    Spec(String),
}
