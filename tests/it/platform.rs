//! Images for another platform than the one that was requested, or than the machine's.

use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pushed, host_architecture, sha256};
use crate::support::proxy::Proxy;
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::names;
use crate::support::tar::Tar;

/// A platform that no machine of this test runs.
const FOREIGN: &str = "linux/s390x";

/// Another one.
const WANTED: &str = "linux/riscv64";

fn image(mark: &str) -> Image {
    Image::new().layer(Tar::new().file("mark", mark).end())
}

fn foreign(mark: &str) -> Image {
    image(mark).platform("linux", "s390x", "")
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

fn root() -> (tempfile::TempDir, Rpull) {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    (scratch, rpull)
}

#[test]
fn image_of_another_platform_than_requested_exits_3_without_a_layer() {
    let image = foreign("requested");
    let pushed = push(&image, "platform-requested");
    let (_scratch, rpull) = root();
    let proxy = Proxy::plain();
    let name = proxy.name(&pushed.name());
    for dry in [&[][..], &["--dry-run"]] {
        let args = ["pull", "--platform", WANTED, &name];
        let done = rpull.fails(3, args.iter().chain(dry));
        for text in [FOREIGN, WANTED, "hint: "] {
            assert!(done.stderr.contains(text), "{done}");
        }
    }
    assert_eq!(proxy.count(&image.layers[0].digest()), 0, "{:?}", proxy.requests());
    assert_eq!(names(&rpull.root().join("image/overlay2/layerdb/sha256")), [""; 0]);
    assert_eq!(rpull.ok(["images", "-q", "-a"]), "");
    rpull.ok(["pull", "-q", "--platform", FOREIGN, &name]);
}

#[test]
fn image_of_another_platform_than_the_host_is_pulled_with_a_warning() {
    let pushed = push(&foreign("host"), "platform-host");
    let (_scratch, rpull) = root();
    for policy in ["always", "always", "missing", "never"] {
        let done = rpull.run(["pull", "--policy", policy, &pushed.name()]);
        assert_eq!(done.code, Some(0), "{done}");
        let text = format!(
            "The requested image's platform ({FOREIGN}) does not match the detected host platform (linux/{}",
            host_architecture()
        );
        assert_eq!(done.stderr.matches(&text).count(), 1, "{policy}: {done}");
        assert!(done.stderr.contains(") and no specific platform was requested"), "{done}");
    }
    let done = rpull.run(["pull", "-q", "--platform", FOREIGN, &pushed.name()]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done}");
}

#[test]
fn present_image_of_another_platform_is_not_the_requested_one() {
    let pushed = push(&foreign("present"), "platform-present");
    let (_scratch, rpull) = root();
    rpull.ok(["pull", "-q", "--platform", FOREIGN, &pushed.name()]);
    let proxy = Proxy::plain();
    for policy in ["missing", "never", "always"] {
        for name in [pushed.name(), pushed.by_digest()] {
            rpull.fails(3, ["pull", "--policy", policy, "--platform", WANTED, &name]);
        }
    }
    let name = proxy.name(&pushed.name());
    rpull.ok(["pull", "-q", "--platform", FOREIGN, &name]);
    proxy.forget();
    rpull.ok(["pull", "-q", "--policy", "missing", "--platform", FOREIGN, &name]);
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn pull_without_a_platform_replaces_another_platform_of_the_index() {
    let hub = Hub::shared();
    let mine = image("replaced-mine");
    let pushed = Index::new()
        .add(foreign("replaced"))
        .add(mine.clone())
        .push(&hub.host, &format!("{}:one", hub.repository("platform-replaced")));
    let (_scratch, rpull) = root();
    rpull.ok(["pull", "-q", "--platform", FOREIGN, &pushed.name()]);
    let done = rpull.run(["pull", "-q", &pushed.name()]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done}");
    let inspected = rpull.json(["inspect", &pushed.name()]);
    assert_eq!(inspected[0]["Id"], sha256(&mine.config()));
}

#[test]
fn image_that_an_index_lists_for_the_platform_is_pulled() {
    let hub = Hub::shared();
    // As older builders wrote them: the config has no variant, or the builder's platform.
    let platform = serde_json::json!({"os": "linux", "architecture": "riscv64"});
    let pushed = Index::new()
        .add_as(foreign("listed"), platform)
        .push(&hub.host, &format!("{}:one", hub.repository("platform-listed")));
    let (_scratch, rpull) = root();
    let done = rpull.run(["pull", "-q", "--platform", WANTED, &pushed.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("does not match the specified platform"), "{done}");
}

#[test]
fn resolve_with_a_platform_prints_the_digest_of_its_manifest() {
    let hub = Hub::shared();
    let (one, two) = (foreign("resolved"), image("resolved-mine"));
    let repository = hub.repository("platform-resolved");
    let pushed = Index::new()
        .add(one.clone())
        .add(two)
        .attestation()
        .push(&hub.host, &format!("{repository}:one"));
    let (_scratch, rpull) = root();
    let resolve = |name: &str| rpull.ok(["resolve", "--platform", FOREIGN, name]);
    let digest = sha256(one.manifest().to_string().as_bytes());
    for name in [pushed.name(), pushed.by_digest()] {
        assert_eq!(resolve(&name).trim(), digest);
    }
    assert_eq!(rpull.ok(["resolve", &pushed.name()]).trim(), pushed.digest);
    rpull.fails(3, ["resolve", "--platform", WANTED, &pushed.name()]);

    let alone = one.push(&hub.host, &format!("{repository}:alone"));
    assert_eq!(resolve(&alone.name()).trim(), alone.digest);
    let done = rpull.fails(3, ["resolve", "--platform", WANTED, &alone.name()]);
    assert!(done.stderr.contains(FOREIGN), "{done}");
    assert!(!rpull.root().exists(), "resolving needs no store");
}
