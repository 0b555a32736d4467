//! Exit codes and messages for what this machine refuses: a file in place of a directory, an output
//! that cannot be written, threads.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::assert_consistent;
use crate::support::tar::{Entry, Tar};

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

fn two_layers(mark: &str) -> Image {
    let layer = |name: &str| Tar::new().file(name, mark).end();
    Image::new().layer(layer("a")).layer(layer("b"))
}

#[test]
fn file_in_place_of_a_directory_exits_2() {
    let scratch = scratch::dir();
    let (root, file) = (scratch.path().join("root"), scratch.path().join("file"));
    fs::write(&file, "text").unwrap();
    let (rpull, pushed) = (Rpull::on(&root), push(&two_layers("file"), "file"));
    let image = pushed.name();
    rpull.ok(["pull", "-q", &image]);
    let below = file.join("x");
    let [file, below] = [&file, &below].map(|path| path.to_str().unwrap());
    let absent = scratch.path().join("absent");
    let absent = absent.to_str().unwrap();
    let table: &[(&[&str], &str)] = &[
        (&["--root", file, "images"], file),
        (&["--root", below, "images"], below),
        (&["--root", file, "mounts"], file),
        (&["--root", file, "pull", &image], file),
        (&["--root", below, "pull", &image], below),
        (&["--root", file, "pull", "--dry-run", &image], file),
        (&["--root", file, "rm", &image], file),
        (&["--root", file, "tag", &image, "a:b"], file),
        (&["--root", file, "mount", &image, absent], file),
        (&["--content", file, "pull", &image], file),
        (&["--content", below, "pull", &image], below),
        (&["--content", file, "rm", &image], file),
        (&["mount", &image, file], file),
        (&["mount", &image, below], below),
        (&["mount", &image, absent], absent),
        (&["mount", "--rw", &image, file], file),
        (&["umount", file], file),
        (&["umount", below], below),
        (&["umount", absent], absent),
    ];
    for (args, path) in table {
        let done = rpull.run(args.iter());
        assert_eq!(done.code, Some(2), "{args:?}: {done}");
        let cause = done.stderr.lines().find(|line| line.starts_with("rpull: "));
        assert!(cause.is_some_and(|cause| cause.contains(path)), "{args:?}: {done}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "text");
    rpull.ok(["inspect", &image]);
    assert_consistent(&root);
}

#[test]
fn output_that_cannot_be_written_exits_1() {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let (rpull, pushed) = (Rpull::on(&root), push(&two_layers("full"), "full"));
    let image = pushed.name();
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let (_mounted, dir) = (Mounted(at.clone()), at.to_str().unwrap());
    let archive = scratch.path().join("image.tar");
    let archive = archive.to_str().unwrap();
    rpull.ok(["pull", "-q", &image]);
    rpull.ok(["save", "-o", archive, &image]);
    let table: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["images", "--help"],
        &["pull", "--dry-run", &image],
        &["pull", &image],
        &["pull", &image],
        &["pull", "-q", &image],
        &["pull", "--progress", "json", &image],
        &["pull", "--progress", "plain", "--policy", "never", &image],
        &["resolve", &image],
        &["images"],
        &["images", "--format", "json"],
        &["inspect", &image],
        &["layers", &image],
        &["layers", "--tree"],
        &["layers", "--svg", "-"],
        &["history", &image],
        &["save", &image],
        &["load", "-i", archive],
        &["ls", &image],
        &["cat", &image, "/a"],
        &["export", &image],
        &["mount", "--print", &image, dir],
        &["mount", "--rw", &image, dir],
        &["mounts"],
        &["mounts", "-q"],
        &["umount", "--format", "json", dir],
        &["rm", &image],
    ];
    for args in table {
        let mut command = rpull.command(args.iter());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let done = Done::from(command.stdout(full).output().unwrap());
        assert_eq!(done.code, Some(1), "{args:?}: {done}");
        assert!(done.stderr.contains("cannot write to standard output"), "{args:?}: {done}");
        assert!(!done.stderr.contains("panicked"), "{args:?}: {done}");
    }
    assert_consistent(&root);
}

#[test]
fn closed_pipe_is_not_an_error() {
    let scratch = scratch::dir();
    let (rpull, pushed) = (Rpull::on(scratch.path().join("root")), push(&two_layers("p"), "p"));
    for args in [&["pull", &pushed.name()][..], &["images"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = Done::from(rpull.command(args.iter()).stdout(writer).output().unwrap());
        assert_eq!(done.code, Some(0), "{args:?}: {done}");
    }
    assert_eq!(rpull.ok(["images", "--format", "json"]).lines().count(), 1);
}

/// `rpull ARGS` as a user who has no other processes, below `home`. It is killed if it hangs.
fn as_user(home: &Path, wrap: &[&str], args: &[&str]) -> Done {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "120", "setpriv", "--reuid=64999", "--regid=64999"]);
    command.arg("--clear-groups").args(wrap).arg(home.join("rpull")).args(args);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home);
    command.env("RUST_BACKTRACE", "0").output().unwrap().into()
}

/// A home of that user with the binary, which others may not reach in the project's tree.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::copy(BINARY, home.path().join("rpull")).unwrap();
    std::os::unix::fs::chown(home.path(), Some(64999), Some(64999)).unwrap();
    home
}

#[test]
fn refused_threads_exit_1() {
    let (home, pushed) = (home(), push(&two_layers("threads"), "threads"));
    let (root, image) = (home.path().join("root"), pushed.name());
    let mut codes = Vec::new();
    for limit in 1..=40 {
        let wrap = ["prlimit".to_owned(), format!("--nproc={limit}")];
        let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
        for args in [&["pull", &image][..], &["resolve", &image]] {
            let args = [&["--root", root.to_str().unwrap()], args].concat();
            let done = as_user(home.path(), &wrap, &args);
            assert!(!done.stderr.contains("panicked"), "{limit}: {done}");
            if done.code == Some(1) {
                assert!(done.stderr.contains("cannot start "), "{limit}: {done}");
                assert!(done.stderr.contains("hint: raise the limit of processes"), "{done}");
            } else {
                assert_eq!(done.code, Some(0), "{limit}: {done}");
            }
            codes.push(done.code);
        }
        if root.exists() {
            assert_consistent(&root);
            fs::remove_dir_all(&root).unwrap();
        }
    }
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{codes:?}");
}

#[test]
fn warning_that_several_layers_and_images_give_is_printed_once() {
    let layer = |n: usize| {
        let tar = Tar::new().file("n", n.to_string());
        tar.add(Entry::char_device("null", 1, 3)).end()
    };
    let names = [0, 10].map(|first| {
        let image = (first..first + 3).fold(Image::new(), |image, n| image.layer(layer(n)));
        push(&image, "warned").name()
    });
    let home = home();
    let done = as_user(home.path(), &[], &["pull", &names[0], &names[1]]);
    assert_eq!(done.code, Some(0), "{done}");
    for text in ["owners not kept: ", "6 devices left out: no CAP_MKNOD"] {
        assert_eq!(done.stderr.matches(text).count(), 1, "{text}: {done}");
    }
}
