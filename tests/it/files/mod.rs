//! Files of an image that are read without a mount: `ls`, `cat`, `cp`, `export`.

mod copy;
mod diff;
mod export;
mod list;
mod rootfs;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed, sha256};
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{walk, xattrs};
use crate::support::tar::{Entry, Tar};

/// CAP_NET_RAW, permitted.
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An image with files of every kind, of which upper layers hide or change some.
fn image() -> Image {
    // mkfs.erofs 1.5 refuses names of 255 bytes.
    let long = "n".repeat(254);
    let base = Tar::of([
        Entry::dir("etc/").mode(0o755).owner(3, 4),
        Entry::file("etc/passwd", "root\n").mode(0o4755).owner(1000, 5),
        Entry::file("etc/deleted", "x"),
        Entry::file("hidden/old", "x"),
        Entry::file("hidden/keep/old", "x"),
        Entry::file("link/first", "same").owner(2_500_000, 3_000_000),
        Entry::hardlink("link/second", "link/first"),
        Entry::hardlink("again", "link/first"),
        Entry::symlink("absolute", "/etc/passwd"),
        Entry::symlink("outside", "../../../../../../etc/passwd"),
        Entry::symlink("etc/up", "../.."),
        Entry::symlink("loop", "loop"),
        Entry::symlink("dangling", "etc/absent"),
        Entry::symlink("dir", "etc"),
        Entry::char_device("dev/null", 1, 3).mode(0o666),
        Entry::block_device("dev/disk", 259, 1_000),
        Entry::fifo("dev/fifo"),
        Entry::file("was-a-file", "x"),
        Entry::file("was-a-dir/below", "x"),
        Entry::file(long.as_bytes(), "long"),
        Entry::file("odd\n\x1b[2J", "odd"),
        Entry::file(b"latin-\xe9", "latin"),
        Entry::file("cap", "x").xattr("security.capability", NET_RAW),
        Entry::file("attribute", "x").xattr("user.a", "1"),
        Entry::pax_sparse("sparse", &[(1 << 20, 3)], 4 << 20, b"abc"),
        Entry::file("old-times", "x").mtime(1),
    ]);
    let upper = Tar::of([
        Entry::whiteout("etc/deleted"),
        Entry::opaque("hidden"),
        Entry::file("hidden/new", "new"),
        Entry::dir("was-a-file/"),
        Entry::file("was-a-file/below", "y"),
        Entry::file("was-a-dir", "y"),
        Entry::dir("etc/").mode(0o700).owner(9, 9),
    ]);
    let top = Tar::of([Entry::file("etc/new", "new"), Entry::whiteout("again")]);
    Image::new().layer(base.end()).layer(upper.end()).layer(top.end())
}

/// A root with that image.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    image: Pushed,
}

impl Place {
    fn new(stem: &str) -> Self {
        Self::with(stem, &image())
    }

    fn with(stem: &str, image: &Image) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let hub = Hub::shared();
        let image = image.push(&hub.host, &format!("{}:one", hub.repository(stem)));
        rpull.ok(["pull", "-q", &image.name()]);
        Self { scratch, rpull, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// What a mount of the image shows.
    fn mounted(&self) -> BTreeMap<String, String> {
        let at = self.path("mnt");
        fs::create_dir_all(&at).unwrap();
        self.rpull.ok(["mount", &self.image.name(), at.to_str().unwrap()]);
        let mounted = Mounted(at);
        tree(&mounted.0)
    }

    /// The files of an archive.
    fn unpacked(&self, tar: &str) -> BTreeMap<String, String> {
        let dir = self.path("unpacked");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let mut command = Command::new("tar");
        command.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", tar, "-C"]);
        assert!(command.arg(&dir).status().unwrap().success());
        tree(&dir)
    }
}

/// A line for each file below `dir`, with everything that must be equal.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let (mut found, mut names) = (BTreeMap::new(), HashMap::new());
    for path in walk(dir) {
        let below =
            path.strip_prefix(dir).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        if below.is_empty() {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let mut line = format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.rdev());
        if !meta.is_dir() {
            let first = names.entry((meta.dev(), meta.ino())).or_insert_with(|| below.clone());
            let _ = write!(line, " {} first {first}", meta.mtime());
        }
        for (name, value) in xattrs(&path) {
            let _ = write!(line, " {name}={}", value.escape_ascii());
        }
        match meta.file_type() {
            kind if kind.is_symlink() => drop(write!(line, " {:?}", fs::read_link(&path).unwrap())),
            kind if kind.is_file() => drop(write!(line, " {}", sha256(&fs::read(&path).unwrap()))),
            _ => {}
        }
        found.insert(below, line);
    }
    found
}

/// Fails with the files that differ.
#[track_caller]
fn assert_same(actual: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let mut report = String::new();
    for path in actual.keys().chain(expected.keys()) {
        let (a, b) = (actual.get(path), expected.get(path));
        if a != b {
            let _ = writeln!(report, "{path}\n  actual   {a:?}\n  expected {b:?}");
        }
    }
    assert!(report.is_empty(), "{report}");
    assert!(!expected.is_empty());
}
