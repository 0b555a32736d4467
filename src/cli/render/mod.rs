//! What a pull looks like. Renderers are functions of the event stream alone; one thread
//! owns the screen.

mod json;
mod plain;
mod quiet;
mod tty;

use std::io;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use rpull::event::{Event, LayerState};
use rpull::{Digest, Error, Reference};

use super::flags::{Global, Progress};
use super::output::{self, Lines};

/// Shows events.
pub trait Renderer: Send {
    /// Shows one event.
    ///
    /// # Errors
    /// The output cannot be written.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

/// Chooses the renderer that the flags ask for.
pub fn choose(global: &Global) -> Box<dyn Renderer> {
    match global.progress {
        Progress::Json => Box::new(json::Json::new(output::stdout())),
        _ if global.quiet => Box::new(quiet::Quiet::new(output::stdout())),
        Progress::None => Box::new(quiet::Quiet::new(Lines::to(io::sink()))),
        Progress::Tty => Box::new(tty::Tty::new()),
        Progress::Auto if output::on_terminal() => Box::new(tty::Tty::new()),
        Progress::Plain | Progress::Auto => Box::new(plain::Plain::new(output::stdout())),
    }
}

/// Shows all that comes out of `events` on a thread of its own, until the senders are gone. The
/// thread returns the first error of writing, after which the pull goes on unseen.
///
/// # Errors
/// The thread cannot start.
pub fn start(
    mut renderer: Box<dyn Renderer>,
    events: Receiver<Event>,
) -> Result<JoinHandle<io::Result<()>>, Error> {
    let show = move || {
        let mut shown = Ok(());
        for event in events {
            warn(&event);
            if shown.is_ok() {
                shown = renderer.event(&event);
            }
        }
        shown
    };
    thread::Builder::new().name("screen".to_owned()).spawn(show).map_err(Error::Threads)
}

/// What a layer is doing, in Docker's words where Docker has some.
fn words(state: LayerState) -> &'static str {
    match state {
        LayerState::AlreadyExists => "Already exists",
        LayerState::PullingFsLayer => "Pulling fs layer",
        LayerState::Waiting => "Waiting",
        LayerState::Downloading => "Downloading",
        LayerState::Reconnecting => "Reconnecting",
        LayerState::Copying => "Copying from another image",
        LayerState::DownloadComplete => "Download complete",
        LayerState::PullComplete => "Pull complete",
        _ => "Unknown state",
    }
}

/// Returns what a dry run would fetch, in one sentence.
fn planned(image: &Reference, layers: &[(Digest, u64)], requests: usize) -> String {
    let bytes = output::human_size(layers.iter().map(|(_, size)| size).sum());
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let n = layers.len();
    format!(
        "Would fetch {n} layer{} ({bytes}) in {requests} request{} for {image}",
        plural(n),
        plural(requests)
    )
}

/// What the user should know in every mode goes to standard error.
fn warn(event: &Event) {
    let text = match event {
        Event::Warning { image: Some(image), text } => format!("warning: {image}: {text}"),
        Event::Warning { image: None, text } => format!("warning: {text}"),
        Event::Waiting { what } => format!("waiting for {what}"),
        Event::Retrying { transfers: ..=1, attempt, wait, cause, .. } => {
            format!("{cause}; attempt {attempt} in {:.1} s", wait.as_secs_f64())
        }
        Event::Retrying { transfers, cause, .. } => {
            format!("{cause}; retrying {transfers} transfers")
        }
        _ => return,
    };
    output::notice(&text);
}

#[cfg(test)]
mod tests;
