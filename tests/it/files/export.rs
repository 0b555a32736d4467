//! `rpull export` to a tar.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use super::*;
use crate::support::dockerd::Dockerd;

#[test]
fn exported_tar_has_the_files_of_a_mount() {
    let place = Place::new("export-mount");
    let tar = place.text("rootfs.tar");
    assert_eq!(place.rpull.ok(["export", "-o", &tar, &place.image.name()]), "");
    assert_same(&place.unpacked(&tar), &place.mounted());
    assert!(place.path("unpacked/sparse").metadata().unwrap().blocks() < 1 << 10);
}

#[test]
fn exported_tar_has_the_files_of_docker_export() {
    let place = Place::new("export-docker");
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &place.image.name()]);
    let container = docker.ok(&["create", &place.image.name(), "/command"]);
    let (ours, dockers) = (place.text("ours.tar"), place.text("dockers.tar"));
    place.rpull.ok(["export", "-o", &ours, &place.image.name()]);
    docker.ok(&["export", "-o", &dockers, &container]);
    docker.ok(&["rm", &container]);
    let mut expected = place.unpacked(&dockers);
    let mut actual = place.unpacked(&ours);
    // What dockerd adds for the container, and leaves out: all attributes but file capabilities.
    for added in [
        ".dockerenv",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "proc",
        "sys",
    ] {
        assert!(expected.remove(added).is_some(), "{added}");
    }
    for tree in [&mut actual, &mut expected] {
        for line in tree.values_mut() {
            *line = line.replace(" user.a=1", "");
        }
    }
    assert_same(&actual, &expected);
}

#[test]
fn two_exports_are_equal() {
    let (one, two) = (Place::new("export-equal"), Place::new("export-equal"));
    let export = |place: &Place| {
        let done = place.rpull.command(["export", &place.image.name()]).output().unwrap();
        assert!(done.status.success());
        sha256(&done.stdout)
    };
    assert_eq!(export(&one), export(&two));
}

#[test]
fn export_that_fails_leaves_the_file_as_it_was() {
    let place = Place::new("export-fails");
    let (name, file) = (place.image.name(), place.path("out.tar"));
    fs::write(&file, "old").unwrap();
    place.rpull.fails(3, ["export", "-o", file.to_str().unwrap(), "absent"]);
    let layers = place.rpull.json(["layers", "--format", "json", &name]);
    let layer = layers[0]["path"].as_str().unwrap();
    fs::remove_dir_all(layer).unwrap();
    assert_ne!(place.rpull.run(["export", "-o", file.to_str().unwrap(), &name]).code, Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn export_to_a_full_disk_or_a_closed_pipe_fails() {
    let place = Place::new("export-full");
    let name = place.image.name();
    let done = place.rpull.fails(7, ["export", "-o", "/dev/full", &name]);
    assert!(done.stderr.contains("No space left"), "{done}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = place.rpull.command(["export", &name]);
    assert_eq!(command.stdout(full).status().unwrap().code(), Some(1));
    let mut command = place.rpull.command(["export", &name]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(!child.wait().unwrap().success());
}

#[test]
fn export_to_a_terminal_is_refused() {
    let place = Place::new("export-terminal");
    let mut command = Command::new("script");
    place.rpull.dress(&mut command);
    let line = format!("{} export {}", crate::support::rpull::BINARY, place.image.name());
    let done = command.args(["-qec", &line, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("cowardly refusing to save to a terminal"), "{text}");
    assert_eq!(done.status.code(), Some(2));
}

/// A user without capabilities cannot read the marks of opaque directories that root has written.
#[test]
fn export_without_capabilities_hides_the_same_files() {
    let place = Place::new("export-user");
    let hidden = |done: std::process::Output| {
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        text.lines()
            .filter(|name| name.starts_with("/hidden"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let args = ["ls", "-R", &place.image.name()];
    let expected = hidden(place.rpull.command(args).output().unwrap());
    assert_eq!(expected, ["/hidden", "/hidden/new"]);
    let mut command = Command::new("setpriv");
    place.rpull.dress(&mut command);
    let dropped = "-all,+dac_override,+dac_read_search";
    command.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
    command.arg(crate::support::rpull::BINARY).args(args);
    assert_eq!(hidden(command.output().unwrap()), expected);
}

#[test]
fn export_of_a_writable_mount_has_its_changes() {
    let place = Place::new("export-writable");
    let at = place.path("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    let name = ["mount", "--rw", "--name", "web", &place.image.name(), at.to_str().unwrap()];
    place.rpull.ok(name);
    fs::remove_dir_all(at.join("etc")).unwrap();
    fs::create_dir(at.join("etc")).unwrap();
    fs::write(at.join("etc/created"), "new").unwrap();
    fs::remove_file(at.join("link/first")).unwrap();
    fs::write(at.join("cap"), "changed").unwrap();
    let tar = place.text("rootfs.tar");
    place.rpull.ok(["export", "-o", &tar, "web"]);
    assert_same(&place.unpacked(&tar), &tree(&at));
    drop(mounted);
    assert_eq!(place.rpull.ok(["cat", "web", "/etc/created"]), "new");
    assert_eq!(place.rpull.ok(["ls", "web", "/etc"]), "created\n");
}
