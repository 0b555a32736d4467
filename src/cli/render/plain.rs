//! A line a change, in the words of `docker pull` on a pipe (docker/cli
//! cli/command/image/pull.go, moby distribution/pull_v2.go).

use std::io::{self, Write};

use rpull::progress::{Event, LayerState, Status};
use rpull::reference::Reference;

use super::{Renderer, words};

/// Prints Docker's lines.
pub struct Plain<W>(W);

impl<W: Write> Plain<W> {
    /// Prints to `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let out = &mut self.0;
        match event {
            Event::DefaultTag { image } => {
                writeln!(out, "Using default tag: {}", image.tag().unwrap_or_default())?
            }
            Event::Resolving { image } => {
                writeln!(out, "{}: Pulling from {}", what(image), image.path())?
            }
            Event::Layer { layer, state, .. } => {
                // Docker has no line for the beginning of a download.
                if *state != LayerState::Downloading {
                    writeln!(out, "{}: {}", layer.short(), words(*state))?;
                }
            }
            Event::Done { image, digest, status, .. } => {
                writeln!(out, "Digest: {digest}")?;
                // By tag and digest, the tag was not looked at.
                let shown = image
                    .digest()
                    .map_or_else(|| Reference::clone(image), |d| image.with_digest(d));
                match status {
                    Status::Downloaded => {
                        writeln!(out, "Status: Downloaded newer image for {shown}")?
                    }
                    Status::UpToDate => writeln!(out, "Status: Image is up to date for {shown}")?,
                }
                writeln!(out, "{}", image.canonical())?;
            }
            _ => return Ok(()),
        }
        out.flush()
    }
}

/// The tag, or the whole name if it is by digest.
fn what(image: &Reference) -> String {
    match (image.digest(), image.tag()) {
        (None, Some(tag)) => tag.to_owned(),
        (Some(digest), _) => image.with_digest(digest).canonical(),
        (None, None) => image.canonical(),
    }
}
