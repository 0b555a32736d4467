//! Roots of other image stores: that of a dockerd with containerd's image store, as Docker 29 has it,
//! and those that Docker's settings exclude.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::{self, in_private_mounts};
use crate::support::tar::Tar;
use crate::support::wait;

/// An image of a host where nothing listens: a request for it would fail with code 5.
const UNREACHABLE: &str = "127.0.0.1:1/some/image:1";

fn push(stem: &str) -> Pushed {
    let hub = Hub::shared();
    let image = Image::new().layer(Tar::new().file("a", stem).end());
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

/// A containerd that ends with the value.
struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    /// Starts as dockerd does, with the data in `root` and the rest in `state`.
    fn start(root: PathBuf, state: &Path) -> Self {
        let socket = state.join("sock");
        let (state, address) = (state.to_owned(), socket.clone());
        fs::write(
            state.join("config"),
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )
        .unwrap();
        let child = scratch::spawn_bound("containerd", move |command| {
            let log = File::create(state.join("log")).expect("a log");
            command.arg("--config").arg(state.join("config")).arg("--root").arg(root);
            command.arg("--state").arg(state.join("run")).arg("--address").arg(address);
            command.stdout(log.try_clone().expect("a log")).stderr(log);
        });
        let containerd = Self { child, socket };
        wait::until("containerd answers", || containerd.command(&["version"]).status.success());
        containerd
    }

    fn command(&self, args: &[&str]) -> std::process::Output {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.socket).args(["--namespace", "moby"]).args(args);
        ctr.output().expect("start ctr")
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) {
        let done: Done = self.command(args).into();
        assert_eq!(done.code, Some(0), "ctr {args:?}: {done}");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn images_in_containerd_of_the_root_refuse_a_pull() {
    let (scratch, pushed) = (scratch::dir(), push("c8d"));
    let root = scratch.path().join("root");
    let containerd = Containerd::start(root.join("containerd/daemon"), scratch.path());
    let (rpull, image) = (Rpull::on(&root), pushed.name());
    containerd.ok(&["content", "fetch", "--plain-http", &image]);
    // So many that the list of images is a tree of several pages.
    let tags: Vec<String> = (0..300).map(|n| format!("docker.io/library/test:{n}")).collect();
    let mut tag = vec!["images", "tag", &image];
    tag.extend(tags.iter().map(String::as_str));
    containerd.ok(&tag);

    let refused = rpull.fails(2, ["pull", UNREACHABLE]);
    assert!(refused.stderr.contains("in containerd's store"), "{refused}");
    assert!(refused.stderr.contains("\nhint: choose another --root"), "{refused}");
    assert_eq!(names_in(&root), ["containerd"], "nothing is created");
    rpull.ok(["pull", "--dry-run", &image]);

    let copy = scratch.path().join("copy");
    let copied = Command::new("cp").arg("--archive").args([&root, &copy]).status().unwrap();
    assert!(copied.success());
    let forced = Rpull::on(&copy);
    forced.ok(["pull", "--force", &image]);
    // dockerd uses overlay2 there from now on.
    forced.ok(["pull", &image]);

    containerd.ok(&[&["images", "remove", image.as_str()][..], &tag[3..]].concat());
    rpull.ok(["pull", &image]);
}

#[test]
fn graph_root_of_podman_refuses_a_pull() {
    let scratch = scratch::dir();
    let [root, run] = ["root", "run"].map(|name| scratch.path().join(name));
    let podman = || {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(&root).arg("--runroot").arg(&run);
        let done: Done = podman.args(["--storage-driver=vfs", "images"]).output().unwrap().into();
        assert_eq!(done.code, Some(0), "{done}");
    };
    podman();
    let refused = Rpull::on(&root).fails(2, ["pull", UNREACHABLE]);
    assert!(
        refused.stderr.contains("podman or CRI-O keeps images there (vfs-images)"),
        "{refused}"
    );
    podman();
}

#[test]
fn settings_of_docker_refuse_its_data_root() {
    Hub::shared();
    in_private_mounts(pull_into_data_root_with_settings);
}

/// Runs a shell command of this test's mount namespace.
fn shell(line: &str) {
    assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success(), "{line}");
}

fn pull_into_data_root_with_settings() {
    let image = push("settings").name();
    shell(
        "mount -t tmpfs test /var/lib; mkdir /var/lib/u /var/lib/w
         mount -t overlay test -o lowerdir=/etc,upperdir=/var/lib/u,workdir=/var/lib/w /etc
         mkdir -p /etc/docker",
    );
    let settings = Path::new("/etc/docker/daemon.json");
    fs::write(settings, r#"{"features": {"containerd-snapshotter": true}}"#).unwrap();
    let (rpull, other) = (Rpull::on("/var/lib/docker"), Rpull::on("/var/lib/other"));
    let refused = rpull.fails(2, ["pull", UNREACHABLE]);
    assert!(refused.stderr.contains(r#"has "containerd-snapshotter": true"#), "{refused}");
    assert!(!Path::new("/var/lib/docker").exists());
    other.ok(["pull", &image]);

    // The hint names the settings exactly.
    let hint = refused.stderr.lines().find_map(|line| line.strip_prefix("hint: set ")).unwrap();
    let (line, rest) = hint.split_once(" in ").unwrap();
    assert!(rest.starts_with("/etc/docker/daemon.json, "), "{refused}");
    fs::write(settings, format!("{{{line}}}")).unwrap();
    let done = rpull.run(["-v", "pull", &image]);
    assert_eq!(done.code, Some(0), "{done}");
    let found = "image store of /var/lib/docker: /etc/docker/daemon.json chooses overlay2";
    assert!(done.stderr.contains(found), "{done}");

    fs::remove_file(settings).unwrap();
    rpull.ok(["pull", "--policy", "missing", &image]);
}
