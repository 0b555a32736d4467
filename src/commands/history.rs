//! `rpull history`: the build history of an image.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde_json::{Value, json};

use rpull::{Error, HistoryEntry, printable};

use super::Context;
use crate::cli::format::Rows;
use crate::cli::quantity;

/// The characters of an instruction that docker shows.
const INSTRUCTION: usize = 45;

/// The bytes of a comment that are shown; docker shows all, however long.
const COMMENT: usize = 400;

const EXAMPLES: &str = "\
Examples:
  rpull history nginx
  rpull history --no-trunc nginx
  rpull history --format '{{.Size}}\\t{{.CreatedBy}}' nginx";

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
        let now = Utc::now();
        let headers = [
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
            ("SizeBytes", "SIZE"),
        ];
        let rows = lines.iter().map(|line| self.row(line, now)).collect();
        let table = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
        Rows { headers: &headers, table, quiet: "ID", rows }
            .print(&context.global.format, context.global.quiet)
    }

    /// Returns a line in the form of `docker history --format json`, with one key more.
    fn row(&self, line: &HistoryEntry, now: DateTime<Utc>) -> Value {
        let id = line.id.map(|id| if self.no_trunc { id.to_string() } else { id.short() });
        let mut by = line.created_by.replace('\t', " ");
        if !self.no_trunc && by.chars().count() > INSTRUCTION {
            by = by.chars().take(INSTRUCTION - 1).chain(['…']).collect();
        }
        let most = if self.no_trunc { usize::MAX } else { COMMENT };
        let created = line.created.parse::<DateTime<Utc>>();
        json!({
            "ID": id.unwrap_or_else(|| "<missing>".to_owned()),
            "CreatedSince": quantity::human_age(&line.created, now),
            "CreatedAt": created.map_or_else(
                |_| "N/A".to_owned(),
                |created| created.to_rfc3339_opts(SecondsFormat::Secs, true),
            ),
            "CreatedBy": by,
            "Size": quantity::human_size(line.size),
            "Comment": printable::shorten(&line.comment, most),
            "SizeBytes": line.size,
        })
    }
}
