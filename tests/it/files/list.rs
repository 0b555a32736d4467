//! `rpull ls` and `rpull cat`.

use std::process::Command;

use serde_json::Value;

use super::*;

#[test]
fn listed_files_are_those_of_a_mount() {
    let place = Place::new("ls-mount");
    let args = ["ls", "-R", "--format", "json", &place.image.name()];
    let listed = place.rpull.ok(args);
    let mounted = place.mounted();
    let mut paths = Vec::new();
    for line in listed.lines() {
        let file: Value = serde_json::from_str(line).unwrap();
        let bytes = match file["pathBytes"].as_str() {
            Some(bytes) => data_encoding::BASE64.decode(bytes.as_bytes()).unwrap(),
            None => file["path"].as_str().unwrap().as_bytes().to_vec(),
        };
        let path = bytes[1..].escape_ascii().to_string();
        let owner = format!(" {}:{} ", file["uid"], file["gid"]);
        assert!(mounted[&path].contains(&owner), "{line} {}", mounted[&path]);
        paths.push(path);
    }
    assert_eq!(paths.len(), mounted.len());
}

#[test]
fn long_listing_shows_type_mode_owner_size_and_target() {
    let place = Place::new("ls-long");
    let name = place.image.name();
    let line = |path: &str| place.rpull.ok(["ls", "-l", &name, path]);
    assert_eq!(
        line("/etc/passwd"),
        "-rwsr-xr-x  1  1000     5          5 2023-11-14 22:13 passwd\n"
    );
    let dev = line("/dev");
    let lines: Vec<&str> = dev.lines().collect();
    assert_eq!(lines[0], "brw-r--r--  1     0     0  259, 1000 2023-11-14 22:13 disk");
    assert_eq!(lines[1], "prw-r--r--  1     0     0          0 2023-11-14 22:13 fifo");
    let root = line("/");
    assert!(root.contains(" absolute -> /etc/passwd\n") && root.contains("drwxr-xr-x "), "{root}");
    // Names of files are foreign text.
    assert!(root.contains(r"odd\n\u{1b}[2J") && !root.contains('\x1b'), "{root}");
    assert_eq!(place.rpull.ok(["ls", &name, "etc"]), "new\npasswd\nup\n");
}

#[test]
fn printed_file_is_found_through_links_inside_the_image() {
    let place = Place::new("cat");
    let name = place.image.name();
    for path in
        ["/etc/passwd", "absolute", "/outside", "dir/passwd", "etc/up/etc/passwd", "../absolute"]
    {
        assert_eq!(place.rpull.ok(["cat", &name, path]), "root\n", "{path}");
    }
    assert_eq!(place.rpull.ok(["cat", &name, "/etc/new", "etc/passwd"]), "newroot\n");
    for (path, code, why) in [
        ("/etc/deleted", 3, "no such file or directory"),
        ("/dangling", 3, "no such file or directory"),
        ("/hidden/old", 3, "no such file or directory"),
        ("/loop", 3, "too many levels of symbolic links"),
        ("/etc/passwd/", 3, "not a directory"),
        ("/etc", 2, "is a directory"),
        ("/dev/fifo", 2, "is not a regular file"),
        ("/dev/null", 2, "is not a regular file"),
    ] {
        let done = place.rpull.fails(code, ["cat", &name, path]);
        assert!(done.stderr.contains(path) && done.stderr.contains(why), "{done}");
    }
    place.rpull.fails(3, ["cat", "absent", "/etc/passwd"]);
}

#[test]
fn file_is_printed_unchanged_to_a_pipe_and_escaped_to_a_terminal() {
    let hub = Hub::shared();
    let bytes = b"a\x1b[2J\tb\xff\nlast";
    let image = Image::new().layer(Tar::new().file("f", bytes).end());
    let image = image.push(&hub.host, &format!("{}:one", hub.repository("cat-terminal")));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &image.name()]);
    assert_eq!(rpull.command(["cat", &image.name(), "f"]).output().unwrap().stdout, bytes);
    let mut command = Command::new("script");
    rpull.dress(&mut command);
    let line = format!("{} cat {} f", crate::support::rpull::BINARY, image.name());
    let done = command.args(["-qec", &line, "/dev/null"]).output().unwrap();
    let shown = String::from_utf8(done.stdout).unwrap();
    assert_eq!(shown, "a\\u{1b}[2J\tb\u{fffd}\r\nlast\r\n");
}
