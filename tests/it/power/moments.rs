//! Power failures at moments that are spread over a whole command, after each of which the disk has
//! nothing more, only the names, or everything that was written.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{Disk, first_commands, images, text};
use crate::support::image::Pushed;
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::scratch;

/// What reaches the disk before the power fails.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// What the kernel has written on its own.
    Nothing,
    /// Names, and no contents that the kernel has not written: the journal of the file system.
    Names,
    /// The names of the first half of the command.
    NamesOfHalf,
    /// All of the first half of the command.
    Half,
    /// All.
    All,
}

const WRITTEN: [Written; 5] =
    [Written::Nothing, Written::Names, Written::NamesOfHalf, Written::Half, Written::All];

fn write_names(root: &Path) {
    File::open(root).unwrap().sync_all().unwrap();
}

fn write_all(root: &Path) {
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
}

/// A disk whose root has the images `synced` for sure, and a command.
struct Scenario<'a> {
    place: tempfile::TempDir,
    synced: &'a [Pushed],
    args: Vec<String>,
}

impl<'a> Scenario<'a> {
    fn new(synced: &'a [Pushed], args: &[&str]) -> Self {
        let place = scratch::in_memory();
        let disk = Disk::new(place.path());
        for image in synced {
            Rpull::on(disk.root()).ok(["pull", "-q", "--sync", &image.name()]);
        }
        drop(disk);
        Self { place, synced, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }

    /// A new copy of the disk.
    fn fresh(&self) -> Disk {
        let copy = self.place.path().join("live");
        // A new file: another mount namespace of this machine may still have the last one mounted.
        let _ = fs::remove_file(&copy);
        super::run(
            "cp",
            &["--sparse=always", &text(&self.place.path().join("disk")), &text(&copy)],
        );
        Disk::mount(copy, self.place.path().join("mounted"))
    }

    fn operations(&self) -> usize {
        let (disk, list) = (self.fresh(), self.place.path().join("operations"));
        let mut command = Rpull::on(disk.root()).command(&self.args);
        assert!(command.env("RPULL_FAIL_LIST", &list).status().unwrap().success());
        fs::read_to_string(list).unwrap().lines().count()
    }

    /// Runs the command to its operation `at` and lets the power fail.
    fn cut(&self, at: usize, written: Written) -> Disk {
        let half = match written {
            Written::NamesOfHalf | Written::Half if at > 1 => Some(at / 2),
            _ => None,
        };
        // A stop takes effect in each thread for itself, so that other threads can reach `at` before.
        let disk = (0..20).find_map(|_| self.run_to(at, half, written));
        let disk = disk.expect("the command stops at half of its operations");
        let root = disk.root();
        match written {
            Written::Names => write_names(&root),
            Written::All => write_all(&root),
            _ => {}
        }
        disk.after_power_failure(&self.place.path().join("copy"))
    }

    /// Runs the command on a new disk to its operation `at`, where it is killed. At the operation
    /// `half`, it stops, and what is `written` by then is written. `None` if it was killed without that.
    fn run_to(&self, at: usize, half: Option<usize>, written: Written) -> Option<Disk> {
        let disk = self.fresh();
        let root = disk.root();
        let points = half.map_or(at.to_string(), |half| format!("{half}:stop,{at}"));
        let mut command = Rpull::on(&root).command(&self.args);
        command.env("RPULL_FAIL_AT", points).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        if half.is_some() {
            let pid = Pid::from_child(&child);
            // Threads differ between runs, but no run has fewer than half of the operations.
            let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
            if status.signaled() {
                // waitpid has reaped it, which the lint for zombies does not know.
                let _ = child.wait();
                return None;
            }
            assert!(status.stopped(), "{status:?}");
            match written {
                Written::Half => write_all(&root),
                _ => write_names(&root),
            }
            kill_process(pid, Signal::CONT).unwrap();
        }
        let status = child.wait().unwrap();
        assert!(status.signal().is_some() || status.success(), "{status}");
        Some(disk)
    }

    /// Lets the power fail at `count` moments, each with another [`Written`], and checks the first
    /// commands after each.
    fn each(&self, count: usize, images: &[Pushed]) {
        let operations = self.operations();
        for n in 1..=count {
            let (at, written) = ((operations * n).div_ceil(count), WRITTEN[n % WRITTEN.len()]);
            println!("{}: cut after operation {at} of {operations}, {written:?}", self.args[0]);
            let disk = self.cut(at, written);
            let rpull = Rpull::on(disk.root());
            rpull.ok(["images"]);
            for name in self.synced.iter().map(Pushed::name) {
                let removed =
                    self.args.contains(&name) && rpull.run(["inspect", &name]).code == Some(3);
                if !removed {
                    rpull.ok(["pull", "-q", "--policy", "never", &name]);
                }
            }
            judge::judge_root(rpull.root());
            first_commands(&disk, images);
        }
    }
}

/// How many moments of a pull the test examines.
fn moments() -> usize {
    let given = std::env::var("RPULL_TEST_POWER_FAILURES").ok();
    given.map_or(50, |given| given.parse().expect("RPULL_TEST_POWER_FAILURES is a number"))
}

#[test]
fn power_failure_at_each_of_fifty_moments_of_a_pull_leaves_old_or_new() {
    let images = images("power-moments", 3);
    let args = ["pull", "-q", &images[1].name(), &images[2].name()];
    Scenario::new(&images[..1], &args).each(moments(), &images);
}

#[test]
fn power_failure_during_a_removal_leaves_old_or_new() {
    let images = images("power-removal", 2);
    Scenario::new(&images, &["rm", &images[0].name()]).each(moments() / 5, &images);
}
