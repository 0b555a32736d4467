//! What a user chooses about a container.

use std::fs::File;
use std::sync::Arc;

use crate::bundle::{BundleError, EnvChange, Network, RunConfig, Volume};
use crate::store::LayerSelector;

/// How a container runs. What is left at its default is as the image says.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// The name of the writable mount; `None` for a generated one.
    pub name: Option<String>,
    /// The topmost layer; `None` for that of the image.
    pub top: Option<LayerSelector>,
    /// The command, or its arguments if there is an entry point.
    pub command: Vec<String>,
    /// The entry point; an empty one removes that of the image.
    pub entrypoint: Option<String>,
    /// Changes of the environment.
    pub env: Vec<EnvChange>,
    /// The working directory, an absolute path.
    pub working_dir: Option<String>,
    /// The user and group, by name or ID: `USER[:GROUP]`.
    pub user: Option<String>,
    /// The host name; `None` for the ID of the writable mount, or that of the machine with its network.
    pub hostname: Option<String>,
    /// Volumes besides those of the image.
    pub volumes: Vec<Volume>,
    /// The network.
    pub network: Network,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Whether the container has a terminal, which must be that of this process.
    pub terminal: bool,
    /// Whether all system calls are allowed that its capabilities allow.
    pub unconfined: bool,
    /// Whether the writable mount is removed when the container has ended.
    pub remove: bool,
    /// Where standard output and standard error of the container go; `None` for those of this process.
    pub output: Option<Arc<File>>,
    /// Whether the writable mount belongs to the end of the container, and is removed after a kill.
    pub(crate) lent: bool,
}

impl RunOptions {
    /// Returns how a container of an image with this config runs.
    pub(super) fn config(&self, image: &[u8]) -> Result<RunConfig, BundleError> {
        let mut config = RunConfig::of_image(image)?;
        config.set_command(self.entrypoint.as_deref(), &self.command);
        if let Some(dir) = &self.working_dir {
            config.working_dir.clone_from(dir);
        }
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        Ok(config)
    }

    /// Returns the volumes, each target once: those of the user win.
    pub(super) fn volumes(&self, config: &RunConfig) -> Vec<Volume> {
        let of_image = config.volumes.keys().filter_map(|target| Volume::of_image(target));
        let is_replaced =
            |volume: &Volume| self.volumes.iter().any(|it| it.target == volume.target);
        let of_image = of_image.filter(|volume| !is_replaced(volume));
        self.volumes.iter().cloned().chain(of_image).collect()
    }
}
