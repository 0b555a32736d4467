//! `rpull umount`: unmounts images.

use std::path::PathBuf;

use clap::Args;

use rpull::error::Error;
use rpull::overlay;

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
        let store = context.store();
        for target in &self.targets {
            let own = overlay::upper_of(target).filter(|upper| upper.starts_with(store.mounts()));
            let failed = |source: std::io::Error| match source.kind() {
                std::io::ErrorKind::InvalidInput => {
                    Error::Other(format!("nothing is mounted at {}", target.display()))
                }
                _ => Error::Mount { target: target.display().to_string(), source },
            };
            overlay::unmount(target).map_err(failed)?;
            if let Some(dir) = own.as_deref().and_then(|upper| upper.parent()) {
                rpull::fsutil::remove(dir)?;
            }
        }
        Ok(())
    }
}
