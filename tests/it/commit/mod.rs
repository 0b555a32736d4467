//! Commits of writable mounts.

mod dockerd;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use serde_json::{Value, json};

use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::judge;
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{self, assert_agreement, assert_consistent, assert_empty};
use crate::support::tar::{Entry, Tar};

/// A root with an image of two layers, and a mount point beside it.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    image: String,
    at: PathBuf,
    _mounted: Mounted,
}

impl Place {
    fn new(stem: &str) -> Self {
        let base = Tar::new()
            .dir("etc/")
            .file("etc/kept", "kept")
            .file("etc/gone", "gone")
            .add(Entry::dir("opaque/").mode(0o750))
            .file("opaque/below", "below")
            .add(Entry::file("moved", "moved").xattr("user.base", "1"))
            .end();
        let top = Tar::new().file("top", stem).end();
        let image = Image::new().layer(base).layer(top).cmd(&["/serve", "-v"]);
        let hub = Hub::shared();
        let image = image.push(&hub.host, &format!("{}:one", hub.repository(stem))).name();
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "-q", &image]);
        let at = scratch.path().join("mnt");
        fs::create_dir(&at).unwrap();
        Self { rpull, image, _mounted: Mounted(at.clone()), at, scratch }
    }

    fn mount(&self, name: &str, options: &[&str]) {
        let args = ["mount", "--rw", "--name", name, &self.image, self.at()];
        self.rpull.ok(args.iter().chain(options));
    }

    fn at(&self) -> &str {
        self.at.to_str().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    fn inspect(&self, image: &str) -> Value {
        let inspected = self.rpull.json(["inspect", image, "--format", "json"]);
        inspected.get(0).unwrap_or(&inspected).clone()
    }

    /// The config of an image, as it is stored.
    fn config(&self, id: &Value) -> Value {
        let hex = id.as_str().unwrap().trim_start_matches("sha256:");
        let config = self.rpull.root().join("image/overlay2/imagedb/content/sha256").join(hex);
        serde_json::from_slice(&fs::read(config).unwrap()).unwrap()
    }

    fn judge(&self) {
        judge::judge_root(self.rpull.root());
        assert_agreement(self.rpull.root());
        assert_consistent(self.rpull.root());
        self.rpull.ok(["check", "--deep"]);
    }
}

/// The tree at `root`: all that a layer has of it.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for path in snapshot::walk(root).into_iter().filter(|path| path != root) {
        let name =
            path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match () {
            () if meta.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            () if meta.is_file() => crate::support::image::sha256(&fs::read(&path).unwrap()),
            () => String::new(),
        };
        let first = match meta.is_dir() {
            true => name.clone(),
            false => inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
        };
        let xattrs = snapshot::xattrs(&path);
        let line = format!(
            "{:o} {}:{} {} {} {first} {xattrs:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
        );
        tree.insert(name, line);
    }
    tree
}

fn change(place: &Place) {
    let at = |path: &str| place.path(path);
    fs::remove_file(at("etc/gone")).unwrap();
    fs::remove_dir_all(at("opaque")).unwrap();
    fs::create_dir(at("opaque")).unwrap();
    fs::write(at("opaque/new"), "new").unwrap();
    fs::rename(at("moved"), at("etc/moved")).unwrap();
    fs::set_permissions(at("etc/kept"), fs::Permissions::from_mode(0o4711)).unwrap();
    let long = "n".repeat(200);
    fs::create_dir_all(at(&format!("{long}/{long}/{long}"))).unwrap();
    fs::write(at(&format!("{long}/{long}/{long}/f")), "long").unwrap();
    let odd = at("").join(std::ffi::OsStr::from_bytes(b"odd \n\x1b[31m \xff\xe2\x80\xae"));
    fs::write(&odd, "odd").unwrap();
    fs::hard_link(&odd, at("a-link")).unwrap();
    symlink("x".repeat(300), at("symlink")).unwrap();
    chown(at("etc/moved"), Some(3_000_000_000), Some(2_097_152)).unwrap();
    lsetxattr(at("etc/moved"), "user.added", b"\0=\n\xff", XattrFlags::empty()).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(at("capable"), "x").unwrap();
    lsetxattr(at("capable"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    let make = |name: &str, kind, device| {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("char", FileType::CharacterDevice, makedev(10, 229));
    make("block", FileType::BlockDevice, makedev(7, 1_000_000));
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    sparse.write_all_at(b"middle", 20 << 20).unwrap();
    File::options()
        .write(true)
        .open(at("top"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
}

#[test]
fn committed_image_has_the_tree_of_the_mount() {
    let place = Place::new("commit-tree");
    place.mount("web", &[]);
    change(&place);
    let expected = tree(&place.at);
    let id = place.rpull.ok(["commit", "web", "app:2"]);
    assert_eq!(tree(&place.at), expected, "the mount goes on");
    let at = place.scratch.path().join("committed");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    place.rpull.ok(["mount", "app:2", at.to_str().unwrap()]);
    let committed = tree(&at);
    for (path, line) in &expected {
        assert_eq!(committed.get(path), Some(line), "{path}");
    }
    assert_eq!(committed.len(), expected.len());
    let blocks = fs::metadata(at.join("sparse")).unwrap().blocks();
    assert!(blocks < 2048, "the sparse file takes {blocks} blocks");
    drop(mounted);
    assert_eq!(place.inspect("app:2")["Id"], id.trim());
    place.judge();
    // The layer does not share files with the mount.
    fs::write(place.path("capable"), "changed").unwrap();
    place.rpull.ok(["umount", "--discard", "web"]);
    place.judge();
}

#[test]
fn same_changes_with_a_timestamp_give_the_same_image() {
    let place = Place::new("commit-again");
    let commit = |name: &str, time: &[&str]| {
        place.mount(name, &[]);
        fs::remove_file(place.path("etc/gone")).unwrap();
        fs::write(place.path("etc/new"), "new").unwrap();
        place.rpull.ok(["umount", name]);
        let args = ["commit", "-m", "message", name];
        place.rpull.ok(args.iter().chain(time)).trim().to_owned()
    };
    let first = commit("one", &["--timestamp", "1700000000"]);
    assert_eq!(commit("two", &["--timestamp", "2023-11-14T22:13:20Z"]), first);
    assert_eq!(place.inspect(&first)["Created"], "2023-11-14T22:13:20Z");
    assert_ne!(commit("three", &[]), first);
    place.judge();
}

#[test]
fn two_commits_at_the_same_time_give_one_layer() {
    let place = Place::new("commit-twice");
    place.mount("web", &[]);
    fs::write(place.path("new"), "new").unwrap();
    for lock in ["queue", "store", "commit", "names"] {
        let held = File::create(place.rpull.root().join("rpull/locks").join(lock)).unwrap();
        held.lock().unwrap();
        let start = |name: &str| {
            let mut command = place.rpull.command(["commit", "--timestamp", "7", "web", name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let both = [start("one"), start("two")];
        // Long enough that both are at the lock or past it; the checks hold in either case.
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
        let both = both.map(|child| Done::from(child.wait_with_output().unwrap()));
        let id = place.inspect("one")["Id"].as_str().unwrap().to_owned();
        for done in both {
            assert_eq!((done.code, done.stdout.trim()), (Some(0), id.as_str()), "{lock}: {done}");
        }
        assert_eq!(place.inspect("two")["Id"], id.as_str());
        place.judge();
        place.rpull.ok(["rm", "one", "two"]);
    }
}

#[test]
fn commit_changes_the_config_and_the_history() {
    let place = Place::new("commit-config");
    place.mount("web", &[]);
    fs::write(place.path("new"), "").unwrap();
    let done = place.rpull.json([
        "commit",
        "--rm",
        "-a",
        "Ada",
        "-m",
        "why",
        "-c",
        "ENV A=1 B=\"$A 2\"",
        "-c",
        "LABEL x=y",
        "--change",
        "ENTRYPOINT [\"/e\"]",
        "-c",
        "CMD [\"c\"]",
        "web",
        "app",
        "--format",
        "json",
    ]);
    assert_eq!(done["reference"], "app:latest");
    let image = place.inspect("app");
    assert_eq!(image["Id"], done["id"]);
    let config = place.config(&done["id"]);
    let last = config["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&config["author"], &last["author"]), (&json!("Ada"), &json!("Ada")));
    assert_eq!((&last["comment"], &last["created_by"]), (&json!("why"), &json!("c")));
    let env = image["Config"]["Env"].as_array().unwrap();
    assert_eq!(env[env.len() - 2..], [json!("A=1"), json!("B= 2")]);
    assert_eq!(image["Config"]["Entrypoint"], json!(["/e"]));
    assert_eq!(image["Config"]["Cmd"], json!(["c"]));
    assert_eq!(image["RootFS"]["Layers"][2], done["layer"]["diffId"]);
    // The mount is gone, and nothing is mounted.
    assert_eq!(snapshot::names(&place.at), [""; 0]);
    place.rpull.fails(3, ["commit", "web", "app"]);
    // The image below has a child now, as after `docker commit`.
    place.rpull.fails(8, ["rm", &place.image]);
    place.rpull.ok(["rm", "app"]);
    place.rpull.ok(["rm", &place.image]);
    assert_empty(place.rpull.root());
}

#[test]
fn commit_without_changes_adds_no_layer() {
    let place = Place::new("commit-empty");
    place.mount("web", &[]);
    let done = place.rpull.json(["commit", "web", "app", "--format", "json"]);
    assert_eq!(done["layer"], Value::Null);
    assert_eq!(place.inspect("app")["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    place.judge();
}

#[test]
fn commit_of_a_mount_of_fewer_layers_is_based_on_them() {
    let place = Place::new("commit-at");
    place.mount("web", &["--at-layer", "1"]);
    fs::write(place.path("new"), "").unwrap();
    place.rpull.ok(["commit", "--rm", "web", "app"]);
    assert_eq!(place.inspect("app")["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    place.rpull.ok(["mount", "app", place.at()]);
    assert!(place.path("new").exists() && !place.path("top").exists());
    place.rpull.ok(["umount", place.at()]);
    // It does not have all layers of the image, so that one can be removed.
    place.rpull.ok(["rm", &place.image]);
    place.judge();
}

#[test]
fn change_that_cannot_be_committed_is_named_and_leaves_nothing() {
    let place = Place::new("commit-refused");
    place.mount("web", &[]);
    let before = snapshot::describe(place.rpull.root());
    fs::write(place.path("etc/.wh.x"), "").unwrap();
    let done = place.rpull.fails(1, ["commit", "web", "app"]);
    assert!(done.stderr.contains("/etc/.wh.x"), "{done}");
    fs::remove_file(place.path("etc/.wh.x")).unwrap();
    for change in ["RUN x", "ENV", "EXPOSE x"] {
        let done = place.rpull.fails(2, ["commit", "-c", change, "web", "app"]);
        assert!(done.stderr.contains(&format!("invalid change '{change}'")), "{done}");
    }
    place.rpull.fails(2, ["commit", "web", &format!("app@sha256:{}", "0".repeat(64))]);
    place.rpull.fails(2, ["commit", "--timestamp", "today", "web", "app"]);
    // A file that another program writes to all the time.
    let file = File::create(place.path("busy")).unwrap();
    file.set_len(64 << 20).unwrap();
    let ended = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                (&file).write_all(b"x").unwrap();
            }
        });
        let done = place.rpull.run(["commit", "web", "app"]);
        ended.store(true, Ordering::Relaxed);
        done
    });
    assert_eq!(done.code, Some(8), "{done}");
    assert!(done.stderr.contains("'/busy' changed while it was read"), "{done}");
    assert!(done.stderr.contains("hint: "), "{done}");
    let after = snapshot::describe(place.rpull.root());
    snapshot::assert_same_trees(&after, &before);
    assert!(place.scratch.path().exists());
}
