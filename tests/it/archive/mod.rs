//! Images in and out as archives, with docker, podman and skopeo on the other side.

mod hostile;
mod load;
mod save;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch;
use crate::support::tar::{Entry, Tar, noise};

fn layer(mark: &str) -> Vec<u8> {
    Tar::new()
        .add(Entry::dir("etc/"))
        .file(&format!("etc/{mark}"), mark)
        .add(Entry::symlink("link", "etc"))
        .file("noise", noise(60_000))
        .end()
}

/// Two layers of its own and one that is in it twice.
fn image(mark: &str) -> Image {
    of(Image::new(), mark)
}

fn oci_image(mark: &str) -> Image {
    of(Image::oci(), mark)
}

fn of(image: Image, mark: &str) -> Image {
    let twice = Tar::new().file("twice", mark).end();
    image.layer(layer("base")).layer(twice.clone()).layer(layer(mark)).layer(twice)
}

/// A root, and directories for archives.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
}

impl Place {
    fn new() -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        Self { scratch, rpull }
    }

    fn other(&self, name: &str) -> Rpull {
        Rpull::on(self.scratch.path().join(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Pushes `image`, and pulls it with `flags`.
    fn pull(&self, image: &Image, stem: &str, flags: &[&str]) -> Pushed {
        let hub = Hub::shared();
        let pushed = image.push(&hub.host, &format!("{}:one", hub.repository(stem)));
        let name = pushed.name();
        self.rpull.ok(["pull", "-q"].into_iter().chain(flags.iter().copied()).chain([&*name]));
        pushed
    }

    /// Runs another tool in this place.
    fn run(&self, program: &str, args: &[&str]) -> Done {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.scratch.path());
        Done::from(command.output().unwrap())
    }

    #[track_caller]
    fn tool(&self, program: &str, args: &[&str]) -> String {
        let done = self.run(program, args);
        assert_eq!(done.code, Some(0), "{program} {args:?}: {done}");
        done.stdout
    }

    #[track_caller]
    fn podman(&self, args: &[&str]) -> String {
        let storage = format!("--root={}", self.text("graph"));
        let state = format!("--runroot={}", self.text("run"));
        let own = [&*storage, &*state, "--storage-driver=vfs"];
        self.tool("podman", &[&own[..], args].concat())
    }

    #[track_caller]
    fn skopeo(&self, args: &[&str]) -> String {
        self.tool("skopeo", &[&["--insecure-policy"][..], args].concat())
    }

    /// Returns what skopeo shows of the image `source`.
    #[track_caller]
    fn inspected(&self, source: &str) -> Value {
        serde_json::from_str(&self.skopeo(&["inspect", source])).unwrap()
    }
}

/// Returns the files of a tar, by name.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = ::tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
        files.push((name, data));
    }
    files
}

#[track_caller]
fn file(files: &[(String, Vec<u8>)], name: &str) -> Vec<u8> {
    let found = files.iter().find(|(path, _)| path == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.clone()
}

#[track_caller]
fn json(files: &[(String, Vec<u8>)], name: &str) -> Value {
    serde_json::from_slice(&file(files, name)).unwrap()
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{}", hex(digest))
}
