//! `rpull rm`: remove images.

use clap::Args;
use serde_json::json;

use rpull::{Error, Removed};

use super::Context;
use super::signals::Interruption;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull rm nginx:1.27
  rpull rm nginx:1.27 debian:12
  rpull rm --force 9c7a54a9a43c      # by ID, with all its tags";

/// Remove images from the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Rm {
    /// The images: references or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image by ID even if it has several tags
    #[arg(long, short)]
    force: bool,
}

impl Rm {
    /// Removes the images in order, and prints what was removed as `docker rmi` does.
    ///
    /// # Errors
    /// The first image that is missing or in use, or an interruption; images before it are removed.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let interruption = Interruption::watch()?;
        let removal = context.store()?.removal()?;
        for image in &self.images {
            interruption.check()?;
            for removed in removal.remove(image, self.force)? {
                show(context, &removed)?;
            }
        }
        Ok(())
    }
}

fn show(context: &Context, removed: &Removed) -> Result<(), Error> {
    let (what, name) = match removed {
        Removed::Untagged(name) => ("Untagged", name.to_string()),
        Removed::Image(id) => ("Deleted", id.to_string()),
        Removed::Layer(chain) => ("Deleted", chain.to_string()),
        _ => return Ok(()),
    };
    match context.json() {
        true => output::json_line(&json!({ what: name })),
        false => output::line(format_args!("{what}: {name}")),
    }
}
