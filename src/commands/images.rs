//! `rpull images`: the images in the store.

use chrono::{DateTime, Utc};
use clap::Args;

use rpull::{Error, ImageSummary, Reference};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull images
  rpull images --digests nginx
  rpull images -q";

/// List the images in the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Images {
    /// List only images of this repository, or with this tag
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Add a column with the digests
    #[arg(long)]
    digests: bool,
    /// Show IDs in full
    #[arg(long)]
    no_trunc: bool,
}

impl Images {
    /// Prints one line per reference.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let mut lines = context.store()?.images()?;
        if let Some(name) = &self.name {
            let wanted: Reference = name.parse()?;
            let repository = wanted.repository().to_string();
            lines.retain(|line| {
                line.repository.as_ref() == Some(&repository)
                    && (wanted.tag().is_none() || line.tag.as_deref() == wanted.tag())
                    && (wanted.digest().is_none() || line.digest == wanted.digest())
            });
        }
        if context.json() {
            return output::json(&lines);
        }
        if context.global.quiet {
            return lines.iter().try_for_each(|line| output::line(self.id(line)));
        }
        let now = Utc::now();
        let mut header = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
        let mut rows: Vec<Vec<String>> = lines.iter().map(|line| self.row(line, now)).collect();
        if !self.digests {
            header.remove(2);
            rows.iter_mut().for_each(|row| {
                row.remove(2);
            });
        }
        output::table(&header, &rows)
    }

    fn row(&self, line: &ImageSummary, now: DateTime<Utc>) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "<none>".to_owned());
        vec![
            or_none(line.repository.clone()),
            or_none(line.tag.clone()),
            or_none(line.digest.map(|digest| digest.to_string())),
            self.id(line),
            output::human_age(&line.created, now),
            output::human_size(line.size),
        ]
    }

    fn id(&self, line: &ImageSummary) -> String {
        if self.no_trunc { line.id.to_string() } else { line.id.short() }
    }
}
