//! The rows that a terminal shows during a pull: a function of the state, the size and the time.
//!
//! Layers at work have one row each. The others are counted in one row, and the last row is the
//! total of all images. Where columns are missing, the bar is left out first.

use std::time::Duration;

use super::fit;
use super::rate::remaining;
use super::state::{Image, ImageStep, Layer, State, Step, Total};
use crate::cli::colour::{Colour, Palette};
use crate::cli::output::Size;
use crate::cli::quantity::human_size;

/// The columns of a digest's short form.
const ID: usize = 12;

/// The columns of the longest word for a step.
const WORD: usize = 12;

/// The columns of a number of bytes and their total.
const BYTES: usize = 13;

/// The columns of the total's percent, rate and remaining time, each with a space.
const TOTAL_TAIL: usize = 5 + 9 + 10;

/// The columns of the narrowest bar that tells something, and of the widest one.
const BAR: std::ops::RangeInclusive<usize> = 10..=40;

/// The columns of a name in each row, at least, and at most on a terminal of 80.
const NAME: std::ops::RangeInclusive<usize> = 8..=20;

/// Returns the rows for `state` at `now`: fewer than the terminal has lines, none wider than it.
pub fn rows(state: &State, size: Size, now: Duration, palette: Palette) -> Vec<String> {
    let most = size.lines.saturating_sub(1);
    let active: Vec<&Layer> = state.needed().filter(|layer| is_active(layer)).collect();
    let total = state.total();
    let layout = Layout::new(state, size.columns);
    let resolving = state.images.iter().filter(|image| image.step == ImageStep::Resolving);
    let resolving = resolving.map(|image| layout.resolving(image));
    let mut all: Vec<String> =
        active.iter().map(|layer| layout.layer(state, layer, palette)).collect();
    all.extend(resolving);
    let shown = all.len().min(most.saturating_sub(2));
    let hidden = all.len() - shown;
    all.truncate(shown);
    all.extend(folded(state, hidden, size.columns, palette));
    all.extend(total.map(|total| layout.total(state, total, now)));
    let surplus = all.len().saturating_sub(most);
    all.split_off(surplus)
}

fn is_active(layer: &Layer) -> bool {
    !matches!(layer.step(), Step::Unplanned | Step::Waiting | Step::Done)
}

/// Counts what has no row.
fn folded(state: &State, hidden: usize, columns: usize, palette: Palette) -> Option<String> {
    let layers = |step: Step| state.needed().filter(|layer| layer.step() == step).count();
    let images =
        |is: fn(&ImageStep) -> bool| state.images.iter().filter(|image| is(&image.step)).count();
    let (done, waiting) = (layers(Step::Done), layers(Step::Waiting));
    let complete = images(|step| {
        matches!(step, ImageStep::Done(..) | ImageStep::Planned(..) | ImageStep::Pushed(..))
    });
    let failed = images(|step| *step == ImageStep::Failed);
    let several = state.images.len() > 1;
    let plural = if done == 1 { "" } else { "s" };
    let parts = [
        (several && complete > 0, Some(Colour::Green), {
            format!("{complete} of {} images done", state.images.len())
        }),
        (several && failed > 0, Some(Colour::Red), format!("{failed} failed")),
        (done > 0, Some(Colour::Green), format!("{done} layer{plural} done")),
        (hidden > 0, None, format!("{hidden} more at work")),
        (waiting > 0, None, format!("{waiting} waiting")),
    ];
    let mut line = String::new();
    let mut left = columns;
    for (_, colour, text) in parts.into_iter().filter(|(is_shown, ..)| *is_shown) {
        let separator = if line.is_empty() { "" } else { ", " };
        let Some(rest) = left.checked_sub(separator.len() + text.len()) else { break };
        left = rest;
        line = format!("{line}{separator}{}", palette.paint(colour, &text));
    }
    (!line.is_empty()).then_some(line)
}

/// The columns of all rows.
struct Layout {
    columns: usize,
    /// The columns of the image's name; 0 if there is one image.
    name: usize,
    numbers: Numbers,
    /// The columns of the bar of a layer; 0 for none.
    bar: usize,
    /// The columns of the bar of the total; 0 for none.
    total_bar: usize,
}

/// How a layer's progress is written.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    Bytes,
    Percent,
    None,
}

impl Layout {
    fn new(state: &State, columns: usize) -> Self {
        let several = state.images.len() > 1;
        let name_least = if several { *NAME.start() + 1 } else { 0 };
        // Each further column has a space before it.
        let rest = columns.saturating_sub(ID + 1 + WORD);
        let (numbers, numbers_width) = match () {
            () if rest > BYTES + name_least => (Numbers::Bytes, BYTES + 1),
            () if rest >= 5 + name_least => (Numbers::Percent, 5),
            () => (Numbers::None, 0),
        };
        let rest = rest.saturating_sub(numbers_width);
        // A wide terminal has room for longer names.
        let most = rest.saturating_sub(1).min((*NAME.end()).max(columns / 3));
        let names = state.images.iter().filter(|_| several).map(|image| image.name.to_string());
        let name = names.map(|name| fit::width(&fit::name(&name, most))).max().unwrap_or(0);
        let name_width = if name > 0 { name + 1 } else { 0 };
        let fitting = |left: usize| match left.saturating_sub(1) {
            left if left >= *BAR.start() => left.min(*BAR.end()),
            _ => 0,
        };
        let bar = fitting(rest.saturating_sub(name_width));
        let total_bar = fitting(rest.saturating_sub(name_width + TOTAL_TAIL)).min(bar);
        // Bars of one length can be compared.
        let bar = if total_bar > 0 { total_bar } else { bar };
        Self { columns, name, numbers, bar, total_bar }
    }

    /// The row of an image whose manifest is not known yet.
    fn resolving(&self, image: &Image) -> String {
        let word = "Resolving ";
        let name = fit::name(&image.name.to_string(), self.columns.saturating_sub(word.len()));
        fit::end(&format!("{word}{name}"), self.columns)
    }

    /// The row of a layer.
    fn layer(&self, state: &State, layer: &Layer, palette: Palette) -> String {
        let (word, colour, done) = match layer.step() {
            Step::Reconnecting => ("Reconnecting", Some(Colour::Yellow), Some(layer.downloaded)),
            Step::Downloading | Step::Extracting if state.pushes => {
                ("Pushing", None, Some(layer.downloaded))
            }
            Step::Downloading => ("Downloading", None, Some(layer.downloaded)),
            Step::Extracting => ("Extracting", None, Some(layer.unpacked)),
            Step::Copying => ("Copying", None, None),
            Step::Unplanned | Step::Waiting | Step::Done => ("", None, None),
        };
        let mut row = String::new();
        if self.name > 0 {
            let name = owner(state, layer, self.name);
            row = format!("{name:0$} ", self.name);
        }
        row.push_str(&layer.digest.short());
        row.push(' ');
        let narrow = self.columns < fit::width(&row) + WORD;
        if narrow || done.is_none() {
            return fit::end(&(row + word), self.columns);
        }
        let done = done.unwrap_or_default();
        let padding = WORD - word.len();
        row = format!("{row}{}{:padding$}", palette.paint(colour, word), "");
        if self.bar > 0 {
            row = format!("{row} {}", bar(done, layer.size, self.bar));
        }
        match self.numbers {
            Numbers::Bytes => format!("{row} {:>BYTES$}", of_bytes(done, layer.size)),
            Numbers::Percent => format!("{row} {:>3}%", percent(done, layer.size)),
            Numbers::None => row.trim_end().to_owned(),
        }
    }

    /// The row of all downloads.
    fn total(&self, state: &State, total: Total, now: Duration) -> String {
        let rate = state.rate.per_second(now);
        let mut parts = Vec::new();
        match total.size {
            Some(size) => {
                parts.push(format!("{:>BYTES$}", of_bytes(total.done, size)));
                parts.push(format!("{:>3}%", percent(total.done, size)));
            }
            None => parts.push(format!("{:>BYTES$}", human_size(total.done))),
        }
        parts.extend(rate.map(|rate| format!("{}/s", human_size(rate))));
        let left = total.size.map(|size| size.saturating_sub(total.done)).filter(|left| *left > 0);
        let left = left.zip(rate).and_then(|(left, rate)| remaining(left, rate));
        parts.extend(left.map(|left| format!("ETA {left}")));
        let before = ID + 1 + WORD + if self.name > 0 { self.name + 1 } else { 0 };
        let mut label = format!("{:before$}", "Total");
        if let Some(size) = total.size.filter(|_| self.total_bar > 0) {
            label = format!("{label} {}", bar(total.done, size, self.total_bar));
        }
        let tail = parts.join(" ");
        let short = parts.iter().map(|part| part.trim_start()).collect::<Vec<_>>().join(" ");
        let forms = [format!("{label} {tail}"), format!("Total {short}"), short];
        let fits = |form: &&String| fit::width(form) <= self.columns;
        let form = forms.iter().find(fits).unwrap_or(&forms[2]);
        fit::end(form, self.columns)
    }
}

/// The name of the image that needs a layer, and the number of others that need it too.
fn owner(state: &State, layer: &Layer, columns: usize) -> String {
    let images = layer.images.iter().map(|place| &state.images[*place]);
    let mut names = images.filter(|image| image.step != ImageStep::Failed).map(|image| &image.name);
    let first = names.next().map(ToString::to_string).unwrap_or_default();
    match names.count() {
        0 => fit::name(&first, columns),
        others => {
            let others = format!(" +{others}");
            fit::name(&first, columns.saturating_sub(others.len())) + &others
        }
    }
}

fn of_bytes(done: u64, size: u64) -> String {
    format!("{}/{}", human_size(done.min(size)), human_size(size))
}

fn percent(done: u64, size: u64) -> u64 {
    part(done, size, 100)
}

/// Returns the part of `whole` that corresponds to `done` of `size`.
fn part(done: u64, size: u64, whole: u64) -> u64 {
    let part = u128::from(done.min(size)) * u128::from(whole);
    part.checked_div(u128::from(size)).map_or(whole, |part| u64::try_from(part).unwrap_or(whole))
}

/// A bar of `columns`.
fn bar(done: u64, size: u64, columns: usize) -> String {
    let inner = columns.saturating_sub(2);
    let filled = usize::try_from(part(done, size, inner as u64)).unwrap_or(inner);
    let mut line = "=".repeat(filled);
    if (1..inner).contains(&filled) {
        line.pop();
        line.push('>');
    }
    format!("[{line:inner$}]")
}
