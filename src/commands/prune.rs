//! `rpull prune`: remove images that were not used for long.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{ArgGroup, Args};
use serde_json::json;

use rpull::{Error, PrunedImage};

use super::Context;
use crate::cli::output;
use crate::cli::quantity::{human_size, parse_age, parse_size};

const EXAMPLES: &str = "\
Examples:
  rpull prune --dangling
  rpull prune --unused-for 7d --dry-run
  rpull prune --keep-bytes 20GB      # the least recently used images go first";

/// Remove images that were not used for long
///
/// A pull and a mount count as use. Images that a container or a mount uses stay. An image is removed
/// if it matches all options.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["dangling", "unused_for", "keep_bytes"]))]
pub struct Prune {
    /// Remove only images without a tag, as `docker image prune` does; these include images that
    /// were pulled by digest
    #[arg(long)]
    dangling: bool,
    /// Remove only images that were not used for AGE, such as 7d, 12h or 30m
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    unused_for: Option<Duration>,
    /// Remove images until the layers of the others have at most SIZE, such as 20GB or 512MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    keep_bytes: Option<u64>,
    /// Show what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    /// Prints one line per removed image, and the sum of the freed bytes.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let mut prune = rpull::Prune::default();
        prune.dangling = self.dangling;
        prune.unused_for = self.unused_for;
        prune.keep_bytes = self.keep_bytes;
        let store = context.store()?;
        let pruned = match self.dry_run {
            true => store.prunable(&prune)?,
            false => store.removal()?.prune(&prune)?,
        };
        let bytes: u64 = pruned.removed.iter().map(|image| image.bytes).sum();
        if context.json() {
            let image = |image: &PrunedImage| {
                let used = DateTime::<Utc>::from(image.last_used);
                json!({
                    "id": image.id,
                    "names": image.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "lastUsed": used.to_rfc3339_opts(SecondsFormat::Secs, true),
                    "bytes": image.bytes,
                })
            };
            let kept = pruned.kept.iter().map(|(id, why)| json!({"id": id, "why": why}));
            return output::json(&json!({
                "dryRun": self.dry_run,
                "removed": pruned.removed.iter().map(image).collect::<Vec<_>>(),
                "kept": kept.collect::<Vec<_>>(),
                "bytes": bytes,
            }));
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        for image in &pruned.removed {
            let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
            let names = if names.is_empty() { "<none>".to_owned() } else { names.join(", ") };
            let size = human_size(image.bytes);
            output::line(format_args!("{verb} {} {names} ({size})", image.id.short()))?;
        }
        for (id, why) in &pruned.kept {
            output::notice(&format!("kept {}: {why}", id.short()));
        }
        output::line(format_args!("{verb} {}", human_size(bytes)))
    }
}
