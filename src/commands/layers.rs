//! `rpull layers`: all IDs of each layer, in one table.

use clap::Args;

use rpull::{Error, ImageLayer};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull layers nginx
  rpull layers -q nginx        # the directories only, base layer first
  rpull layers --no-trunc --format json nginx";

/// List the layers of an image with their IDs and directories
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Layers {
    /// The image: a reference or an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Show IDs in full
    #[arg(long)]
    no_trunc: bool,
}

impl Layers {
    /// Prints one line per layer, base first.
    ///
    /// # Errors
    /// The image is not there.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let lines = context.store()?.image(&self.image)?.layers()?;
        if context.json() {
            return output::json(&lines);
        }
        if context.global.quiet {
            return lines.iter().try_for_each(|line| {
                output::exact("the path", output::path_text(line.diff_dir())?)
            });
        }
        let rows: Vec<Vec<String>> = lines.iter().map(|line| self.row(line)).collect();
        output::table(
            &["#", "DISTRIBUTION ID", "DIFF ID", "CHAIN ID", "CACHE ID", "SIZE", "PATH"],
            &rows,
        )
    }

    fn row(&self, line: &ImageLayer) -> Vec<String> {
        let id = |whole: String, short: String| if self.no_trunc { whole } else { short };
        let blob = line.blob().map(|digest| id(digest.to_string(), digest.short()));
        vec![
            line.position().to_string(),
            blob.unwrap_or_else(|| "<none>".to_owned()),
            id(line.diff_id().to_string(), line.diff_id().short()),
            id(line.chain_id().to_string(), line.chain_id().short()),
            id(line.cache_id().to_owned(), line.cache_id().chars().take(12).collect()),
            quantity::human_size(line.size()),
            line.diff_dir().display().to_string(),
        ]
    }
}
