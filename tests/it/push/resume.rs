//! Uploads whose connection breaks.

use super::fake::{Fake, Wrong};
use super::*;

/// An image with one layer of random bytes, tagged for `host`.
fn noisy(host: &str) -> (TempDir, Rpull, Pushed, String) {
    let image = Image::new().layer(Tar::new().file("noise", noise(1_500_000)).end());
    let name = format!("{host}/test/noisy:v1");
    let (scratch, rpull, pushed) = tagged(&image, "noisy", &name);
    (scratch, rpull, pushed, name)
}

#[test]
fn broken_upload_sends_only_the_rest() {
    const BREAK: usize = 700_001;
    let fake = Fake::new(Wrong { breaks_after: Some(BREAK), ..Wrong::default() });
    let (scratch, rpull, pushed, name) = noisy(&fake.host);
    rpull.ok(["push", &name]);
    let patches = fake.seen("PATCH");
    assert_eq!(patches.len(), 2, "{patches:?}");
    assert_eq!(patches[0].bytes, BREAK);
    let largest = fake.state().blobs.values().map(Vec::len).max().unwrap();
    assert_eq!(patches[1].bytes, largest - BREAK);
    let order: Vec<_> = fake.seen("/blobs/uploads/0").iter().map(|it| it.line.clone()).collect();
    assert!(order[1].starts_with("GET"), "{order:?}");
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn broken_upload_of_a_kept_blob_names_the_range_of_the_rest() {
    const BREAK: usize = 5000;
    let fake = Fake::new(Wrong { breaks_after: Some(BREAK), ..Wrong::default() });
    let image = Image::new().layer(Tar::new().file("noise", noise(900_000)).end());
    let (scratch, pushed) = (scratch::dir(), put(&image, "kept-range"));
    let (rpull, name) =
        (Rpull::on(scratch.path().join("root")), format!("{}/test/kept:v1", fake.host));
    rpull.ok(["pull", "--keep-blobs", &pushed.name()]);
    rpull.ok(["tag", &pushed.name(), &name]);
    rpull.ok(["push", &name]);
    let (patches, size) = (fake.seen("PATCH"), image.layers[0].blob.len());
    let range = |n: usize| patches[n].head.to_ascii_lowercase();
    assert!(range(0).contains(&format!("content-range: 0-{}\r\n", size - 1)), "{patches:?}");
    assert!(range(0).contains(&format!("content-length: {size}\r\n")), "{patches:?}");
    assert!(range(1).contains(&format!("content-range: {BREAK}-{}\r\n", size - 1)), "{patches:?}");
    assert_eq!(patches[1].bytes, size - BREAK);
    assert_eq!(fake.state().blobs[&image.layers[0].digest()], image.layers[0].blob);
}

#[test]
fn upload_that_the_registry_forgot_begins_again() {
    // Debian's docker-registry discards an upload whose connection broke.
    let way = Proxy::first("_state=", [Fault::Drop(300_000)]);
    let (scratch, rpull, pushed, name) = noisy(&way.host);
    rpull.ok(["push", &name]);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
    let starts = way.requests().into_iter().filter(|line| line.starts_with("POST")).count();
    assert!(starts >= 2, "{:?}", way.requests());
}

#[test]
fn upload_that_always_breaks_fails_after_the_retries() {
    let fake = Fake::new(Wrong { breaks_after: Some(0), always: true, ..Wrong::default() });
    let (_scratch, rpull, _, name) = noisy(&fake.host);
    let done = rpull.fails(5, ["push", "--retries", "2", "--outage-timeout", "0", &name]);
    assert_eq!(fake.seen("PATCH").len(), 3, "{done}");
    assert!(fake.state().blobs.is_empty() && fake.state().manifests.is_empty());
}

#[test]
fn lost_response_to_a_complete_upload_is_no_second_upload() {
    let fake = Fake::new(Wrong { loses_response: true, ..Wrong::default() });
    let (scratch, rpull, pushed, name) = noisy(&fake.host);
    rpull.ok(["push", &name]);
    assert_eq!(fake.seen("PATCH").len(), 1);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}
