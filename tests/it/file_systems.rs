//! Roots on file systems that cannot hold layers are refused before anything is downloaded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::assert_consistent;
use crate::support::tar::Tar;

/// A mount of a file system with an empty root.
struct Place {
    _mounted: Mounted,
    scratch: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    image: String,
    _proxy: Proxy,
}

impl Place {
    fn new(script: &str) -> Self {
        let scratch = scratch::dir();
        fs::create_dir(scratch.path().join("m")).unwrap();
        let status = Command::new("sh").args(["-ec", script]).current_dir(scratch.path()).status();
        assert!(status.unwrap().success(), "{script}");
        let hub = Hub::shared();
        let image = Image::new().layer(Tar::new().file("f", "f").end());
        let pushed = image.push(&hub.host, &format!("{}:one", hub.repository("file-system")));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let proxy = Proxy::new(move |_, path| {
            seen.lock().unwrap().push(path.to_owned());
            Fault::None
        });
        Self {
            _mounted: Mounted(scratch.path().join("m")),
            requests,
            image: proxy.name(&pushed.name()),
            _proxy: proxy,
            scratch,
        }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("m/root")
    }

    #[track_caller]
    fn refused(&self, done: &Done, why: &[&str]) {
        assert_eq!(done.code, Some(7), "{done}");
        for text in why {
            assert!(done.stderr.contains(text), "'{text}' is not in: {done}");
        }
        assert!(done.stderr.contains("\nhint: choose a --root on "), "{done}");
        let requests = self.requests.lock().unwrap();
        assert!(!requests.iter().any(|path| path.contains("/blobs/")), "{requests:?}");
        assert!(!self.root().join("rpull/probe").exists());
        assert_consistent(&self.root());
    }

    #[track_caller]
    fn pull_is_refused(&self, why: &[&str]) {
        self.refused(&Rpull::on(self.root()).run(["pull", &self.image]), why);
    }
}

#[test]
fn pull_into_a_root_on_overlayfs_is_refused() {
    let script = "mkdir l u w; mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m";
    Place::new(script).pull_is_refused(&["is on overlayfs", "whiteouts", "docker run -v "]);
}

#[test]
fn pull_into_a_root_without_xattrs_is_refused() {
    let place = Place::new("mount -t ramfs ramfs m");
    place.pull_is_refused(&["is on ramfs", "trusted.overlay.opaque"]);

    // As another user, with the attributes of that user's mounts.
    let dir = place.scratch.path().join("m");
    fs::remove_dir_all(place.root()).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.join("rpull");
    fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("setpriv");
    Rpull::on(place.root()).dress(&mut command);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
    let done = Done::from(command.args(["pull", &place.image]).output().unwrap());
    place.refused(&done, &["user.overlay.opaque"]);
}

#[test]
fn pull_into_a_root_without_types_in_directories_is_refused() {
    let script = "truncate -s 8M d; mke2fs -q -t ext4 -O ^filetype d; mount -o loop d m";
    Place::new(script).pull_is_refused(&["d_type"]);
}

#[test]
fn pull_into_a_usable_file_system_works() {
    let script = "truncate -s 16M d; mke2fs -q -t ext4 d; mount -o loop d m";
    let place = Place::new(script);
    let rpull = Rpull::on(place.root());
    // A killed pull left it.
    fs::create_dir_all(place.root().join("rpull/probe/whiteout")).unwrap();
    rpull.ok(["pull", "-q", &place.image]);
    assert!(!place.root().join("rpull/probe").exists());
    assert_consistent(rpull.root());
}
