//! `rpull umount`: unmounts images.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use rpull::Error;

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull umount /mnt
  rpull umount web                   # the writable mount with this name
  rpull umount --discard web         # remove it with its changes, also if it is not mounted";

/// Unmount images
///
/// Other mounts stay; use umount(8) for them. Changes of a writable mount are kept: mount them again with
/// `rpull mount NAME DIR`, or remove them with --discard or `rpull mounts rm NAME`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Umount {
    /// The directories to unmount, or the names of writable mounts (write ./NAME for a directory of the
    /// same name)
    #[arg(required = true, value_name = "DIR|NAME")]
    targets: Vec<PathBuf>,
    /// Remove the changes of writable mounts, unless they are in a directory of --upper
    #[arg(long)]
    discard: bool,
}

impl Umount {
    /// Unmounts, and prints where changes are kept.
    ///
    /// # Errors
    /// Nothing is mounted there, it is not an image of the store, or the mount is in use.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        for target in &self.targets {
            let done = match self.discard {
                true => store.unmount_and_discard(target)?,
                false => store.unmount(target)?,
            };
            if context.json() {
                let at = done.target.as_deref().unwrap_or(target);
                output::path_text(at)?;
                done.upper.as_deref().map(output::path_text).transpose()?;
                let (name, upper) = (&done.name, &done.upper);
                output::json_line(&json!({"target": at, "name": name, "upper": upper}))?;
                continue;
            }
            let Some(upper) = done.upper.filter(|_| !context.global.quiet) else { continue };
            let of = done.name.map(|name| format!(" of {name}")).unwrap_or_default();
            output::line(format_args!("changes{of} are kept in {}", upper.display()))?;
        }
        Ok(())
    }
}
