//! Extended attributes that a file cannot have.

use super::direct::Layer;
use super::follow::{both, one};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot;
use crate::support::tar::{Entry, Tar};

/// No file system has the name space `foo`.
fn unsupported() -> Vec<u8> {
    Tar::new()
        .add(Entry::file("file", "x").xattr("foo.bar", "1").xattr("user.kept", "2"))
        .add(Entry::dir("dir/").xattr("foo.bar", "1"))
        .add(Entry::symlink("link", "file").xattr("foo.bar", "1"))
        .add(Entry::char_device("null", 1, 3).xattr("foo.bar", "1"))
        .add(Entry::fifo("fifo").xattr("foo.bar", "1"))
        .add(Entry::hardlink("hard", "file").xattr("foo.bar", "1"))
        .add(Entry::file("bare", "x").xattr("no-name-space", "1"))
        .end()
}

#[test]
fn unsupported_attribute_is_left_out_with_one_warning() {
    let layer = Layer::of(&unsupported());
    assert_eq!(
        layer.unpacked.omissions.warnings,
        [
            "attribute foo.bar of 'file' and of 5 other entries is left out: \
             not supported by the file system",
            "attribute no-name-space of 'bare' is left out: not supported by the file system",
        ]
    );
    let kept = snapshot::xattrs(&layer.diff().join("file"));
    assert_eq!(kept, [("user.kept".to_owned(), b"2".to_vec())]);
    assert_eq!(layer.text("file"), "x");
}

#[test]
fn unsupported_attribute_gives_the_root_that_docker_gives() {
    both("xattr-unsupported", &one(unsupported()));
}

#[test]
fn attribute_that_is_not_permitted_is_left_out_with_one_warning() {
    let tar = Tar::new()
        .add(Entry::symlink("link", "x").xattr("user.note", "1"))
        .add(Entry::fifo("fifo").xattr("user.note", "1"))
        .add(Entry::char_device("null", 1, 3).xattr("user.note", "1"))
        .end();
    assert_eq!(
        Layer::of(&tar).unpacked.omissions.warnings,
        ["attribute user.note of 'link' and of 2 other entries is left out: not permitted"]
    );
    both("xattr-permission", &one(tar));
}

#[test]
fn many_unsupported_attributes_give_few_escaped_warnings() {
    let mut tar = Tar::new();
    for n in 0..500 {
        let entry = Entry::file(format!("\x1b]0;title\x07{n}"), "");
        tar = tar.add(entry.xattr(&format!("foo.\u{1b}[31m{}", n % 40), "1"));
    }
    let hub = Hub::shared();
    let image = Image::new().layer(tar.end());
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("xattr-many")));
    let scratch = scratch::dir();
    let done = Rpull::on(scratch.path()).run(["pull", &pushed.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    let lines = done.stderr.lines().filter(|line| line.contains("left out")).count();
    assert_eq!(lines, 17, "{done}");
    assert!(!done.stderr.contains(['\x1b', '\x07']), "{done}");
    assert!(done.stderr.contains("and of 12 other entries"), "{done}");
}

/// dockerd and containerd fail the pull for every error but EPERM and ENOTSUP.
#[test]
fn attribute_that_no_file_can_have_is_refused() {
    let file = || Entry::file("f", "x");
    for (name, entry) in [
        ("empty name", file().xattr("", "1")),
        ("name space alone", file().xattr("user.", "1")),
        ("long name", file().xattr(&format!("user.{}", "n".repeat(251)), "1")),
        ("longest name", file().xattr(&"n".repeat(70_000), "1")),
        ("NUL in the name", file().xattr("user.a\0b", "1")),
        ("large value", file().xattr("user.a", vec![b'v'; 65_537])),
        ("no capability", file().xattr("security.capability", "1")),
        ("no access list", file().xattr("system.posix_acl_access", "1")),
        ("on a directory", Entry::dir("f/").xattr("", "1")),
        ("on a symlink", Entry::symlink("f", "x").xattr("", "1")),
        ("on a device", Entry::char_device("f", 1, 3).xattr("", "1")),
    ] {
        let error = Layer::unpack(&Tar::new().add(entry).end()).err();
        let text = error.unwrap_or_else(|| panic!("{name} was taken")).to_string();
        assert!(text.starts_with("refused entry 'f"), "{name}: {text}");
        assert!(!text.contains('\0'), "{name}: {text}");
    }
}
