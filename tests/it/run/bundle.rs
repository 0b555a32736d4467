//! `rpull bundle`, and the runtimes besides the default one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Place, busybox};
use crate::support::rpull::{BINARY, Done};
use crate::support::scratch::Mounted;

/// Runs a shell script as root in a user namespace, where cgroups v2 are the only ones, as crun needs it.
fn in_user_namespace(place: &Place, script: &str) -> Done {
    let prepare = "[ -e /sys/fs/cgroup/cgroup.controllers ] || { umount -R /sys/fs/cgroup && \
                   mount -t cgroup2 none /sys/fs/cgroup; } || exit 99";
    let mut command = Command::new("unshare");
    place.rpull.dress(&mut command);
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    let enter = "exec unshare --map-root-user --mount sh -c";
    let script = script.replace('\'', "'\\''");
    command.arg(format!("{prepare}\n{enter} '{script}'")).output().expect("start unshare").into()
}

#[test]
fn printed_commands_run_the_bundle() {
    let place = Place::with(&busybox::image().extra(json!({"config": {"Cmd": ["sh"]}})), "bundle");
    let dir = place.scratch.path().join("it's a bundle");
    let args =
        ["bundle", "--format", "json", "-u", "web", "-e", "A=1", "--name", "one", &place.image];
    let args =
        args.iter().copied().chain([dir.to_str().unwrap(), "sh", "-c", "id -un; echo $A; exit 3"]);
    let printed = place.rpull.json(args);
    assert_eq!((&printed["bundle"], &printed["id"]), (&json!(dir), &json!("one")));
    let config: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["root"], json!({"path": "rootfs", "readonly": false}));
    assert_eq!(
        config["process"]["user"],
        json!({"uid": 33, "gid": 34, "additionalGids": [34, 34, 4]})
    );
    let rootfs = dir.join("rootfs");
    let _mounted = Mounted(rootfs.clone());
    let mount = printed["mount"].as_str().unwrap();
    let run = printed["run"].as_str().unwrap();
    let mut shell = Command::new("sh");
    let done: Done = shell.arg("-c").arg(format!("{mount} && {run}")).output().unwrap().into();
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), "web\n1\n"), "{done}");
    assert!(dir.join("upper").join("proc").is_dir(), "the runtime creates its mount points");

    let again = place.rpull.fails(2, ["bundle", &place.image, dir.to_str().unwrap()]);
    assert!(again.stderr.contains("is not empty"), "{again}");
    let lines =
        place.rpull.ok(["bundle", &place.image, place.scratch.path().join("b").to_str().unwrap()]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn runtimes_run_containers_without_root() {
    let place = Place::new("rootless");
    for runtime in ["crun", "runc"] {
        let check = |flags: &str, command: &str| {
            let image = &place.image;
            let line = format!("{BINARY} run --rm --runtime {runtime} {flags} {image} {command}");
            in_user_namespace(&place, &line)
        };
        let done = check("-w /new", "sh -c 'id -un; pwd; touch /x && ls /x; exit 4'");
        assert_eq!((done.code, &*done.stdout), (Some(4), "root\n/new\n/x\n"), "{runtime}: {done}");
        assert_eq!(check("--net host", "true").code, Some(0), "{runtime}");
        for (command, code) in [("/no/such/program", 127), ("/etc", 126), ("/etc/passwd", 126)] {
            let done = check("", command);
            assert_eq!(done.code, Some(code), "{runtime} {command}: {done}");
        }
    }
    assert!(place.mounts().is_empty());
    place.assert_no_traces();
}

#[test]
fn bundle_config_of_odd_values_is_valid_json() {
    let odd = "a\u{1b}[2J\n\"\\é\u{202e}";
    let config = json!({"config": {"Env": [format!("ODD={odd}")], "Cmd": ["echo", odd]}});
    let place = Place::with(&busybox::image().extra(config), "odd");
    let dir = place.scratch.path().join("b");
    place.rpull.ok(["bundle", &place.image, dir.to_str().unwrap()]);
    let config: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"][1], odd);
    assert!(Path::new(&dir.join("hosts")).exists());
}
