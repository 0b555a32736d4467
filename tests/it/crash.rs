//! Commands that are killed after each file operation that changes something: what is left is old or new, and the
//! next command that writes removes the rest.

mod cleanup;
mod commit;
mod mounts;
mod run;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, names};
use crate::support::tar::Tar;

const LAYERS: &str = "image/overlay2/layerdb/sha256";
const IMAGES: &str = "image/overlay2/imagedb/content/sha256";

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().dir("etc").file(&format!("etc/{mark}"), mark).end()
}

/// Two images on one base.
fn siblings(stem: &str) -> [Pushed; 2] {
    ["a", "b"].map(|mark| {
        let (base, top) = (layer(&format!("{stem}-base")), layer(&format!("{stem}-{mark}")));
        let hub = Hub::shared();
        Image::new()
            .layer(base)
            .layer(top)
            .push(&hub.host, &format!("{}:latest", hub.repository(stem)))
    })
}

/// How operations begin that change nothing; `write to` checks permissions.
const READS: [&str; 7] = ["list ", "lock ", "look at ", "open ", "read ", "sync ", "write to "];

/// Stands for the mount point of a scenario in the arguments of its command.
const AT: &str = "{mount point}";

/// A root that each run of a command begins with, and the command.
struct Scenario {
    place: tempfile::TempDir,
    args: Vec<String>,
    prepare: Box<dyn Fn(&Rpull)>,
    _mounted: Mounted,
}

impl Scenario {
    /// `before` are the images that the root has.
    fn new(before: &[&Pushed], args: &[&str]) -> Self {
        Self::on(
            |rpull| before.iter().for_each(|it| drop(rpull.ok(["pull", "-q", &it.name()]))),
            args,
        )
    }

    /// `make` makes the root, which each run gets a copy of.
    fn on(make: impl Fn(&Rpull), args: &[&str]) -> Self {
        let place = scratch::in_memory();
        make(&Rpull::on(place.path().join("template")));
        let at = place.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let args = args.iter().map(|arg| arg.replace(AT, at.to_str().unwrap())).collect();
        Self { place, args, prepare: Box::new(|_| {}), _mounted: Mounted(at) }
    }

    /// `prepare` changes each copy. In a copy, the index of layers must be made again; one that the
    /// command finds as its own processes left it needs a pull here.
    fn prepared(mut self, prepare: impl Fn(&Rpull) + 'static) -> Self {
        self.prepare = Box::new(prepare);
        self
    }

    /// The mount point.
    fn at(&self) -> PathBuf {
        self.place.path().join("mnt")
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        mounts.contains(&format!(" {} ", self.at().display()))
    }

    fn fresh(&self) -> Rpull {
        let (template, root) = (self.place.path().join("template"), self.place.path().join("root"));
        if self.is_mounted() {
            drop(Mounted(self.at()));
        }
        let _ = fs::remove_dir_all(&root);
        if template.exists() {
            let copied = Command::new("cp").arg("-a").arg(&template).arg(&root).status();
            assert!(copied.unwrap().success());
        }
        let rpull = Rpull::on(root);
        (self.prepare)(&rpull);
        rpull
    }

    /// The file operations of the command, in the order of one run.
    fn operations(&self) -> Vec<String> {
        let (rpull, list) = (self.fresh(), self.place.path().join("operations"));
        let mut command = rpull.command(&self.args);
        let output = command.env("RPULL_FAIL_LIST", &list).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(list).unwrap().lines().map(str::to_owned).collect()
    }

    /// Kills the command after each operation that changes something, and gives each root to
    /// `check`. After another one, the root is as it was before it.
    fn each(&self, check: impl Fn(&Rpull, &str)) {
        let operations = self.operations();
        println!("{}: {} operations\n{}", self.args[0], operations.len(), operations.join("\n"));
        let changes = |operation: &str| {
            let (_, what) = operation.split_once(' ').unwrap();
            !READS.iter().any(|read| what.starts_with(read))
        };
        for (n, operation) in (1..).zip(&operations).filter(|(_, operation)| changes(operation)) {
            let rpull = self.fresh();
            let how = if n % 4 == 0 { format!("{n}:abort") } else { n.to_string() };
            let mut command = rpull.command(&self.args);
            command.env("RPULL_FAIL_AT", how).stdout(Stdio::null()).stderr(Stdio::null());
            let status = command.status().unwrap();
            // Operations of several threads vary: one run may have fewer than another.
            assert!(status.signal().is_some() || status.success(), "{operation}: {status}");
            check(&rpull, operation);
        }
    }
}

/// Fails unless every layer and image of the root is whole, belongs to a name, and all that a dead
/// process left is gone after `next`.
#[track_caller]
fn assert_clean(rpull: &Rpull, next: &[&str]) {
    let root = rpull.root();
    // A reader sees whole images only; 3 if the root has none yet.
    let listed = rpull.run(["images"]);
    assert!(matches!(listed.code, Some(0 | 3)), "{listed}");
    rpull.ok(next.iter().copied());
    judge::judge_root(root);
    assert_agreement(root);
    assert_consistent(root);
}

/// Fails if the root has an image without a name, or a layer without an image.
#[track_caller]
fn assert_no_orphans(root: &Path, operation: &str) {
    let names_file = root.join("image/overlay2/repositories.json");
    let named = fs::read_to_string(names_file).unwrap_or_default();
    let mut needed = BTreeSet::new();
    for image in names(&root.join(IMAGES)) {
        assert!(named.contains(&image), "after '{operation}': image {image} has no name");
        let config = fs::read(root.join(IMAGES).join(&image)).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().iter();
        let diff_ids: Vec<_> = diff_ids.map(|id| id.as_str().unwrap().to_owned()).collect();
        needed.extend(crate::support::snapshot::chains(&diff_ids));
    }
    let there: BTreeSet<_> = names(&root.join(LAYERS)).into_iter().collect();
    assert_eq!(there, needed, "after '{operation}': layers without an image");
}

#[test]
fn removal_killed_after_any_operation_is_finished_by_the_next_command() {
    let [a, b] = siblings("crash-rm");
    let last = a.name();
    let scenario = Scenario::new(&[&b], &["rm", &a.name()])
        .prepared(move |rpull| drop(rpull.ok(["pull", "-q", &last])));
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["tag", &b.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["pull", "-q", &a.name()]);
        assert_clean(rpull, &["rm", &a.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn removal_of_the_last_image_killed_after_any_operation_leaves_nothing() {
    let [a, _] = siblings("crash-rm-last");
    let scenario = Scenario::new(&[&a], &["rm", &a.name()]);
    scenario.each(|rpull, operation| {
        // The next command is a pull of the same image, which writes nothing if it is still there.
        rpull.ok(["pull", "-q", &a.name()]);
        assert_clean(rpull, &["tag", &a.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["rm", &a.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn tag_killed_after_any_operation_leaves_nothing_else() {
    let [a, b] = siblings("crash-tag");
    let scenario = Scenario::new(&[&a], &["tag", &a.name(), "other:tag"]);
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn push_killed_after_any_operation_leaves_nothing_else() {
    let [a, b] = siblings("crash-push");
    let name = format!("{}:pushed", a.repository);
    let make = |rpull: &Rpull| {
        rpull.ok(["pull", "-q", &a.name()]);
        rpull.ok(["tag", &a.name(), &name]);
    };
    Scenario::on(make, &["push", "-q", &name]).each(|rpull, operation| {
        assert_clean(rpull, &["pull", "-q", &b.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn pull_killed_after_any_operation_is_completed_by_the_next_one() {
    let [a, b] = siblings("crash-pull");
    let scenario = Scenario::new(&[&a], &["pull", "-q", &b.name()]);
    scenario.each(|rpull, operation| {
        // Layers that were committed are kept for the next pull.
        assert_clean(rpull, &["tag", &a.name(), "other:tag"]);
        rpull.ok(["pull", "-q", &b.name()]);
        assert_no_orphans(rpull.root(), operation);
        assert_clean(rpull, &["rm", &b.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn pull_that_keeps_blobs_and_syncs_killed_after_any_operation_is_completed_by_the_next_one() {
    let [a, b] = siblings("crash-kept");
    let last = a.name();
    let args = ["pull", "-q", "--keep-blobs", "--sync", &b.name()];
    let scenario =
        Scenario::new(&[], &args).prepared(move |rpull| drop(rpull.ok(["pull", "-q", &last])));
    scenario.each(|rpull, operation| {
        assert_clean(rpull, &["tag", &a.name(), "other:tag"]);
        rpull.ok(args);
        assert_no_orphans(rpull.root(), operation);
        rpull.ok(["gc"]);
        rpull.ok(["pull", "-q", "--policy", "never", &b.name()]);
        rpull.ok(["check", "--deep"]);
        assert_clean(rpull, &["rm", &b.name()]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn first_pull_killed_after_any_operation_is_completed_by_the_next_one() {
    let [a, _] = siblings("crash-first");
    let scenario = Scenario::new(&[], &["pull", "-q", &a.name()]);
    scenario.each(|rpull, operation| {
        rpull.ok(["pull", "-q", &a.name()]);
        assert_clean(rpull, &["tag", &a.name(), "other:tag"]);
        assert_no_orphans(rpull.root(), operation);
    });
}

#[test]
fn dockerd_starts_on_roots_of_killed_commands() {
    let [a, b] = siblings("crash-dockerd");
    let scenarios = [
        Scenario::new(&[&a, &b], &["rm", &b.name()]),
        Scenario::new(&[&a], &["pull", "-q", &b.name()]),
    ];
    for scenario in scenarios {
        let operations = scenario.operations().len();
        for n in [operations / 3, operations / 2, operations * 3 / 4] {
            let rpull = scenario.fresh();
            let mut command = rpull.command(&scenario.args);
            command.env("RPULL_FAIL_AT", n.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().unwrap();
            let dockerd = Dockerd::start(rpull.root());
            dockerd.ok(&["create", &a.name(), "/x"]);
            dockerd.stop();
        }
    }
}
