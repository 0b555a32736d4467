//! Blobs over several connections.

use super::Puller;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::snapshot::assert_consistent;
use crate::support::tar::{Tar, noise};

/// An image whose one blob has about 12 MiB, and the blob's digest.
fn large(repository: &str) -> (Pushed, String) {
    let image = Image::new().packed(Tar::new().file("noise", noise(12 << 20)).end(), Pack::Plain);
    let pushed = image.push(&Hub::shared().host, &format!("{repository}:latest"));
    (pushed, image.layers[0].digest())
}

#[test]
fn blob_over_a_slow_connection_comes_in_segments_over_several() {
    let (pushed, layer) = large("test/slow");
    let proxy = Proxy::every("/blobs/", Fault::Slow(2 << 20));
    let puller = Puller::new();
    puller.pulls(&[&proxy.name(&pushed.name())], &[]);
    assert_consistent(puller.rpull.root());
    let ranges = proxy.ranges(&layer);
    assert_eq!(ranges[0], None, "the blob begins on one connection");
    let mut segments: Vec<(u64, u64)> = ranges[1..].iter().map(bounds).collect();
    segments.sort_unstable();
    assert!(segments.len() > 4, "{ranges:?}");
    let joined = segments.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0));
    assert!(joined, "the segments overlap or leave gaps: {segments:?}");
    assert_eq!(segments.last().unwrap().1, u64::MAX, "the end of the blob");
    let at_once = proxy.most_at_once(&layer);
    assert!((2..=10).contains(&at_once), "{at_once} connections at once");
}

/// First and last byte of a `Range` header.
fn bounds(range: &Option<String>) -> (u64, u64) {
    let range = range.as_deref().and_then(|range| range.strip_prefix("bytes="));
    let (first, last) = range.and_then(|range| range.split_once('-')).expect("a segment");
    // The last segment is asked for without an end.
    (first.parse().unwrap(), last.parse().unwrap_or(u64::MAX))
}

#[test]
fn blob_of_a_slow_registry_without_ranges_comes_over_one_connection() {
    let (pushed, _) = large("test/slow-whole");
    let proxy = Proxy::every("/blobs/", Fault::SlowWhole(4 << 20));
    let puller = Puller::new();
    puller.pulls(&[&proxy.name(&pushed.name())], &[]);
    // The config, the blob, and the part that showed it.
    assert_eq!(proxy.count("/blobs/"), 3, "{:?}", proxy.requests());
    assert_consistent(puller.rpull.root());
}
