//! `rpull gc`: remove what no image needs.

use clap::Args;
use serde_json::json;

use rpull::{Error, Orphan, Orphans};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull gc
  rpull gc --dry-run
  rpull --root /var/lib/docker gc    # while dockerd is stopped
  rpull --content ~/.cache/rpull gc --trim-content";

/// Remove what no image needs: orphaned layers, directories, downloads
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Gc {
    /// Show what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Instead, remove from the directory of --content what no entry of its index.json needs, such as
    /// the layers of tags that moved
    #[arg(long)]
    trim_content: bool,
}

impl Gc {
    /// Prints one line per removed file or directory, and the sum of their sizes.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        if self.trim_content && context.global.content.is_none() {
            let text = "--trim-content needs --content DIR or RPULL_CONTENT";
            return Err(Error::Usage(text.to_owned()));
        }
        let orphans = match self.dry_run {
            dry_run if self.trim_content => {
                Orphans { all: store.trim_content(dry_run)?, ..Orphans::default() }
            }
            true => store.orphans()?,
            false => store.removal()?.remove_orphans()?,
        };
        if let Some(why) = &orphans.layers_kept {
            output::warning(&format!("all layers are kept, because {why}"));
        }
        let bytes: u64 = orphans.all.iter().map(|orphan| orphan.bytes).sum();
        if context.json() {
            return output::json(&json!({
                "dryRun": self.dry_run,
                "removed": orphans.all,
                "bytes": bytes,
                "layersKept": orphans.layers_kept,
            }));
        }
        self.show(context, &orphans, bytes)
    }

    fn show(&self, context: &Context, orphans: &Orphans, bytes: u64) -> Result<(), Error> {
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let line = |orphan: &Orphan| {
            let (kind, path) = (orphan.kind.name(), orphan.path.display());
            output::line(format_args!(
                "{verb} {kind} {path} ({})",
                quantity::human_size(orphan.bytes)
            ))
        };
        if !context.global.quiet {
            orphans.all.iter().try_for_each(line)?;
        }
        output::line(format_args!("{verb} {}", quantity::human_size(bytes)))
    }
}
