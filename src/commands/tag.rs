//! `rpull tag`: adds a tag to an image.

use clap::Args;
use serde_json::json;

use rpull::{Error, Reference};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull tag nginx registry.example/nginx:pinned
  rpull tag 9c7a54a9a43c app:1.4     # by ID
  rpull tag nginx@sha256:... nginx:good";

/// Add a tag to an image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Tag {
    /// The image: a reference or an ID
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The new reference (without TAG: latest)
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

impl Tag {
    /// Tags the image.
    ///
    /// # Errors
    /// The image is not in the store, or the new reference has a digest.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let target = self.target.parse::<Reference>()?;
        let store = context.store()?;
        store.tag(&self.source, &target)?;
        if !context.json() {
            return Ok(());
        }
        let (target, _) = target.with_default_tag();
        let id = store.image(&target.to_string())?.id();
        output::json_line(&json!({ "reference": target.to_string(), "id": id }))
    }
}
