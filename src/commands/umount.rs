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
  rpull umount --discard /mnt        # remove the changes of a writable mount too
  rpull umount --discard CHANGES     # remove changes that `rpull mounts` shows as not mounted";

/// Unmount images
///
/// Other mounts stay; use umount(8) for them. Changes of a writable mount are kept.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Umount {
    /// The directories to unmount
    #[arg(required = true, value_name = "DIR")]
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
            let kept = match self.discard {
                true => store.unmount_and_discard(target)?,
                false => store.unmount(target)?,
            };
            match (context.json(), kept) {
                (true, kept) => {
                    output::path_text(target)?;
                    kept.as_deref().map(output::path_text).transpose()?;
                    output::json_line(&json!({"target": target, "upper": kept}))?;
                }
                (false, Some(upper)) if !context.global.quiet => {
                    output::line(format_args!("changes are kept in {}", upper.display()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
