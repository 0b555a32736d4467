//! Power failures: the file system of a root is copied while and after rpull writes to it, as the
//! disk has it, and mounted again. What the first commands there show is whole.

mod moments;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, names};
use crate::support::tar::{Tar, noise};

/// An ext4 file system in a file.
struct Disk {
    image: PathBuf,
    mounted: Mounted,
}

impl Disk {
    fn new(place: &Path) -> Self {
        let image = place.join("disk");
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", &text(&image)]);
        Self::mount(image, place.join("mounted"))
    }

    fn mount(image: PathBuf, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        // A commit of the journal while the disk is copied would tear the copy, so there is none
        // that the test does not ask for.
        run("mount", &["-o", "loop,commit=3600", &text(&image), &text(&at)]);
        Self { image, mounted: Mounted(at) }
    }

    fn root(&self) -> PathBuf {
        self.mounted.0.join("root")
    }

    /// What is on the disk at this moment, mounted as after a power failure and another boot.
    fn after_power_failure(&self, place: &Path) -> Self {
        let _ = fs::remove_dir_all(place);
        fs::create_dir_all(place).unwrap();
        let copy = place.join("disk");
        run("cp", &["--sparse=always", &text(&self.image), &text(&copy)]);
        let disk = Self::mount(copy, place.join("mounted"));
        let unsynced = disk.root().join("rpull/unsynced");
        if unsynced.is_dir() {
            for boot in names(&unsynced) {
                fs::rename(unsynced.join(boot), unsynced.join("00000000-earlier")).unwrap();
            }
        }
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not lazily: the loop device must be free before its file is removed. A process that another
        // thread is just starting has the files of this one open for a moment.
        for _ in 0..50 {
            let done = Command::new("umount").arg(&self.mounted.0).output();
            if done.is_ok_and(|done| done.status.success()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Images of four layers each, which share their base.
fn images(stem: &str, count: usize) -> Vec<Pushed> {
    let hub = Hub::shared();
    let repository = hub.repository(stem);
    let layer = |mark: &str| {
        let tar = Tar::new().dir("etc").file(&format!("etc/{mark}"), noise(100_000 + mark.len()));
        (0..20).fold(tar, |tar, n| tar.file(&format!("etc/{mark}-{n}"), noise(3000 + n))).end()
    };
    let image = |n: usize| {
        let image = Image::new().layer(layer("base"));
        let image = (0..3).fold(image, |image, m| image.layer(layer(&format!("{n}-{m}"))));
        image.push(&hub.host, &format!("{repository}:{n}"))
    };
    (0..count).map(image).collect()
}

/// Runs the first commands after the boot. Returns how many images they show.
fn first_commands(disk: &Disk, images: &[Pushed]) -> usize {
    let rpull = Rpull::on(disk.root());
    let listed = rpull.run(["images", "-q"]);
    assert!(matches!(listed.code, Some(0 | 3)), "{listed}");
    let shown = listed.stdout.lines().count();
    let unsynced = disk.root().join("rpull/unsynced");
    if unsynced.is_dir() {
        assert_eq!(names(&unsynced), [""; 0], "verified once");
    }
    if disk.root().join("image/overlay2/layerdb/sha256").is_dir() {
        judge::judge_root(&disk.root());
    }
    // Later pulls bring what is missing.
    for image in images {
        rpull.ok(["pull", "-q", &image.name()]);
    }
    rpull.ok(["tag", &images[0].name(), "other:tag"]);
    judge::judge_root(&disk.root());
    assert_agreement(&disk.root());
    assert_consistent(&disk.root());
    shown
}

#[test]
fn images_after_a_power_failure_are_whole_or_absent() {
    let images = images("power", 4);
    let place = scratch::in_memory();
    let disk = Disk::new(place.path());
    let rpull = Rpull::on(disk.root());
    let mut dropped = false;
    for (n, image) in images.iter().enumerate() {
        rpull.ok(["pull", "-q", &image.name()]);
        let copy = disk.after_power_failure(&place.path().join("copy"));
        let repositories = copy.root().join("image/overlay2/repositories.json");
        let named = fs::read_to_string(repositories).unwrap_or_default();
        let tags = images.iter().filter(|image| named.contains(&format!("{}\"", image.name())));
        let tags = tags.count();
        let shown = first_commands(&copy, &images[..=n]);
        assert!(shown <= tags, "{shown} images of {tags} names");
        dropped |= shown < tags;
    }
    // The names are synced and the files are not, so this is not a test that cannot fail.
    assert!(dropped, "no copy had a damaged layer");
}

#[test]
fn synced_images_need_no_verification_after_a_power_failure() {
    let images = images("power-sync", 2);
    let place = scratch::in_memory();
    let disk = Disk::new(place.path());
    let rpull = Rpull::on(disk.root());
    for image in &images {
        rpull.ok(["pull", "-q", "--sync", &image.name()]);
    }
    let boots = disk.root().join("rpull/unsynced");
    let listed: usize = names(&boots).iter().map(|boot| names(&boots.join(boot)).len()).sum();
    assert_eq!(listed, 0, "synced layers are not listed");
    let copy = disk.after_power_failure(&place.path().join("copy"));
    assert_eq!(judge::judge_root(&copy.root()), 7);
    assert_eq!(first_commands(&copy, &images), 2);
}

#[test]
fn damaged_layers_of_an_earlier_boot_are_dropped_with_their_images_only() {
    let images = images("power-drop", 2);
    let place = scratch::in_memory();
    let rpull = Rpull::on(place.path().join("root"));
    for image in &images {
        rpull.ok(["pull", "-q", &image.name()]);
    }
    // The topmost layer of the second image loses the data of a file.
    let json = rpull.json(["layers", "--format", "json", &images[1].name()]);
    let layers = json.as_array().expect("layers");
    let dir = layers.last().unwrap()["path"].as_str().expect("a path").to_owned();
    let file = fs::read_dir(Path::new(&dir).join("etc")).unwrap().next().unwrap().unwrap().path();
    let size = file.metadata().unwrap().len();
    File::create(&file).unwrap().set_len(size).unwrap();
    let unsynced = rpull.root().join("rpull/unsynced");
    let boot = names(&unsynced).remove(0);
    fs::rename(unsynced.join(&boot), unsynced.join("00000000-earlier")).unwrap();
    let listed = rpull.run(["images", "-q"]);
    assert_eq!(listed.stdout.lines().count(), 1, "{listed}");
    assert!(listed.stderr.contains("pull it again"), "{listed}");
    assert!(listed.stderr.contains(&images[1].name()), "{listed}");
    rpull.ok(["pull", "-q", "--policy", "never", &images[0].name()]);
    rpull.ok(["pull", "-q", &images[1].name()]);
    judge::judge_root(rpull.root());
    assert_agreement(rpull.root());
}
