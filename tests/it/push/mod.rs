//! `rpull push`, against Debian's docker-registry and a registry that breaks and lies.

mod copy;
mod fake;
mod lies;
mod refused;
mod resume;
mod tools;

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::judge;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::assert_consistent;
use crate::support::tar::{Tar, noise};

fn two_layers(mark: &str) -> Image {
    Image::new()
        .layer(Tar::new().dir("etc").file("etc/base", noise(200_000)).end())
        .layer(Tar::new().file("mark", mark).end())
}

fn put(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

/// A store with an image that has the tag `name` in addition.
fn tagged(image: &Image, stem: &str, name: &str) -> (TempDir, Rpull, Pushed) {
    let (scratch, pushed) = (scratch::dir(), put(image, stem));
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", &pushed.name()]);
    rpull.ok(["tag", &pushed.name(), name]);
    (scratch, rpull, pushed)
}

/// The ID of `name`, pulled into a new store.
fn pulled_id(scratch: &Path, name: &str) -> String {
    let other = Rpull::on(scratch.join("other"));
    other.ok(["pull", name]);
    judge::judge_root(other.root());
    let inspected: Value = other.json(["inspect", name]);
    inspected[0]["Id"].as_str().unwrap().to_owned()
}

/// The short diff IDs, in the order in which they are pushed.
fn shown(image: &Image) -> Vec<String> {
    image.diff_ids().iter().rev().map(|id| id["sha256:".len()..][..12].to_owned()).collect()
}

#[test]
fn push_uploads_each_layer_once_and_pull_gives_the_same_image() {
    let (way, image) = (Proxy::plain(), two_layers("first"));
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("push"));
    let (scratch, rpull, pushed) = tagged(&image, "push-from", &name);
    let text = rpull.ok(["push", &name]);
    let ids = shown(&image);
    let repository = name.trim_end_matches(":v1");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("The push refers to repository [{repository}]"), "{text}");
    assert_eq!(lines[1..3], ids.iter().map(|id| format!("{id}: Preparing")).collect::<Vec<_>>());
    for id in &ids {
        assert!(lines[3..5].contains(&&*format!("{id}: Pushed")), "{text}");
    }
    assert!(lines[5].starts_with("v1: digest: sha256:"), "{text}");
    assert_eq!(lines.len(), 6, "{text}");
    assert_eq!(way.count("PATCH"), 2);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);

    // The second push only looks, and writes the manifest.
    way.forget();
    let again = rpull.ok(["push", &name]);
    assert_eq!(again.lines().filter(|line| line.ends_with(": Layer already exists")).count(), 2);
    assert_eq!(again.lines().last(), text.lines().last());
    let requests = way.requests();
    let writes: Vec<_> = requests.iter().filter(|line| !line.starts_with("HEAD")).collect();
    assert_eq!(writes.len(), 1, "{requests:?}");
    assert!(writes[0].starts_with("PUT") && writes[0].ends_with("/manifests/v1"), "{requests:?}");
    assert_consistent(rpull.root());
    assert_eq!(rpull.ok(["push", "-q", &name]), format!("{name}\n"));
    let digest = text.rsplit("digest: ").next().unwrap().split(' ').next().unwrap();
    assert_eq!(rpull.json(["push", "--format", "json", &name])["digest"], digest);
    // As after a push by docker, the image has the digest of the registry.
    let inspected = rpull.json(["inspect", &name]);
    let digests = inspected[0]["RepoDigests"].as_array().unwrap();
    assert!(digests.contains(&Value::from(format!("{repository}@{digest}"))), "{digests:?}");
}

#[test]
fn kept_blobs_keep_the_digest_of_the_manifest() {
    for (stem, image) in [("keep-docker", Image::new()), ("keep-oci", Image::oci())] {
        let image = image
            .packed(Tar::new().file("zstd", "z").end(), Pack::Zstd)
            .packed(Tar::new().file("plain", "p").end(), Pack::Plain)
            .packed(Tar::new().file("members", noise(3000)).end(), Pack::Members);
        let (scratch, pushed, way) = (scratch::dir(), put(&image, stem), Proxy::plain());
        let name = format!("{}/{}:kept", way.host, Hub::shared().repository(stem));
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "--keep-blobs", &pushed.name()]);
        rpull.ok(["tag", &pushed.name(), &name]);
        let done = rpull.json(["push", "--format", "json", &name]);
        assert_eq!(done["digest"], pushed.digest);
        assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
    }
}

#[test]
fn damaged_kept_blob_is_made_again_from_the_store() {
    let (scratch, image, way) = (scratch::dir(), two_layers("damaged"), Proxy::plain());
    let (pushed, name) =
        (put(&image, "damaged"), format!("{}/{}:x", way.host, Hub::shared().repository("damaged")));
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "--keep-blobs", &pushed.name()]);
    rpull.ok(["tag", &pushed.name(), &name]);
    let hex = image.layers[0].digest().replace("sha256:", "");
    let blob = rpull.root().join("rpull/content/blobs/sha256").join(hex);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let done = rpull.run(["push", &name]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("is damaged; it is made again"), "{done}");
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn layers_of_another_repository_of_the_registry_are_mounted() {
    let (way, image) = (Proxy::plain(), two_layers("mount"));
    let (scratch, pushed) = (scratch::dir(), put(&image, "mount-from"));
    let rpull = Rpull::on(scratch.path().join("root"));
    let from = way.name(&pushed.name());
    rpull.ok(["pull", &from]);
    let target = Hub::shared().repository("mount-to");
    let name = format!("{}/{target}:v1", way.host);
    rpull.ok(["tag", &from, &name]);
    way.forget();
    let text = rpull.ok(["push", &name]);
    let path = from.split_once('/').unwrap().1.trim_end_matches(":one");
    for id in shown(&image) {
        assert!(text.contains(&format!("{id}: Mounted from {path}\n")), "{text}");
    }
    assert!(text.contains(&format!("digest: {} size: ", pushed.digest)), "{text}");
    assert_eq!(way.count("PATCH"), 0, "{:?}", way.requests());
    let mounts = way.requests().into_iter().filter(|line| line.contains("?mount=sha256:"));
    assert!(mounts.clone().all(|line| line.ends_with(&format!("&from={path}"))));
    assert_eq!(mounts.count(), 2);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn refused_mount_becomes_an_upload() {
    let no = Fault::Instead("403 Forbidden", "", r#"{"errors":[{"code":"DENIED"}]}"#);
    let way = Proxy::every("?mount=", no);
    let (scratch, pushed) = (scratch::dir(), put(&two_layers("refused"), "refused-from"));
    let rpull = Rpull::on(scratch.path().join("root"));
    let from = way.name(&pushed.name());
    rpull.ok(["pull", &from]);
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("refused-to"));
    rpull.ok(["tag", &from, &name]);
    rpull.ok(["push", &name]);
    assert_eq!(way.count("PATCH"), 2);
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn manifest_format_changes_the_manifest_and_not_the_image() {
    let way = Proxy::plain();
    let name = format!("{}/{}:oci", way.host, Hub::shared().repository("format"));
    let (scratch, rpull, pushed) = tagged(&two_layers("format"), "format-from", &name);
    rpull.ok(["push", "--manifest-format", "oci", &name]);
    let resolved = rpull.json(["resolve", "--format", "json", &name]);
    assert_eq!(resolved["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let way = Proxy::plain();
    let repository = format!("{}/{}", way.host, Hub::shared().repository("all"));
    let (scratch, rpull, pushed) =
        tagged(&two_layers("all"), "all-from", &format!("{repository}:one"));
    rpull.ok(["tag", &pushed.name(), &format!("{repository}:two")]);
    let text = rpull.ok(["push", "-a", &repository]);
    assert_eq!(text.matches("The push refers to").count(), 1, "{text}");
    for tag in ["one", "two"] {
        assert!(text.contains(&format!("\n{tag}: digest: sha256:")), "{text}");
        assert_eq!(pulled_id(scratch.path(), &format!("{repository}:{tag}")), pushed.id);
    }
    assert_eq!(way.count("PATCH"), 2);
    rpull.fails(2, ["push", "-a", &format!("{repository}:one")]);
    rpull.fails(2, ["push", &format!("{repository}@{}", pushed.digest)]);
    rpull.fails(3, ["push", &format!("{repository}:absent")]);
    rpull.fails(3, ["push", "-a", &format!("{repository}-absent")]);
}

#[test]
fn two_processes_push_one_image() {
    let way = Proxy::plain();
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("two"));
    let (scratch, rpull, pushed) = tagged(&two_layers("two"), "two-from", &name);
    let mut both = [0, 1].map(|_| rpull.command(["push", "-q", &name]).spawn().unwrap());
    for child in &mut both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
    assert_consistent(rpull.root());
}

#[test]
fn store_of_another_user_is_pushed_without_a_record() {
    let way = Proxy::plain();
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("foreign"));
    let (scratch, rpull, pushed) = tagged(&two_layers("foreign"), "foreign-from", &name);
    let mount = |flags: &[&str]| {
        let done = std::process::Command::new("mount").args(flags).arg(rpull.root()).status();
        assert!(done.unwrap().success());
    };
    let root = rpull.root().display().to_string();
    mount(&["--bind", &root]);
    mount(&["-o", "remount,bind,ro"]);
    let done = rpull.run(["push", &name]);
    let unmounted = std::process::Command::new("umount").arg(rpull.root()).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(pulled_id(scratch.path(), &name), pushed.id);
}
