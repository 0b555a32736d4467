//! `rpull tag`: adds a tag to an image.

use chrono::{SecondsFormat, Utc};
use clap::Args;

use rpull::error::Error;
use rpull::reference::Reference;
use rpull::store::Mode;

use super::{Context, waiting};

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
        if target.digest().is_some() {
            return Err(Error::Usage(format!(
                "'{target}' has a digest: give the new reference a tag only"
            )));
        }
        let store = context.store();
        store.must_exist()?;
        // Held from the look-up on: the image cannot go away before it has its new name.
        let _lock = store.lock(Mode::Shared, &waiting)?;
        let id = store.find(&self.source)?;
        let target = target.with_default_tag().0;
        store.names().update(|names| names.set(&target, id))?;
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        Ok(store.images().set_last_updated(&id, &now)?)
    }
}
