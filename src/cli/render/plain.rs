//! A line a change, in the words of `docker pull` on a pipe (docker/cli
//! cli/command/image/pull.go, moby distribution/pull_v2.go).

use std::io::{self, Write};

use rpull::Reference;
use rpull::event::{Event, LayerState, PushState};

use super::{Lines, Renderer, summary, words};
use crate::cli::quantity::human_size;

/// Prints Docker's lines.
pub struct Plain<W>(Lines<W>);

impl<W: Write> Plain<W> {
    /// Prints to `out`.
    pub fn new(out: Lines<W>) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let out = &mut self.0;
        match event {
            Event::DefaultTag { image } => {
                out.text(format_args!("Using default tag: {}", image.tag().unwrap_or_default()))?
            }
            Event::Resolving { image } => {
                out.text(format_args!("{}: Pulling from {}", what(image), image.path()))?
            }
            // Docker has no line for the beginning of a download. That requests are repeated is on
            // standard error, once for all layers.
            Event::Layer { state: LayerState::Downloading | LayerState::Reconnecting, .. } => {}
            Event::Layer { layer, state, .. } => {
                out.text(format_args!("{}: {}", layer.short(), words(*state)))?;
            }
            Event::Done { image, digest, status, .. } => {
                out.text(summary::digest(digest))?;
                let (words, name) = summary::status(image, *status);
                out.text(format_args!("Status: {words} for {name}"))?;
                out.text(image.canonical())?;
            }
            Event::Kept { blobs, kept, fetched, bytes, .. } => {
                out.text(summary::kept(*kept, *blobs, *fetched, *bytes))?;
            }
            Event::PushingTo { image } => {
                let repository = image.repository().canonical();
                out.text(format_args!("The push refers to repository [{repository}]"))?;
            }
            // Docker shows this state by a bar only.
            Event::Push { state: PushState::Pushing, .. } => {}
            Event::Push { layer, state, .. } => {
                out.text(format_args!("{}: {}", layer.short(), push_words(state)))?;
            }
            Event::Pushed { image, digest, size } => {
                out.text(summary::pushed(image, digest, *size))?;
            }
            Event::Planned { image, digest, layers, requests, .. } => {
                for (layer, size) in layers {
                    let size = human_size(*size);
                    out.text(format_args!("{}: Would be fetched ({size})", layer.short()))?;
                }
                out.text(summary::digest(digest))?;
                let planned = summary::planned(image, layers, *requests);
                out.text(format_args!("Status: {planned}"))?;
                out.text(image.canonical())?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a layer that is pushed is doing, in the words of `docker push`.
fn push_words(state: &PushState) -> String {
    match state {
        PushState::Preparing => "Preparing".to_owned(),
        PushState::Waiting => "Waiting".to_owned(),
        PushState::Pushing => "Pushing".to_owned(),
        PushState::Pushed => "Pushed".to_owned(),
        PushState::AlreadyExists => "Layer already exists".to_owned(),
        PushState::MountedFrom(from) => format!("Mounted from {from}"),
        _ => "Unknown state".to_owned(),
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
