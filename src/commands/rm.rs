//! `rpull rm`: remove images.

use clap::Args;
use serde_json::json;

use rpull::error::Error;
use rpull::store::{Mode, Removed};

use super::{Context, waiting};
use crate::cli::output;

/// Remove images
#[derive(Debug, Args)]
pub struct Rm {
    /// The images: names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image by its id although it has several names
    #[arg(long, short)]
    force: bool,
}

impl Rm {
    /// Removes in turn, and says what went, in Docker's words.
    ///
    /// # Errors
    /// The first image that is not there or in use; those before it are gone.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store();
        store.must_exist()?;
        let _lock = store.lock(Mode::Exclusive, &waiting)?;
        for image in &self.images {
            for removed in store.remove(image, self.force)? {
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
    };
    match context.json() {
        true => output::json_line(&json!({ what: name })),
        false => output::line(format_args!("{what}: {name}")),
    }
}
