//! What a pull looks like. Renderers are functions of the event stream alone; one thread
//! owns the screen.

pub mod fit;
mod json;
mod plain;
mod rate;
mod results;
mod rows;
mod state;
mod summary;
mod tty;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rpull::event::{Event, LayerState};
use rpull::{Error, Reference};

use super::flags::Progress;
use super::output::{self, Lines};
use results::{Form, Results};

/// Shows events.
pub trait Renderer: Send {
    /// Shows one event.
    ///
    /// # Errors
    /// The output cannot be written.
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// The time without an event after which [`tick`](Self::tick) is called; `None` for never.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Shows what changes with time.
    fn tick(&mut self) {}

    /// Shows what is left to show after the last event.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Chooses the renderer that the flags ask for. `images` are the arguments of the command.
pub fn choose(
    progress: Progress,
    quiet: bool,
    json: bool,
    images: &[Reference],
) -> Box<dyn Renderer> {
    let images: Vec<_> = images.iter().map(|image| image.clone().with_default_tag().0).collect();
    let plain = || -> Box<dyn Renderer> { Box::new(plain::Plain::new(output::stdout())) };
    let results =
        |form| -> Box<dyn Renderer> { Box::new(Results::new(output::stdout(), form, &images)) };
    let draws = output::can_draw()
        && match progress {
            Progress::Tty => true,
            Progress::Auto => !output::is_piped(),
            _ => false,
        };
    // Standard output has the same lines with and without bars, unless it shows them itself.
    let bars = |lines: Option<Box<dyn Renderer>>| Box::new(tty::Tty::new(&images, lines));
    match progress {
        Progress::Json => Box::new(json::Json::new(output::stdout())),
        // On one terminal, bars would stand between the objects.
        _ if json && (quiet || !draws || output::is_terminal()) => results(Form::Json),
        _ if json => bars(Some(results(Form::Json))),
        _ if quiet => results(Form::Name),
        Progress::None => Box::new(Results::new(Lines::to(io::sink()), Form::Name, &images)),
        _ if draws => bars((!output::is_terminal()).then(plain)),
        _ => plain(),
    }
}

/// Returns the renderer of a pull whose command prints something else on standard output: bars on a
/// terminal, or nothing.
pub fn beside_output(quiet: bool, images: &[Reference]) -> Box<dyn Renderer> {
    match output::can_draw() && !quiet {
        true => Box::new(tty::Tty::new(images, None)),
        false => Box::new(Results::new(Lines::to(io::sink()), Form::Name, images)),
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
        loop {
            let event = match renderer.interval() {
                Some(interval) => events.recv_timeout(interval),
                None => events.recv().map_err(RecvTimeoutError::from),
            };
            match event {
                Ok(event) => {
                    warn(&event);
                    if shown.is_ok() {
                        shown = renderer.event(&event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => renderer.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let finished = renderer.finish();
        shown.and(finished)
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

/// What the user should know in every mode goes to standard error.
fn warn(event: &Event) {
    match event {
        Event::Warning { image: Some(image), text } => output::warning(&format!("{image}: {text}")),
        Event::Warning { image: None, text } => output::warning(text),
        Event::Waiting { what } => output::notice(&format!("waiting for {what}")),
        Event::Retrying { transfers: ..=1, attempt, wait, cause, .. } => {
            output::notice(&format!("{cause}; attempt {attempt} in {:.1} s", wait.as_secs_f64()));
        }
        Event::Retrying { transfers, cause, .. } => {
            output::notice(&format!("{cause}; retrying {transfers} transfers"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod screens;
#[cfg(test)]
mod tests;
