use super::*;
use crate::store::bolt::tests::database;

/// The directories of a machine, below one of the test's own.
struct Place {
    _dir: tempfile::TempDir,
    machine: Machine,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let machine = Machine {
            daemon_json: at("etc/daemon.json"),
            data_root: at("docker"),
            containerd: at("containerd"),
        };
        Self { _dir: dir, machine }
    }

    fn root(&self) -> &Path {
        &self.machine.data_root
    }

    /// Creates a file of the data root, and its directories.
    fn file(&self, path: &str) {
        write(&self.root().join(path), b"x");
    }

    fn settings(&self, json: &str) {
        write(&self.machine.daemon_json, json.as_bytes());
    }

    /// Gives the containerd in the directory `root` the images `images`.
    fn containerd(root: &Path, images: &[&str]) {
        write(&root.join(DATABASE), &database(images));
    }

    /// Returns why the data root is refused, with the settings that help.
    fn refused(&self) -> Option<(String, Option<PathBuf>)> {
        refused(self.root(), &self.machine)
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn refused(root: &Path, machine: &Machine) -> Option<(String, Option<PathBuf>)> {
    match refuse(root, machine) {
        Ok(()) => None,
        Err(StoreError::OtherStore { root: named, why, setting }) => {
            assert_eq!(named, root);
            Some((why, setting))
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn root_without_other_store_is_accepted() {
    let place = Place::new();
    assert_eq!(place.refused(), None, "absent");
    fs::create_dir(place.root()).unwrap();
    assert_eq!(place.refused(), None, "empty");
    place.file("engine-id");
    place.file("buildkit/cache.db");
    Place::containerd(&place.machine.containerd, &[]);
    Place::containerd(&place.root().join(OWN_CONTAINERD), &[]);
    assert_eq!(place.refused(), None, "a Docker 29 without images");
    fs::create_dir(place.root().join("zfs")).unwrap();
    place.file("btrfs/unrelated");
    assert_eq!(place.refused(), None, "directories of other programs");
}

#[test]
fn root_with_overlay2_content_is_accepted() {
    let place = Place::new();
    Place::containerd(&place.machine.containerd, &["docker.io/library/a:1"]);
    place.file("overlay2/l/ABC");
    place.file("image/vfs/repositories.json");
    place.file("vfs/dir/x");
    assert_eq!(place.refused(), None);
}

#[test]
fn images_in_containerd_are_not_hidden() {
    for is_own in [true, false] {
        let place = Place::new();
        let containerd = if is_own {
            place.root().join(OWN_CONTAINERD)
        } else {
            place.machine.containerd.clone()
        };
        Place::containerd(&containerd, &["docker.io/library/a:1"]);
        fs::create_dir_all(place.root().join("overlay2")).unwrap();
        let (why, setting) = place.refused().unwrap();
        assert!(why.contains("namespace moby"), "{why}");
        assert!(why.contains(containerd.to_str().unwrap()), "{why}");
        assert_eq!(setting.as_ref(), Some(&place.machine.daemon_json));
        for chosen in [
            r#"{"features": {"containerd-snapshotter": false}, "storage-driver": "overlay2"}"#,
            r#"{"features": {"containerd-snapshotter": false}}"#,
            r#"{"storage-driver": "overlay2"}"#,
        ] {
            place.settings(chosen);
            assert_eq!(place.refused(), None, "{chosen}");
        }
    }
}

#[test]
fn images_of_the_system_containerd_concern_roots_of_dockerd_only() {
    let place = Place::new();
    Place::containerd(&place.machine.containerd, &["docker.io/library/a:1"]);
    let other = place.root().with_file_name("other");
    assert_eq!(refused(&other, &place.machine), None);
    fs::create_dir(&other).unwrap();
    assert_eq!(refused(&other, &place.machine), None);
    // A dockerd with --data-root has been here, whose settings are unknown.
    write(&other.join("engine-id"), b"x");
    assert_eq!(refused(&other, &place.machine).unwrap().1, None);
}

#[test]
fn settings_that_choose_another_store_are_refused() {
    let cases = [
        (r#"{"features": {"containerd-snapshotter": true}}"#, "\"containerd-snapshotter\": true"),
        (
            r#"{"features": {"containerd-snapshotter": true}, "storage-driver": "overlay2"}"#,
            "\"containerd-snapshotter\": true",
        ),
        (r#"{"storage-driver": "overlayfs"}"#, "\"storage-driver\": \"overlayfs\""),
        (
            r#"{"features": {"containerd-snapshotter": false}, "storage-driver": "btrfs"}"#,
            "\"storage-driver\": \"btrfs\"",
        ),
    ];
    let place = Place::new();
    place.file("overlay2/l/ABC");
    for (json, line) in cases {
        place.settings(json);
        let (why, setting) = place.refused().unwrap();
        assert!(why.contains(line), "{why}");
        assert_eq!(setting.as_ref(), Some(&place.machine.daemon_json));
        assert_eq!(refused(&place.root().with_file_name("other"), &place.machine), None);
    }
    for none in ["", "{", "[]", "{\"features\": 3}", r#"{"features": {"x": true}}"#] {
        place.settings(none);
        assert_eq!(place.refused(), None, "{none}");
    }
}

#[test]
fn data_root_of_the_settings_is_the_one_that_counts() {
    let place = Place::new();
    let other = place.root().with_file_name("other");
    let json = serde_json::json!({"data-root": other, "storage-driver": "vfs"});
    place.settings(&json.to_string());
    assert_eq!(place.refused(), None);
    assert!(refused(&other, &place.machine).is_some(), "before dockerd creates it");
    fs::create_dir(&other).unwrap();
    let link = place.root().with_file_name("link");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    assert!(refused(&link, &place.machine).is_some(), "by another path");
}

#[test]
fn images_of_other_storage_drivers_are_not_hidden() {
    let place = Place::new();
    place.file("image/vfs/repositories.json");
    assert_eq!(place.refused(), None, "no layer");
    place.file("vfs/dir/x");
    let (why, setting) = place.refused().unwrap();
    assert!(why.contains("storage driver vfs"), "{why}");
    assert!(setting.is_some());
}

#[test]
fn graph_root_of_podman_is_refused() {
    let place = Place::new();
    place.file("overlay-images/images.json");
    place.file("overlay2/l/ABC");
    let (why, setting) = place.refused().unwrap();
    assert!(why.contains("podman or CRI-O"), "{why}");
    assert_eq!(setting, None);
}
