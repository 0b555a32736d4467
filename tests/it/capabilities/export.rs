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
    assert_owners(&unpacked);
    for kind in ["ext4", "squashfs"] {
        let file = format!("out.{kind}");
        run(&["export", "--rootfs", &file, &image.name()]);
        let at = place.path().join(kind);
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,ro"]).arg(place.path().join(&file)).arg(&at);
        assert!(mount.status().unwrap().success(), "{kind}");
        assert_owners(&Mounted(at).0);
    }
}

#[track_caller]
fn assert_owners(dir: &Path) {
    for expected in ALL {
        // The namespace maps no ID above 65,535 and has no devices.
        if matches!(expected.kind, 'c' | 'b') || expected.path == "far" {
            continue;
        }
        let meta = dir.join(expected.path).symlink_metadata().unwrap();
        let actual = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        let (uid, gid) = expected.owner;
        let mode = if expected.path.is_empty() { actual.2 } else { expected.mode };
        assert_eq!(actual, (uid, gid, mode), "{}", expected.path);
    }
}
