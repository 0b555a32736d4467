//! `rpull inspect`: images in the shape of `docker inspect`.

use clap::Args;

use rpull::Error;

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull inspect nginx";

/// Show details of images in the form of `docker inspect`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// The images: references or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Inspect {
    /// Prints a JSON array, with either format.
    ///
    /// # Errors
    /// The first image that is not there.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let one = |image: &String| store.image(image)?.inspect();
        let all = self.images.iter().map(one).collect::<Result<Vec<_>, Error>>()?;
        output::json(&all)
    }
}
