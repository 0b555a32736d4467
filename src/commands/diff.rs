//! `rpull diff`: what changed in a writable mount, or from one image or layer to another.

use clap::Args;
use serde_json::json;

use rpull::{
    Difference, DifferenceKind, Error, FileKind, Files, LastLink, LayerSelector, Source, Store,
};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull diff web                      # a writable mount
  rpull diff web | grep '^D'          # only what was deleted
  rpull diff nginx:1.26 nginx:1.27    # with sizes; --stat prints only sums
  rpull diff --layers 1..3 nginx";

/// List what changed in a writable mount, or from one image to another
///
/// One line per file or directory, as `docker diff` prints them: A (added), C (changed) or D (deleted), and the
/// path. Lines are sorted by path. Between images, lines of files have sizes. What both have from the same
/// layers is not read.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Diff {
    /// The name of a writable mount, mounted or not; or the old image
    #[arg(value_name = "NAME|IMAGE")]
    source: String,
    /// The new image, or a writable mount
    #[arg(value_name = "IMAGE|NAME")]
    other: Option<String>,
    /// Compare the layers of the image up to the positions A and B (from the base, which is 1)
    #[arg(long, value_name = "A..B", value_parser = positions, conflicts_with = "other")]
    layers: Option<(usize, usize)>,
    /// Print only the number and the bytes of added, changed and deleted files
    #[arg(long)]
    stat: bool,
}

impl Diff {
    /// Prints one line per change.
    ///
    /// # Errors
    /// There is no such mount or image, or it cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let mut sums = Sums::default();
        let mut each = |found: &Difference, deleted: u64, with_sizes: bool| match self.stat {
            true => {
                sums.add(found, deleted);
                Ok(())
            }
            false => print(context, found, with_sizes),
        };
        match self.two(&store)? {
            Some((old, new)) => new.differences(&old, |found| {
                let deleted = if self.stat { bytes_of_deleted(&old, &found)? } else { 0 };
                each(&found, deleted, true)
            })?,
            None => {
                let Source::Writable(mount) = store.find_source(&self.source)? else {
                    let text =
                        format!("{} is an image: give a second one, or --layers", self.source);
                    return Err(Error::Usage(text));
                };
                let old = if self.stat {
                    Some(store.image(&mount.image_id().to_string())?.files()?)
                } else {
                    None
                };
                store.differences(&mount, |found| {
                    let deleted = match &old {
                        Some(old) => bytes_of_deleted(old, &found).unwrap_or(0),
                        None => 0,
                    };
                    each(&found, deleted, false)
                })?;
            }
        }
        if self.stat { sums.print(context) } else { Ok(()) }
    }

    /// Returns the two sides, if there are two.
    fn two(&self, store: &Store) -> Result<Option<(Files, Files)>, Error> {
        if let Some((old, new)) = self.layers {
            let image = store.image(&self.source)?;
            let at = |position| image.files_at(&LayerSelector::Position(position));
            return Ok(Some((at(old)?, at(new)?)));
        }
        let Some(other) = &self.other else { return Ok(None) };
        Ok(Some((store.files(&self.source)?, store.files(other)?)))
    }
}

fn positions(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| "give two positions, such as 1..3".to_owned())
}

fn letter(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Added => "A",
        DifferenceKind::Changed => "C",
        DifferenceKind::Deleted => "D",
    }
}

fn print(context: &Context, found: &Difference, with_sizes: bool) -> Result<(), Error> {
    let (kind, path) = (letter(found.kind), found.path.display());
    if context.json() {
        return output::json_line(&json!({
            "kind": kind,
            "path": found.path.to_string_lossy(),
            "oldSize": found.old_size,
            "newSize": found.new_size,
        }));
    }
    let size = quantity::human_size;
    match (found.old_size, found.new_size) {
        _ if !with_sizes || context.global.quiet => output::line(format_args!("{kind} {path}")),
        (Some(old), Some(new)) => {
            output::line(format_args!("{kind} {path} ({} -> {})", size(old), size(new)))
        }
        (Some(one), None) | (None, Some(one)) => {
            output::line(format_args!("{kind} {path} ({})", size(one)))
        }
        (None, None) => output::line(format_args!("{kind} {path}")),
    }
}

/// Returns the bytes of the files that a deleted file or directory had.
fn bytes_of_deleted(old: &Files, found: &Difference) -> Result<u64, Error> {
    if found.kind != DifferenceKind::Deleted {
        return Ok(0);
    }
    if old.stat(&found.path, LastLink::Keep)?.kind != FileKind::Directory {
        return Ok(found.old_size.unwrap_or(0));
    }
    let mut bytes = 0;
    old.list(&found.path, true, |file| {
        bytes += if file.kind == FileKind::File { file.size } else { 0 };
        Ok(())
    })?;
    Ok(bytes)
}

/// The number of lines of a kind, and the bytes of their files.
#[derive(Default)]
struct Sum {
    count: u64,
    bytes: u64,
}

#[derive(Default)]
struct Sums {
    added: Sum,
    changed: Sum,
    deleted: Sum,
}

impl Sums {
    fn add(&mut self, found: &Difference, deleted: u64) {
        let new = found.new_size.unwrap_or(0);
        let (sum, bytes) = match found.kind {
            DifferenceKind::Added => (&mut self.added, new),
            DifferenceKind::Changed => (&mut self.changed, new),
            DifferenceKind::Deleted => (&mut self.deleted, deleted),
        };
        sum.count += 1;
        sum.bytes += bytes;
    }

    fn print(&self, context: &Context) -> Result<(), Error> {
        let all = [("added", &self.added), ("changed", &self.changed), ("deleted", &self.deleted)];
        if context.json() {
            let of = |sum: &Sum| json!({ "count": sum.count, "bytes": sum.bytes });
            return output::json_line(&json!({
                "added": of(&self.added),
                "changed": of(&self.changed),
                "deleted": of(&self.deleted),
            }));
        }
        let text = all.map(|(name, sum)| {
            format!("{} {name} ({})", sum.count, quantity::human_size(sum.bytes))
        });
        output::line(text.join(", "))
    }
}
