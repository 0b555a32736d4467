//! A terminal: rows for what is at work while the pull runs, and a summary when it has ended.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use rpull::Reference;
use rpull::event::{Event, Status};

use super::rows::rows;
use super::state::{ImageStep, State};
use super::{Renderer, output, summary};
use crate::cli::colour::{Colour, Palette};
use crate::cli::output::{Bars, Size};

/// The shortest time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);

/// The longest time between two drawings: the rate falls while nothing arrives.
const LONGEST: Duration = Duration::from_secs(1);

/// Draws rows on standard error.
pub struct Tty {
    /// All rows, as the message of one bar.
    screen: ProgressBar,
    size: Box<dyn Fn() -> Size + Send>,
    palette: Palette,
    state: State,
    started: Instant,
    /// When the rows were drawn, and whether the state changed since then.
    drawn: (Option<Duration>, bool),
    /// Sentences about blobs that were kept, for the summary.
    kept: Vec<String>,
    /// What standard output shows if it is not the terminal.
    lines: Option<Box<dyn Renderer>>,
    /// Other threads print above the rows.
    bars: Option<Bars>,
}

impl Tty {
    /// Draws rows for `images`. `lines` is for a standard output that is not the terminal.
    pub fn new(images: &[Reference], lines: Option<Box<dyn Renderer>>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(20);
        Self::on(target, Box::new(output::terminal_size), output::palette(), images, lines)
    }

    /// Draws rows on `target`, a terminal of `size`.
    pub fn on(
        target: ProgressDrawTarget,
        size: Box<dyn Fn() -> Size + Send>,
        palette: Palette,
        images: &[Reference],
        lines: Option<Box<dyn Renderer>>,
    ) -> Self {
        let style = ProgressStyle::with_template("{msg}");
        let screen = ProgressBar::with_draw_target(None, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let above = screen.clone();
        let bars = Some(output::bars(move |write| above.suspend(write)));
        let (state, started) = (State::new(images), Instant::now());
        let (drawn, kept) = ((None, true), Vec::new());
        Self { screen, size, palette, state, started, drawn, kept, lines, bars }
    }

    /// Draws the rows, unless they were drawn a moment ago.
    fn draw(&mut self) {
        let now = self.started.elapsed();
        let (drawn_at, is_changed) = self.drawn;
        let pause = if is_changed { INTERVAL } else { LONGEST };
        if drawn_at.is_none_or(|at| now >= at + pause) {
            self.redraw();
        }
    }

    /// Draws the rows.
    pub fn redraw(&mut self) {
        let now = self.started.elapsed();
        self.drawn = (Some(now), false);
        let rows = rows(&self.state, (self.size)(), now, self.palette).join("\n");
        // Rows consist of references, digests and words of this program, which need no escaping.
        self.screen.set_message(rows);
    }

    /// Removes the rows, for good.
    pub fn clear(&mut self) {
        self.bars = None;
        self.screen.finish_and_clear();
    }

    /// Prints the summary. The names are for standard output.
    fn summarize(&self) -> io::Result<()> {
        let mut has_pulled = false;
        for kept in &self.kept {
            output::summary(&[(None, kept)]);
        }
        for image in &self.state.images {
            match &image.step {
                ImageStep::Done(digest, status) => {
                    has_pulled = true;
                    output::summary(&[(None, &summary::digest(digest))]);
                    let (words, name) = summary::status(&image.name, *status);
                    let green = (*status == Status::Downloaded).then_some(Colour::Green);
                    let name = format!(" for {name}");
                    output::summary(&[(None, "Status: "), (green, words), (None, &name)]);
                }
                ImageStep::Planned(digest, planned) => {
                    output::summary(&[(None, &summary::digest(digest))]);
                    output::summary(&[(None, "Status: "), (None, planned)]);
                }
                ImageStep::Pushed(digest, size) => {
                    has_pulled = true;
                    let pushed = summary::pushed(&image.name, digest, *size);
                    output::summary(&[(None, &pushed)]);
                    continue;
                }
                ImageStep::Open | ImageStep::Resolving | ImageStep::Pulling | ImageStep::Failed => {
                    continue;
                }
            }
            if self.lines.is_none() {
                output::line(image.name.canonical()).map_err(io::Error::other)?;
            }
        }
        // Without layers, the image was there and no registry was asked for them.
        if has_pulled && !self.state.layers.is_empty() {
            let sums = summary::sums(self.state.pushes, self.state.sums(), self.started.elapsed());
            output::summary(&[(None, &sums)]);
        }
        Ok(())
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.state.apply(event, self.started.elapsed());
        if let Event::Kept { blobs, kept, fetched, bytes, .. } = event {
            self.kept.push(summary::kept(*kept, *blobs, *fetched, *bytes));
        }
        self.drawn.1 = true;
        self.draw();
        self.lines.as_mut().map_or(Ok(()), |lines| lines.event(event))
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn tick(&mut self) {
        self.draw();
    }

    fn finish(&mut self) -> io::Result<()> {
        self.clear();
        let finished = self.lines.as_mut().map_or(Ok(()), |lines| lines.finish());
        finished.and(self.summarize())
    }
}
