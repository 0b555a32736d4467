//! `rpull run` and `rpull bundle`: containers by real runtimes, compared with those of a real dockerd.

mod bundle;
mod kills;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::tar::{Entry, Tar};
use crate::support::wait::until;
use crate::support::{busybox, scratch};

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// A root with one image of busybox.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    image: String,
}

impl Place {
    fn new(stem: &str) -> Self {
        Self::with(&busybox::image(), stem)
    }

    fn with(image: &Image, stem: &str) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let image = push(image, stem).name();
        rpull.ok(["pull", "-q", &image]);
        Self { scratch, rpull, image }
    }

    /// `rpull run FLAGS IMAGE COMMAND`.
    fn run(&self, flags: &[&str], command: &[&str]) -> Done {
        let image = [self.image.as_str()];
        self.rpull.run(["run"].iter().chain(flags).chain(&image).chain(command))
    }

    #[track_caller]
    fn ok(&self, flags: &[&str], script: &str) -> String {
        let done = self.run(flags, &["sh", "-c", script]);
        assert_eq!(done.code, Some(0), "{done}");
        done.stdout
    }

    /// A container in the background, whose script has written `ready` to its output.
    fn start(&self, flags: &[&str], script: &str) -> Running {
        let [out, err] = ["out", "err"].map(|name| self.scratch.path().join(name));
        let args = ["run"].iter().chain(flags).copied();
        let mut command = self.rpull.command(args.chain([&*self.image, "sh", "-c", script]));
        let [stdout, stderr] = [&out, &err].map(|path| fs::File::create(path).unwrap());
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let running = Running { child, out, err };
        until("the container is ready", || running.stdout().contains("ready"));
        running
    }

    /// The directories of writable mounts.
    fn mounts(&self) -> Vec<String> {
        let dir = fs::read_dir(self.rpull.root().join("rpull/mounts")).unwrap();
        dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The directory of a container's files.
    fn run_dir(&self, id: &str) -> PathBuf {
        self.rpull.root().join("rpull/mounts").join(id).join("run")
    }

    /// Nothing of a container is left: no mount, no process, no cgroup.
    #[track_caller]
    fn assert_no_traces(&self) {
        let root = self.rpull.root().to_str().unwrap().to_owned();
        until("all mounts are gone", || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            !all.filter_map(|it| fs::read_to_string(it.path().join("mountinfo")).ok())
                .any(|mounts| mounts.contains(&format!("{root}/rpull/mounts")))
        });
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", "rpull-*"]).output();
        let groups = String::from_utf8(groups.unwrap().stdout).unwrap();
        for id in self.mounts() {
            let run = self.run_dir(&id);
            assert!(!run.exists(), "{}", run.display());
            assert!(!groups.contains(&id), "{groups}");
        }
    }
}

struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn stdout(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// Waits for rpull; a container that goes on keeps the files open.
    fn end(mut self) -> Done {
        let code = self.child.wait().unwrap().code();
        Done { code, stdout: self.stdout(), stderr: fs::read_to_string(&self.err).unwrap() }
    }
}

/// What a process sees of its container. Mounts that newer versions of docker add are left out, and so
/// is what differs by design: the source of mounts, and random names.
const REPORT: &str = r#"
id; pwd; umask; env | grep -v ^HOSTNAME= | sort
grep -E "^(Cap|Seccomp|NoNewPrivs)" /proc/self/status
while read -r _ _ _ _ at options _ rest; do echo "$at $options ${rest#*- }"; done < /proc/self/mountinfo |
    sed 's/ overlay overlay .*/ overlay/; s/ - /  /; s/ tmpfs tmpfs rw,size=[0-9]*k$/ tmpfs/' |
    awk '{print $1, $2}' | grep -v -e /proc/interrupts -e /sys/devices | sort
ls -l /dev | awk '{print $1, $3, $4, $NF}' | sort
cat /etc/hosts /etc/resolv.conf; ls -ld /etc/hosts /etc/hostname /etc/resolv.conf | cut -c1-10
readlink /etc/mtab; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
ls -di /proc/self/ns/* >/dev/null; echo $$
"#;

#[test]
fn container_is_like_one_of_docker() {
    let config = json!({"config": {
        "Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "WorkingDir": "/work/dir", "User": "",
    }});
    let place = Place::with(&busybox::image().extra(config), "like-docker");
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &place.image]);
    for flags in [
        &[][..],
        &["-u", "web", "-e", "A=2", "-e", "B=x y", "-w", "/srv"],
        &["-u", "33:4", "--hostname", "box", "--read-only", "-e", "HOME=/h"],
        &["-u", "1000", "--entrypoint", "sh"],
    ] {
        let command = if flags.contains(&"--entrypoint") {
            &["-c", REPORT][..]
        } else {
            &["sh", "-c", REPORT]
        };
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(flags);
        args.push(&place.image);
        args.extend(command);
        let theirs = docker.run(&args);
        let mine = place.run(&[&["--rm"], flags].concat(), command);
        assert_eq!(mine.stdout, theirs.stdout, "{flags:?}: {mine} {theirs}");
        assert_eq!((mine.code, theirs.code), (Some(0), Some(0)), "{mine} {theirs}");
    }
    place.assert_no_traces();
    assert!(place.mounts().is_empty());
}

#[test]
fn exit_code_is_that_of_docker() {
    let place = Place::new("exit");
    assert_eq!(place.run(&[], &["sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(place.run(&[], &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, Some(137));
    let missing = place.run(&[], &["/no/such/program"]);
    assert_eq!(missing.code, Some(127), "{missing}");
    assert!(missing.stderr.contains("cannot start the container"), "{missing}");
    let directory = place.run(&[], &["/etc"]);
    assert_eq!(directory.code, Some(126), "{directory}");
    assert_eq!(place.run(&[], &["/etc/passwd"]).code, Some(126));
    for (flags, expected) in [
        (&["-u", "nobody"][..], "unable to find user nobody"),
        (&["-w", "relative"], "needs to be an absolute path"),
        (&["-v", "name:/data"], "there are no named volumes"),
        (&["--runtime", "/nonexistent"], "there is no OCI runtime"),
        (&["--at-layer", "2"], "layer 2"),
        (&["-t"], "the input device is not a TTY"),
    ] {
        let failed = place.run(flags, &["true"]);
        assert_eq!(failed.code, Some(125), "{flags:?}: {failed}");
        assert!(failed.stderr.contains(expected), "{flags:?}: {failed}");
    }
    let failed = place.rpull.fails(125, ["run", "--pull", "never", "--format", "json", "absent"]);
    let error: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((&error["code"], &error["kind"]), (&json!(125), &json!("not-found")));
    assert!(place.mounts().is_empty(), "a run that did not start keeps nothing");
    place.assert_no_traces();
}

#[test]
fn image_that_is_missing_is_pulled() {
    let place = Place::new("missing");
    let image = push(&busybox::image().layer(Tar::new().file("new", "1").end()), "pulled").name();
    place.rpull.fails(125, ["run", "--pull", "never", &image, "true"]);
    let script = ["cat", "/new"];
    assert_eq!(place.rpull.ok(["run", "--rm", &image].iter().chain(&script)), "1");
    assert_eq!(
        place.rpull.ok(["run", "--rm", "--pull", "always", &image].iter().chain(&script)),
        "1"
    );
    let absent = place.rpull.fails(125, ["run", "--rm", &format!("{image}-absent"), "true"]);
    assert!(absent.stderr.contains("-absent"), "{absent}");
    let empty = Rpull::on(place.scratch.path().join("other"));
    assert_eq!(empty.ok(["run", "--rm", &image].iter().chain(&script)), "1");
}

#[test]
fn changes_are_kept_as_a_writable_mount() {
    let place = Place::new("kept");
    place.ok(&[], "true");
    assert!(place.mounts().is_empty(), "without changes and a name, nothing is kept");
    place.ok(&["--name", "named"], "true");
    place.ok(&["--name", "web"], "echo x > /new; rm /etc/group; mkdir /proc2");
    let listed = place.rpull.json(["mounts", "--format", "json"]);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"named") && names.contains(&"web") && names.len() == 2, "{names:?}");
    let web = listed.as_array().unwrap().iter().find(|it| it["name"] == "web").unwrap();
    let upper = Path::new(web["upper"].as_str().unwrap());
    let mut changed: Vec<_> =
        fs::read_dir(upper).unwrap().map(|it| it.unwrap().file_name()).collect();
    changed.sort();
    assert_eq!(changed, ["etc", "new", "proc2"], "mount points are no changes");
    assert_eq!(fs::read_dir(upper.join("etc")).unwrap().count(), 1);
    let taken = place.run(&["--name", "web"], &["true"]);
    assert_eq!(taken.code, Some(125), "{taken}");
    assert!(taken.stderr.contains("web"), "{taken}");

    let dir = scratch::dir();
    let at = dir.path().to_str().unwrap();
    let _mounted = scratch::Mounted(dir.path().to_owned());
    place.rpull.ok(["mount", "web", at]);
    assert_eq!(fs::read_to_string(dir.path().join("new")).unwrap(), "x\n");
    place.rpull.ok(["umount", "web"]);
    place.rpull.fails(8, ["rm", &place.image]);
    place.rpull.ok(["mounts", "rm", "web", "named"]);
    place.rpull.ok(["rm", &place.image]);
}

#[test]
fn running_container_protects_its_image_and_its_changes() {
    let place = Place::new("busy");
    let running = place.start(
        &["--rm", "--name", "web"],
        "trap 'exit 9' TERM; echo x > /new; echo ready; while :; do sleep 0.01; done",
    );
    let image = place.rpull.fails(8, ["rm", "-f", &place.image]);
    assert!(image.stderr.contains("web"), "{image}");
    let changes = place.rpull.fails(8, ["mounts", "rm", "web"]);
    assert!(changes.stderr.contains("web"), "{changes}");
    place.rpull.fails(8, ["mount", "web", place.scratch.path().to_str().unwrap()]);
    place.rpull.ok(["gc"]);
    let second = place.ok(&["--rm"], "ls /new 2>&1 || true");
    assert!(second.contains("No such file"), "{second}");
    kill_process(running.pid(), Signal::TERM).unwrap();
    assert_eq!(running.end().code, Some(9));
}

#[test]
fn running_container_does_not_keep_other_mounts_in_use() {
    // Containers of other tests would keep copies of the mounts for a moment.
    scratch::in_private_mounts(mounts_beside_a_running_container);
}

fn mounts_beside_a_running_container() {
    let place = Place::new("others");
    let [at, shown] = ["at", "shown"].map(|name| place.scratch.path().join(name));
    let _mounted = [&at, &shown].map(|dir| {
        fs::create_dir(dir).unwrap();
        place.rpull.ok(["mount", "--rw", &place.image, dir.to_str().unwrap()]);
        scratch::Mounted(dir.clone())
    });
    fs::write(at.join("new"), "x").unwrap();
    let volume = format!("{}:/shown", shown.display());
    let script = "trap 'exit 9' TERM; ls /shown; echo ready; while :; do sleep 0.01; done";
    let running = place.start(&["--rm", "-v", &volume], script);
    assert!(running.stdout().contains("bin\n"), "{}", running.stdout());
    let mounts = place.rpull.json(["mounts", "--format", "json"]);
    let line = mounts.as_array().unwrap().iter().find(|it| it["target"] == at.to_str().unwrap());
    let name = line.unwrap()["name"].as_str().unwrap().to_owned();
    place.rpull.ok(["umount", &name]);
    place.rpull.ok(["mounts", "rm", &name]);
    kill_process(running.pid(), Signal::TERM).unwrap();
    assert_eq!(running.end().code, Some(9));
}

#[test]
fn signals_reach_the_command() {
    let place = Place::new("signals");
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let script = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.01; done"
        );
        let running = place.start(&["--rm"], &script);
        kill_process(running.pid(), signal).unwrap();
        let done = running.end();
        assert_eq!(
            (done.code, done.stdout.trim()),
            (Some(7), &*format!("ready\ngot {name}")),
            "{done}"
        );
    }
    place.assert_no_traces();
}

#[test]
fn terminal_of_a_container_is_that_of_the_command() {
    let place = Place::new("terminal");
    let script = r#"tty; echo $TERM; while ! stty size 2>/dev/null | grep 33; do sleep 0.01; done; test -t 0 && test -t 1 && echo yes; exit 5"#;
    let line =
        format!("stty rows 33 cols 77; {BINARY} run --rm -it {} sh -c '{script}'", place.image);
    let mut command = Command::new("script");
    place.rpull.dress(&mut command);
    let output = command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    let output = output.output().expect("start script");
    let shown = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    // script(1) may show the end of its own input first.
    assert!(shown.ends_with("/dev/pts/0\nxterm\n33 77\nyes\n"), "{shown}");
    assert_eq!(output.status.code(), Some(5));
    place.assert_no_traces();
}

#[test]
fn standard_input_is_passed_on_if_asked_for() {
    let place = Place::new("stdin");
    for (flags, expected) in [(&["-i"][..], "hello\n"), (&[], "")] {
        let image = [&*place.image, "cat"];
        let args = ["run", "--rm"].iter().chain(flags).chain(&image).copied();
        let mut command = place.rpull.command(args);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        // Nothing reads it without -i.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}

#[test]
fn links_of_an_image_lead_nowhere_outside() {
    let secret = scratch::dir();
    let outside = secret.path().join("outside");
    fs::write(&outside, "evil:x:1234:1234::/evil:/bin/sh\n").unwrap();
    let away = outside.to_str().unwrap();
    let image = busybox::image().layer(
        Tar::new()
            .add(Entry::whiteout("etc/group"))
            .add(Entry::symlink("etc/passwd", away))
            .add(Entry::symlink("etc/resolv.conf", away))
            .add(Entry::symlink("etc/hosts", "../../../../../../../../etc/hosts"))
            .add(Entry::symlink("proc", "/"))
            .add(Entry::symlink("data", secret.path().to_str().unwrap()))
            .end(),
    );
    let config = json!({"config": {"Volumes": {"/data/v": {}}, "Cmd": ["true"]}});
    let place = Place::with(&image.extra(config), "links");
    let failed = place.run(&["-u", "evil"], &["true"]);
    assert!(failed.stderr.contains("unable to find user evil"), "{failed}");
    let said =
        place.ok(&["--rm"], "cat /etc/resolv.conf; head -1 /etc/hosts; ls -ld /proc/1 | cut -c1");
    assert!(said.contains("localhost\nd\n") && !said.contains("evil"), "{said}");
    assert_eq!(fs::read_dir(secret.path()).unwrap().count(), 1, "nothing is written outside");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "evil:x:1234:1234::/evil:/bin/sh\n");
}

#[test]
fn lower_layers_and_variables_of_a_file_are_used() {
    let image = busybox::image().layer(Tar::new().file("second", "2").end());
    let place = Place::with(&image, "at-layer");
    assert_eq!(place.ok(&["--rm", "--at-layer", "1"], "ls /second || echo none"), "none\n");
    let file = place.scratch.path().join("env");
    fs::write(&file, "# comment\nA=1\nB=2\n").unwrap();
    let env = ["--rm", "--env-file", file.to_str().unwrap(), "-e", "B=3", "-e", "RPULL_ROOT"];
    let said = place.ok(&env, "echo $A $B $RPULL_ROOT");
    assert_eq!(said, format!("1 3 {}\n", place.rpull.root().display()));
    assert_eq!(place.ok(&["--rm", "--net", "host"], "ls /sys/class/net").trim(), host_devices());
    assert_eq!(place.ok(&["--rm"], "ls /sys/class/net").trim(), "lo");
}

fn host_devices() -> String {
    let devices = fs::read_dir("/sys/class/net").unwrap();
    let mut devices: Vec<_> =
        devices.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    devices.sort();
    devices.join("\n")
}
