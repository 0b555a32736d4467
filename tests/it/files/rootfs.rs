//! `rpull export --rootfs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

impl Place {
    fn rootfs(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        let done = self.rpull.run(["export", "--rootfs", to.to_str().unwrap(), &self.image.name()]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done}");
        let left = fs::read_dir(self.scratch.path()).unwrap();
        let left =
            left.filter(|it| it.as_ref().unwrap().file_name().as_bytes().starts_with(b".rpull"));
        assert_eq!(left.count(), 0);
        to
    }

    /// The files of a file system in a file.
    fn of_loop(&self, file: &Path) -> BTreeMap<String, String> {
        let at = self.path("loop");
        fs::create_dir_all(&at).unwrap();
        let status =
            Command::new("mount").args(["-o", "loop,ro"]).arg(file).arg(&at).status().unwrap();
        assert!(status.success());
        let mounted = Mounted(at);
        tree(&mounted.0)
    }
}

#[test]
fn directory_has_the_files_of_a_mount() {
    let place = Place::new("rootfs-dir");
    let dir = place.rootfs("rootfs");
    assert_same(&tree(&dir), &place.mounted());
    assert!(dir.join("sparse").metadata().unwrap().blocks() < 1 << 10);
    let again =
        place.rpull.fails(2, ["export", "--rootfs", dir.to_str().unwrap(), &place.image.name()]);
    assert!(again.stderr.contains("is not empty"), "{again}");
}

#[test]
fn file_systems_have_the_files_of_a_mount_and_equal_bytes() {
    let place = Place::new("rootfs-file");
    let expected = place.mounted();
    for kind in ["squashfs", "ext4", "erofs"] {
        let (one, two) =
            (place.rootfs(&format!("one.{kind}")), place.rootfs(&format!("two.{kind}")));
        let mut actual = place.of_loop(&one);
        assert_eq!(actual.remove("lost+found").is_some(), kind == "ext4");
        let mut expected = expected.clone();
        if kind == "erofs" {
            // All its files have one time.
            for line in actual.values_mut().chain(expected.values_mut()) {
                let words: Vec<_> = line.split(' ').collect();
                let is_time = |at: usize| at == 3 && words.get(4) == Some(&"first");
                let kept = words.iter().enumerate().filter(|(at, _)| !is_time(*at));
                *line = kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
            }
        }
        assert_same(&actual, &expected);
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{kind}");
    }
}

/// Files with names that debugfs reads, and some that need quotes.
fn image_for_debugfs() -> Image {
    let base = Tar::of([
        Entry::dir("etc/").mode(0o500).owner(3, 4),
        Entry::file("etc/secret", "s").mode(0o4200).owner(1000, 2_500_000),
        Entry::file("link/first", "same").owner(7, 8),
        Entry::hardlink("link/second", "link/first"),
        Entry::symlink("a link", "/etc/secret").owner(5, 6),
        Entry::char_device("dev/null", 1, 3).mode(0o666),
        Entry::block_device("dev/\"disk\" 1", 259, 1_000).owner(0, 6),
        Entry::char_device("top", 5, 1).owner(9, 9),
        Entry::fifo("dev/fifo").owner(2, 2),
        Entry::file(" \"", "quoted").owner(11, 12),
        Entry::file("<2>", "x").owner(13, 14),
        Entry::file(b"latin-\xe9", "latin").owner(15, 16),
        Entry::file("cap", "x").xattr("security.capability", NET_RAW),
        Entry::file("attribute", "x").xattr("user.a", "1").xattr("user.b c", ""),
    ]);
    Image::new().layer(base.end())
}

impl Place {
    /// Exports as a process that may read all files and set no metadata.
    fn rootfs_without_rights(&self, name: &str) -> (PathBuf, std::process::Output) {
        let to = self.path(name);
        let mut command = Command::new("setpriv");
        self.rpull.dress(&mut command);
        let dropped = "-all,+dac_override,+dac_read_search,+sys_admin";
        command.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
        command.arg(crate::support::rpull::BINARY);
        command.args(["export", "--rootfs", to.to_str().unwrap(), &self.image.name()]);
        (to, command.output().unwrap())
    }
}

#[test]
fn file_systems_keep_owners_without_the_right_to_set_them() {
    let place = Place::with("rootfs-user", &image_for_debugfs());
    for kind in ["squashfs", "ext4"] {
        let (one, done) = place.rootfs_without_rights(&format!("one.{kind}"));
        assert!(done.status.success() && done.stderr.is_empty(), "{kind} {done:?}");
        let (two, _) = place.rootfs_without_rights(&format!("two.{kind}"));
        let mut actual = place.of_loop(&one);
        actual.remove("lost+found");
        assert_same(&actual, &place.mounted());
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{kind}");
    }
}

#[test]
fn name_that_debugfs_cannot_read_is_in_the_error() {
    let place = Place::new("rootfs-name");
    let (to, done) = place.rootfs_without_rights("out.ext4");
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{text}");
    assert!(text.contains("debugfs cannot read the name") && text.contains("odd\\n"), "{text}");
    assert!(!to.exists());
}

/// mkfs.erofs before 1.7 reads a copy, which has the owners that this process may set.
#[test]
fn erofs_without_owners_comes_with_a_warning() {
    let place = Place::with("rootfs-erofs", &image_for_debugfs());
    let tools = place.tools(&[("mkfs.erofs", "case $* in *--tar*) exit 1; esac; cat > \"$6\"")]);
    let (to, image) = (place.text("out.erofs"), place.image.name());
    let mut command = Command::new("setpriv");
    place.rpull.dress(&mut command);
    let dropped = "-all,+dac_override,+dac_read_search,+sys_admin";
    command.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
    command.arg(crate::support::rpull::BINARY).args(["export", "--rootfs", &to, &image]);
    let done = command.env("PATH", tools).output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && text.contains("mkfs.erofs 1.7 or newer"), "{text}");
}

/// The tools here write what they read to their last argument.
#[test]
fn tools_that_read_a_tar_get_one_with_all_owners() {
    let place = Place::new("rootfs-stream");
    let copies = "for last; do :; done; cat > \"$last\"";
    let tools = place.tools(&[
        ("mkfs.erofs", copies),
        ("mke2fs", copies),
        ("debugfs", "echo debugfs 1.47.2 >&2; cat > /dev/null"),
    ]);
    for kind in ["erofs", "ext4"] {
        let (to, image) = (place.text(&format!("out.{kind}")), place.image.name());
        let mut command = place.rpull.command(["export", "--rootfs", &to, &image]);
        let done = command.env("PATH", &tools).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_same(&place.unpacked(&to), &place.mounted());
    }
}

impl Place {
    /// Makes programs of shell commands. Returns a PATH that begins with them.
    fn tools(&self, tools: &[(&str, &str)]) -> String {
        let dir = self.path("bin");
        fs::create_dir(&dir).unwrap();
        for (name, commands) in tools {
            let path = dir.join(name);
            fs::write(&path, format!("#!/bin/sh\n{commands}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
    }
}

#[test]
fn missing_tool_is_named_with_its_package() {
    let place = Place::new("rootfs-tool");
    for (kind, tool, package) in [
        ("squashfs", "sqfstar", "squashfs-tools"),
        ("ext4", "mke2fs", "e2fsprogs"),
        ("erofs", "mkfs.erofs", "erofs-utils"),
    ] {
        let to = place.text(&format!("out.{kind}"));
        let mut command = place.rpull.command(["export", "--rootfs", &to, &place.image.name()]);
        let done = command.env("PATH", "/nonexistent").output().unwrap();
        let text = String::from_utf8(done.stderr).unwrap();
        assert!(
            text.contains(&format!("{tool} is not installed: install the package {package}")),
            "{text}"
        );
        assert!(!Path::new(&to).exists());
    }
}

#[test]
fn directory_that_is_incomplete_is_removed() {
    let place = Place::new("rootfs-full");
    let full = place.path("full");
    fs::create_dir(&full).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "nr_inodes=6", "tmpfs"]).arg(&full);
    assert!(mount.status().unwrap().success());
    let full = Mounted(full);
    let to = full.0.join("rootfs");
    let done =
        place.rpull.fails(7, ["export", "--rootfs", to.to_str().unwrap(), &place.image.name()]);
    assert!(done.stderr.contains("No space left on device"), "{done}");
    assert!(!to.exists());
}
