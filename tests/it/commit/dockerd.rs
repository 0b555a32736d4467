//! The same changes in a container of a real dockerd, and in a writable mount.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{self, assert_agreement};
use crate::support::tar::{Entry, Tar};

/// The changes. All times are set, since both runs are at different moments.
const SCRIPT: &str = "set -e
rm /etc/gone; rm -r /opaque /dir; mkdir /opaque; echo new > /opaque/new; echo file > /dir
chmod 4711 /etc/kept; chown 5:6 /etc/owned; chmod 700 /bin/capable
mkdir -p /deep/er; echo x > /deep/er/f; ln /deep/er/f /deep/link; ln -s ../x /deep/symlink
mkfifo /deep/fifo; mknod /deep/char c 10 229; echo later > /etc/moved.new; mv /etc/moved.new /etc/moved
long=$(printf 'n%.0s' $(seq 120)); mkdir /$long; echo l > /$long/$long
printf '%3000s' s > /large
for f in /opaque/new /dir /etc/kept /etc/owned /bin/capable /deep/er/f /deep/symlink /deep/fifo /deep/char \
  /etc/moved /$long/$long /large /$long /deep/er /deep /opaque /etc /bin; do touch -h -d @1000000000 $f; done
";

fn image() -> Image {
    let busybox = fs::read("/bin/busybox").expect("busybox-static");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = Tar::new()
        .dir("bin/")
        .add(Entry::file("bin/busybox", busybox).mode(0o755))
        .add(Entry::file("bin/capable", "x").mode(0o755).xattr("security.capability", capability))
        .dir("etc/")
        .file("etc/kept", "kept")
        .file("etc/gone", "gone")
        .file("etc/owned", "owned")
        .file("etc/moved", "moved")
        .dir("opaque/")
        .file("opaque/below", "below")
        .dir("dir/")
        .file("dir/below", "below")
        .end();
    let links = [
        "sh", "rm", "mkdir", "echo", "chmod", "chown", "ln", "mkfifo", "mknod", "mv", "touch",
        "printf", "seq", "cat",
    ];
    let links = links
        .iter()
        .fold(Tar::new(), |tar, name| tar.add(Entry::symlink(format!("bin/{name}"), "busybox")));
    Image::new().layer(base).layer(links.end()).cmd(&["/bin/cat", "/deep/er/f"])
}

/// The layer of an image above the two of the image below: its files, but no times of whiteouts.
fn layer(root: &Path, diff_ids: &[String]) -> BTreeMap<String, String> {
    let chains = snapshot::chains(diff_ids);
    assert_eq!(chains.len(), 3);
    let mut tree = super::tree(&snapshot::diff_dir(root, &chains[2]));
    for line in tree.values_mut().filter(|line| line.starts_with("20000 ")) {
        *line = "whiteout".to_owned();
    }
    tree
}

fn diff_ids(docker: &Dockerd, image: &str) -> Vec<String> {
    let layers = docker.json(&["inspect", image])[0]["RootFS"]["Layers"].clone();
    serde_json::from_value(layers).unwrap()
}

#[test]
fn commit_matches_docker_commit_and_docker_uses_the_image() {
    let hub = Hub::shared();
    let pushed = image().push(&hub.host, &format!("{}:one", hub.repository("commit-docker")));
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let rpull = Rpull::on(&root);
    rpull.ok(["pull", "-q", &pushed.name()]);
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    rpull.ok(["mount", "--rw", "--name", "web", &pushed.name(), at.to_str().unwrap()]);
    let changed = Command::new("chroot").arg(&at).args(["/bin/sh", "-c", SCRIPT]).output();
    let changed = changed.unwrap();
    assert!(changed.status.success(), "{changed:?}");
    rpull.ok(["commit", "-c", "LABEL by=rpull", "web", "ours:1"]);
    rpull.ok(["umount", "--discard", "web"]);
    drop(mounted);

    let docker = Dockerd::start(&root);
    docker.ok(&[
        "run",
        "--name",
        "changed",
        "--network",
        "none",
        "--cap-add",
        "MKNOD",
        &pushed.name(),
        "/bin/sh",
        "-c",
        SCRIPT,
    ]);
    docker.ok(&["commit", "-c", "LABEL by=docker", "changed", "theirs:1"]);
    docker.ok(&["rm", "changed"]);
    let (ours, theirs) = (diff_ids(&docker, "ours:1"), diff_ids(&docker, "theirs:1"));
    snapshot::assert_same_trees(&layer(&root, &ours), &layer(&root, &theirs));

    let images = docker.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(images.lines().any(|line| line == "ours:1"), "{images}");
    assert_eq!(docker.json(&["inspect", "ours:1"])[0]["Config"]["Labels"]["by"], "rpull");
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "ours:1"]), "x");
    assert_eq!(docker.save("ours:1"), Ok(ours));
    let steps = |image: &str| docker.ok(&["history", "-q", image]).lines().count();
    assert_eq!((steps("ours:1"), steps("theirs:1")), (3, 3));
    docker.ok(&["rmi", "theirs:1"]);
    let removed = docker.ok(&["rmi", "ours:1"]);
    assert_eq!(removed.matches("Deleted: ").count(), 2, "{removed}");
    docker.stop();
    assert_eq!(judge::judge_root(&root), 2);
    assert_agreement(&root);
}
