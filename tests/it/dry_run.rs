//! `--dry-run`: what it reports, and whether a pull then does that.

use serde_json::Value;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::proxy::Proxy;
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot;
use crate::support::tar::Tar;

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file("mark", mark).file("more", mark.repeat(100)).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// The events `planned` of a dry run.
fn planned(rpull: &Rpull, args: &[&str]) -> Vec<Value> {
    let json = ["pull", "--dry-run", "--progress", "json"];
    let events = rpull.ok(json.iter().chain(args));
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap());
    events.filter(|event: &Value| event["event"] == "planned").collect()
}

#[test]
fn dry_run_reports_what_a_pull_then_fetches() {
    let base = Image::new().layer(layer("dry-base"));
    let image = base.clone().layer(layer("dry-one")).packed(layer("dry-two"), Pack::Plain);
    let (base, pushed) = (push(&base, "dry-base"), push(&image, "dry"));
    let proxy = Proxy::plain();
    let (base, name) = (proxy.name(&base.name()), proxy.name(&pushed.name()));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));

    let said = rpull.ok(["pull", "--dry-run", &name]);
    snapshot::assert_empty(rpull.root());
    assert!(!said.contains("ownload") && !said.contains("Pulling fs layer"), "{said}");
    let status = |layers: usize, requests: usize| {
        let sizes = image.layers.iter().rev().take(layers).map(|layer| layer.blob.len());
        let bytes = rpull_size(sizes.sum());
        let plural = if layers == 1 { "" } else { "s" };
        format!(
            "Status: Would fetch {layers} layer{plural} ({bytes}) in {requests} requests for {name}\n"
        )
    };
    assert!(said.contains(&status(3, 5)), "{said}");
    for layer in &image.layers {
        let size = rpull_size(layer.blob.len());
        let line = format!("{}: Would be fetched ({size})\n", &layer.digest()[7..19]);
        assert!(said.contains(&line), "{said}");
    }
    assert_eq!(rpull.ok(["pull", "-q", "--dry-run", &name]).trim(), name);

    rpull.ok(["pull", "-q", &base]);
    let said = rpull.ok(["pull", "--dry-run", &name]);
    assert!(said.contains(&status(2, 4)) && said.contains(": Already exists\n"), "{said}");
    let event = planned(&rpull, &[&name]).remove(0);
    proxy.forget();
    rpull.ok(["pull", "-q", &name]);
    assert_eq!(event["requests"], proxy.requests().len(), "{:?}", proxy.requests());
    let bytes: usize = image.layers[1..].iter().map(|layer| layer.blob.len()).sum();
    assert_eq!(event["bytes"], bytes);
    for layer in event["layers"].as_array().unwrap() {
        assert_eq!(proxy.count(layer["digest"].as_str().unwrap()), 1);
    }

    let said = rpull.ok(["pull", "--dry-run", &name]);
    assert!(said.contains("Status: Image is up to date for "), "{said}");
    assert_eq!(planned(&rpull, &[&name]), [] as [Value; 0]);
}

#[test]
fn dry_run_of_images_that_share_a_layer_lists_it_once() {
    let shared = layer("dry-shared");
    let name =
        |mark| push(&Image::new().layer(shared.clone()).layer(layer(mark)), "dry-shared").name();
    let names = ["dry-a", "dry-b"].map(name);
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let events = planned(&rpull, &[&names[0], &names[1]]);
    let layers = events.iter().flat_map(|event| event["layers"].as_array().unwrap());
    assert_eq!((events.len(), layers.count()), (2, 3), "{events:?}");
}

/// A size as the command prints it, for fewer than 10,000 bytes.
fn rpull_size(bytes: usize) -> String {
    match bytes {
        0..1000 => format!("{bytes}B"),
        _ => {
            let text = format!("{:.2}", bytes as f64 / 1000.0);
            format!("{}kB", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}
