//! Golden renderings of the rows, and what stays of them on a terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{InMemoryTerm, ProgressDrawTarget};

use rpull::event::{Event, ImageRef, LayerState, Phase, Status};
use rpull::{Digest, ImageId, Reference};

use super::rows::rows;
use super::state::State;
use super::tty::Tty;
use super::{Renderer, fit};
use crate::cli::colour::Palette;
use crate::cli::output::Size;

/// A state at a time, made by events.
struct Script {
    state: State,
    events: Vec<Event>,
    now: Duration,
}

fn digest(layer: usize) -> Digest {
    Digest::of(format!("layer {layer}").as_bytes())
}

/// Sizes that differ, from 1 MB.
fn size(layer: usize) -> u64 {
    1_000_000 + 1_234_567 * layer as u64
}

fn image(name: &str) -> ImageRef {
    Arc::new(name.parse().unwrap())
}

impl Script {
    fn new(names: &[&str]) -> Self {
        let images: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        Self { state: State::new(&images), events: Vec::new(), now: Duration::ZERO }
    }

    fn event(&mut self, event: Event) {
        self.state.apply(&event, self.now);
        self.events.push(event);
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn pulling(&mut self, name: &str, layers: impl Iterator<Item = usize>) {
        self.event(Event::Resolving { image: image(name) });
        let layers = layers.map(|layer| (digest(layer), size(layer))).collect();
        self.event(Event::Pulling { image: image(name), layers });
    }

    fn is(&mut self, layers: impl IntoIterator<Item = usize>, state: LayerState) {
        for layer in layers {
            self.event(Event::Layer { image: image("nginx"), layer: digest(layer), state });
        }
    }

    fn bytes(&mut self, layer: usize, phase: Phase, done: u64) {
        let (image, total) = (image("nginx"), size(layer));
        self.event(Event::Bytes { image, layer: digest(layer), phase, done, total });
    }

    fn downloaded(&mut self, layer: usize, percent: u64) {
        self.bytes(layer, Phase::Download, size(layer) * percent / 100);
    }

    fn done(&mut self, name: &str) {
        self.event(Event::Done {
            image: image(name),
            digest: Digest::of(b"manifest"),
            id: ImageId(Digest::of(b"config")),
            status: Status::Downloaded,
        });
    }

    fn failed(&mut self, name: &str) {
        self.event(Event::Failed { image: image(name), error: "refused".to_owned() });
    }

    fn rows(&self, columns: usize, lines: usize) -> Vec<String> {
        let rows = rows(&self.state, Size { columns, lines }, self.now, Palette::PLAIN);
        assert!(rows.len() < lines, "{rows:?}");
        for row in &rows {
            assert!(fit::width(row) <= columns, "{} columns: {row}", fit::width(row));
            assert!(!row.contains("inf") && !row.contains("NaN"), "{row}");
        }
        rows
    }

    /// The rows on terminals of 40, 80 and 200 columns.
    fn screens(&self) -> String {
        let mut page = String::new();
        for columns in [40, 80, 200] {
            writeln!(page, "{columns:-<columns$}").unwrap();
            for row in self.rows(columns, 24) {
                writeln!(page, "{}", row.trim_end()).unwrap();
            }
        }
        // Any other size is kept, too.
        for columns in 0..210 {
            for lines in 1..12 {
                self.rows(columns, lines);
            }
        }
        page
    }
}

/// `nginx`, whose layers are known.
fn planned(layers: usize) -> Script {
    let mut script = Script::new(&["nginx"]);
    script.pulling("nginx", 0..layers);
    script.is(0..layers, LayerState::PullingFsLayer);
    script
}

fn one_layer() -> Script {
    let mut script = planned(1);
    script.is([0], LayerState::Downloading);
    for percent in [10, 20, 30, 40, 50] {
        script.wait(200);
        script.downloaded(0, percent);
    }
    script
}

fn five_layers() -> Script {
    let mut script = planned(5);
    script.is([0], LayerState::AlreadyExists);
    script.is([1, 2, 3], LayerState::Downloading);
    script.is([4], LayerState::Waiting);
    for percent in [25, 50, 75, 100] {
        script.wait(250);
        script.downloaded(1, percent);
        script.downloaded(2, percent);
        script.downloaded(3, percent / 3);
    }
    script.is([1], LayerState::DownloadComplete);
    script.bytes(2, Phase::Unpack, size(2) / 2);
    script
}

fn many_layers() -> Script {
    let mut script = planned(61);
    script.is(0..20, LayerState::AlreadyExists);
    script.is(20..61, LayerState::Waiting);
    script.is([20], LayerState::Copying);
    script.is(21..28, LayerState::Downloading);
    for percent in (10..=70).step_by(10) {
        script.wait(400);
        (21..28).for_each(|layer| script.downloaded(layer, (percent * layer as u64 / 18).min(100)));
    }
    script.is([27], LayerState::DownloadComplete);
    script.bytes(25, Phase::Unpack, size(25) / 3);
    script
}

/// Three images: one done, one that shares a layer with the third, one with a long name.
fn three_images() -> Script {
    let long = "registry.example.com:5000/some/team/with/a/long/name/service:2026-11-21";
    let mut script = Script::new(&["nginx:1.27", long, "debian"]);
    script.pulling("nginx:1.27", 0..1);
    script.is([0], LayerState::AlreadyExists);
    script.done("nginx:1.27");
    script.pulling(long, 1..4);
    script.pulling("debian", 3..6);
    script.is(1..6, LayerState::PullingFsLayer);
    script.is([1, 3, 4], LayerState::Downloading);
    for percent in [20, 40, 60] {
        script.wait(300);
        [1, 3, 4].into_iter().for_each(|layer| script.downloaded(layer, percent));
    }
    script
}

#[test]
fn rows_of_one_layer() {
    insta::assert_snapshot!("one_layer", one_layer().screens());
}

#[test]
fn rows_of_five_layers() {
    insta::assert_snapshot!("five_layers", five_layers().screens());
}

#[test]
fn rows_of_61_layers() {
    insta::assert_snapshot!("61_layers", many_layers().screens());
}

#[test]
fn rows_of_three_images() {
    insta::assert_snapshot!("three_images", three_images().screens());
}

#[test]
fn rows_of_slow_downloads() {
    let mut one = one_layer();
    one.wait(30_000);
    let mut many = many_layers();
    many.wait(4000);
    many.downloaded(26, 100);
    many.wait(2000);
    insta::assert_snapshot!("slow", one.screens() + &many.screens());
}

#[test]
fn rows_of_failing_downloads() {
    let mut five = five_layers();
    five.is([3], LayerState::Reconnecting);
    let mut three = three_images();
    three.is([3], LayerState::Reconnecting);
    three.failed("registry.example.com:5000/some/team/with/a/long/name/service:2026-11-21");
    insta::assert_snapshot!("failing", five.screens() + &three.screens());
    three.failed("debian");
    let rows = three.rows(80, 24);
    assert_eq!(rows, ["1 of 3 images done, 2 failed, 1 layer done"]);
}

#[test]
fn rows_before_all_images_are_planned_have_no_percent() {
    let mut script = Script::new(&["nginx", "debian"]);
    script.pulling("nginx", 0..2);
    script.is([0], LayerState::Downloading);
    script.wait(600);
    script.downloaded(0, 50);
    script.event(Event::Resolving { image: image("debian") });
    insta::assert_snapshot!("unplanned", script.screens());
}

#[test]
fn rows_of_active_layers_leave_room_for_the_total() {
    let mut script = planned(61);
    script.is(0..61, LayerState::Downloading);
    script.wait(1000);
    (0..61).for_each(|layer| script.downloaded(layer, 10));
    let rows = script.rows(80, 10);
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[7], "54 more at work");
    assert!(rows[8].starts_with("Total "), "{rows:?}");
}

#[test]
fn layer_that_was_resumed_or_kept_is_not_fetched() {
    let mut script = planned(4);
    let resumed = Event::Resumed { image: image("nginx"), layer: digest(0), bytes: 400_000 };
    script.is([0, 1], LayerState::Downloading);
    script.event(resumed);
    script.wait(1000);
    script.downloaded(0, 100);
    // A download that began anew.
    script.downloaded(1, 50);
    script.downloaded(1, 100);
    script.downloaded(1, 10);
    script.downloaded(1, 100);
    // From a kept blob.
    script.bytes(2, Phase::Unpack, 10);
    assert!(script.rows(80, 24).iter().any(|row| row.contains("Extracting")));
    script.is([2, 3], LayerState::DownloadComplete);
    let sums = script.state.sums();
    assert_eq!(sums.fetched, 600_000 + 2 * size(1));
    assert_eq!(sums.reused, 400_000 + size(2) + size(3));
    assert_eq!((sums.fetched_layers, sums.reused_layers), (2, 2));
}

#[test]
fn state_of_a_layer_goes_back_from_reconnecting_only() {
    let mut script = planned(1);
    script.is([0], LayerState::Reconnecting);
    assert!(script.rows(80, 24)[0].contains("Reconnecting"));
    script.is([0], LayerState::Downloading);
    script.downloaded(0, 50);
    script.is([0], LayerState::PullingFsLayer);
    assert!(script.rows(80, 24)[0].contains("Downloading"));
}

#[test]
fn colours_surround_words_and_leave_the_text() {
    let mut script = five_layers();
    script.is([3], LayerState::Reconnecting);
    let size = Size { columns: 80, lines: 24 };
    let text = rows(&script.state, size, script.now, Palette::COLOURED).join("\n");
    assert!(text.contains("\x1b[1;33mReconnecting\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[32m2 layers done\x1b[0m"), "{text:?}");
    let plain = ["\x1b[1;33m", "\x1b[32m", "\x1b[0m"].iter().fold(text, |t, s| t.replace(s, ""));
    assert_eq!(plain, script.rows(80, 24).join("\n"));
}

/// The screen of a terminal during the events of `script`, and after the end.
fn on_screen(script: &Script, lines: u16, columns: u16) -> (String, String) {
    let term = InMemoryTerm::new(lines, columns);
    let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
    let size = move || Size { columns: columns.into(), lines: lines.into() };
    let images: Vec<_> = script.state.images.iter().map(|image| image.name.clone()).collect();
    let silent =
        Box::new(super::Results::new(super::Lines::to(std::io::sink()), super::Form::Name, &[]));
    let mut tty = Tty::on(target, Box::new(size), Palette::PLAIN, &images, Some(silent));
    for event in &script.events {
        tty.event(event).unwrap();
        tty.redraw();
    }
    let during = term.contents();
    tty.clear();
    (during, term.contents())
}

#[test]
fn rows_are_redrawn_in_place_and_removed() {
    for script in [one_layer(), five_layers(), many_layers(), three_images()] {
        for (lines, columns) in [(24, 40), (24, 80), (50, 200), (5, 30)] {
            let (during, after) = on_screen(&script, lines, columns);
            let rows = script.rows(columns.into(), lines.into());
            assert_eq!(during.lines().count(), rows.len(), "{during}");
            // The rate is that of the clock, which is not the script's.
            for (shown, row) in during.lines().zip(&rows[..rows.len() - 1]) {
                assert_eq!(shown, row.trim_end(), "{during}");
            }
            assert_eq!(after, "");
        }
    }
}
