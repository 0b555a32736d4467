//! `rpull history`: the build history of an image.

use chrono::{DateTime, Utc};
use clap::Args;

use rpull::{Error, HistoryEntry, printable};

use super::Context;
use crate::cli::output;

/// The characters of an instruction that docker shows.
const INSTRUCTION: usize = 45;

/// The bytes of a comment that are shown; docker shows all, however long.
const COMMENT: usize = 400;

const EXAMPLES: &str = "\
Examples:
  rpull history nginx
  rpull history --no-trunc nginx";

/// Show the build history of an image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct History {
    /// The image: a reference or an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Show IDs, instructions and comments in full
    #[arg(long)]
    no_trunc: bool,
}

impl History {
    /// Prints one line per instruction, newest first.
    ///
    /// # Errors
    /// The image is not there.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let lines = context.store()?.image(&self.image)?.history()?;
        if context.json() {
            return output::json(&lines);
        }
        let now = Utc::now();
        let rows: Vec<Vec<String>> = lines.iter().map(|line| self.row(line, now)).collect();
        if context.global.quiet {
            return rows.iter().try_for_each(|row| output::line(&row[0]));
        }
        output::table(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)
    }

    fn row(&self, line: &HistoryEntry, now: DateTime<Utc>) -> Vec<String> {
        let id = line.id.map(|id| if self.no_trunc { id.to_string() } else { id.short() });
        let mut by = line.created_by.replace('\t', " ");
        if !self.no_trunc && by.chars().count() > INSTRUCTION {
            by = by.chars().take(INSTRUCTION - 1).chain(['…']).collect();
        }
        let most = if self.no_trunc { usize::MAX } else { COMMENT };
        let comment = printable::shorten(&line.comment, most);
        vec![
            id.unwrap_or_else(|| "<missing>".to_owned()),
            output::human_age(&line.created, now),
            by,
            output::human_size(line.size),
            comment.into_owned(),
        ]
    }
}
