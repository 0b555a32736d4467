//! Registries whose responses are wrong.

use super::fake::{Fake, Wrong};
use super::*;

fn prepared(host: &str, stem: &str) -> (TempDir, Rpull, Pushed, String) {
    let name = format!("{host}/test/{stem}:v1");
    let (scratch, rpull, pushed) = tagged(&two_layers(stem), stem, &name);
    (scratch, rpull, pushed, name)
}

#[test]
fn location_on_another_host_gets_no_credentials() {
    let other = Fake::new(Wrong::default());
    // Uploads 0 to 2 of the other host.
    let (_other_scratch, filler, _, to_other) = prepared(&other.host, "filler");
    filler.ok(["push", &to_other]);
    let before = other.seen("").len();
    let fake = Fake::new(Wrong {
        location_host: Some(other.host.clone()),
        wants: Some("uthorization: Basic"),
        ..Wrong::default()
    });
    let (_scratch, rpull, _, name) = prepared(&fake.host, "elsewhere");
    let mut command = rpull.command(["push", "--username", "user", &name]);
    let done = command.env("RPULL_PASSWORD", "secret").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let sent = other.seen("")[before..].to_vec();
    assert!(sent.iter().any(|seen| seen.line.starts_with("PATCH")), "{sent:?}");
    let leaked = |seen: &fake::Seen| seen.head.to_ascii_lowercase().contains("authorization");
    assert!(!sent.iter().any(leaked), "{sent:?}");
    assert!(fake.seen("POST").iter().any(leaked));
}

#[test]
fn range_beyond_what_was_sent_begins_the_upload_again() {
    let fake = Fake::new(Wrong {
        breaks_after: Some(1000),
        range: Some("0-99999999"),
        ..Wrong::default()
    });
    let (scratch, rpull, pushed, name) = prepared(&fake.host, "range");
    rpull.ok(["push", &name]);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn range_with_bytes_that_did_not_arrive_is_found_by_the_digest() {
    // It claims one byte more than it has, so the rest does not fit.
    let fake =
        Fake::new(Wrong { breaks_after: Some(1000), range: Some("0-1000"), ..Wrong::default() });
    let image = Image::new().layer(Tar::new().file("noise", noise(900_000)).end());
    let name = format!("{}/test/byte:v1", fake.host);
    let (scratch, rpull, pushed) = tagged(&image, "byte", &name);
    rpull.ok(["push", &name]);
    assert!(fake.seen("PATCH").len() > 2, "the rest did not fit");
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn other_digest_of_a_completed_blob_fails_the_push() {
    let other = format!("sha256:{}", "1".repeat(64));
    let fake = Fake::new(Wrong { digest: Some(other.clone()), ..Wrong::default() });
    let (_scratch, rpull, _, name) = prepared(&fake.host, "digest");
    let done = rpull.fails(6, ["push", &name]);
    assert!(done.stderr.contains(&other), "{done}");
    assert!(fake.state().manifests.is_empty());
}
