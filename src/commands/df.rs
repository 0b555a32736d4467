//! `rpull df`: the space that a store takes.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde_json::{Value, json};

use rpull::{Error, ImageSummary, ImageUsage, OrphanKind, Usage};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull df
  rpull df --images
  rpull df --format json             # in the form of Docker's GET /system/df";

/// Show the space that images, layers and orphans take
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Df {
    /// List each image with its shared and unique size
    #[arg(long)]
    images: bool,
}

/// Number and bytes of the orphans of one kind.
type Kinds = BTreeMap<OrphanKind, (usize, u64)>;

impl Df {
    /// Prints one line per kind of object.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let usage = context.store()?.usage()?;
        let mut kinds = Kinds::new();
        for orphan in &usage.orphans.all {
            let (count, bytes) = kinds.entry(orphan.kind).or_default();
            *count += 1;
            *bytes += orphan.bytes;
        }
        if context.json() {
            return output::json(&as_json(&usage, &kinds));
        }
        if self.images {
            images(&usage)?;
            output::line("")?;
        }
        summary(&usage, &kinds)
    }
}

fn summary(usage: &Usage, kinds: &Kinds) -> Result<(), Error> {
    let active = usage.images.iter().filter(|image| image.containers > 0).count();
    let size = quantity::human_size;
    let (of, all) = (usage.layers_reclaimable, usage.layers_size);
    let percent = (of * 100).checked_div(all).map(|percent| format!(" ({percent}%)"));
    let mut rows = vec![vec![
        "Images".to_owned(),
        usage.images.len().to_string(),
        active.to_string(),
        size(all),
        format!("{}{}", size(of), percent.unwrap_or_default()),
    ]];
    rows.push(vec![
        "Layers".to_owned(),
        usage.layer_count.to_string(),
        (usage.layer_count - usage.orphans.layers.len().min(usage.layer_count)).to_string(),
        size(all),
        size(kinds.get(&OrphanKind::Layer).map_or(0, |(_, bytes)| *bytes)),
    ]);
    let others = kinds.iter().filter(|(kind, _)| **kind != OrphanKind::Layer);
    rows.extend(others.map(|(kind, (count, bytes))| {
        let name = format!("Orphans: {}", kind.name());
        vec![name, count.to_string(), "0".to_owned(), size(*bytes), size(*bytes)]
    }));
    output::table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &rows)
}

fn images(usage: &Usage) -> Result<(), Error> {
    let now = Utc::now();
    let row = |image: &ImageUsage, name: Option<&ImageSummary>| {
        let or_none = |text: Option<&String>| text.cloned().unwrap_or_else(|| "<none>".to_owned());
        vec![
            or_none(name.and_then(|name| name.repository.as_ref())),
            or_none(name.and_then(|name| name.tag.as_ref())),
            image.id.short(),
            quantity::human_size(image.size),
            quantity::human_size(image.shared),
            quantity::human_size(image.unique()),
            image.containers.to_string(),
            quantity::human_age(&time(image), now),
        ]
    };
    let rows = usage.images.iter().flat_map(|image| match image.lines.as_slice() {
        [] => vec![row(image, None)],
        lines => lines.iter().map(|line| row(image, Some(line))).collect(),
    });
    let header = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
        "LAST USED",
    ];
    output::table(&header, &rows.collect::<Vec<_>>())
}

fn time(image: &ImageUsage) -> String {
    DateTime::<Utc>::from(image.last_used).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns the usage in the form of Docker's `GET /system/df` (moby api/types `DiskUsage`), with more
/// keys.
fn as_json(usage: &Usage, kinds: &Kinds) -> Value {
    let image = |image: &ImageUsage| {
        let name = |line: &ImageSummary| line.repository.clone();
        let tags =
            image.lines.iter().filter_map(|it| Some(format!("{}:{}", name(it)?, it.tag.as_ref()?)));
        let digests =
            image.lines.iter().filter_map(|it| Some(format!("{}@{}", name(it)?, it.digest?)));
        let created =
            image.lines.first().and_then(|line| line.created.parse::<DateTime<Utc>>().ok());
        json!({
            "Id": image.id,
            "RepoTags": tags.collect::<Vec<_>>(),
            "RepoDigests": digests.collect::<Vec<_>>(),
            "Created": created.map_or(0, |created| created.timestamp()),
            "Size": image.size,
            "SharedSize": image.shared,
            "UniqueSize": image.unique(),
            "VirtualSize": image.size,
            "Containers": image.containers,
            "LastUsed": time(image),
        })
    };
    let orphans: Vec<Value> = kinds
        .iter()
        .map(|(kind, (count, bytes))| json!({"Kind": kind, "Count": count, "Size": bytes}))
        .collect();
    json!({
        "LayersSize": usage.layers_size,
        "LayersCount": usage.layer_count,
        "Images": usage.images.iter().map(image).collect::<Vec<_>>(),
        "Orphans": orphans,
        "Reclaimable": {
            "Images": usage.layers_reclaimable,
            "Orphans": kinds.values().map(|(_, bytes)| bytes).sum::<u64>(),
        },
    })
}
