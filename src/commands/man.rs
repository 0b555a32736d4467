//! `rpull man`: writes the manual pages, for packages. It exists only with the feature `man`.

use std::path::PathBuf;

use clap::Args;

use rpull::Error;

use super::Context;
use crate::cli::manual;

/// Write the manual pages to a directory
#[derive(Debug, Args)]
pub struct Man {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    /// Writes one page per command.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn run(&self, _: &Context) -> Result<(), Error> {
        let failed = |e| Error::Other(format!("cannot write to {}: {e}", self.dir.display()));
        manual::write(&self.dir).map_err(failed)
    }
}
