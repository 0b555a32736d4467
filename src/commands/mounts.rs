//! `rpull mounts`: the mounts of the store.

use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;

use rpull::{Error, MountSummary};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull mounts
  rpull mounts -q                 # only the mount points
  rpull mounts --format json
  rpull mounts rm web db          # remove writable mounts with their changes";

const RM_EXAMPLES: &str = "\
Examples:
  rpull mounts rm web
  rpull mounts rm calm_river quick_otter
  rpull mounts rm --force web     # also if it is mounted";

/// List the mounts of images, and the writable mounts that are not mounted
///
/// A writable mount is stale after it was unmounted, or after a restart of the machine: mount it again
/// with `rpull mount NAME DIR`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Mounts {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Remove writable mounts that are not mounted, with their changes
    #[command(after_help = RM_EXAMPLES)]
    Rm {
        /// The names of the writable mounts
        #[arg(required = true, value_name = "NAME")]
        mount_names: Vec<String>,
        /// Unmount them first, and remove them also if another mount namespace has them mounted
        #[arg(long, short)]
        force: bool,
    },
}

impl Mounts {
    /// Prints one line per mount, then one per writable mount that is not mounted; or removes writable
    /// mounts.
    ///
    /// # Errors
    /// The store cannot be read; or a mount does not exist, is mounted or cannot be removed.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        if let Some(Action::Rm { mount_names, force }) = &self.action {
            for name in mount_names {
                store.remove_mount(name, *force)?;
                match context.json() {
                    true => output::json_line(&json!({"name": name}))?,
                    false => output::line(name)?,
                }
            }
            return Ok(());
        }
        let lines = store.mounts()?;
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
        output::table(&["NAME", "IMAGE", "TARGET", "MODE", "WRITTEN", "CREATED"], &rows)
    }
}

fn row(line: &MountSummary) -> Vec<String> {
    let image = line.image.clone().unwrap_or_else(|| "<none>".to_owned());
    let image = match line.at_layer {
        Some(position) => format!("{image} (layer {position})"),
        None => image,
    };
    let target = match &line.target {
        Some(target) => target.display().to_string(),
        None if line.mounted => "<another namespace>".to_owned(),
        None => "<not mounted>".to_owned(),
    };
    let mode = match (line.mounted, line.writable) {
        (false, _) => "stale",
        (true, true) => "rw",
        (true, false) => "ro",
    };
    let age = |created: &String| quantity::human_age(created, Utc::now());
    vec![
        line.name.clone().unwrap_or_default(),
        image,
        target,
        mode.to_owned(),
        line.written.map(quantity::human_size).unwrap_or_default(),
        line.created.as_ref().map(age).unwrap_or_default(),
    ]
}
