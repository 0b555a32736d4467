//! Registries that go away in the middle of a pull.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::TryStreamExt;
use rpull::ErrorKind;
use rpull::internal::oci::Descriptor;
use rpull::internal::progress::{Event, LayerState, Sender};
use rpull::internal::reference::Reference;
use rpull::internal::registry::{Registry, RegistryError, RegistryOptions};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::Puller;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Done;
use crate::support::snapshot::assert_consistent;
use crate::support::tar::{Tar, noise};

/// Keeps a test that hangs from hanging all; it measures nothing.
const GUARD: Duration = Duration::from_secs(120);

/// An image with two layers of 100 KiB that are not compressed, and the digests of these.
fn pushed(repository: &str) -> (Pushed, [String; 2]) {
    let layer = |name| Tar::new().file(name, noise(100 << 10)).end();
    let image = Image::new().packed(layer("one"), Pack::Plain).packed(layer("two"), Pack::Plain);
    let layers = [0, 1].map(|n| image.layers[n].digest());
    (image.push(&Hub::shared().host, &format!("{repository}:latest")), layers)
}

fn is_retry(event: &Value) -> bool {
    event["event"] == "retrying"
}

/// Pulls with JSON progress, and calls `see` with each event.
fn pull(puller: &Puller, args: &[&str], see: impl Fn(&Value)) -> (Done, Vec<Value>) {
    let args = ["--progress", "json"].iter().chain(args).copied();
    let mut command = puller.rpull.command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        see(&event);
        events.push(event);
    }
    (child.wait_with_output().unwrap().into(), events)
}

#[test]
fn registry_that_restarts_in_the_middle_of_blobs_does_not_end_the_pull() {
    let (pushed, [one, _]) = pushed("test/restart-blob");
    let proxy = Proxy::first(one.clone(), [Fault::Fall(40_000)]);
    let puller = Puller::new();
    // The first or second report tells that connections are refused.
    let refused = |event: &Value| is_retry(event) && event["cause"].to_string().contains("refused");
    let rise = |event: &Value| {
        if refused(event) {
            proxy.rise()
        }
    };
    let (done, events) =
        pull(&puller, &["--jobs", "2", "--retries", "1", &proxy.name(&pushed.name())], rise);
    assert_eq!(done.code, Some(0), "{done}");
    assert_consistent(puller.rpull.root());
    assert_eq!(proxy.ranges(&one), [None, Some("bytes=40000-".to_owned())], "{done}");
    let retries: Vec<&Value> = events.iter().filter(|event| is_retry(event)).collect();
    // The first report can already tell that connections are refused.
    assert!((1..=3).contains(&retries.len()), "{retries:#?}");
    assert!(retries.iter().all(|retry| retry["host"] == *proxy.host), "{retries:#?}");
    assert!(retries.iter().all(|retry| retry["transfers"].as_u64() >= Some(1)), "{retries:#?}");
    let states = events.iter().filter(|event| event["event"] == "layer" && event["layer"] == *one);
    let states: Vec<&str> = states.filter_map(|event| event["state"].as_str()).collect();
    let expected =
        ["pulling", "downloading", "reconnecting", "downloading", "download-complete", "complete"];
    assert_eq!(states, expected);
    // One line per event, and none for the layers.
    let lines = done.stderr.lines().filter(|line| line.contains(&proxy.host));
    assert_eq!(lines.count(), retries.len(), "{done}");
}

#[test]
fn registry_that_does_not_come_back_ends_the_pull_when_the_time_is_over() {
    let (pushed, [one, two]) = pushed("test/gone");
    let proxy = Proxy::first(one.clone(), [Fault::Fall(40_000)]);
    let image = proxy.name(&pushed.name());
    let args = ["--outage-timeout", "1", "--retries", "50", &image];
    let (done, events) = pull(&Puller::new(), &args, |_| ());
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains("connection refused: "), "{done}");
    assert!(done.stderr.contains("sent nothing for 1 seconds"), "{done}");
    assert!(done.stderr.contains("hint: ") && done.stderr.contains("--outage-timeout"), "{done}");
    assert!(events.iter().any(is_retry), "{events:#?}");
    assert_eq!((proxy.count(&one), proxy.count(&two) <= 1), (1, true));
}

/// Runs `future` to its end, which must come. The images are pushed outside of a runtime.
fn within<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new().unwrap());
    runtime.block_on(async { tokio::time::timeout(GUARD, future).await.expect("it hangs") })
}

/// A registry in this process whose backoff starts with a millisecond, and what it reports.
fn registry(name: &str, outage: Duration) -> (Registry, Reference, Arc<Mutex<Vec<Event>>>) {
    let options = RegistryOptions {
        certs_dirs: Vec::new(),
        retries: 2,
        backoff: Duration::from_millis(1),
        outage_timeout: outage,
        ..RegistryOptions::default()
    };
    let reference: Reference = name.parse().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let sender = Sender::to(move |event| seen.lock().unwrap().push(event));
    let registry = Registry::new(options).with_events(sender, Arc::new(reference.clone()));
    (registry, reference, events)
}

/// Lets the proxy accept connections again when `attempts` have failed.
fn rise_after(attempts: u32, proxy: Arc<Proxy>, events: Arc<Mutex<Vec<Event>>>) {
    let failed = move |event: &Event| matches!(event, Event::Retrying { attempt, .. } if *attempt > attempts);
    std::thread::spawn(move || {
        crate::support::wait::until("attempts fail", || events.lock().unwrap().iter().any(&failed));
        proxy.rise();
    });
}

#[test]
fn manifest_of_a_registry_that_restarts_is_requested_until_it_answers() {
    let (pushed, _) = pushed("test/restart-manifest");
    let proxy = Arc::new(Proxy::first("manifests", [Fault::None, Fault::Fall(0)]));
    let name = proxy.name(&pushed.name());
    let (registry, reference, events) = registry(&name, Duration::from_secs(120));
    let ask = || within(registry.manifest(reference.repository(), "latest"));
    ask().unwrap();
    // More than the retries, and more than a host gets that never answered.
    rise_after(6, proxy.clone(), events.clone());
    assert_eq!(ask().unwrap().digest.to_string(), pushed.digest);
    assert_eq!(proxy.count("manifests"), 3);
    let layers = events.lock().unwrap().iter().any(|event| matches!(event, Event::Layer { .. }));
    assert!(!layers, "a manifest is not a layer");
}

#[test]
fn transfers_of_a_lost_host_are_reported_together_and_share_its_time() {
    let (pushed, layers) = pushed("test/lost-together");
    let proxy = Arc::new(Proxy::first(layers[0].clone(), [Fault::Fall(1000)]));
    let (registry, reference, events) =
        registry(&proxy.name(&pushed.name()), Duration::from_secs(2));
    let size = Tar::new().file("one", noise(100 << 10)).end().len();
    let fetch = |digest: String| {
        let blob = serde_json::json!({"digest": digest, "size": size});
        let blob: Descriptor = serde_json::from_value(blob).unwrap();
        let (registry, reference) = (&registry, &reference);
        async move {
            let stream = registry.blob(reference.repository(), &blob, 0..blob.size).await?;
            stream.try_collect::<Vec<_>>().await
        }
    };
    let first = layers[0].clone();
    let ended = within(futures::future::join_all((0..4).map(|_| fetch(first.clone()))));
    let failed: Vec<RegistryError> = ended.into_iter().filter_map(Result::err).collect();
    assert!(!failed.is_empty());
    for error in failed {
        assert!(matches!(error, RegistryError::Outage { .. }), "{error:?}");
        assert_eq!(rpull::Error::from(error).kind(), ErrorKind::Network);
    }
    let events = events.lock().unwrap();
    let retries = events.iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
    let failures = events
        .iter()
        .filter(|event| matches!(event, Event::Layer { state: LayerState::Reconnecting, .. }));
    // At 0.1, 1.1 and 3.1 seconds at most, for many attempts.
    assert!((1..=3).contains(&retries), "{events:#?}");
    assert!(failures.count() > 10, "{events:#?}");
}
