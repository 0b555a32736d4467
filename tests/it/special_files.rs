//! Roots in which something put a FIFO, a link to a device, a directory or a symbolic link to
//! itself where a file belongs: no command hangs, and a pull leaves a whole image or names the file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::damage::{Place, remove};
use crate::support::rpull::{BINARY, Done};

type Position = (&'static str, fn(&Place) -> PathBuf);

fn first_in(dir: PathBuf) -> PathBuf {
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.into_iter().next().unwrap_or_else(|| panic!("{} is empty", dir.display()))
}

fn id(place: &Place) -> &str {
    place.pushed.id.trim_start_matches("sha256:")
}

const POSITIONS: &[Position] = &[
    ("config", Place::config),
    ("names", |p| p.root().join("image/overlay2/repositories.json")),
    ("diff id of a blob", |p| p.sources(1).0),
    ("sources of a layer", |p| p.sources(1).1),
    ("record", |p| p.record(1)),
    ("cache-id", |p| p.record(1).join("cache-id")),
    ("diff of a record", |p| p.record(2).join("diff")),
    ("size", |p| p.record(1).join("size")),
    ("parent", |p| p.record(1).join("parent")),
    ("parent of the base", |p| p.record(0).join("parent")),
    ("tar-split", |p| p.record(1).join("tar-split.json.gz")),
    ("link", |p| p.dir(1).join("link")),
    ("short link", |p| p.short_link(1)),
    ("lower", |p| p.dir(1).join("lower")),
    ("lower of the base", |p| p.dir(0).join("lower")),
    ("mark of the base", |p| p.dir(0).join("committed")),
    ("last update", |p| metadata(p).join("lastUpdated")),
    ("parent of the image", |p| metadata(p).join("parent")),
    ("index of the content", |p| p.root().join("rpull/content/index.json")),
    ("mark of the content", |p| p.root().join("rpull/content/oci-layout")),
    ("document", |p| p.root().join("rpull/content/blobs/sha256").join(id(p))),
    ("download", |p| p.root().join("rpull/content/ingest").join(format!("{}.partial", id(p)))),
    ("journal", |p| p.root().join("rpull/journal/1-odd")),
    ("stamp of the layer index", |p| p.root().join("rpull/layer-index/stamp")),
    ("shard of the layer index", |p| p.root().join("rpull/layer-index").join(&id(p)[..3])),
    ("time of use", |p| p.root().join("rpull/used").join(id(p))),
    ("list of unsynced layers", |p| first_in(p.root().join("rpull/unsynced"))),
    ("unsynced layer", |p| first_in(first_in(p.root().join("rpull/unsynced")))),
];

fn metadata(place: &Place) -> PathBuf {
    let dir = place.root().join("image/overlay2/imagedb/metadata/sha256").join(id(place));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn directory(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("file"), "x").unwrap();
}

/// Runs a command that is killed if it hangs, which then shows as exit code 124.
fn run(place: &Place, args: &[&str]) -> Done {
    let mut command = Command::new("timeout");
    place.rpull.dress(&mut command);
    command.args(["--kill-after=5", "30", BINARY]).args(args).output().unwrap().into()
}

fn assert_survives(put: fn(&Path)) {
    let mut wrong = Vec::new();
    for (name, path) in POSITIONS {
        let place = Place::new();
        let path = path(&place);
        if path.symlink_metadata().is_ok() {
            remove(&path);
        }
        put(&path);
        let mut expect = |args: &[&str], codes: &[i32]| {
            let done = run(&place, args);
            let code = done.code.unwrap_or(-1);
            if !codes.contains(&code) || done.stderr.contains("panicked") {
                wrong.push(format!("{name}: {args:?}: {done}"));
            }
            done
        };
        let image = place.pushed.name();
        for args in [
            &["images"][..],
            &["check"],
            &["check", "--deep"],
            &["df"],
            &["gc", "--dry-run"],
            &["prune", "--dangling", "--dry-run"],
            &["layers", &image],
            &["layers", "--tree"],
            &["inspect", &image],
            &["mounts"],
        ] {
            expect(args, &[0, 3, 6]);
        }
        if *name == "names" {
            let done = expect(&["pull", "-q", &image], &[6]);
            assert!(done.stderr.contains("repositories.json"), "{name}: {done}");
            continue;
        }
        expect(&["pull", "-q", &image], &[0]);
        expect(&["pull", "-q", &place.sibling.name()], &[0]);
        expect(&["check", "--repair"], &[0]);
        expect(&["check", "--deep"], &[0]);
        expect(&["gc"], &[0]);
        expect(&["layers", &image], &[0]);
        expect(&["rm", "--force", &image], &[0]);
        expect(&["pull", "-q", &image], &[0]);
        expect(&["check", "--deep"], &[0]);
    }
    assert!(wrong.is_empty(), "{} commands:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn root_with_a_fifo_in_place_of_a_file_is_repaired_by_a_pull() {
    assert_survives(fifo);
}

#[test]
fn root_with_a_link_to_a_device_in_place_of_a_file_is_repaired_by_a_pull() {
    assert_survives(|path| symlink("/dev/zero", path).unwrap());
}

#[test]
fn root_with_a_directory_in_place_of_a_file_is_repaired_by_a_pull() {
    assert_survives(directory);
}

#[test]
fn root_with_a_symlink_loop_in_place_of_a_file_is_repaired_by_a_pull() {
    assert_survives(|path| symlink(path, path).unwrap());
}
