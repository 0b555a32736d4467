//! The order of what a pull prints: states of layers, and names.

use std::collections::HashMap;

use super::events;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed, sha256};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::tar::{Tar, noise};

fn of_layers(sizes: &[usize]) -> Image {
    let layer = |size: usize| Tar::new().file("noise", noise(size)).end();
    sizes.iter().fold(Image::new(), |image, size| image.layer(layer(*size)))
}

fn push(image: &Image) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository("order")))
}

/// The place of a state in the life of a layer.
fn rank(state: &str) -> usize {
    let states = ["pulling", "waiting", "copying", "downloading", "download-complete", "complete"];
    states.iter().position(|known| *known == state).unwrap_or_else(|| panic!("state {state}"))
}

#[test]
fn states_of_layers_with_a_slow_config_never_go_back() {
    let image = of_layers(&[30_000, 60_000, 90_000]);
    let (pushed, config) = (push(&image), sha256(&image.config()));
    // The config arrives when some layers are complete and others are being downloaded.
    let slow = Proxy::new(move |_, path| match path {
        path if path.ends_with(&config) => Fault::Slow(500),
        path if path.contains("/blobs/") => Fault::Slow(60_000),
        _ => Fault::None,
    });
    let name = slow.name(&pushed.name());
    let scratch = scratch::dir();
    let output = Rpull::on(scratch.path().join("json"))
        .command(["--progress", "json", "--jobs", "2", &name])
        .output()
        .unwrap();
    let events = events(&output.stdout);
    let mut states: HashMap<&str, Vec<&str>> = HashMap::new();
    for event in &events {
        let Some(layer) = event["layer"].as_str() else { continue };
        let told = states.entry(layer).or_default();
        match event["event"].as_str().unwrap() {
            "layer" => told.push(event["state"].as_str().unwrap()),
            "bytes" => assert!(told.contains(&"downloading"), "bytes too early: {event}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(states.len(), 3);
    for told in states.values() {
        assert!(told.windows(2).all(|two| rank(two[0]) < rank(two[1])), "{told:?}");
        for state in ["pulling", "downloading", "download-complete", "complete"] {
            assert!(told.contains(&state), "no {state} in {told:?}");
        }
    }

    let plain = Rpull::on(scratch.path().join("plain")).ok(["--jobs", "2", &name]);
    for layer in &image.layers {
        let id = &layer.digest()["sha256:".len()..][..12];
        let lines = plain.lines().filter_map(|line| line.strip_prefix(&format!("{id}: ")));
        let lines: Vec<_> = lines.filter(|line| *line != "Waiting").collect();
        assert_eq!(lines, ["Pulling fs layer", "Download complete", "Pull complete"], "{plain}");
    }
}

#[test]
fn quiet_prints_each_name_once_in_the_order_of_the_arguments() {
    let (large, small, other) =
        (push(&of_layers(&[90_000])), push(&of_layers(&[300])), push(&of_layers(&[200])));
    let slow = Proxy::every("/blobs/", Fault::Slow(100_000));
    let [large, small, other] = [large, small, other].map(|pushed| slow.name(&pushed.name()));
    let missing = format!("{}/no/such:image", slow.host);
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let args = ["-q", &large, &missing, &small, &other, &small, &large];
    let done = rpull.fails(3, args);
    let names: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(names, [&large, &small, &other, &small, &large]);
    // All of them are present now.
    let done = rpull.fails(3, args);
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), names);
}
