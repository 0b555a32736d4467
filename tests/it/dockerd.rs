//! A real dockerd uses what rpull wrote, and rpull reads what a real dockerd wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pushed};
use crate::support::rpull::Rpull;
use crate::support::scratch::Mounted;
use crate::support::snapshot::{self, assert_same, assert_same_trees, describe};
use crate::support::tar::{Entry, Tar};
use crate::support::{fixture, judge, scratch};

/// A root that rpull filled, with a dockerd on it: `hello` by tag, `plain` by digest,
/// `spare` to take away.
struct Filled {
    docker: Dockerd,
    hello: Pushed,
    plain: Pushed,
    spare: Pushed,
    /// What `rpull inspect hello` said before dockerd came.
    inspected: Value,
}

fn filled() -> &'static Filled {
    static FILLED: OnceLock<Filled> = OnceLock::new();
    FILLED.get_or_init(|| {
        let hub = Hub::shared();
        let root = scratch::lasting().join("root");
        let hello = fixture::push_hello(&format!("{}:v1", hub.repository("hello")));
        let plain = stack("plain").push(&hub.host, &format!("{}:latest", hub.repository("plain")));
        let spare = stack("spare").push(&hub.host, &format!("{}:latest", hub.repository("spare")));
        let rpull = Rpull::on(&root);
        rpull.ok(["pull", &hello.name(), &plain.by_digest(), &spare.name()]);
        let inspected = rpull.json(["inspect", &hello.name(), "--format", "json"]);
        judge::judge_root(&root);
        Filled { docker: Dockerd::start(&root), hello, plain, spare, inspected }
    })
}

/// Three layers, the last of which takes something away; all its own by `mark`.
fn stack(mark: &str) -> Image {
    let base = Tar::new()
        .dir("etc/")
        .file("etc/mark", mark)
        .file("etc/gone", "soon")
        .add(Entry::file("bin/tool", format!("#!{mark}")).mode(0o755))
        .end();
    let middle = Tar::new().add(Entry::dir("opt/").owner(10, 20)).file("opt/x", mark).end();
    let top = Tar::new().add(Entry::whiteout("etc/gone")).file("etc/new", mark).end();
    Image::new().layer(base).layer(middle).layer(top)
}

fn first(value: &Value) -> &Value {
    value.get(0).unwrap_or(value)
}

#[test]
fn docker_lists_what_rpull_pulled() {
    let filled = filled();
    let table = filled.docker.ok(&["images", "--digests", "--no-trunc"]);
    let row = |words: &[&str]| {
        let found = table.lines().any(|line| {
            let cells: Vec<_> = line.split_whitespace().collect();
            words.iter().all(|word| cells.contains(word))
        });
        assert!(found, "{words:?} is no row of:\n{table}");
    };
    let (hello, plain) = (&filled.hello, &filled.plain);
    row(&[&hello.repository, "v1", &hello.digest]);
    row(&[&plain.repository, "<none>", &plain.digest, &plain.id]);
}

#[test]
fn docker_inspects_what_rpull_pulled() {
    let filled = filled();
    let docker = filled.docker.json(&["inspect", &filled.hello.name()]);
    let (docker, ours) = (first(&docker), first(&filled.inspected));
    assert_eq!(docker["RepoTags"], serde_json::json!([filled.hello.name()]));
    assert_eq!(docker["RepoDigests"], serde_json::json!([filled.hello.by_digest()]));
    let fields =
        ["Id", "RepoTags", "RepoDigests", "RootFS", "GraphDriver", "Architecture", "Os", "Size"];
    for field in fields {
        assert_eq!(ours[field], docker[field], "{field}");
    }
    assert_eq!(ours["Config"]["Cmd"], docker["Config"]["Cmd"]);
    assert!(docker["GraphDriver"]["Data"]["LowerDir"].as_str().unwrap().contains("/diff:"));
}

#[test]
fn docker_shows_the_history() {
    let filled = filled();
    let history = filled.docker.ok(&["history", "--no-trunc", &filled.hello.name()]);
    assert_eq!(history.lines().count(), 5, "{history}");
    assert!(history.contains("make-hello, layer 3"), "{history}");
}

#[test]
fn docker_runs_the_image() {
    let filled = filled();
    let said = filled.docker.ok(&["run", "--rm", "--network", "none", &filled.hello.name()]);
    assert_eq!(said, fixture::LINE);
}

#[test]
fn docker_commits_on_top_of_the_image() {
    let docker = &filled().docker;
    let container = docker.ok(&["create", "--network", "none", &filled().hello.name(), "/copied"]);
    let copies = scratch::dir();
    let copied = copies.path().join("copied");
    docker.ok(&["cp", &format!("{container}:/hello"), copied.to_str().unwrap()]);
    docker.ok(&["cp", copied.to_str().unwrap(), &format!("{container}:/copied")]);
    let changes: BTreeSet<_> =
        docker.ok(&["diff", &container]).lines().map(str::to_owned).collect();
    assert!(changes.contains("A /copied"), "{changes:?}");
    assert!(!changes.iter().any(|change| change.starts_with('D')), "{changes:?}");
    docker.ok(&["commit", &container, "committed:on-top"]);
    docker.ok(&["rm", &container]);
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "committed:on-top"]), fixture::LINE);
    let layers = docker.json(&["inspect", "committed:on-top"])[0]["RootFS"]["Layers"].clone();
    assert_eq!(layers.as_array().unwrap().len(), 4);
    assert_eq!(docker.save("committed:on-top").unwrap().len(), 4);
}

#[test]
fn docker_saves_the_exact_layers() {
    let filled = filled();
    let saved = filled.docker.save(&filled.plain.by_digest()).unwrap();
    assert_eq!(saved, stack("plain").diff_ids());
    let inspected = filled.docker.json(&["inspect", &filled.hello.name()]);
    let diff_ids = inspected[0]["RootFS"]["Layers"].clone();
    let saved = filled.docker.save(&filled.hello.name()).unwrap();
    assert_eq!(serde_json::json!(saved), diff_ids);
}

#[test]
fn docker_removes_the_whole_image() {
    let filled = filled();
    let root = &filled.docker.root;
    let chains = snapshot::chains(&stack("spare").diff_ids());
    let dirs: Vec<PathBuf> = chains.iter().map(|c| snapshot::layer_dir(root, c)).collect();
    assert!(dirs.iter().all(|dir| dir.exists()));
    let said = filled.docker.ok(&["rmi", &filled.spare.name()]);
    assert_eq!(said.lines().filter(|line| line.starts_with("Untagged")).count(), 2, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("Deleted")).count(), 4, "{said}");
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// The same images by the same names: tag and digest, one platform and many, a layer
/// twice, a layer under two chains, an empty layer.
#[test]
fn root_after_a_pull_matches_docker_pull() {
    let hub = Hub::shared();
    let push =
        |image: &Image, stem| image.push(&hub.host, &format!("{}:latest", hub.repository(stem)));
    let one = push(&stack("equal"), "equal-one");
    let shared = stack("equal").layers[1].tar.clone();
    let empty = Tar::new().end();
    let twice = Image::oci().layer(shared.clone()).layer(empty).layer(shared);
    let twice = push(&twice, "equal-twice");
    let index = Index::new()
        .add(stack("other").platform("linux", "s390x", ""))
        .add(stack("many"))
        .attestation()
        .push(&hub.host, &format!("{}:many", hub.repository("equal-many")));
    let names =
        [one.name(), twice.by_digest(), index.name(), one.by_digest(), twice.name(), one.name()];

    let scratch = scratch::dir();
    let (ours, theirs) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    let docker = Dockerd::start(&theirs);
    for name in &names {
        docker.ok(&["pull", "-q", name]);
        Rpull::on(&ours).ok(["pull", "-q", name]);
    }
    docker.stop();
    assert_same(&ours, &theirs);
    judge::judge_root(&ours);
    for dir in ["", "image", "overlay2"] {
        let mode = |root: &PathBuf| {
            std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.join(dir)).unwrap())
        };
        assert_eq!(mode(&ours), mode(&theirs), "the mode of /{dir}");
    }
}

/// rpull on a root that dockerd filled, and dockerd on it again.
#[test]
fn rpull_reads_a_root_that_docker_filled() {
    let hub = Hub::shared();
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let image = stack("reverse");
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("reverse")));

    let docker = Dockerd::start(&root);
    docker.ok(&["pull", "-q", &pushed.name()]);
    let dockers = docker.json(&["inspect", &pushed.name()]);
    docker.stop();
    let before = describe(&root);

    let rpull = Rpull::on(&root);
    let again = rpull.ok(["pull", &pushed.name()]);
    assert!(again.contains("Status: Image is up to date for "), "{again}");
    assert_same_trees(&describe(&root), &before);

    let images = rpull.ok(["images", "--no-trunc", "--format", "json"]);
    assert!(images.contains(&pushed.repository) && images.contains(&pushed.id), "{images}");
    let inspected = rpull.json(["inspect", &pushed.name(), "--format", "json"]);
    for field in ["Id", "RepoTags", "RepoDigests", "RootFS", "GraphDriver", "Size"] {
        assert_eq!(first(&inspected)[field], dockers[0][field], "{field}");
    }
    let layers = rpull.ok(["layers", &pushed.name(), "--format", "json"]);
    for (layer, chain) in image.layers.iter().zip(snapshot::chains(&image.diff_ids())) {
        assert!(layers.contains(&layer.diff_id()) && layers.contains(&layer.digest()), "{layers}");
        assert!(layers.contains(&chain), "{layers}");
    }
    assert!(rpull.ok(["history", &pushed.name()]).contains("layer 2"));

    let dir = scratch.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    let mounted = Mounted(dir.clone());
    rpull.ok(["mount", &pushed.name(), dir.to_str().unwrap()]);
    assert_eq!(snapshot::names(&dir.join("etc")), ["mark", "new"]);
    assert_eq!(fs::read_to_string(dir.join("opt/x")).unwrap(), "reverse");
    rpull.ok(["umount", dir.to_str().unwrap()]);
    drop(mounted);

    let docker = Dockerd::start(&root);
    assert_eq!(docker.save(&pushed.name()), Ok(image.diff_ids()));
    docker.stop();
}

/// An image that rpull pulls onto layers that dockerd made, and the other way round.
#[test]
fn docker_and_rpull_build_on_each_others_layers() {
    let hub = Hub::shared();
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let below = stack("below");
    let above = below.clone().layer(Tar::new().file("above", "x").end());
    let top = above.clone().layer(Tar::new().file("top", "x").end());
    let [below, above_pushed, top_pushed] = [&below, &above, &top]
        .map(|image| image.push(&hub.host, &format!("{}:latest", hub.repository("mixed"))));

    let docker = Dockerd::start(&root);
    docker.ok(&["pull", "-q", &below.name()]);
    docker.stop();
    let said = Rpull::on(&root).ok(["pull", &above_pushed.name()]);
    assert_eq!(said.matches(": Already exists").count(), 3, "{said}");
    let docker = Dockerd::start(&root);
    let said = docker.ok(&["pull", &top_pushed.name()]);
    assert_eq!(said.matches(": Already exists").count(), 4, "{said}");
    assert_eq!(docker.save(&top_pushed.name()), Ok(top.diff_ids()));
    docker.stop();
    judge::judge_root(&root);
    snapshot::assert_consistent(&root);
}
