//! An image that can run commands: busybox, with two users.

use std::process::Command;

use super::image::Image;
use super::tar::{Entry, Tar};

const BINARY: &str = "/bin/busybox";

/// One layer with a static busybox, a link per command, and accounts.
pub fn image() -> Image {
    Image::new().layer(base().end())
}

/// The same, to add to.
pub fn base() -> Tar {
    let listed = Command::new(BINARY).arg("--list").output().expect("start busybox");
    let listed = String::from_utf8(listed.stdout).expect("names of commands");
    let program = std::fs::read(BINARY).expect("busybox");
    let mut tar = Tar::new()
        .dir("bin/")
        .add(Entry::file("bin/busybox", program).mode(0o755))
        .dir("etc/")
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n")
        .file("etc/group", "root:x:0:\nwww:x:34:web\nadm:x:4:web,root\n");
    for name in listed.lines().filter(|name| *name != "busybox") {
        tar = tar.add(Entry::symlink(format!("bin/{name}"), "busybox"));
    }
    tar
}
