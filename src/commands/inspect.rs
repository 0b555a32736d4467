//! `rpull inspect`: images in the shape of `docker inspect`.

use clap::Args;

use rpull::Error;

use super::Context;
use crate::cli::format::{self, Format};
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull inspect nginx
  rpull inspect -f '{{.Id}}' nginx
  rpull inspect -f '{{range .RootFS.Layers}}{{println .}}{{end}}' nginx";

/// Show details of images in the form of `docker inspect`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// The images: references or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The same as --format
    #[arg(short = 'f', value_name = "FORMAT", value_parser = Format::parse)]
    short_format: Option<Format>,
}

impl Inspect {
    /// Prints a JSON array, or one line per image by a template.
    ///
    /// # Errors
    /// The first image that is not there.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let one = |image: &String| store.image(image)?.inspect();
        let all = self.images.iter().map(one).collect::<Result<Vec<_>, Error>>()?;
        match self.short_format.as_ref().unwrap_or(&context.global.format) {
            Format::Text | Format::Json | Format::Archive(_) => output::json(&all),
            Format::Table(_) => {
                Err(Error::Usage("inspect prints no table: leave out 'table'".to_owned()))
            }
            Format::Lines(template) => {
                all.iter().try_for_each(|image| output::rendered(&format::render(template, image)?))
            }
        }
    }
}
