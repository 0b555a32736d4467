//! `rpull tag`: adds a tag to an image.

use clap::Args;

use rpull::{Error, Reference};

use super::Context;

const EXAMPLES: &str = "\
Examples:
  rpull tag nginx registry.example/nginx:pinned";

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
        let target: Reference = self.target.parse()?;
        context.store()?.tag(&self.source, &target)
    }
}
