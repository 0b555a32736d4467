//! A real image of Debian and nginx: pulled by tag and by digest, mounted, entered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::Mounted;
use crate::support::snapshot::assert_same_layers;
use crate::support::{debian, judge, scratch};

fn nginx() -> &'static (Image, Pushed) {
    static NGINX: OnceLock<(Image, Pushed)> = OnceLock::new();
    NGINX.get_or_init(|| {
        let hub = Hub::shared();
        let image = debian::nginx();
        let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("nginx")));
        (image, pushed)
    })
}

/// The root that the image was pulled into by its tag.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = scratch::lasting().join("root");
        let said = Rpull::on(&root).ok(["pull", &nginx().1.name()]);
        assert!(said.contains("Status: Downloaded newer image for "), "{said}");
        root
    })
}

fn chroot(dir: &Path, command: &[&str]) -> Done {
    let mut chroot = Command::new("chroot");
    chroot.arg(dir).args(command).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    chroot.output().expect("start chroot").into()
}

#[test]
fn mounted_image_runs_nginx() {
    let (_, pushed) = nginx();
    let rpull = Rpull::on(root());
    let scratch = scratch::dir();
    let dir = scratch.path().join("mnt");
    std::fs::create_dir(&dir).unwrap();
    let mounted = Mounted(dir.clone());
    rpull.ok(["mount", &pushed.name(), dir.to_str().unwrap()]);
    let said = chroot(&dir, &["/usr/sbin/nginx", "-v"]);
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.stderr.starts_with("nginx version: nginx/"), "{said}");
    let checked = chroot(&dir, &["/bin/cat", "/srv/www/index.html", "/etc/debian_version"]);
    assert!(checked.stdout.starts_with("<h1>pulled by rpull</h1>\n12"), "{checked}");
    assert!(dir.join("etc/nginx/sites-enabled/default").symlink_metadata().is_err());
    assert!(dir.join("etc/nginx/sites-available/default").exists());
    assert_eq!(dir.join("var/www/html").read_dir().unwrap().count(), 0);
    assert!(std::fs::write(dir.join("new"), "x").is_err(), "mounted read-only");
    rpull.ok(["umount", dir.to_str().unwrap()]);
    assert_eq!(dir.read_dir().unwrap().count(), 0);
    drop(mounted);
}

#[test]
fn writable_mount_leaves_the_image_unchanged() {
    let (_, pushed) = nginx();
    let rpull = Rpull::on(root());
    let scratch = scratch::dir();
    let dir = scratch.path().join("mnt");
    std::fs::create_dir(&dir).unwrap();
    let mounted = Mounted(dir.clone());
    rpull.ok(["mount", "--rw", &pushed.name(), dir.to_str().unwrap()]);
    let wrote = chroot(&dir, &["/bin/sh", "-c", "echo x > /new; rm /srv/www/index.html"]);
    assert_eq!(wrote.code, Some(0), "{wrote}");
    assert!(dir.join("new").exists());
    rpull.ok(["umount", dir.to_str().unwrap()]);
    drop(mounted);
    judge::judge_root(root());
}

#[test]
fn pull_by_digest_of_a_present_image_makes_no_request() {
    let (_, pushed) = nginx();
    let said = Rpull::on(root()).ok(["pull", &pushed.by_digest()]);
    assert!(said.contains("Status: Image is up to date for "), "{said}");
}

#[test]
fn debian_image_matches_docker_pull() {
    let (image, pushed) = nginx();
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &pushed.name()]);
    assert_same_layers(root(), &docker.root, &image.diff_ids());
    assert_eq!(judge::judge_root(root()), 4);
}
