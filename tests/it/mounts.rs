//! Mounts: which ones `umount` takes, roots with long paths, and the changes of writable mounts.

mod names;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch::{self, Mounted, in_private_mounts};
use crate::support::tar::Tar;

fn push(layers: usize, stem: &str) -> Pushed {
    let layer = |n: usize| Tar::new().file(&format!("f{n}"), n.to_string()).end();
    let image = (0..layers).fold(Image::new(), |image, n| image.layer(layer(n)));
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

/// A root with one image, and a mount point beside it.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    image: String,
    at: PathBuf,
    _mounted: [Mounted; 2],
}

impl Place {
    fn new(layers: usize, stem: &str) -> Self {
        Self::with(&push(layers, stem))
    }

    /// An image of layers with one file each.
    fn of(files: &[&str], stem: &str) -> Self {
        let layers = files.iter().map(|name| Tar::new().file(name, name).end());
        let hub = Hub::shared();
        let image = layers.fold(Image::new(), Image::layer);
        Self::with(&image.push(&hub.host, &format!("{}:one", hub.repository(stem))))
    }

    fn with(pushed: &Pushed) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let image = pushed.name();
        rpull.ok(["pull", "-q", &image]);
        let at = scratch.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let mounted = [Mounted(at.clone()), Mounted(at.clone())];
        Self { scratch, rpull, image, at, _mounted: mounted }
    }

    fn at(&self) -> &str {
        self.at.to_str().unwrap()
    }

    fn mounts(&self) -> Vec<Value> {
        self.rpull.json(["mounts", "--format", "json"]).as_array().unwrap().clone()
    }

    fn kept(&self) -> usize {
        fs::read_dir(self.rpull.root().join("rpull/mounts")).unwrap().count()
    }

    /// `umount` fails with the exit code of a wrong argument and names `what` is mounted.
    #[track_caller]
    fn refused(&self, what: &str) {
        let before = mountinfo();
        let done = self.rpull.fails(2, ["umount", self.at()]);
        assert!(done.stderr.contains(what) && done.stderr.contains("hint: "), "{done}");
        assert_eq!(mountinfo().matches(self.at()).count(), before.matches(self.at()).count());
    }
}

fn mountinfo() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

#[test]
fn umount_of_a_foreign_mount_fails_and_leaves_it() {
    let place = Place::new(2, "foreign");
    place.refused("nothing is mounted at");
    let done = place.rpull.fails(2, ["umount", "/nonexistent/dir"]);
    assert!(done.stderr.contains("/nonexistent/dir"), "{done}");

    run("mount", &["-t", "tmpfs", "box", place.at()]);
    place.refused("box (tmpfs) is mounted there");
    run("umount", &[place.at()]);

    let dir = |name: &str| {
        let dir = place.scratch.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir.to_str().unwrap().to_owned()
    };
    let options = format!("lowerdir={}:{}", dir("a"), dir("b"));
    run("mount", &["-t", "overlay", "other", "-o", &options, place.at()]);
    place.refused("other (overlay)");
    run("umount", &[place.at()]);

    run("mount", &["--bind", "-o", "ro", &dir("x/diff"), place.at()]);
    place.refused("x/diff of ");
    run("umount", &[place.at()]);
}

#[test]
fn umount_of_another_stores_image_fails_and_leaves_it() {
    let (place, other) = (Place::new(2, "store-a"), Place::new(2, "store-b"));
    other.rpull.ok(["mount", &other.image, place.at()]);
    place.refused("overlay (overlay)");
    other.rpull.ok(["umount", place.at()]);
}

#[test]
fn umount_of_a_container_fails_and_leaves_it() {
    let place = Place::new(2, "container");
    // As dockerd mounts it: by links, with changes in a directory of overlay2.
    let overlay = place.rpull.root().join("overlay2");
    let container = "c".repeat(64);
    fs::create_dir_all(overlay.join(&container).join("diff")).unwrap();
    fs::create_dir_all(overlay.join(&container).join("work")).unwrap();
    let links = fs::read_dir(overlay.join("l")).unwrap();
    let links: Vec<_> =
        links.map(|e| format!("l/{}", e.unwrap().file_name().to_str().unwrap())).collect();
    let line = format!(
        "cd {} && mount -t overlay overlay -o lowerdir={},upperdir={container}/diff,workdir={container}/work {}",
        overlay.display(),
        links.join(":"),
        place.at()
    );
    run("sh", &["-c", &line]);
    place.refused("overlay (overlay)");
    assert!(place.mounts().is_empty());
}

#[test]
fn umount_takes_the_topmost_mount_only() {
    let place = Place::new(2, "stacked");
    place.rpull.ok(["mount", &place.image, place.at()]);
    run("mount", &["-t", "tmpfs", "above", place.at()]);
    place.refused("above (tmpfs)");
    run("umount", &[place.at()]);
    run("mount", &["-t", "tmpfs", "below", place.at()]);
    place.rpull.ok(["mount", &place.image, place.at()]);
    place.rpull.ok(["umount", place.at()]);
    place.refused("below (tmpfs)");
}

#[test]
fn printed_mount_of_one_or_two_layers_is_recognized() {
    for layers in [1, 2] {
        let place = Place::new(layers, "printed");
        let line = place.rpull.ok(["mount", "--print", &place.image, place.at()]);
        run("sh", &["-c", &line]);
        let mounts = place.mounts();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        assert_eq!(mounts[0]["target"], place.at());
        assert_eq!(mounts[0]["image"], place.image.as_str());
        assert_eq!((&mounts[0]["writable"], &mounts[0]["mounted"]), (&false.into(), &true.into()));
        place.rpull.ok(["umount", place.at()]);
        assert!(place.mounts().is_empty());
    }
}

#[test]
fn images_in_roots_with_long_paths_are_mounted() {
    // dockerd cannot start while a line of its mountinfo has over 64 KiB.
    in_private_mounts(mount_in_roots_with_long_paths);
}

fn mount_in_roots_with_long_paths() {
    let images = [1, 20, 125].map(|layers| (layers, push(layers, "long").name()));
    for length in [250, 1000] {
        let scratch = scratch::dir();
        let part = "d".repeat(125);
        let mut root = scratch.path().to_owned();
        while root.as_os_str().len() < length {
            root.push(&part);
        }
        let rpull = Rpull::on(&root);
        let at = scratch.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let (_mounted, dir) = (Mounted(at.clone()), at.to_str().unwrap());
        for (layers, image) in &images {
            rpull.ok(["pull", "-q", image]);
            let files = || fs::read_dir(&at).unwrap().count();
            rpull.ok(["mount", image, dir]);
            assert_eq!(files(), *layers, "{length}");
            let busy = rpull.fails(8, ["rm", image]);
            assert!(busy.stderr.contains("mounted at"), "{busy}");
            rpull.ok(["umount", dir]);
            assert_eq!(files(), 0);

            // Linux before 5.2 has no fsopen(2), and before 6.13 it takes no handles of layers.
            let old = ["-f", "-o", "/dev/null", "-e", "inject=fsopen:error=ENOSYS", BINARY];
            let mut old_kernel = Command::new("strace");
            old_kernel.args(old).args(["mount", image, dir]).env("RPULL_ROOT", &root);
            assert!(old_kernel.status().unwrap().success());
            assert_eq!(files(), *layers, "{length}");
            rpull.fails(8, ["rm", image]);
            rpull.ok(["umount", dir]);

            let line = rpull.ok(["mount", "--print", image, dir]);
            run("sh", &["-c", &line]);
            assert_eq!(files(), *layers, "{line}");
            rpull.fails(8, ["rm", image]);
            rpull.ok(["umount", dir]);

            rpull.ok(["mount", "--rw", "--name", "long", image, dir]);
            fs::write(at.join("new"), "").unwrap();
            assert_eq!(files(), layers + 1);
            rpull.fails(8, ["rm", image]);
            rpull.ok(["umount", "long"]);
            rpull.ok(["mount", "long", dir]);
            assert_eq!(files(), layers + 1);
            let table = rpull.ok(["mounts"]);
            assert!(table.lines().any(|line| line.contains(dir) && line.contains(image)));
            rpull.ok(["umount", "--discard", "long"]);
            assert_eq!(files(), 0);
        }
        assert_eq!(fs::read_dir(root.join("rpull/mounts")).unwrap().count(), 0);
    }
}

#[test]
fn changes_of_a_writable_mount_are_kept_until_they_are_discarded() {
    let place = Place::new(2, "kept");
    let (at, image) = (place.at(), place.image.as_str());
    place.rpull.ok(["mount", "--rw", image, at]);
    fs::write(place.at.join("new"), "text").unwrap();
    let mounted = place.mounts();
    let upper = mounted[0]["upper"].as_str().unwrap().to_owned();
    let said = place.rpull.ok(["umount", at]);
    let name = mounted[0]["name"].as_str().unwrap();
    assert_eq!(said.trim(), format!("changes of {name} are kept in {upper}"));
    assert_eq!(fs::read_to_string(format!("{upper}/new")).unwrap(), "text");
    place.rpull.ok(["tag", image, "other:name"]);
    let kept = place.mounts();
    assert_eq!(kept.len(), 1);
    assert_eq!((&kept[0]["target"], &kept[0]["mounted"]), (&Value::Null, &false.into()));
    assert_eq!((&kept[0]["image"], &kept[0]["upper"]), (&image.into(), &upper.as_str().into()));

    // They can be mounted again.
    let work = format!("{}/work", Path::new(&upper).parent().unwrap().display());
    place.rpull.ok(["mount", "--rw", "--upper", &upper, "--work", &work, image, at]);
    assert_eq!(fs::read_to_string(place.at.join("new")).unwrap(), "text");
    assert_eq!(place.mounts().len(), 1);
    let done = place.rpull.fails(8, ["umount", "--discard", &upper]);
    assert!(done.stderr.contains("it is mounted at"), "{done}");
    place.rpull.ok(["umount", at]);
    assert_eq!(place.rpull.ok(["umount", "--discard", &upper]), "");
    assert_eq!(place.kept(), 0);

    // Without changes, nothing is kept.
    place.rpull.ok(["mount", "--rw", image, at]);
    assert_eq!(place.rpull.ok(["umount", at]), "");
    assert_eq!(place.kept(), 0);
}

#[test]
fn changes_in_a_directory_of_the_user_are_never_discarded() {
    let place = Place::new(2, "own-upper");
    let dirs = ["up", "work"].map(|name| place.scratch.path().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let [upper, work] = dirs.each_ref().map(|dir| dir.to_str().unwrap());
    let mount = ["mount", "--rw", "--upper", upper, "--work", work, &place.image, place.at()];
    place.rpull.ok(mount);
    fs::write(place.at.join("new"), "text").unwrap();
    let said = place.rpull.ok(["umount", "--discard", place.at()]);
    assert_eq!(said.trim(), format!("changes are kept in {upper}"));
    assert_eq!(fs::read_to_string(dirs[0].join("new")).unwrap(), "text");
}

#[test]
fn command_that_writes_removes_what_killed_mounts_left() {
    let place = Place::new(2, "killed");
    let (at, image) = (place.at(), place.image.as_str());
    for step in 0..40 {
        let mut child = place.rpull.command(["mount", "--rw", image, at]);
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(step * 150));
        child.kill().unwrap();
        child.wait().unwrap();
        place.rpull.run(["umount", at]);
    }
    place.rpull.ok(["tag", image, "other:name"]);
    assert_eq!(place.kept(), 0);

    // Neither a mount without changes nor changes that are not mounted.
    place.rpull.ok(["mount", "--rw", image, at]);
    place.rpull.ok(["tag", image, "other:name"]);
    fs::write(place.at.join("new"), "text").unwrap();
    run("umount", &[at]);
    place.rpull.ok(["tag", image, "other:name"]);
    assert_eq!(place.kept(), 1);
}

#[test]
fn mount_that_fails_leaves_no_directory() {
    let place = Place::new(2, "failing");
    let file = place.scratch.path().join("file");
    fs::write(&file, "").unwrap();
    for target in [file, place.scratch.path().join("absent")] {
        let done = place.rpull.fails(2, ["mount", "--rw", &place.image, target.to_str().unwrap()]);
        assert!(done.stderr.contains(target.to_str().unwrap()), "{done}");
        assert_eq!(place.kept(), 0);
    }
}
