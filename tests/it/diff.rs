//! `diff` of a writable mount, against `docker diff` of a container with the same changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{XattrFlags, setxattr};

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::tar::{Entry, Tar};

/// An image whose upper layer hides files of the lower one.
fn push(stem: &str) -> Pushed {
    let mut base = Tar::new();
    for dir in ["etc", "usr", "usr/bin", "usr/share", "usr/share/doc", "var", "var/a", "var/a/b"] {
        base = base.dir(dir);
    }
    for name in
        ["chmod", "chown", "touch", "same", "content", "gone", "again", "cap", "xattr", "linked"]
    {
        base = base.file(&format!("etc/{name}"), name);
    }
    let base = base
        .file("etc/hidden", "x")
        .file("usr/bin/tool", "x")
        .file("usr/share/doc/a", "a")
        .file("usr/share/doc/b", "b")
        .file("var/a/b/c", "c")
        .file("file-to-dir", "x")
        .add(Entry::symlink("link", "etc"))
        .add(Entry::symlink("link-same", "etc"))
        .end();
    let top = Tar::new()
        .add(Entry::whiteout("etc/hidden"))
        .add(Entry::opaque("usr/share/doc"))
        .file("usr/share/doc/b", "new")
        .file("etc/top", "top")
        .end();
    let hub = Hub::shared();
    let image = Image::new().layer(base).layer(top);
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

/// Changes of every kind, below the working directory.
const CHANGES: &str = r#"
    echo new > new; mkdir -p made/by/me; echo x > made/by/me/x
    echo y > 'usr/bin/with space ü'
    chmod 700 etc/chmod; chown 7:8 etc/chown; touch etc/touch
    echo more >> etc/content; rm etc/gone; rm etc/again; echo again > etc/again
    touch -r etc/same reference; : >> etc/same; touch -r reference etc/same; rm reference
    rm etc/top; echo back > etc/hidden; rm etc/hidden; echo back > etc/hidden
    rm -r usr/share/doc; mkdir usr/share/doc; echo b > usr/share/doc/b; echo c > usr/share/doc/c
    rm file-to-dir; mkdir file-to-dir; echo x > file-to-dir/x
    rm -r var/a; echo file > var/a
    rm link; ln -s usr link
    ln etc/linked etc/second; mkfifo fifo; mknod device c 1 3; mknod block b 7 200
    mkdir -m 1777 sticky; chmod 4755 usr/bin/tool
    mkdir temporary; echo x > temporary/x; rm -r temporary
"#;

fn change(dir: &Path) {
    let done = Command::new("sh").args(["-ec", CHANGES]).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{}", Done::from(done));
    // VFS_CAP_REVISION_2 with cap_net_bind_service.
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(dir.join("etc/cap"), "security.capability", &value, XattrFlags::empty()).unwrap();
    setxattr(dir.join("etc/xattr"), "user.note", b"x", XattrFlags::empty()).unwrap();
}

/// Changes the container `name`, as its processes would.
fn change_container(dockerd: &Dockerd, name: &str, at: &Path) {
    let data = dockerd.json(&["inspect", "--format", "{{json .GraphDriver.Data}}", name]);
    let dir = |key: &str| data[key].as_str().unwrap().to_owned();
    let (lower, upper, work) = (dir("LowerDir"), dir("UpperDir"), dir("WorkDir"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let args = ["-t", "overlay", "overlay", "-o", &options];
    assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
    let _mounted = Mounted(at.to_owned());
    change(at);
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    at: PathBuf,
    _mounted: Mounted,
}

impl Place {
    fn new(pushed: &Pushed) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "-q", &pushed.name()]);
        let at = scratch.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let _mounted = Mounted(at.clone());
        Self { scratch, rpull, at, _mounted }
    }
}

#[test]
fn lines_of_a_writable_mount_are_those_of_docker_diff() {
    let pushed = push("diff-docker");
    let place = Place::new(&pushed);
    let (name, at) = (pushed.name(), place.at.to_str().unwrap());
    place.rpull.ok(["mount", "--rw", "--name", "web", &name, at]);
    assert_eq!(place.rpull.ok(["diff", "web"]), "");
    change(&place.at);
    let lines = place.rpull.ok(["diff", "web"]);
    place.rpull.ok(["umount", "web"]);
    assert_eq!(place.rpull.ok(["diff", "web"]), lines, "the mount is not mounted");

    let dockerd = Dockerd::shared();
    dockerd.ok(&["pull", "-q", &name]);
    let container = dockerd.ok(&["create", &name, "/x"]);
    let container_at = place.scratch.path().join("container");
    fs::create_dir(&container_at).unwrap();
    change_container(dockerd, &container, &container_at);
    let dockers = dockerd.ok(&["diff", &container]);
    dockerd.ok(&["rm", &container]);
    assert_eq!(sorted(&lines), sorted(&dockers));
    // Not the same by being empty.
    for line in ["A /new", "C /etc", "D /etc/top", "D /usr/share/doc/a", "C /var/a", "C /etc/cap"] {
        let expected = line != "D /usr/share/doc/a";
        assert_eq!(lines.lines().any(|it| it == line), expected, "{line}: {lines}");
    }
    assert!(!lines.contains("same") && !lines.contains("temporary"), "{lines}");
}

#[test]
fn lines_are_sorted_and_odd_names_are_escaped() {
    let pushed = push("diff-odd");
    let place = Place::new(&pushed);
    let at = place.at.to_str().unwrap();
    place.rpull.ok(["mount", "--rw", "--name", "web", "--at-layer", "1", &pushed.name(), at]);
    let long = "n".repeat(255);
    for name in ["b\nA fake", "a\x1b[2J", &long] {
        fs::write(place.at.join(name), "").unwrap();
    }
    fs::remove_dir_all(place.at.join("var")).unwrap();
    let lines = place.rpull.ok(["diff", "web"]);
    let expected = format!("A /a\\u{{1b}}[2J\nA /b\\nA fake\nA /{long}\nD /var\n");
    assert_eq!(lines, expected);
    let json = place.rpull.ok(["diff", "--format", "json", "web"]);
    let paths = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let paths: Vec<_> = paths.map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths[1], "/b\nA fake");

    // The second layer is not a part of this mount.
    let missing = place.rpull.fails(3, ["diff", "other"]);
    assert!(missing.stderr.contains("no such writable mount or image: other"), "{missing}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let done = place.rpull.command(["diff", "web"]).stdout(full).output().unwrap();
    let done = Done::from(done);
    assert!(done.stderr.contains("cannot write to standard output"), "{done}");
    place.rpull.ok(["umount", "--discard", "web"]);
}
