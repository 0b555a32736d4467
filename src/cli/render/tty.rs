//! A terminal: a line a layer with a bar for what is downloaded and unpacked, and a line
//! with the total and the rate.

use std::collections::HashMap;
use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use rpull::Digest;
use rpull::event::{Event, LayerState, Phase, Status};
use rpull::printable;

use super::{Renderer, output, planned, words};
use crate::cli::output::Bars;

/// Layers over this many share the rows: only those at work have one.
const MOST_ROWS: usize = 12;

/// Draws bars on standard error.
pub struct Tty {
    screen: MultiProgress,
    layers: HashMap<Digest, Layer>,
    total: Option<ProgressBar>,
    crowded: bool,
    /// Other threads print above the bars.
    _bars: Bars,
}

struct Layer {
    bar: ProgressBar,
    shown: bool,
    size: u64,
    downloaded: u64,
    /// Whether its size is in the total: a download that was interrupted begins again.
    counted: bool,
}

impl Tty {
    /// An empty screen.
    pub fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(15))
    }

    /// An empty screen on `target`.
    pub fn on(target: ProgressDrawTarget) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        let above = screen.clone();
        let _bars = output::bars(move |write| above.suspend(write));
        Self { screen, layers: HashMap::new(), total: None, crowded: false, _bars }
    }

    fn begin(&mut self, layers: &[(Digest, u64)]) {
        self.crowded |= self.layers.len() + layers.len() > MOST_ROWS;
        for (digest, size) in layers {
            if self.layers.contains_key(digest) {
                continue;
            }
            let bar = ProgressBar::new(*size)
                .with_style(style("{prefix}: {wide_msg}"))
                .with_prefix(digest.short());
            let mut layer = Layer { bar, shown: false, size: *size, downloaded: 0, counted: false };
            if !self.crowded {
                layer.show(&self.screen, self.total.as_ref());
            }
            self.layers.insert(*digest, layer);
        }
    }

    fn layer(&mut self, digest: &Digest, state: LayerState) {
        let Some(layer) = self.layers.get_mut(digest) else { return };
        let at_work = matches!(
            state,
            LayerState::Downloading | LayerState::Reconnecting | LayerState::Copying
        );
        if at_work {
            layer.show(&self.screen, self.total.as_ref());
            layer.bar.set_style(style(
                "{prefix}: {msg:13} [{bar:30}] {binary_bytes:>10}/{binary_total_bytes}",
            ));
        } else {
            layer.bar.set_style(style("{prefix}: {wide_msg}"));
        }
        layer.bar.set_message(words(state));
        let over = matches!(state, LayerState::AlreadyExists | LayerState::PullComplete);
        if over && self.crowded {
            layer.bar.finish_and_clear();
        } else if over {
            layer.bar.abandon();
        }
        if state == LayerState::Downloading && !std::mem::replace(&mut layer.counted, true) {
            self.grow_total(*digest);
        }
    }

    fn grow_total(&mut self, digest: Digest) {
        let size = self.layers.get(&digest).map_or(0, |layer| layer.size);
        let screen = &self.screen;
        let total = self.total.get_or_insert_with(|| {
            let style =
                style("Total: {binary_bytes}/{binary_total_bytes} at {binary_bytes_per_sec}");
            screen.add(ProgressBar::new(0).with_style(style))
        });
        total.inc_length(size);
    }

    fn bytes(&mut self, digest: &Digest, phase: Phase, done: u64) {
        let Some(layer) = self.layers.get_mut(digest) else { return };
        match phase {
            Phase::Download => {
                let new = done.saturating_sub(layer.downloaded);
                layer.downloaded = done;
                if let Some(total) = &self.total {
                    total.inc(new);
                }
                layer.bar.set_position(done);
            }
            // All is here and not yet unpacked: the bar runs once more.
            Phase::Unpack if layer.downloaded >= layer.size => {
                layer.bar.set_message("Extracting");
                layer.bar.set_position(done);
            }
            Phase::Unpack => {}
        }
    }

    /// Prints a line above the bars. Other text that reaches the screen is the program's own:
    /// states of layers and digests.
    fn above(&self, text: &str) -> io::Result<()> {
        self.screen.println(printable::escape(text))
    }

    fn clear_total(&mut self) {
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
    }
}

impl Layer {
    fn show(&mut self, screen: &MultiProgress, above: Option<&ProgressBar>) {
        if !self.shown {
            self.shown = true;
            self.bar = match above {
                Some(total) => screen.insert_before(total, self.bar.clone()),
                None => screen.add(self.bar.clone()),
            };
        }
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::DefaultTag { image } => {
                self.above(&format!("Using default tag: {}", image.tag().unwrap_or_default()))?;
            }
            Event::Resolving { image } => self.above(&format!("Pulling {image}"))?,
            Event::Pulling { layers, .. } => self.begin(layers),
            Event::Layer { layer, state, .. } => self.layer(layer, *state),
            Event::Bytes { layer, phase, done, .. } => self.bytes(layer, *phase, *done),
            Event::Done { image, digest, status, .. } => {
                self.clear_total();
                let status = match status {
                    Status::Downloaded => "Downloaded newer image for",
                    Status::UpToDate => "Image is up to date for",
                };
                self.above(&format!("Digest: {digest}"))?;
                self.above(&format!("Status: {status} {image}"))?;
                self.screen
                    .suspend(|| output::line(image.canonical()).map_err(io::Error::other))?;
            }
            Event::Planned { image, digest, layers, requests, .. } => {
                self.above(&format!("Digest: {digest}"))?;
                self.above(&format!("Status: {}", planned(image, layers, *requests)))?;
                self.screen
                    .suspend(|| output::line(image.canonical()).map_err(io::Error::other))?;
            }
            Event::Failed { .. } => self.clear_total(),
            // These go to standard error for every renderer.
            Event::Retrying { .. } | Event::Waiting { .. } | Event::Warning { .. } => {}
            _ => {}
        }
        Ok(())
    }
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}
