//! `rpull tag`: another name for an image.

use clap::Args;

use rpull::error::Error;
use rpull::reference::Reference;
use rpull::store::Mode;

use super::{Context, waiting};

/// Give an image another name
#[derive(Debug, Args)]
pub struct Tag {
    /// The image: a name or an id
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The new name; `latest` if it has no tag
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

impl Tag {
    /// Names the image.
    ///
    /// # Errors
    /// The image is not there, or the new name has a digest.
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
        Ok(store.images().set_last_updated(&id, &jiff::Timestamp::now().to_string())?)
    }
}
