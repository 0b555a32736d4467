//! `gc`, `prune`, `check --repair` and the recovery after a power failure that are killed after each
//! file operation that changes something.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Scenario, assert_clean, assert_no_orphans, siblings};
use crate::check::assert_whole;
use crate::clean::{add_orphans, assert_whole_but_orphans};
use crate::damage::flip;
use crate::support::image::Pushed;
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::snapshot::{assert_agreement, assert_consistent, names};

/// Fails unless the root holds whole images only, and nothing that `gc` would remove.
#[track_caller]
fn assert_collected(rpull: &Rpull, operation: &str) {
    assert_no_orphans(rpull.root(), operation);
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
    judge::judge_root(rpull.root());
    assert_whole(rpull);
    let left = rpull.json(["gc", "--dry-run", "--format", "json"]);
    assert_eq!(left["removed"], serde_json::json!([]), "after '{operation}'");
}

/// A root with two images and an orphan of each kind, and `gc` there; the image whose layers are
/// orphans.
fn collection(stem: &str) -> (Scenario, Pushed, [Pushed; 2]) {
    let [a, b] = siblings(stem);
    let lost = RefCell::new(None);
    let make = |rpull: &Rpull| {
        rpull.ok(["pull", "-q", &a.name()]);
        *lost.borrow_mut() = Some(add_orphans(rpull));
    };
    let last = b.name();
    let scenario =
        Scenario::on(make, &["gc"]).prepared(move |rpull| drop(rpull.ok(["pull", "-q", &last])));
    (scenario, lost.into_inner().unwrap(), [a, b])
}

#[test]
fn gc_killed_after_any_operation_is_finished_by_the_next_one() {
    let (scenario, lost, [a, b]) = collection("crash-gc");
    scenario.each(|rpull, operation| {
        assert_eq!(rpull.ok(["images", "-q"]).lines().count(), 2, "after '{operation}'");
        assert_whole_but_orphans(rpull);
        rpull.ok(["gc"]);
        assert_collected(rpull, operation);
        rpull.ok(["pull", "-q", &lost.name()]);
        for image in [&a, &b] {
            rpull.ok(["pull", "-q", "--policy", "never", &image.name()]);
        }
        assert_collected(rpull, operation);
    });
}

#[test]
fn pull_of_layers_that_a_killed_gc_was_removing_leaves_a_whole_image() {
    let (scenario, lost, [a, _]) = collection("crash-gc-pull");
    scenario.each(|rpull, operation| {
        rpull.ok(["pull", "-q", &lost.name()]);
        assert_whole_but_orphans(rpull);
        rpull.ok(["rm", &a.name()]);
        rpull.ok(["gc"]);
        assert_collected(rpull, operation);
        rpull.ok(["pull", "-q", "--policy", "never", &lost.name()]);
    });
}

#[test]
fn prune_killed_after_any_operation_is_finished_by_the_next_command() {
    let [a, b] = siblings("crash-prune");
    let make = |rpull: &Rpull| drop(rpull.ok(["pull", "-q", &a.by_digest()]));
    let last = b.name();
    let scenario = Scenario::on(make, &["prune", "--dangling"])
        .prepared(move |rpull| drop(rpull.ok(["pull", "-q", &last])));
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["tag", &b.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["prune", "--dangling"]);
        rpull.fails(3, ["inspect", &a.by_digest()]);
        rpull.ok(["pull", "-q", "--policy", "never", &b.name()]);
        rpull.ok(["pull", "-q", &a.name()]);
        rpull.ok(["gc"]);
        assert_collected(rpull, operation);
    });
}

/// A file of the topmost layer of an image, and the record of that layer.
fn top_of(rpull: &Rpull, image: &Pushed) -> (PathBuf, PathBuf) {
    let layers = rpull.json(["layers", "--format", "json", &image.name()]);
    let top = layers.as_array().unwrap().last().unwrap().clone();
    let dir = Path::new(top["path"].as_str().unwrap()).join("etc");
    let file = dir.join(&names(&dir)[0]);
    let chain = top["chainId"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    (file, rpull.root().join("image/overlay2/layerdb/sha256").join(chain))
}

#[test]
fn repair_killed_after_any_operation_is_finished_by_the_next_one() {
    let [a, b] = siblings("crash-repair");
    let make = |rpull: &Rpull| {
        rpull.ok(["pull", "-q", &a.name(), &b.name()]);
        flip(&top_of(rpull, &a).0);
        let base = rpull.json(["layers", "--format", "json", &b.name()]);
        let base = Path::new(base[0]["path"].as_str().unwrap()).join("etc");
        flip(&base.join(&names(&base)[0]));
        let (_, record) = top_of(rpull, &b);
        fs::write(record.join("tar-split.json.gz"), "").unwrap();
        let config = a.id.trim_start_matches("sha256:");
        flip(&rpull.root().join("image/overlay2/imagedb/content/sha256").join(config));
        flip(&rpull.root().join("rpull/content/blobs/sha256").join(config));
    };
    let scenario = Scenario::on(make, &["check", "--deep", "--repair"]);
    scenario.each(|rpull, operation| {
        rpull.ok(["images"]);
        rpull.ok(["tag", &b.name(), "other:tag"]);
        // What could be mounted before can be mounted.
        assert_consistent(rpull.root());
        assert_agreement(rpull.root());
        rpull.ok(["check", "--deep", "--repair"]);
        assert_collected(rpull, operation);
        for image in [&a, &b] {
            rpull.ok(["pull", "-q", "--policy", "never", &image.name()]);
        }
    });
}

#[test]
fn recovery_killed_after_any_operation_is_finished_by_the_next_command() {
    let [a, b] = siblings("crash-recovery");
    let make = |rpull: &Rpull| {
        rpull.ok(["pull", "-q", &a.name(), &b.name()]);
        // The layer lost its data when the power failed.
        let (file, _) = top_of(rpull, &a);
        let size = file.metadata().unwrap().len();
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let unsynced = rpull.root().join("rpull/unsynced");
        let boot = names(&unsynced).remove(0);
        fs::rename(unsynced.join(boot), unsynced.join("00000000-earlier")).unwrap();
    };
    let scenario = Scenario::on(make, &["images"]);
    scenario.each(|rpull, operation| {
        let shown = rpull.ok(["images", "-q", "--no-trunc"]);
        assert!(!shown.contains(&a.id) && shown.contains(&b.id), "after '{operation}': {shown}");
        assert_clean(rpull, &["tag", &b.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["pull", "-q", "--policy", "never", &b.name()]);
        rpull.ok(["pull", "-q", &a.name()]);
        rpull.ok(["gc"]);
        assert_collected(rpull, operation);
    });
}
