//! The README as a newcomer reads it: every command of its text, as written and in order, in a bare
//! container with docker's default capabilities.

use std::fs;

use crate::support::container::Container;
use crate::support::image::{Image, Index};
use crate::support::internet::Internet;
use crate::support::tar::{Entry, Tar};

const README: &str = include_str!("../../README.md");

/// Sections whose commands build rpull or run its tests.
const NOT_HERE: [&str; 3] = ["Try it, without the internet", "Install", "Test"];

/// What docker's default capabilities do not allow: the beginning of a command, its exit code, and the
/// beginning of its hint.
const REFUSED: [(&str, i32, &str); 9] = [
    ("rpull mount --print", 0, ""),
    // Nothing is mounted, because that is refused.
    ("rpull mount web", 3, "hint: run `rpull images`"),
    ("rpull diff web", 3, "hint: run `rpull images`"),
    ("rpull commit ", 3, "hint: run `rpull mounts`"),
    ("rpull mount ", 7, "hint: run as root or in `rpull unshare`, or let another"),
    ("rpull umount ", 2, "hint: run `rpull mounts`"),
    // There is no runtime, and no tool for squashfs.
    ("rpull run ", 125, "hint: install crun or runc"),
    ("rpull build ", 3, "hint: install crun or runc"),
    ("rpull export --rootfs", 1, "install the package squashfs-tools"),
];

/// Returns the lines of the shell blocks, with their comments.
fn commands() -> Vec<String> {
    let sections = README.split("\n## ").skip(1);
    let here = sections.filter(|section| !NOT_HERE.iter().any(|title| section.starts_with(title)));
    let blocks = here.flat_map(|section| section.split("```sh\n").skip(1));
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// An image as others build it: devices, owners, a directory that a later layer replaces.
fn image(mark: &str) -> Image {
    let base = Tar::new()
        .dir("etc/")
        .add(Entry::file("etc/shadow", "root:*:").owner(0, 42))
        .file("etc/os-release", "ID=debian\n")
        .dir("etc/nginx/")
        .add(Entry::char_device("dev/console", 5, 1))
        .file("usr/share/doc/a", "a")
        .end();
    let top = Tar::new()
        .add(Entry::opaque("usr/share/doc"))
        .add(Entry::whiteout("etc/old"))
        .file("mark", mark)
        .end();
    Image::oci().layer(base).layer(top).cmd(&["/bin/sh"])
}

#[test]
fn readme_commands_work_as_written_in_a_bare_container() {
    let internet = Internet::new(&["registry-1.docker.io", "quay.io", "registry.example"]);
    let index = Index::new()
        .add(image("nginx").platform("linux", "amd64", ""))
        .add(image("nginx-arm").platform("linux", "arm64", "v8"));
    let nginx = index.push(internet.backend(), "library/nginx:latest");
    let names = ["nginx:1.26", "nginx:1.27", "debian:12", "postgres:17", "gcc:latest"];
    let names = names.map(|name| format!("library/{name}"));
    for name in names.iter().map(String::as_str).chain(["some/thing:v1"]) {
        image(name).push(internet.backend(), name);
    }
    let container = Container::new();
    internet.install(&container);
    let done = container.run("rpull -q nginx:1.26 nginx:1.27");
    assert_eq!(done.code, Some(0), "{done}");

    let lines = commands();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        let digest = nginx.digest.as_str();
        let typed = line.replace("IMAGE@sha256:...", &format!("nginx@{digest}"));
        let typed = typed.replace("sha256:...", digest).replace("ssh HOST docker load", "tar -t");
        let done = container.run(&typed);
        let refused = REFUSED.iter().find(|(command, ..)| line.starts_with(command));
        let (_, code, hint) = refused.unwrap_or(&("", 0, ""));
        assert_eq!(done.code, Some(*code), "{typed}\n{done}");
        assert!(done.stderr.contains(hint), "{typed}\n{done}");
        assert!(!done.stderr.contains("panicked"), "{typed}\n{done}");
    }
    let kept = fs::read_dir(container.path("/root/.cache/rpull/blobs/sha256")).unwrap().count();
    assert!(kept >= 4, "the CI cache has {kept} blobs");
}
