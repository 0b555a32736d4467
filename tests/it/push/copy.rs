//! `rpull copy`, from registry to registry.

use serde_json::json;

use super::fake::{Fake, Wrong};
use super::*;
use crate::support::image::{Index, Pusher, sha256};
use crate::support::tar::Entry;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An index with images for two platforms on a common base, and an attestation.
fn index(stem: &str) -> Pushed {
    let base = Tar::new().file("base", noise(100_000)).end();
    let image = |architecture: &str| {
        let own = Tar::of([Entry::file("arch", architecture)]).end();
        Image::oci().layer(base.clone()).layer(own).platform("linux", architecture, "")
    };
    let hub = Hub::shared();
    let name = format!("{}:all", hub.repository(stem));
    Index::new().add(image("amd64")).add(image("arm64")).attestation().push(&hub.host, &name)
}

fn rpull() -> (TempDir, Rpull) {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    (scratch, rpull)
}

/// A referrer of `subject` in the repository of `name`; its digest.
fn referrer(name: &str, subject: &str, content: &[u8]) -> String {
    let (host, path) = name.split_once('/').unwrap();
    let repository = path.split(':').next().unwrap();
    let pusher = Pusher::new(host, &format!("{repository}:unused"));
    let (config, layer) = (pusher.blob(b"{}"), pusher.blob(content));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x.sbom",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": layer, "size": content.len()}],
        "subject": {"mediaType": INDEX, "digest": subject, "size": 1},
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = sha256(&bytes);
    Pusher::new(host, &format!("{repository}@{digest}")).manifest_bytes(bytes, MANIFEST);
    digest
}

#[test]
fn copy_has_the_digest_and_all_platforms_and_a_second_one_sends_nothing() {
    let (pushed, way) = (index("copy"), Proxy::plain());
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("copy-to"));
    let (_scratch, rpull) = rpull();
    let text = rpull.ok(["copy", &pushed.name(), &name]);
    let repository = name.trim_end_matches(":v1");
    assert!(text.starts_with(&format!("The push refers to repository [{repository}]\n")), "{text}");
    assert!(text.contains(&format!("\nv1: digest: {} size: ", pushed.digest)), "{text}");
    for platform in ["linux/amd64", "linux/arm64"] {
        rpull.ok(["pull", "-q", "--platform", platform, &name]);
    }
    assert!(rpull.root().join("image").exists());
    let blobs = way.requests().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(
        blobs,
        3 + 2 + 2,
        "three configs, the common base once, and one layer of each image"
    );
    // The manifests of the platforms were there before the index, and the tag came last.
    let puts = way
        .requests()
        .into_iter()
        .filter(|line| line.contains("PUT") && line.contains("/manifests/"));
    let puts: Vec<_> = puts.collect();
    assert!(puts.len() == 4 && puts[3].ends_with("/manifests/v1"), "{puts:?}");

    way.forget();
    let again = rpull.json(["copy", "--format", "json", &pushed.name(), &name]);
    assert_eq!(again["digest"], pushed.digest);
    assert_eq!(way.count("HEAD"), way.requests().len(), "{:?}", way.requests());
    assert_eq!(rpull.ok(["copy", "-q", &pushed.name(), &name]), format!("{name}\n"));
}

#[test]
fn copy_within_a_registry_mounts_all_blobs() {
    let (pushed, way) = (index("copy-mount"), Proxy::plain());
    let target = format!("{}/{}", way.host, Hub::shared().repository("copy-mounted"));
    let (_scratch, rpull) = rpull();
    let text = rpull.ok(["copy", &way.name(&pushed.name()), &target]);
    let from = pushed.repository.split_once('/').unwrap().1;
    assert_eq!(text.matches(&format!(": Mounted from {from}\n")).count(), 7, "{text}");
    assert_eq!(way.count("PATCH"), 0);
    // Without a tag, the copy has that of the source.
    let resolved = rpull.ok(["resolve", &format!("{target}:all")]);
    assert_eq!(resolved.trim(), pushed.digest);
}

#[test]
fn one_platform_or_a_digest_is_copied_alone() {
    let pushed = index("copy-one");
    let target = format!("{}/{}", Hub::shared().host, Hub::shared().repository("copy-one-to"));
    let (_scratch, rpull) = rpull();
    let (one, by_digest) = (format!("{target}:arm"), pushed.by_digest());
    rpull.ok(["copy", "--platform", "linux/arm64", &pushed.name(), &one]);
    let platform = rpull.ok(["resolve", "--platform", "linux/arm64", &pushed.name()]);
    assert_eq!(rpull.ok(["resolve", &one]), platform);
    rpull.ok(["copy", &by_digest, &target]);
    rpull.ok(["resolve", &format!("{target}@{}", pushed.digest)]);
    let other = format!("{target}@sha256:{}", "1".repeat(64));
    rpull.fails(2, ["copy", &pushed.name(), &other]);
    rpull.fails(3, ["copy", &format!("{}:absent", pushed.repository), &target]);
}

#[test]
fn damaged_blob_of_the_source_is_neither_completed_nor_tagged() {
    let image = Image::new().layer(Tar::new().file("bad", noise(50_000)).end());
    let (hub, fake) = (Hub::shared(), Fake::new(Wrong::default()));
    let pushed = put(&image, "copy-bad");
    let file = hub.blob_file(&image.layers[0].digest());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (_scratch, rpull) = rpull();
    let done = rpull.fails(6, ["copy", &pushed.name(), &format!("{}/test/x:v1", fake.host)]);
    assert!(done.stderr.contains("digest mismatch"), "{done}");
    let state = fake.state();
    assert!(state.manifests.is_empty() && !state.blobs.contains_key(&image.layers[0].digest()));
}

#[test]
fn broken_upload_of_a_copy_sends_only_the_rest() {
    const BREAK: usize = 70_000;
    let image = Image::new().layer(Tar::new().file("noise", noise(500_000)).end());
    let pushed = put(&image, "copy-broken");
    let fake = Fake::new(Wrong { breaks_after: Some(BREAK), ..Wrong::default() });
    let (_scratch, rpull) = rpull();
    rpull.ok(["copy", "-j", "1", &pushed.name(), &format!("{}/test/x:v1", fake.host)]);
    let blob = &image.layers[0].blob;
    let patches = fake.seen("PATCH");
    let of_layer: Vec<usize> = patches.iter().map(|it| it.bytes).filter(|n| *n > 10_000).collect();
    assert_eq!(of_layer, [BREAK, blob.len() - BREAK]);
    assert_eq!(fake.state().blobs[&image.layers[0].digest()], *blob);
}

#[test]
fn referrers_are_copied_with_the_tag_of_registries_without_the_api() {
    let (pushed, hub) = (index("copy-referrers"), Hub::shared());
    let first = referrer(&pushed.name(), &pushed.digest, b"sbom");
    let second = referrer(&pushed.name(), &first, b"signature of the sbom");
    for (subject, digest) in [(&pushed.digest, &first), (&first, &second)] {
        let tag = subject.replace(':', "-");
        let name = format!("{}:{tag}", pushed.repository.split_once('/').unwrap().1);
        let entry = json!({"mediaType": MANIFEST, "digest": digest, "size": 1, "artifactType": "application/x.sbom"});
        Pusher::new(&hub.host, &name)
            .manifest(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}));
    }
    let (_scratch, rpull) = rpull();
    let target = format!("{}/{}", hub.host, hub.repository("copy-referrers-to"));
    rpull.ok(["copy", &pushed.name(), &format!("{target}:v1")]);
    for (subject, digest) in [(&pushed.digest, &first), (&first, &second)] {
        rpull.ok(["resolve", &format!("{target}@{digest}")]);
        rpull.ok(["resolve", &format!("{target}:{}", subject.replace(':', "-"))]);
    }
    // To a registry with the API, and back.
    let fake = Fake::new(Wrong { referrers: true, ..Wrong::default() });
    let there = format!("{}/test/there:v1", fake.host);
    rpull.ok(["copy", &pushed.name(), &there]);
    let names: Vec<String> = fake.state().manifests.keys().cloned().collect();
    assert!(names.contains(&first) && names.contains(&second), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("sha256-")), "{names:?}");
    let back = format!("{}/{}", hub.host, hub.repository("copy-referrers-back"));
    rpull.ok(["copy", &there, &back]);
    rpull.ok(["resolve", &format!("{back}@{second}")]);
    // A referrer that came later is copied to an image that is there.
    let third = referrer(&there, &pushed.digest, b"later");
    rpull.ok(["copy", &there, &back]);
    rpull.ok(["resolve", &format!("{back}@{third}")]);
    let tag = format!("{back}:{}", pushed.digest.replace(':', "-"));
    assert!(rpull.run(["resolve", &tag]).code == Some(0));
}
