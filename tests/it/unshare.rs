//! `rpull unshare`: mounts by users without root, in a user namespace.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::busybox;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::in_private_mounts;
use crate::support::tar::{Entry, Tar};

/// A user with a name, whom every machine has.
const NOBODY: u32 = 65_534;

const TO_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A directory of nobody with the binary and a root.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(BINARY, dir.path().join("rpull")).unwrap();
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        Self(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    /// A command line by setpriv(1), with rpull in PATH.
    fn command(&self, setpriv: &[&str], line: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        Rpull::on(self.root()).dress(&mut command);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.path().display());
        command.current_dir(self.0.path()).env("PATH", path);
        command.args(setpriv).args(line);
        command
    }

    fn as_nobody(&self, line: &[&str]) -> Done {
        self.command(&TO_NOBODY, line).output().unwrap().into()
    }

    fn setpriv(&self, setpriv: &[&str], line: &[&str]) -> Done {
        self.command(setpriv, line).output().unwrap().into()
    }
}

fn push(stem: &str) -> Pushed {
    let base = Tar::new().add(Entry::file("owned", "o").owner(7, 8)).file("deleted", "d").end();
    let top = Tar::new().file("top", "t").end();
    let hub = Hub::shared();
    Image::new().layer(base).layer(top).push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

/// Hides the ranges of this machine. Only in a private mount namespace.
fn set_ranges(place: &Path, text: &str) {
    let file = place.join("ranges");
    fs::write(&file, text).unwrap();
    for target in ["/etc/subuid", "/etc/subgid"] {
        assert!(Path::new(target).exists(), "{target}: the package uidmap is not installed");
        rustix::mount::mount_bind(&file, target).unwrap();
    }
}

/// Pulls, mounts, writes, unmounts and mounts again. The last lines are the owner of a file of the image,
/// and the changes.
const SCRIPT: &str = "set -e; mkdir -p m; rpull pull -q $1 >&2; rpull mount --rw --name web $1 m >&2
    echo new >m/new; rm m/deleted; rpull umount web >&2; test ! -e m/top; rpull mount web m >&2
    rpull mounts -q >&2; stat -c %u:%g m/owned; cat m/new m/top; rpull diff web; rpull umount m >&2";

fn mount_in_a_namespace(ranges: &str, owner: &str, notice: Option<&str>) {
    let (place, pushed) = (Place::new(), push("unshare"));
    set_ranges(place.0.path(), ranges);
    let image = pushed.name();
    let done = place.as_nobody(&["rpull", "unshare", "sh", "-c", SCRIPT, "sh", &image]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(done.stdout, format!("{owner}\nnew\ntD /deleted\nA /new\n"), "{done}");
    let first = done.stderr.lines().next().unwrap();
    let expected = notice.map(|why| format!("only your own user and group are mapped: {why}"));
    assert_eq!(first.starts_with("only your own"), expected.is_some(), "{done}");
    assert!(expected.is_none_or(|line| line == first), "{done}");
    // Outside, the changes are there, and the mount is not.
    let done = place.as_nobody(&["rpull", "mounts", "--format", "json"]);
    let mounts: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(mounts[0]["name"], "web", "{done}");
    assert_eq!(mounts[0]["mounted"], false, "{done}");
    // What the ranges own can only be removed in the namespace.
    let done = place.as_nobody(&["rpull", "unshare", "-q", "rpull", "mounts", "rm", "web"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(fs::read_dir(place.root().join("rpull/mounts")).unwrap().count(), 0);
}

#[test]
fn mount_in_a_namespace_of_one_id_works_with_a_notice() {
    in_private_mounts(|| {
        let why = "/etc/subuid has no range for nobody";
        mount_in_a_namespace("root:100000:65536\n", "0:0", Some(why));
    });
}

#[test]
fn mount_in_a_namespace_with_ranges_keeps_owners() {
    in_private_mounts(|| mount_in_a_namespace("nobody:100000:65536\n", "7:8", None));
}

#[test]
fn range_that_cannot_be_mapped_gives_a_namespace_of_one_id() {
    in_private_mounts(|| {
        let place = Place::new();
        // The user's own ID is in the range, so it would be mapped twice.
        set_ranges(place.0.path(), "nobody:65000:1000\n");
        let done = place.as_nobody(&["rpull", "unshare", "cat", "/proc/self/uid_map"]);
        assert_eq!(done.code, Some(0), "{done}");
        let map: Vec<&str> = done.stdout.split_whitespace().collect();
        assert_eq!(map, ["0", "65534", "1"], "{done}");
        let notice = "only your own user and group are mapped: newuidmap: ";
        assert!(done.stderr.starts_with(notice), "{done}");
    });
}

#[test]
fn mount_disappears_with_the_command_that_made_it() {
    let (place, pushed) = (Place::new(), push("unshare-left"));
    let script = "rpull pull -q $1 && mkdir m && rpull mount --rw --name left $1 m && echo x >m/x";
    let done =
        place.as_nobody(&["rpull", "unshare", "-q", "sh", "-ec", script, "sh", &pushed.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(fs::read_dir(place.0.path().join("m")).unwrap().count(), 0);
    let again = "rpull mount left m >&2 && cat m/x";
    let done = place.as_nobody(&["rpull", "unshare", "-q", "sh", "-c", again]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "x\n"), "{done}");
}

/// A namespace cannot see into another one of the same user.
#[test]
fn mount_in_another_namespace_without_changes_is_not_swept() {
    let (place, pushed) = (Place::new(), push("unshare-other"));
    let script = "rpull pull -q $1 >&2; mkdir m; rpull mount --rw $1 m >&2; echo ready; read -r _; echo x >m/x; cat m/x";
    let line = ["rpull", "unshare", "-q", "sh", "-ec", script, "sh", &pushed.name()];
    let mut command = place.command(&TO_NOBODY, &line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let done = place.as_nobody(&["rpull", "unshare", "-q", "rpull", "gc"]);
    assert_eq!(done.code, Some(0), "{done}");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let done = Done::from(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "x\n"), "{done}");
}

#[test]
fn container_runs_in_a_namespace_without_root() {
    let (place, hub) = (Place::new(), Hub::shared());
    let name = format!("{}:one", hub.repository("unshare-run"));
    let image = busybox::image().push(&hub.host, &name).name();
    let script =
        "rpull pull -q $1 >&2; rpull run --name box $1 sh -c 'id -u; echo x >/x'; rpull diff box";
    let done = place.as_nobody(&["rpull", "unshare", "-q", "sh", "-ec", script, "sh", &image]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "0\nA /x\n"), "{done}");
}

#[test]
fn exit_code_and_process_are_those_of_the_command() {
    let place = Place::new();
    let run = |line: &[&str]| place.as_nobody(&[&["rpull", "unshare", "-q"], line].concat());
    assert_eq!(run(&["sh", "-c", "exit 7"]).code, Some(7));
    let done = run(&["/nonexistent/x"]);
    assert_eq!(done.code, Some(127), "{done}");
    assert!(done.stderr.starts_with("rpull: cannot run /nonexistent/x: "), "{done}");
    let done = run(&["/etc/passwd"]);
    assert_eq!(done.code, Some(126), "{done}");
    // Flags behind the command are its own; the default command is the shell.
    let done = run(&["printf", "%s", "--root", "-q"]);
    assert_eq!(done.stdout, "--root-q", "{done}");
    let mut shell = place.command(&TO_NOBODY, &["rpull", "unshare", "-q"]);
    let done: Done = shell.env("SHELL", "/usr/bin/id").output().unwrap().into();
    assert!(done.stdout.starts_with("uid=0(root)"), "{done}");

    // The process is the command itself, so signals reach it.
    let line = ["rpull", "unshare", "-q", "sh", "-c", "echo $$; kill -TERM $$"];
    let child = place.command(&TO_NOBODY, &line).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), id);
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn store_is_that_of_the_caller() {
    let place = Place::new();
    let print = ["sh", "-c", "echo $RPULL_ROOT $HOME"];
    let done =
        place.as_nobody(&[&["rpull", "--root", "other", "unshare", "-q"], &print[..]].concat());
    let other = place.0.path().join("other");
    assert_eq!(done.stdout, format!("{} /nonexistent\n", other.display()), "{done}");
    let mut command = place.command(&TO_NOBODY, &["rpull", "unshare", "-q", "sh", "-c", print[2]]);
    let home = place.0.path();
    let done: Done = command.env_remove("RPULL_ROOT").env("HOME", home).output().unwrap().into();
    let root = home.join(".local/share/rpull");
    assert_eq!(done.stdout, format!("{} {}\n", root.display(), home.display()), "{done}");
}

#[test]
fn root_of_the_machine_is_refused_and_root_of_a_namespace_stays_there() {
    let place = Place::new();
    let done = place.setpriv(&[], &["rpull", "unshare", "true"]);
    assert_eq!(done.code, Some(125), "{done}");
    assert!(done.stderr.contains("hint: run the command without `rpull unshare`"), "{done}");

    let same = "a=$(readlink /proc/self/ns/user /proc/self/ns/mnt)
        b=$(rpull unshare -q readlink /proc/self/ns/user /proc/self/ns/mnt); test \"$a\" = \"$b\"";
    let done = place.as_nobody(&["rpull", "unshare", "-q", "sh", "-c", same]);
    assert_eq!(done.code, Some(0), "{done}");
    // The mount namespace of `unshare -Ur` belongs to the machine.
    let mount = "mkdir -p m && mount -t tmpfs x m";
    let done = place.as_nobody(&["unshare", "-Ur", "rpull", "unshare", "sh", "-c", mount]);
    assert_eq!(done.code, Some(0), "{done}");
}

#[test]
fn system_without_user_namespaces_is_reported_with_the_setting() {
    let place = Place::new();
    let line = "echo 0 >/proc/sys/user/max_user_namespaces; \
                exec setpriv --bounding-set=-all --inh-caps=-all rpull unshare true";
    let done = place.as_nobody(&["unshare", "-Ur", "sh", "-c", line]);
    assert_eq!(done.code, Some(125), "{done}");
    let setting = "(/proc/sys/user/max_user_namespaces is 0)";
    assert!(done.stderr.contains(setting), "{done}");
    assert!(done.stderr.contains("hint: as root, permit it with `sysctl -w user.max_"), "{done}");
    assert_eq!(done.stderr.lines().count(), 2, "{done}");
}

/// As in a container with Docker's capabilities, as root of another mount namespace, and as a user.
#[test]
fn named_mount_that_is_refused_names_unshare_and_leaves_nothing() {
    let (place, pushed) = (Place::new(), push("unshare-refused"));
    let image = pushed.name();
    let line = |words: &[&'static str]| -> Vec<String> {
        words.iter().map(|word| (*word).replace("IMAGE", &image)).collect()
    };
    let done = place.as_nobody(&["rpull", "pull", "-q", &image]);
    assert_eq!(done.code, Some(0), "{done}");
    fs::create_dir(place.0.path().join("m")).unwrap();
    chown(place.0.path().join("m"), Some(NOBODY), Some(NOBODY)).unwrap();
    let processes: [(&[&str], &[&str]); 3] = [
        (&["--bounding-set=-sys_admin", "--inh-caps=-all"], &[]),
        (&TO_NOBODY, &[]),
        (&TO_NOBODY, &["unshare", "-Ur"]),
    ];
    for (setpriv, before) in processes {
        for words in [
            line(&["rpull", "mount", "--rw", "--name", "web", "IMAGE", "m"]),
            line(&["rpull", "mount", "--rw", "IMAGE", "m"]),
        ] {
            let words: Vec<&str> =
                before.iter().copied().chain(words.iter().map(String::as_str)).collect();
            let done = place.setpriv(setpriv, &words);
            assert_eq!(done.code, Some(7), "{done}");
            let hint = "hint: run as root or in `rpull unshare`, or let another tool mount";
            assert!(done.stderr.contains(hint), "{done}");
            assert_eq!(done.stderr.lines().count(), 2, "{done}");
            assert_eq!(fs::read_dir(place.root().join("rpull/mounts")).unwrap().count(), 0);
        }
    }
}
