//! Names that come to mean another directory while a layer is unpacked.
//!
//! dockerd refuses an archive that has a name twice, so most of these are ours alone: what
//! each must give follows from resolving every path anew. Where another name leads to the
//! replaced directory, dockerd takes the archive, and its root is compared.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::direct::Layer;
use super::follow::{both, one};
use crate::support::snapshot::names;
use crate::support::tar::{Entry, Tar};

#[test]
fn directory_that_replaces_a_symlink_takes_later_files() {
    let tar = Tar::new()
        .dir("etc/")
        .file("etc/b", "etc")
        .add(Entry::symlink("d", "etc"))
        .file("d/a", "through the symlink")
        .dir("d/")
        .file("d/b", "in the directory")
        .end();
    let layer = Layer::of(&tar);
    assert_eq!(names(&layer.diff().join("d")), ["b"]);
    assert_eq!(names(&layer.diff().join("etc")), ["a", "b"]);
    assert_eq!(layer.text("d/b"), "in the directory");
    assert_eq!(layer.text("etc/b"), "etc");
}

/// Each replacement, between two files of the same path.
#[test]
fn every_replacement_of_a_symlink_takes_later_files() {
    let dir = || Entry::dir("new/");
    // What replaces the symlink, and where a file in `d` must then be.
    let replacements = [
        ("directory", "d", vec![Entry::dir("d/")]),
        ("directory by another name", "d", vec![Entry::dir("x/../d/")]),
        ("symlink", "new", vec![dir(), Entry::symlink("d", "new")]),
        ("absolute symlink", "new", vec![Entry::symlink("d", "/new"), dir()]),
        ("file, then directory", "d", vec![Entry::file("d", "x"), Entry::dir("d/")]),
        (
            "hardlink, then directory",
            "d",
            vec![Entry::file("f", "x"), Entry::hardlink("d", "f"), Entry::dir("d/")],
        ),
        (
            "hardlink to a symlink",
            "new",
            vec![dir(), Entry::symlink("s", "new"), Entry::hardlink("d", "s")],
        ),
    ];
    for (name, place, replacement) in replacements {
        for before in ["d/a", "d/sub/a", "d/sub/deep/a"] {
            let after = before.replace('a', "b");
            let tar = Tar::of([Entry::dir("old/"), Entry::symlink("d", "old")])
                .file(before, "old")
                .file("other/flushes/the-last-handle", "")
                .file(&format!("{before}2"), "old");
            let tar = replacement.iter().cloned().fold(tar, Tar::add).file(&after, "new").end();
            let layer = Layer::of(&tar);
            let (old, new) = (format!("old{}", &after[1..]), format!("{place}{}", &after[1..]));
            assert!(!layer.diff().join(old).exists(), "{name}: {after} went to the old directory");
            assert_eq!(layer.text(new), "new", "{name}: {after}");
        }
    }
}

#[test]
fn symlinks_in_the_middle_of_a_path_when_replaced_take_later_files() {
    let tar = Tar::new()
        .dir("a/")
        .add(Entry::symlink("a/l", ".."))
        .file("a/l/x/1", "above")
        .add(Entry::symlink("chain", "a/l"))
        .file("chain/x/2", "above")
        .dir("a/l/")
        .file("a/l/x/3", "below")
        .file("chain/x/4", "below")
        .end();
    let layer = Layer::of(&tar);
    assert_eq!(names(&layer.diff().join("x")), ["1", "2"]);
    assert_eq!(names(&layer.diff().join("a/l/x")), ["3", "4"]);
}

#[test]
fn symlink_that_replaces_a_directory_takes_later_files() {
    let tar = Tar::new()
        .dir("etc/")
        .dir("d/")
        .file("d/sub/a", "gone with its directory")
        .add(Entry::symlink("d", "etc"))
        .file("d/sub/b", "through the symlink")
        .end();
    let layer = Layer::of(&tar);
    assert_eq!(names(&layer.diff().join("etc/sub")), ["b"]);
    assert!(layer.diff().join("d").is_symlink());
}

#[test]
fn dangling_symlink_that_starts_to_resolve_takes_later_files() {
    let tar = Tar::new()
        .add(Entry::symlink("l", "m"))
        .add(Entry::symlink("m", "late/dir"))
        .file("late/dir/a", "a")
        .file("l/b", "b")
        .file("m/c", "c")
        .end();
    assert_eq!(names(&Layer::of(&tar).diff().join("late/dir")), ["a", "b", "c"]);
    // Before that, there is no directory to put a file in.
    let early = Tar::new().add(Entry::symlink("l", "m")).file("l/b", "b").dir("m/").end();
    assert!(Layer::unpack(&early).is_err());
}

#[test]
fn whiteout_of_a_symlink_changes_nothing_for_later_files() {
    let tar = Tar::new()
        .dir("etc/")
        .add(Entry::symlink("d", "etc"))
        .file("d/a", "a")
        .add(Entry::whiteout("d"))
        .file("d/b", "b")
        .end();
    assert_eq!(names(&Layer::of(&tar).diff().join("etc")), ["a", "b"]);
}

/// Times and modes of directories are set after the last entry.
#[test]
fn metadata_of_a_replaced_directory_leaves_its_successors_alone() {
    let tar = Tar::new()
        .add(Entry::dir("etc/").mtime(1_111_111_111))
        .add(Entry::symlink("d", "etc"))
        .add(Entry::dir("d/sub/").mtime(1_222_222_222))
        .add(Entry::dir("gone/").mtime(1))
        .add(Entry::dir("gone/too/").mtime(1))
        .add(Entry::dir("gone/too/deep/").mtime(1))
        .add(Entry::file("gone", "now a file"))
        .add(Entry::dir("gone/").mtime(1_333_333_333))
        .add(Entry::dir("d/").mtime(1_444_444_444))
        .add(Entry::dir("d/sub/").mtime(1_555_555_555))
        .end();
    let layer = Layer::of(&tar);
    let mtime = |path: &str| fs::symlink_metadata(layer.diff().join(path)).unwrap().mtime();
    assert_eq!(names(&layer.diff().join("gone")), [""; 0], "a removed directory came back");
    for (path, expected) in [
        ("etc", 1_111_111_111),
        ("etc/sub", 1_222_222_222),
        ("gone", 1_333_333_333),
        ("d", 1_444_444_444),
        ("d/sub", 1_555_555_555),
    ] {
        assert_eq!(mtime(path), expected, "{path}");
    }
}

#[test]
fn root_whose_group_changes_gives_later_directories_the_right_group() {
    let tar = Tar::new()
        .file("a", "a")
        .add(Entry::dir("/").mode(0o2755).owner(0, 7))
        .file("implied/b", "b")
        .add(Entry::dir("named/"))
        .end();
    both("root-group", &one(tar));
}

/// The small files' data is written by another thread while names are replaced.
#[test]
fn deferred_writes_beside_replacements_keep_their_data() {
    let mut tar = Tar::new().dir("old/");
    for n in 0..200 {
        tar = tar
            .add(Entry::symlink("d", if n % 2 == 0 { "old" } else { "/old" }))
            .file(&format!("d/through-{n}"), format!("data {n}"))
            .dir("d/")
            .file(&format!("d/inside-{n}"), format!("lost with its directory {n}"));
    }
    let layer = Layer::of(&tar.end());
    for n in 0..200 {
        assert_eq!(layer.text(format!("old/through-{n}")), format!("data {n}"));
    }
    assert_eq!(names(&layer.diff().join("d")), ["inside-199"]);
}

/// `x` is the root by another name, so no name stands twice and dockerd takes the archive.
#[test]
fn replacement_by_another_path_matches_docker() {
    let tar = || {
        Tar::new()
            .dir("etc/")
            .add(Entry::symlink("x", "."))
            .add(Entry::symlink("d", "etc"))
            .file("d/a", "")
    };
    let directory = tar().add(Entry::dir("x/d/")).file("d/b", "in the directory").end();
    both("replace-directory", &one(directory));
    let symlink = tar()
        .dir("usr/")
        .add(Entry::symlink("x/d", "usr"))
        .file("d/b", "")
        .file("usr/c", "in usr")
        .end();
    both("replace-symlink", &one(symlink));
    let hardlink = tar()
        .dir("usr/")
        .add(Entry::symlink("s", "usr"))
        .add(Entry::hardlink("x/d", "s"))
        .file("d/b", "")
        .end();
    both("replace-hardlink", &one(hardlink));
    let upwards = Tar::new()
        .dir("a/")
        .add(Entry::symlink("a/l", ".."))
        .file("a/l/b", "")
        .add(Entry::symlink("x", "a"))
        .add(Entry::dir("x/l/"))
        .file("a/l/c", "below a")
        .end();
    both("replace-upwards", &one(upwards));
    let over_directory = Tar::new()
        .dir("etc/")
        .add(Entry::symlink("x", "."))
        .dir("d/")
        .file("d/a", "")
        .add(Entry::symlink("x/d", "etc"))
        .file("d/b", "")
        .end();
    both("replace-over", &one(over_directory));
    let implied = tar().add(Entry::dir("x/d/")).file("d/sub/deep/b", "implied").end();
    both("replace-implied", &one(implied));
}

#[test]
fn whiteout_and_opaque_mark_of_one_directory_match_docker() {
    let base = Tar::new().file("d/old", "old").end();
    let layer = Tar::new().add(Entry::whiteout("d").owner(3, 4)).add(Entry::opaque("d")).end();
    both("whiteout-opaque", &crate::support::image::Image::new().layer(base).layer(layer));
}
