//! One JSON object a line: the stable form for programs, described in
//! docs/progress-json.md. Keys are only ever added.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Value, json};

use rpull::Digest;
use rpull::event::{Event, LayerState, Phase, PushState, Status};

use super::{Lines, Renderer};
use crate::cli::output::LONGEST_ERROR;

/// Prints JSON lines.
pub struct Json<W>(Lines<W>);

impl<W: Write> Json<W> {
    /// Prints to `out`.
    pub fn new(out: Lines<W>) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Json<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match object(event) {
            Some(object) => self.0.json(&object),
            None => Ok(()),
        }
    }
}

/// Returns the object for `event`, unless it is of a kind that the stream does not have.
pub fn object(event: &Event) -> Option<Value> {
    Some(match event {
        Event::DefaultTag { image } => json!({"event": "default-tag", "image": image.canonical()}),
        Event::Resolving { image } => json!({"event": "resolving", "image": image.canonical()}),
        Event::Pulling { image, layers } => {
            json!({"event": "pulling", "image": image.canonical(), "layers": sizes(layers)})
        }
        Event::Layer { image, layer, state } => {
            json!({"event": "layer", "image": image.canonical(), "layer": layer, "state": state_name(*state)})
        }
        Event::Bytes { image, layer, phase, done, total } => json!({
            "event": "bytes", "image": image.canonical(), "layer": layer,
            "phase": match phase { Phase::Download => "download", Phase::Unpack => "unpack", Phase::Upload => "upload" },
            "done": done, "total": total,
        }),
        Event::Resumed { image, layer, bytes } => json!({
            "event": "resumed", "image": image.canonical(), "layer": layer, "bytes": bytes,
        }),
        Event::Retrying { image, layer, host, transfers, attempt, wait, cause } => json!({
            "event": "retrying", "image": image.canonical(), "layer": layer, "host": host,
            "transfers": transfers, "attempt": attempt,
            "wait_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "cause": short(cause),
        }),
        Event::Waiting { what } => json!({"event": "waiting", "what": short(what)}),
        Event::Warning { image, text } => {
            json!({"event": "warning", "image": image.as_ref().map(|image| image.canonical()), "text": short(text)})
        }
        Event::Done { image, digest, id, status } => json!({
            "event": "done", "image": image.canonical(), "digest": digest, "id": id,
            "status": match status { Status::Downloaded => "downloaded", Status::UpToDate => "up-to-date" },
        }),
        Event::Kept { image, blobs, kept, fetched, bytes } => json!({
            "event": "kept", "image": image.canonical(), "blobs": blobs, "kept": kept,
            "fetched": fetched, "bytes": bytes,
        }),
        Event::Planned { image, digest, id, layers, requests } => json!({
            "event": "planned", "image": image.canonical(), "digest": digest, "id": id,
            "layers": sizes(layers),
            "bytes": layers.iter().map(|(_, size)| size).sum::<u64>(), "requests": requests,
        }),
        Event::PushingTo { image } => json!({"event": "pushing-to", "image": image.canonical()}),
        Event::Push { image, layer, state } => {
            let from = match state {
                PushState::MountedFrom(from) => Some(from),
                _ => None,
            };
            json!({
                "event": "push", "image": image.canonical(), "layer": layer,
                "state": push_state_name(state), "from": from.map(|from| short(from)),
            })
        }
        Event::Pushed { image, digest, size } => {
            json!({"event": "pushed", "image": image.canonical(), "digest": digest, "size": size})
        }
        Event::Failed { image, error } => {
            json!({"event": "failed", "image": image.canonical(), "error": short(error)})
        }
        _ => return None,
    })
}

fn sizes(layers: &[(Digest, u64)]) -> Vec<Value> {
    layers.iter().map(|(digest, size)| json!({"digest": digest, "size": size})).collect()
}

/// Prose can hold anything a registry sent, at any length.
fn short(prose: &str) -> Cow<'_, str> {
    rpull::printable::shorten(prose, LONGEST_ERROR)
}

fn push_state_name(state: &PushState) -> &'static str {
    match state {
        PushState::Preparing => "preparing",
        PushState::Waiting => "waiting",
        PushState::Pushing => "pushing",
        PushState::Pushed => "pushed",
        PushState::AlreadyExists => "already-exists",
        PushState::MountedFrom(_) => "mounted",
        _ => "unknown",
    }
}

fn state_name(state: LayerState) -> &'static str {
    match state {
        LayerState::AlreadyExists => "already-exists",
        LayerState::PullingFsLayer => "pulling",
        LayerState::Waiting => "waiting",
        LayerState::Downloading => "downloading",
        LayerState::Reconnecting => "reconnecting",
        LayerState::DownloadComplete => "download-complete",
        LayerState::Copying => "copying",
        LayerState::PullComplete => "complete",
        _ => "unknown",
    }
}
