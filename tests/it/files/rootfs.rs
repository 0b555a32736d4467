//! `rpull export --rootfs`.

use std::fs;

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

/// sqfstar reads a stream, so no file needs its owner on the way.
#[test]
fn squashfs_keeps_owners_without_the_right_to_set_them() {
    let place = Place::new("rootfs-user");
    let (to, image) = (place.text("out.squashfs"), place.image.name());
    let mut command = Command::new("setpriv");
    place.rpull.dress(&mut command);
    let dropped = "-all,+dac_override,+dac_read_search,+sys_admin";
    command.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
    command.arg(crate::support::rpull::BINARY).args(["export", "--rootfs", &to, &image]);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_same(&place.of_loop(to.as_ref()), &place.mounted());
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
