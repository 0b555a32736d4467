//! `rpull diff`: what changed in a writable mount.

use clap::Args;
use serde_json::json;

use rpull::{DifferenceKind, Error, Source};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull diff web
  rpull diff web | grep '^D'          # only what was deleted
  rpull diff --format json web";

/// List what changed in a writable mount
///
/// One line per file or directory, as `docker diff` prints them: A (added), C (changed) or D (deleted), and the
/// path. Lines are sorted by path.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Diff {
    /// The name of a writable mount, mounted or not
    #[arg(value_name = "NAME")]
    mount_name: String,
}

impl Diff {
    /// Prints one line per change.
    ///
    /// # Errors
    /// There is no such mount, or it cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let mount = match store.find_source(&self.mount_name)? {
            Source::Writable(mount) => mount,
            _ => {
                let name = &self.mount_name;
                return Err(Error::Usage(format!("{name} is an image: give a writable mount")));
            }
        };
        store.differences(&mount, |found| {
            let kind = match found.kind {
                DifferenceKind::Added => "A",
                DifferenceKind::Changed => "C",
                DifferenceKind::Deleted => "D",
            };
            match context.json() {
                true => {
                    output::json_line(&json!({"kind": kind, "path": found.path.to_string_lossy()}))
                }
                false => output::line(format_args!("{kind} {}", found.path.display())),
            }
        })
    }
}
