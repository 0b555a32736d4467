//! Killed processes: rpull, the runtime, and both.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::{Place, Running};
use crate::support::wait::until;

/// The child of rpull.
fn runtime_of(running: &Running) -> Pid {
    let pid = running.pid().as_raw_nonzero();
    let children = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(children).unwrap().flatten();
    let children =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: String = children.collect();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

const SCRIPT: &str = "echo x > /new; echo ready; sleep 1000 & wait";

#[test]
fn container_of_a_killed_rpull_goes_on_and_leaves_nothing_at_its_end() {
    let place = Place::new("killed-rpull");
    let stop = place.scratch.path().join("stop");
    fs::create_dir(&stop).unwrap();
    let volume = format!("{}:/stop", stop.display());
    let script = "echo x > /new; echo ready; while ! [ -e /stop/now ]; do sleep 0.01; done";
    let running = place.start(&["--rm", "-v", &volume], script);
    kill_process(running.pid(), Signal::KILL).unwrap();
    running.end();
    assert_eq!(place.mounts().len(), 1);
    // It is not taken for a leftover.
    place.ok(&["--rm"], "true");
    assert_eq!(place.mounts().len(), 1);
    place.rpull.fails(8, ["rm", &place.image]);
    fs::write(stop.join("now"), "").unwrap();
    until("the container ends", || {
        place.ok(&["--rm"], "true");
        place.mounts().is_empty()
    });
    place.assert_no_traces();
}

#[test]
fn container_of_a_killed_runtime_is_ended() {
    let place = Place::new("killed-runtime");
    let running = place.start(&["--name", "web"], SCRIPT);
    kill_process(runtime_of(&running), Signal::KILL).unwrap();
    let done = running.end();
    assert_eq!(done.code, Some(137), "{done}");
    place.assert_no_traces();
    assert_eq!(place.mounts().len(), 1, "the changes are kept");
    place.rpull.ok(["mounts", "rm", "web"]);
}

#[test]
fn container_of_a_killed_rpull_and_runtime_is_ended_by_the_next_run() {
    let place = Place::new("killed-both");
    for flags in [&["--rm"][..], &["--name", "web"]] {
        let running = place.start(flags, SCRIPT);
        let runtime = runtime_of(&running);
        kill_process(running.pid(), Signal::KILL).unwrap();
        kill_process(runtime, Signal::KILL).unwrap();
        running.end();
        assert_eq!(place.mounts().len(), 1);
        // A killed process keeps its lock until it is gone.
        until("the container is ended", || {
            place.ok(&["--rm"], "true");
            !place.mounts().iter().any(|id| place.run_dir(id).exists())
        });
        place.assert_no_traces();
        let kept = usize::from(flags != ["--rm"]);
        until("the changes of --rm are removed", || {
            place.ok(&["--rm"], "true");
            place.mounts().len() == kept
        });
    }
}
