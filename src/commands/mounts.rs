//! `rpull mounts`: the mounts of the store.

use clap::Args;

use rpull::{Error, MountSummary};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull mounts
  rpull mounts -q                 # only the mount points
  rpull mounts --format json";

/// List the mounts of images, and changes that writable mounts left
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Mounts {}

impl Mounts {
    /// Prints one line per mount, then one per directory of changes that is not mounted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let lines = context.store()?.mounts()?;
        if context.json() {
            let paths = lines.iter().flat_map(|line| [&line.target, &line.upper]);
            paths.flatten().try_for_each(|path| output::path_text(path).map(drop))?;
            return output::json(&lines);
        }
        if context.global.quiet {
            let targets = lines.iter().filter_map(|line| line.target.as_deref());
            return targets
                .map(output::path_text)
                .try_for_each(|path| output::exact("the mount point", path?));
        }
        let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
        output::table(&["TARGET", "IMAGE", "MODE", "CHANGES"], &rows)
    }
}

fn row(line: &MountSummary) -> Vec<String> {
    let path = |path: &Option<std::path::PathBuf>, none: &str| {
        path.as_ref().map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    vec![
        path(&line.target, "<not mounted>"),
        line.image.clone().unwrap_or_else(|| "<none>".to_owned()),
        if line.writable { "rw" } else { "ro" }.to_owned(),
        path(&line.upper, ""),
    ]
}
