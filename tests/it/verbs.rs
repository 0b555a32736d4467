//! The verbs that look at a store, mount from it, and take away from it.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch;
use crate::support::snapshot::{assert_consistent, assert_empty};
use crate::support::tar::{Entry, Tar};

fn two_layers(mark: &str) -> Image {
    Image::new()
        .layer(Tar::new().file("base", "base").file("gone", "gone").end())
        .layer(Tar::new().file("mark", mark).file(".wh.gone", "").end())
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

fn pulled(stem: &str) -> (tempfile::TempDir, Rpull, Pushed) {
    let (scratch, pushed) = (scratch::dir(), push(&two_layers(stem), stem));
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", &pushed.name()]);
    (scratch, rpull, pushed)
}

#[test]
fn layers_command_prints_every_id_and_an_existing_path() {
    let (_scratch, rpull, pushed) = pulled("layers");
    let table = rpull.ok(["layers", &pushed.name()]);
    assert!(table.starts_with("#   DISTRIBUTION ID   DIFF ID"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let layers = rpull.json(["layers", "--format", "json", &pushed.name()]);
    let second = &layers[1];
    assert_eq!(second["position"], 2);
    let path = second["path"].as_str().unwrap();
    assert_eq!(fs::read_to_string(format!("{path}/mark")).unwrap(), "layers");
    assert!(fs::symlink_metadata(format!("{path}/gone")).unwrap().file_type().is_char_device());
    let chain = second["chainId"].as_str().unwrap().trim_start_matches("sha256:");
    let record = rpull.root().join("image/overlay2/layerdb/sha256").join(chain);
    assert_eq!(
        fs::read_to_string(record.join("cache-id")).unwrap(),
        second["cacheId"].as_str().unwrap()
    );
    assert_eq!(
        fs::read_to_string(record.join("diff")).unwrap(),
        second["diffId"].as_str().unwrap()
    );
}

#[test]
fn mount_without_rw_is_read_only() {
    let (scratch, rpull, pushed) = pulled("mount");
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let dir = at.to_str().unwrap();
    rpull.ok(["mount", &pushed.name(), dir]);
    assert_eq!(fs::read_to_string(at.join("base")).unwrap(), "base");
    assert!(!at.join("gone").exists());
    assert!(fs::write(at.join("new"), "x").is_err());
    let busy = rpull.fails(8, ["rm", &pushed.name()]);
    assert!(busy.stderr.contains("mounted at"), "{busy}");
    rpull.ok(["umount", dir]);
    assert!(!at.join("base").exists());

    rpull.ok(["mount", "--rw", &pushed.name(), dir]);
    fs::write(at.join("new"), "x").unwrap();
    rpull.ok(["umount", "--discard", dir]);
    let left = fs::read_dir(rpull.root().join("rpull/mounts")).unwrap().count();
    assert_eq!(left, 0, "discarded changes stay");

    let (upper, work) = (scratch.path().join("up"), scratch.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let kept =
        ["mount", "--rw", "--upper", upper.to_str().unwrap(), "--work", work.to_str().unwrap()];
    rpull.ok(kept.into_iter().chain([pushed.name().as_str(), dir]));
    fs::write(at.join("new"), "kept").unwrap();
    rpull.ok(["umount", dir]);
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "kept");
}

#[test]
fn printed_mount_command_mounts_the_same() {
    let (scratch, rpull, pushed) = pulled("print");
    let at = scratch.path().join("m n");
    fs::create_dir(&at).unwrap();
    let line = rpull.ok(["mount", "--print", &pushed.name(), at.to_str().unwrap()]);
    assert!(Command::new("sh").arg("-c").arg(&line).status().unwrap().success(), "{line}");
    assert_eq!(fs::read_to_string(at.join("mark")).unwrap(), "print");
    rpull.ok(["umount", at.to_str().unwrap()]);
}

#[test]
fn image_of_125_layers_can_be_mounted() {
    let mut image = Image::new();
    for n in 0..125 {
        image = image.layer(Tar::new().file(&format!("f{n}"), n.to_string()).end());
    }
    let (scratch, pushed) = (scratch::dir(), push(&image, "deep"));
    // A long path, so that the options pass a page.
    let rpull = Rpull::on(scratch.path().join("a-rather-long-name-for-a-root".repeat(3)));
    rpull.ok(["pull", "-q", &pushed.name()]);
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    rpull.ok(["mount", &pushed.name(), at.to_str().unwrap()]);
    let files = fs::read_dir(&at).unwrap().count();
    rpull.ok(["umount", at.to_str().unwrap()]);
    assert_eq!(files, 125);
    assert_consistent(rpull.root());
}

#[test]
fn rm_removes_names_and_unused_layers() {
    let (_scratch, rpull, first) = pulled("rm-one");
    let second = push(&two_layers("rm-two"), "rm-two");
    rpull.ok(["pull", &second.name()]);
    rpull.ok(["tag", &first.name(), "other:name"]);
    let untied = rpull.ok(["rm", "other:name"]);
    assert_eq!(untied.trim(), "Untagged: other:name");
    let gone = rpull.ok(["rm", &first.name()]);
    let words: Vec<_> = gone.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(words, ["Untagged", "Untagged", "Deleted", "Deleted"], "the base stays: {gone}");
    rpull.fails(3, ["inspect", &first.name()]);
    assert_consistent(rpull.root());
    let gone = rpull.ok(["rm", &second.name()]);
    assert_eq!(gone.matches("Deleted").count(), 3, "{gone}");
    assert_empty(rpull.root());
    assert_eq!(fs::read_dir(rpull.root().join("rpull/content/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn image_is_found_by_name_id_or_prefix() {
    let (_scratch, rpull, pushed) = pulled("find");
    let id = rpull.json(["inspect", &pushed.name()])[0]["Id"].as_str().unwrap().to_owned();
    for word in [&id, &id[7..], &id[7..19], &id[..15], &pushed.by_digest()] {
        assert_eq!(rpull.json(["inspect", word])[0]["Id"], id.as_str(), "{word}");
    }
    let none = rpull.fails(3, ["inspect", "nothing"]);
    assert!(none.stderr.contains("no such image: nothing"), "{none}");
    rpull.fails(2, ["inspect", "NOT A NAME"]);
    rpull.fails(3, ["layers", "nothing"]);
    let empty = scratch::dir();
    let done = Rpull::on(empty.path().join("none")).fails(3, ["images"]);
    assert!(done.stderr.contains("there is no image store at"), "{done}");
}

/// A shell line as the user nobody, who can reach the binary and a home and nothing else.
fn as_nobody(home: &std::path::Path, line: &str) -> Done {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", line]);
    command.env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", home.display()));
    command.env("HOME", home).current_dir(home).output().unwrap().into()
}

#[test]
fn pull_without_root_works_except_owners_and_devices() {
    let tar = Tar::new()
        .add(Entry::dir("/").mode(0o555))
        .add(Entry::dir("closed").mode(0o500).owner(1234, 1234));
    let image = two_layers("rootless")
        .layer(tar.file("closed/f", "f").add(Entry::char_device("null", 1, 3)).end());
    let pushed = push(&image, "rootless");
    // Outside the project's tree, which nobody may not be able to enter.
    let home = tempfile::tempdir().unwrap();
    fs::copy(BINARY, home.path().join("rpull")).unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();

    let done = as_nobody(home.path(), &format!("rpull {}", pushed.name()));
    assert_eq!(done.code, Some(0), "{done}");
    assert!(
        done.stderr.contains("owners not kept: no CAP_CHOWN (all files belong to uid 65534)"),
        "{done}"
    );
    assert!(done.stderr.contains("1 device left out: no CAP_MKNOD (first: 'null')"), "{done}");
    let root = home.path().join(".local/share/rpull");
    assert_consistent(&root);

    let mount = format!(
        "$(rpull mount --print {} $PWD/m) && cat m/mark m/closed/f && ! ls m/gone",
        pushed.name()
    );
    let done = as_nobody(home.path(), &format!("mkdir m && unshare -Urm sh -ec '{mount}'"));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "rootlessf"), "{done}");

    let done = as_nobody(home.path(), &format!("rpull mount {} m", pushed.name()));
    assert!(done.code == Some(7) && done.stderr.contains("mount --print"), "{done}");
    let done = as_nobody(home.path(), &format!("rpull rm {}", pushed.name()));
    assert_eq!(done.code, Some(0), "{done}");
    assert_empty(&root);
}

#[test]
fn empty_environment_variable_counts_as_unset() {
    let home = scratch::dir();
    let root = home.path().join(".local/share/rpull");
    let hello = push(&two_layers("empty-variables"), "empty-variables");
    let mut command = Rpull::on(&root).command(["pull", "-q", &hello.name()]);
    command.env("HOME", home.path());
    for name in [
        "ROOT",
        "CONTENT",
        "PLATFORM",
        "USERNAME",
        "PASSWORD",
        "TOKEN",
        "RETRIES",
        "JOBS",
        "STALL_TIMEOUT",
    ] {
        command.env(format!("RPULL_{name}"), "");
    }
    let done: Done = command.output().unwrap().into();
    assert_eq!(done.code, Some(0), "{done}");
    assert!(root.join("image/overlay2/repositories.json").exists());
}
