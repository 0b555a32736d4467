//! `commit` that is killed after each file operation that changes something: the image is whole or absent, the
//! changes stay, and the next commands remove the rest.

use std::fs;
use std::path::Path;

use super::{IMAGES, Scenario, assert_clean, assert_no_orphans, siblings};
use crate::support::snapshot::names;

#[test]
fn commit_killed_after_any_operation_leaves_a_whole_image_or_none() {
    let [a, b] = siblings("crash-commit");
    let args = ["commit", "--timestamp", "7", "web", "app:2"];
    let scenario = Scenario::new(&[&a], &args);
    let (image, at) = (a.name(), scenario.at());
    let scenario = scenario.prepared(move |rpull| {
        rpull.ok(["mount", "--rw", "--name", "web", &image, at.to_str().unwrap()]);
        fs::write(at.join("new"), "new").unwrap();
        fs::remove_dir_all(at.join("etc")).unwrap();
        rpull.ok(["umount", "web"]);
    });
    scenario.each(|rpull, operation| {
        // Removes what was staged, as the next pull does.
        assert_clean(rpull, &["tag", &a.name(), "other:tag"]);
        let left = names(&rpull.root().join(IMAGES)).len();
        // The same commit is the same image, whatever was left.
        rpull.ok(args);
        assert_eq!(names(&rpull.root().join(IMAGES)).len(), 2, "after '{operation}'");
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["check", "--deep"]);
        let at = scenario.at();
        rpull.ok(["mount", "app:2", at.to_str().unwrap()]);
        assert_eq!(names(&at), ["new"], "after '{operation}', with {left} images");
        rpull.ok(["umount", at.to_str().unwrap()]);
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        rpull.ok(["mounts", "rm", "web"]);
        rpull.ok(["rm", "app:2"]);
        assert_clean(rpull, &["rm", &a.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn commit_killed_after_any_operation_and_not_repeated_is_removed_by_gc_and_prune() {
    let [a, b] = siblings("crash-commit-gc");
    let args = ["commit", "--timestamp", "7", "web", "app:2"];
    let scenario = Scenario::new(&[&a], &args);
    let (image, at) = (a.name(), scenario.at());
    let scenario = scenario.prepared(move |rpull| {
        rpull.ok(["mount", "--rw", "--name", "web", &image, at.to_str().unwrap()]);
        fs::write(at.join("new"), "new").unwrap();
        rpull.ok(["umount", "web"]);
    });
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        rpull.ok(["prune", "--dangling"]);
        rpull.ok(["gc"]);
        assert_no_orphans(rpull.root(), operation);
        let upper = rpull.json(["mounts", "--format", "json"])[0]["upper"].clone();
        assert_eq!(names(Path::new(upper.as_str().unwrap())), ["new"], "after '{operation}'");
    });
}

#[test]
fn commit_that_removes_its_mount_killed_after_any_operation_loses_no_changes() {
    let [a, b] = siblings("crash-commit-rm");
    let scenario = Scenario::new(&[&a], &["commit", "--rm", "--timestamp", "7", "web", "app:2"]);
    let (image, at) = (a.name(), scenario.at());
    let scenario = scenario.prepared(move |rpull| {
        rpull.ok(["mount", "--rw", "--name", "web", &image, at.to_str().unwrap()]);
        fs::write(at.join("new"), "new").unwrap();
    });
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        let (at, is_committed) = (scenario.at(), rpull.run(["inspect", "app:2"]).code == Some(0));
        if !is_committed {
            rpull.ok(["commit", "--rm", "--timestamp", "7", "web", "app:2"]);
        } else if rpull.run(["mounts", "rm", "web"]).code == Some(8) {
            rpull.ok(["umount", "--discard", "web"]);
        }
        assert!(!scenario.is_mounted(), "after '{operation}'");
        rpull.ok(["mount", "app:2", at.to_str().unwrap()]);
        assert_eq!(names(&at), ["etc", "new"], "after '{operation}'");
        rpull.ok(["umount", at.to_str().unwrap()]);
        rpull.ok(["rm", "app:2"]);
        assert_clean(rpull, &["rm", &a.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}
