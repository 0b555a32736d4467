//! Pulls with the capabilities that container runtimes and CI systems give, and mounts of the result.

mod export;
mod mixed;
mod process;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use process::{As, DOCKER, Place};

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::Mounted;
use crate::support::snapshot::{assert_consistent, names};
use crate::support::tar::{Entry, Tar};

/// CAP_NET_RAW, permitted and effective (`struct vfs_cap_data`, version 2).
const PING: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An entry that a mount of the image shows.
struct Shown {
    path: &'static str,
    /// The type as in `ls -l`.
    kind: char,
    mode: u32,
    owner: (u32, u32),
    /// The names of its extended attributes.
    attributes: &'static str,
}

const fn shown(path: &'static str, kind: char, mode: u32, owner: (u32, u32)) -> Shown {
    Shown { path, kind, mode, owner, attributes: "" }
}

/// What a mount of the image shows after a pull with all capabilities.
const ALL: [Shown; 18] = [
    shown("", 'd', 0o755, (0, 0)),
    shown("dev", 'd', 0o755, (0, 0)),
    shown("dev/console", 'c', 0o600, (0, 5)),
    shown("dev/fifo", 'p', 0o644, (0, 0)),
    shown("dev/loop", 'b', 0o660, (0, 6)),
    shown("far", '-', 0o644, (70_000, 70_000)),
    shown("hidden", 'd', 0o555, (7, 7)),
    shown("hidden/new", '-', 0o644, (0, 0)),
    shown("implied", 'd', 0o755, (0, 0)),
    shown("implied/sealed", 'd', 0o500, (1234, 1234)),
    shown("implied/sealed/f", '-', 0o400, (1234, 1234)),
    shown("link", 'l', 0o777, (1, 2)),
    Shown { attributes: "security.capability", ..shown("ping", '-', 0o755, (0, 0)) },
    Shown { attributes: "user.note", ..shown("read-only", '-', 0o444, (0, 0)) },
    shown("setgid", '-', 0o2755, (0, 42)),
    shown("setuid", '-', 0o4755, (0, 0)),
    shown("setuid-link", '-', 0o4755, (0, 0)),
    shown("tmp", 'd', 0o1777, (0, 0)),
];

fn base() -> Vec<u8> {
    Tar::new()
        .dir("hidden")
        .file("hidden/old", "old")
        .file("deleted", "old")
        .dir("dev")
        .add(Entry::char_device("dev/console", 5, 1).mode(0o600).owner(0, 5))
        .add(Entry::block_device("dev/loop", 7, 0).mode(0o660).owner(0, 6))
        .add(Entry::fifo("dev/fifo"))
        .add(Entry::dir("implied/sealed").mode(0o500).owner(1234, 1234))
        .add(Entry::file("implied/sealed/f", "f").mode(0o400).owner(1234, 1234))
        .add(Entry::file("setuid", "su").mode(0o4755))
        .add(Entry::hardlink("setuid-link", "setuid").mode(0o4755))
        .add(Entry::file("setgid", "chage").mode(0o2755).owner(0, 42))
        .add(Entry::file("ping", "ping").mode(0o755).xattr("security.capability", PING))
        .add(Entry::file("read-only", "").mode(0o444).xattr("user.note", "x"))
        .add(Entry::file("far", "").owner(70_000, 70_000))
        .add(Entry::symlink("link", "setuid").owner(1, 2))
        .add(Entry::dir("tmp").mode(0o1777))
        .end()
}

fn top() -> Vec<u8> {
    Tar::new()
        .add(Entry::dir("hidden").mode(0o555).owner(7, 7))
        .add(Entry::opaque("hidden"))
        .file("hidden/new", "new")
        .add(Entry::whiteout("deleted"))
        .end()
}

fn push(stem: &str) -> Pushed {
    let hub = Hub::shared();
    let name = format!("{}:latest", hub.repository(&format!("capabilities-{stem}")));
    Image::new().layer(base()).layer(top()).push(&hub.host, &name)
}

/// What one kind of process can keep of the image.
struct Expected {
    devices: bool,
    file_capabilities: bool,
    trusted_marks: bool,
    /// The owner on the disk, for one in the archive.
    owner: fn(u32, u32) -> (u32, u32),
    warnings: &'static [&'static str],
}

const OPAQUE: &str = "1 opaque directory marked with user.overlay.*: no CAP_SYS_ADMIN";
const DEVICES: &str = "2 devices left out: no CAP_MKNOD (first: 'dev/console')";
const PING_LEFT: &str =
    "1 attribute left out: no CAP_SETFCAP (first: security.capability of 'ping')";

/// What Docker's default gives.
const DOCKER_KEEPS: Expected = Expected {
    devices: true,
    file_capabilities: true,
    trusted_marks: false,
    owner: |uid, gid| (uid, gid),
    warnings: &[OPAQUE],
};

/// What root without any capability can keep.
const NOTHING_KEPT: Expected = Expected {
    devices: false,
    file_capabilities: false,
    trusted_marks: false,
    owner: |_, _| (0, 0),
    warnings: &[
        "owners not kept: no CAP_CHOWN (all files belong to uid 0)",
        DEVICES,
        OPAQUE,
        PING_LEFT,
    ],
};

#[track_caller]
fn check(process: &As, expected: &Expected) {
    let place = Place::new(process);
    let pushed = push("matrix");
    let done = place.run(process, &["pull", &pushed.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    let warnings: Vec<&str> =
        done.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    assert_eq!(warnings, expected.warnings, "{done}");
    assert_consistent(&place.root());
    assert_eq!(judge::judge_root(&place.root()), 2);

    // The process itself finds what it can have; the printed command and root mount the same tree.
    let done = place.run(process, &["check"]);
    assert_eq!(done.code, Some(0), "{done}");
    let privileged = Rpull::on(place.root());
    assert_eq!(mounted(&privileged, &pushed), wanted(expected), "the tree");
    let print = ["mount", "--print", &pushed.name(), "/m"];
    let by_process = place.run(process, &print);
    assert_eq!(by_process.stdout, privileged.ok(print), "{by_process}");
    assert_eq!(by_process.stdout.contains("userxattr"), !expected.trusted_marks, "{by_process}");

    // With all capabilities, the layers are unpacked again from what the store has.
    let is_complete = expected.warnings.is_empty();
    let done = privileged.run(["check", "--format", "json"]);
    assert_eq!(done.code, Some(if is_complete { 0 } else { 6 }), "{done}");
    assert_eq!(done.stdout.contains("unprivileged-layer"), !is_complete, "{done}");
    let done = privileged.run(["pull", "--policy", "missing", &pushed.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(done.stderr.contains("unpacking them again"), !is_complete, "{done}");
    privileged.ok(["check", "--deep"]);
    let all = Expected { trusted_marks: true, warnings: &[], ..DOCKER_KEEPS };
    assert_eq!(mounted(&privileged, &pushed), wanted(&all), "the tree after the repair");
    assert_consistent(&place.root());
    // Only layers that lack nothing keep a record.
    let layers = names(&place.root().join("overlay2"));
    let records = names(&place.root().join("rpull/omitted"));
    assert!(records.iter().all(|record| layers.contains(record)), "{records:?}");
}

fn wanted(expected: &Expected) -> String {
    let mut text = String::new();
    for entry in &ALL {
        if matches!(entry.kind, 'b' | 'c') && !expected.devices {
            continue;
        }
        let (uid, gid) = (expected.owner)(entry.owner.0, entry.owner.1);
        let kept = entry.attributes != "security.capability" || expected.file_capabilities;
        let attributes = if kept { entry.attributes } else { "" };
        let line = (entry.kind, entry.mode, uid, gid, entry.path, attributes);
        let _ =
            writeln!(text, "{}{:04o} {}:{} {} {}", line.0, line.1, line.2, line.3, line.4, line.5);
    }
    text
}

/// The tree that a mount by the test's own user shows, one line per file.
#[track_caller]
fn mounted(rpull: &Rpull, pushed: &Pushed) -> String {
    let at = tempfile::tempdir().unwrap();
    rpull.ok(["mount", &pushed.name(), at.path().to_str().unwrap()]);
    let _mounted = Mounted(at.path().to_owned());
    let mut found = BTreeMap::new();
    walk(at.path(), "", &mut found);
    found.into_values().collect()
}

fn walk(dir: &Path, path: &str, found: &mut BTreeMap<String, String>) {
    let at = dir.join(path);
    let meta = fs::symlink_metadata(&at).unwrap();
    let kind = match meta.mode() & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        _ => '-',
    };
    let mut names = vec![0; 1000];
    let length = rustix::fs::llistxattr(&at, &mut names[..]).unwrap();
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    // The mark itself is visible in a mount with the other kind of marks.
    let names: Vec<&str> =
        names.split_terminator('\0').filter(|name| !name.contains(".overlay.")).collect();
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    let line = format!("{kind}{mode:04o} {uid}:{gid} {path} {}\n", names.join(","));
    found.insert(path.to_owned(), line);
    if meta.is_dir() {
        for entry in fs::read_dir(&at).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            walk(dir, &below, found);
        }
    }
}

#[test]
fn pull_with_all_capabilities_keeps_everything() {
    let all = Expected { trusted_marks: true, warnings: &[], ..DOCKER_KEEPS };
    check(&As::Root("+all"), &all);
}

/// Also GitLab's docker executor and Kubernetes' baseline policy on containerd.
#[test]
fn pull_with_docker_default_capabilities_marks_opaque_directories_for_users() {
    check(&As::Root(DOCKER), &DOCKER_KEEPS);
}

#[test]
fn pull_with_podman_default_capabilities_leaves_devices_out() {
    let podman = "+chown,+dac_override,+fowner,+fsetid,+kill,+net_bind_service,+setfcap,+setgid,\
                  +setpcap,+setuid,+sys_chroot";
    let keeps = Expected { devices: false, warnings: &[DEVICES, OPAQUE], ..DOCKER_KEEPS };
    check(&As::Root(podman), &keeps);
}

#[test]
fn pull_by_root_without_capabilities_is_that_of_an_ordinary_user() {
    check(&As::Root(""), &NOTHING_KEPT);
}

/// Kubernetes' restricted policy, and a user outside of containers.
#[test]
fn pull_by_an_ordinary_user_gives_all_files_to_the_user() {
    let keeps = Expected {
        owner: |_, _| (1000, 1000),
        warnings: &[
            "owners not kept: no CAP_CHOWN (all files belong to uid 1000)",
            DEVICES,
            OPAQUE,
            PING_LEFT,
        ],
        ..NOTHING_KEPT
    };
    check(&As::User(1000, 1000), &keeps);
}

/// OpenShift's restricted policy.
#[test]
fn pull_by_a_random_user_in_group_root_works() {
    let keeps = Expected {
        owner: |_, _| (1_000_650_000, 0),
        warnings: &[
            "owners not kept: no CAP_CHOWN (all files belong to uid 1000650000)",
            DEVICES,
            OPAQUE,
            PING_LEFT,
        ],
        ..NOTHING_KEPT
    };
    check(&As::User(1_000_650_000, 0), &keeps);
}

#[test]
fn pull_without_one_capability_for_owners_gives_all_files_to_root() {
    for (lost, warning) in [
        ("chown", "owners not kept: no CAP_CHOWN (all files belong to uid 0)"),
        ("fowner", "owners not kept: no CAP_FOWNER (all files belong to uid 0)"),
        ("fsetid", "owners not kept: no CAP_FSETID (all files belong to uid 0)"),
        ("dac_override", "owners not kept: no CAP_DAC_OVERRIDE (all files belong to uid 0)"),
    ] {
        let left = DOCKER.replace(&format!("+{lost},"), "");
        assert_ne!(left, DOCKER);
        let warnings: &'static [&'static str] = Box::leak(Box::new([warning, OPAQUE]));
        check(&As::Root(&left), &Expected { owner: |_, _| (0, 0), warnings, ..DOCKER_KEEPS });
    }
}

#[test]
fn pull_with_sys_admin_alone_writes_trusted_marks() {
    let keeps = Expected {
        trusted_marks: true,
        warnings: &[
            "owners not kept: no CAP_CHOWN (all files belong to uid 0)",
            DEVICES,
            PING_LEFT,
        ],
        ..NOTHING_KEPT
    };
    check(&As::Root("+sys_admin"), &keeps);
}

#[test]
fn pull_in_a_user_namespace_with_one_id_gives_all_files_to_its_root() {
    let keeps = Expected {
        file_capabilities: true,
        owner: |_, _| (1000, 1000),
        warnings: &[
            "owners of 6 files not kept: the user namespace does not map them (they stay uid 0)",
            "2 devices left out: CAP_MKNOD is not enough in a user namespace (first: 'dev/console')",
            "1 opaque directory marked with user.overlay.*: \
             CAP_SYS_ADMIN is not enough in a user namespace",
        ],
        ..NOTHING_KEPT
    };
    check(&As::NamespaceOfOne(1000), &keeps);
}

/// As with the ranges of /etc/subuid, and as root in Docker with `userns-remap`.
#[test]
fn pull_in_a_user_namespace_with_ranges_keeps_the_owners_that_it_maps() {
    let keeps = Expected {
        file_capabilities: true,
        owner: |uid, gid| {
            let outside = |id| if id == 0 || id > 65_535 { 0 } else { 99_999 + id };
            (outside(uid), outside(gid))
        },
        warnings: &[
            "owners of 1 file not kept: the user namespace does not map them (they stay uid 0)",
            "2 devices left out: CAP_MKNOD is not enough in a user namespace (first: 'dev/console')",
            "1 opaque directory marked with user.overlay.*: \
             CAP_SYS_ADMIN is not enough in a user namespace",
        ],
        ..NOTHING_KEPT
    };
    check(&As::NamespaceOfRanges, &keeps);
}

/// The command that an ordinary user printed shows the right tree in that user's namespace.
#[test]
fn printed_command_mounts_in_a_user_namespace_without_capabilities() {
    let process = As::User(1000, 1000);
    let place = Place::new(&process);
    let pushed = push("printed");
    place.run(&process, &["pull", "-q", &pushed.name()]);
    let print = place.run(&process, &["mount", "--print", &pushed.name(), "m"]);
    let script = format!("mkdir m && {} && ls m m/hidden", print.stdout.trim());
    let mut command = Command::new("setpriv");
    command.current_dir(place.path());
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all"]);
    command.args(["unshare", "-Urm", "sh", "-ec", &script]);
    let done = Done::from(command.output().unwrap());
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stdout.contains("new") && !done.stdout.contains("old"), "{done}");
    assert!(!done.stdout.contains("deleted"), "{done}");
}
