//! `rpull images`: the images in the store.

mod filter;
mod pattern;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};

use rpull::{Error, ImageSummary};

use super::Context;
use crate::cli::format::{Rows, created_at};
use crate::cli::quantity;
use filter::{Filter, Filters};

const EXAMPLES: &str = "\
Examples:
  rpull images
  rpull images --digests nginx
  rpull images -q --filter dangling=true
  rpull images --format '{{.ID}} {{.Repository}}:{{.Tag}}'";

/// List the images in the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Images {
    /// List only images of this repository, or with this tag; *, ? and [...] match parts of a name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// List intermediate images of builds, too
    #[arg(long, short)]
    all: bool,
    /// List only images that match: dangling=true|false, label=KEY[=VALUE], reference=PATTERN,
    /// before=IMAGE or since=IMAGE (can be repeated)
    #[arg(long, short, value_name = "FILTER", value_parser = Filter::parse)]
    filter: Vec<Filter>,
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
        let store = context.store()?;
        let mut lines = store.images()?;
        lines.retain(|line| self.all || !line.intermediate);
        let named = self.name.iter().map(|name| Filter::reference(name));
        let filters = named.collect::<Result<Vec<_>, _>>().map_err(Error::Usage)?;
        let filters = Filters::new(filters.into_iter().chain(self.filter.clone()), &store)?;
        let mut rows = Vec::new();
        let now = Utc::now();
        for line in lines {
            if filters.matches(&line, &store)? {
                rows.push(self.row(&line, now));
            }
        }
        let headers = [
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Digest", "DIGEST"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
            ("Created", "CREATED AT"),
            ("SizeBytes", "SIZE"),
        ];
        let table = match self.digests {
            true => "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
            false => "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
        };
        Rows { headers: &headers, table, quiet: "ID", rows }
            .print(&context.global.format, context.global.quiet)
    }

    /// Returns a line in the form of `docker images --format json`, with two keys more.
    fn row(&self, line: &ImageSummary, now: DateTime<Utc>) -> Value {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "<none>".to_owned());
        json!({
            "Repository": or_none(line.repository.clone()),
            "Tag": or_none(line.tag.clone()),
            "Digest": or_none(line.digest.map(|digest| digest.to_string())),
            "ID": if self.no_trunc { line.id.to_string() } else { line.id.short() },
            "CreatedSince": quantity::human_age(&line.created, now),
            "CreatedAt": created_at(&line.created),
            "Size": quantity::human_size(line.size),
            "Created": line.created,
            "SizeBytes": line.size,
        })
    }
}
