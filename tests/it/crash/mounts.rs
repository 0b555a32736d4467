//! `mount --rw` and `umount` that are killed after each file operation that changes something: changes are kept
//! whole or removed, and the next command that writes removes the rest.

use std::fs;
use std::path::Path;

use super::{AT, Scenario, assert_clean, assert_no_orphans, siblings};
use crate::support::image::Pushed;
use crate::support::rpull::Rpull;
use crate::support::scratch::in_private_mounts;
use crate::support::snapshot::names;

/// The directories of writable mounts.
fn mount_dirs(rpull: &Rpull) -> Vec<String> {
    names(&rpull.root().join("rpull/mounts"))
}

/// Where changes are kept that are not mounted.
fn kept(rpull: &Rpull) -> Vec<String> {
    let mounts = rpull.json(["mounts", "--format", "json"]);
    let mounts = mounts.as_array().unwrap().iter();
    let kept = mounts.filter(|mount| mount["mounted"] == false);
    kept.map(|mount| mount["upper"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn writable_mount_killed_after_any_operation_leaves_no_directory() {
    let [a, b] = siblings("crash-mount");
    let scenario = Scenario::new(&[&a], &["mount", "--rw", &a.name(), AT]);
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        let at = scenario.at();
        if scenario.is_mounted() {
            assert_eq!(names(&at), ["etc"], "after '{operation}'");
            rpull.fails(8, ["rm", &a.name()]);
            rpull.ok(["umount", at.to_str().unwrap()]);
        }
        assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
        rpull.ok(["mount", "--rw", &a.name(), at.to_str().unwrap()]);
        rpull.ok(["umount", at.to_str().unwrap()]);
        assert_clean(rpull, &["rm", &a.name()]);
        rpull.ok(["gc"]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn named_mount_killed_after_any_operation_is_mounted_or_leaves_its_name_free() {
    in_private_mounts(|| {
        let [a, b] = siblings("crash-named");
        let args = ["mount", "--rw", "--name", "web", &a.name(), AT];
        let scenario = Scenario::new(&[&a], &args);
        scenario.each(|rpull, operation| {
            assert_clean(rpull, &["pull", "-q", &b.name()]);
            let at = scenario.at();
            if scenario.is_mounted() {
                assert_eq!(names(&at), ["etc"], "after '{operation}'");
                let busy = rpull.fails(8, ["rm", &a.name()]);
                assert!(
                    busy.stderr.contains("the writable mount web"),
                    "after '{operation}': {busy}"
                );
                rpull.fails(8, ["mount", "--rw", "--name", "web", &a.name(), "/"]);
                rpull.ok(["umount", "--discard", "web"]);
            }
            assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
            rpull.ok(["mount", "--rw", "--name", "web", &a.name(), at.to_str().unwrap()]);
            rpull.ok(["umount", "web"]);
            rpull.ok(["mounts", "rm", "web"]);
            assert_clean(rpull, &["rm", &a.name()]);
            rpull.ok(["gc"]);
            assert_no_orphans(rpull.root(), operation);
        });
    });
}

/// The writable mount `web` with changes, which is not mounted, and a command.
fn stale(a: &Pushed, args: &[&str]) -> Scenario {
    let scenario = Scenario::new(&[a], args);
    let (image, at) = (a.name(), scenario.at());
    scenario.prepared(move |rpull| {
        rpull.ok(["mount", "--rw", "--name", "web", &image, at.to_str().unwrap()]);
        CHANGES.iter().for_each(|change| fs::write(at.join(change), change).unwrap());
        rpull.ok(["umount", "web"]);
    })
}

#[test]
fn removal_of_a_mount_killed_after_any_operation_keeps_all_changes_or_none() {
    in_private_mounts(|| {
        let [a, b] = siblings("crash-mounts-rm");
        stale(&a, &["mounts", "rm", "web"]).each(|rpull, operation| {
            assert_clean(rpull, &["pull", "-q", &b.name()]);
            if let Some(upper) = kept(rpull).first() {
                assert_eq!(names(Path::new(upper)), CHANGES, "after '{operation}'");
                rpull.fails(8, ["rm", &a.name()]);
                rpull.ok(["mounts", "rm", "web"]);
            }
            rpull.fails(3, ["mounts", "rm", "web"]);
            assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
            assert_clean(rpull, &["rm", &a.name()]);
            rpull.ok(["gc"]);
            assert_no_orphans(rpull.root(), operation);
        });
    });
}

#[test]
fn second_mount_killed_after_any_operation_keeps_the_changes() {
    in_private_mounts(|| {
        let [a, b] = siblings("crash-again");
        let scenario = stale(&a, &["mount", "web", AT]);
        scenario.each(|rpull, operation| {
            assert_clean(rpull, &["pull", "-q", &b.name()]);
            if scenario.is_mounted() {
                rpull.ok(["umount", "web"]);
            }
            rpull.ok(["mount", "web", scenario.at().to_str().unwrap()]);
            assert_eq!(
                names(&scenario.at()),
                ["etc", "one", "three", "two"],
                "after '{operation}'"
            );
            rpull.ok(["umount", "--discard", "web"]);
            assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
        });
    });
}

#[test]
fn mount_killed_after_any_operation_leaves_a_root_that_is_whole() {
    let [a, b] = siblings("crash-mount-ro");
    let scenario = Scenario::new(&[&a], &["mount", &a.name(), AT]);
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        if scenario.is_mounted() {
            assert_eq!(names(&scenario.at()), ["etc"], "after '{operation}'");
            rpull.ok(["umount", scenario.at().to_str().unwrap()]);
        }
        assert_clean(rpull, &["rm", &a.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

const CHANGES: [&str; 3] = ["one", "three", "two"];

/// A writable mount with `changes`, and `umount` of it with `options`.
fn unmounting(a: &Pushed, changes: &'static [&'static str], options: &[&str]) -> Scenario {
    let scenario = Scenario::new(&[a], &[&["umount"], options, &[AT]].concat());
    let (image, at) = (a.name(), scenario.at());
    scenario.prepared(move |rpull| {
        rpull.ok(["mount", "--rw", &image, at.to_str().unwrap()]);
        changes.iter().for_each(|change| fs::write(at.join(change), change).unwrap());
    })
}

#[test]
fn umount_killed_after_any_operation_keeps_the_changes() {
    let [a, b] = siblings("crash-umount");
    let scenario = unmounting(&a, &CHANGES, &[]);
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        if scenario.is_mounted() {
            rpull.ok(["umount", scenario.at().to_str().unwrap()]);
        }
        let kept = kept(rpull);
        assert_eq!(kept.len(), 1, "after '{operation}'");
        assert_eq!(names(Path::new(&kept[0])), CHANGES, "after '{operation}'");
        rpull.ok(["gc"]);
        assert_clean(rpull, &["umount", "--discard", &kept[0]]);
        assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
    });
}

#[test]
fn umount_of_an_unchanged_mount_killed_after_any_operation_leaves_no_directory() {
    let [a, b] = siblings("crash-unchanged");
    let scenario = unmounting(&a, &[], &[]);
    scenario.each(|rpull, operation| {
        if scenario.is_mounted() {
            rpull.ok(["umount", scenario.at().to_str().unwrap()]);
        }
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
        assert_eq!(kept(rpull), [""; 0], "after '{operation}'");
    });
}

#[test]
fn discard_killed_after_any_operation_keeps_all_changes_or_none() {
    let [a, b] = siblings("crash-discard");
    let scenario = unmounting(&a, &CHANGES, &["--discard"]);
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        let (at, kept) = (scenario.at(), kept(rpull));
        if scenario.is_mounted() {
            assert_eq!(names(&at), ["etc", "one", "three", "two"], "after '{operation}'");
            rpull.ok(["umount", "--discard", at.to_str().unwrap()]);
        } else if let Some(upper) = kept.first() {
            assert_eq!(names(Path::new(upper)), CHANGES, "after '{operation}'");
            rpull.ok(["umount", "--discard", upper]);
        }
        assert_eq!(mount_dirs(rpull), [""; 0], "after '{operation}'");
        rpull.ok(["gc"]);
        assert_clean(rpull, &["rm", &a.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}
