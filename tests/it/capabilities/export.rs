//! Exports by a process with few rights.

use super::*;

/// IDs in an export are those of the image, not those that the namespace has on this machine.
#[test]
fn export_in_a_namespace_with_ranges_has_the_owners_of_the_image() {
    let (process, image) = (As::NamespaceOfRanges, push("export-ranges"));
    let place = Place::new(&process);
    let run = |args: &[&str]| {
        let done = place.run(&process, args);
        assert_eq!(done.code, Some(0), "{done}");
    };
    run(&["pull", "-q", &image.name()]);
    run(&["export", "-o", "out.tar", &image.name()]);
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-xpf"]).arg(place.path().join("out.tar")).arg("-C");
    let unpacked = place.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    assert!(tar.arg(&unpacked).status().unwrap().success());
    assert_owners(&unpacked, false);
    for kind in ["ext4", "squashfs"] {
        let file = format!("out.{kind}");
        run(&["export", "--rootfs", &file, &image.name()]);
        let at = place.path().join(kind);
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,ro"]).arg(place.path().join(&file)).arg(&at);
        assert!(mount.status().unwrap().success(), "{kind}");
        assert_owners(&Mounted(at).0, true);
    }
}

/// The user may read all files, but may give none of them to another user.
#[test]
fn export_by_a_user_has_the_owners_of_a_store_of_root() {
    let (process, image) = (As::User(1234, 1234), push("export-user"));
    let place = Place::new(&process);
    Rpull::on(place.root()).ok(["pull", "-q", &image.name()]);
    let readable =
        "chmod -R a+rX root/image root/rpull && chmod a+rx root root/overlay2 root/overlay2/*";
    let mut chmod = Command::new("sh");
    assert!(chmod.current_dir(place.path()).args(["-c", readable]).status().unwrap().success());
    for kind in ["ext4", "squashfs"] {
        let file = format!("out.{kind}");
        let done = place.run(&process, &["export", "--rootfs", &file, &image.name()]);
        assert_eq!(done.code, Some(0), "{done}");
        let at = place.path().join(kind);
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,ro"]).arg(place.path().join(&file)).arg(&at);
        assert!(mount.status().unwrap().success(), "{kind}");
        let mounted = Mounted(at);
        // sqfstar 4.5 gives the root to the user.
        assert_owners(&mounted.0, kind == "ext4");
        let meta = mounted.0.join("dev/console").symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.rdev()), (0, 5, 5 << 8 | 1));
    }
}

#[track_caller]
fn assert_owners(dir: &Path, has_root: bool) {
    for expected in ALL {
        // The namespace maps no ID above 65,535 and has no devices.
        if matches!(expected.kind, 'c' | 'b')
            || expected.path == "far"
            || (expected.path.is_empty() && !has_root)
        {
            continue;
        }
        let meta = dir.join(expected.path).symlink_metadata().unwrap();
        let actual = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        let (uid, gid) = expected.owner;
        assert_eq!(actual, (uid, gid, expected.mode), "{}", expected.path);
    }
}
