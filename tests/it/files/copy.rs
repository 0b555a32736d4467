//! `rpull cp`.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

impl Place {
    fn cp(&self, path: &str, to: &str) -> crate::support::rpull::Done {
        self.rpull.run(["cp", &format!("{}:{path}", self.image.name()), &self.text(to)])
    }

    #[track_caller]
    fn copies(&self, path: &str, to: &str) {
        let done = self.cp(path, to);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done}");
    }
}

#[test]
fn copy_has_the_place_that_docker_gives_it() {
    let place = Place::new("cp-rules");
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    place.copies("/etc/passwd", "file");
    assert_eq!(read("file"), "root\n");
    place.copies("/etc/new", "file");
    assert_eq!(read("file"), "new");
    fs::create_dir(place.path("dir")).unwrap();
    place.copies("etc/passwd", "dir");
    assert_eq!(read("dir/passwd"), "root\n");
    place.copies("/etc", "dir");
    assert_eq!(read("dir/etc/new"), "new");
    place.copies("/hidden", "created");
    assert_eq!(read("created/new"), "new");
    place.copies("/etc/.", "dir");
    assert_eq!(read("dir/new"), "new");
    for (path, to, why) in [
        ("/etc", "file", "which is a file"),
        ("/etc/new", "absent/", "does not exist"),
        ("/etc/new", "absent/file", "No such file"),
        ("/absent", "file", "no such file or directory"),
    ] {
        let done = place.cp(path, to);
        assert!(done.code != Some(0) && done.stderr.contains(why), "{path} {to}: {done}");
    }
    assert_eq!(read("file"), "new");
}

#[test]
fn copy_keeps_links_modes_and_owners_as_asked() {
    let place = Place::new("cp-keep");
    let name = place.image.name();
    let copied = |flags: &[&str], path: &str, to: &str| {
        let from = format!("{name}:{path}");
        place.rpull.ok([&["cp"], flags, &[&from, &place.text(to)]].concat());
        place.path(to).symlink_metadata().unwrap()
    };
    assert!(copied(&[], "/absolute", "link").is_symlink());
    assert_eq!(copied(&["-L"], "/absolute", "followed").len(), 5);
    let plain = copied(&[], "/etc/passwd", "plain");
    assert_eq!((plain.uid(), plain.mode() & 0o7777, plain.mtime()), (0, 0o4755, 1_700_000_000));
    let archived = copied(&["-a"], "/etc/passwd", "archived");
    assert_eq!((archived.uid(), archived.gid(), archived.mode() & 0o7777), (1000, 5, 0o4755));
    copied(&["-a"], "/link", "links");
    let ino = |name: &str| place.path(name).metadata().unwrap().ino();
    assert_eq!(ino("links/first"), ino("links/second"));
}

#[test]
fn copy_follows_no_link_below_its_target() {
    let place = Place::new("cp-links");
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "untouched").unwrap();
    fs::create_dir(place.path("to")).unwrap();
    symlink(&outside, place.path("to/etc")).unwrap();
    let done = place.cp("/etc", "to");
    assert!(done.code != Some(0) && done.stderr.contains("in place of the directory"), "{done}");
    fs::create_dir(place.path("flat")).unwrap();
    symlink(outside.join("passwd"), place.path("flat/passwd")).unwrap();
    place.copies("/etc/passwd", "flat");
    assert!(!place.path("flat/passwd").is_symlink());
    fs::create_dir_all(place.path("flat/new")).unwrap();
    let done = place.cp("/etc/new", "flat");
    assert!(done.code != Some(0) && done.stderr.contains("in place of the file"), "{done}");
    assert_eq!(fs::read_to_string(outside.join("passwd")).unwrap(), "untouched");
}

#[test]
fn tar_of_a_path_begins_with_its_name() {
    let place = Place::new("cp-tar");
    let names = |path: &str| {
        let from = format!("{}:{path}", place.image.name());
        let done = place.rpull.command(["cp", &from, "-"]).output().unwrap();
        assert!(done.status.success());
        fs::write(place.path("tar"), done.stdout).unwrap();
        let listed = Command::new("tar").arg("-tf").arg(place.path("tar")).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    assert_eq!(names("/hidden"), "hidden/\nhidden/new\n");
    assert_eq!(names("/etc/passwd"), "passwd\n");
    assert_eq!(names("/absolute"), "absolute\n");
    assert_eq!(names("/hidden/."), "./\n./new\n");
}
