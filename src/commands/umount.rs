//! `rpull umount`: unmounts images.

use std::path::PathBuf;

use clap::Args;

use rpull::Error;

use super::Context;

const EXAMPLES: &str = "\
Examples:
  rpull umount /mnt";

/// Unmount images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Umount {
    /// The directories to unmount
    #[arg(required = true, value_name = "DIR")]
    targets: Vec<PathBuf>,
}

impl Umount {
    /// Unmounts, and removes the changes of mounts whose upper directory rpull created.
    ///
    /// # Errors
    /// Nothing is mounted there, or the mount is in use.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        self.targets.iter().try_for_each(|target| store.unmount(target))
    }
}
