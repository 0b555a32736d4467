//! Many processes on one root, with and without random kills: no error but those of a race, nothing
//! leaked, every layer whole, shared blobs fetched once.
//!
//! `RPULL_TEST_KILLS=N` sets the number of kills, `RPULL_TEST_SEED=N` what the processes do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::check::assert_whole;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::proxy::Proxy;
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, assert_empty, names};
use crate::support::tar::{Tar, noise};

const PROCESSES: usize = 16;

/// Commands without kills.
const COMMANDS: usize = 160;

/// File operations of the longest command, about.
const OPERATIONS: u64 = 170;

fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(default, |given| given.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// Pseudorandom numbers (xorshift64), the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: usize, stream: usize) -> Self {
        let mut random = Self((seed as u64) << 32 ^ stream as u64 ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Images that share their lower layers; the last one has the same layers in another order.
fn images() -> (Vec<Image>, Vec<Pushed>) {
    let hub = Hub::shared();
    let layer = |mark: String| {
        let tar = Tar::new().dir(&mark).file(&format!("{mark}/noise"), noise(30_000 + mark.len()));
        (0..8).fold(tar, |tar, n| tar.file(&format!("{mark}/{n}"), &*mark)).end()
    };
    let base: Vec<_> = (0..3).map(|n| layer(format!("stress-base-{n}"))).collect();
    let stack = |layers: &[Vec<u8>]| layers.iter().cloned().fold(Image::new(), Image::layer);
    let mut images: Vec<Image> = (0..5)
        .map(|n| {
            let image = stack(&base[..=n % 3]);
            (0..=n % 2).fold(image, |image, m| image.layer(layer(format!("stress-{n}-{m}"))))
        })
        .collect();
    images.push(stack(&base.iter().rev().cloned().collect::<Vec<_>>()));
    let push =
        |image: &Image| image.push(&hub.host, &format!("{}:latest", hub.repository("stress")));
    let pushed = images.iter().map(push).collect();
    (images, pushed)
}

/// A command of one process, and how it may end: what it works on may be gone or in use.
fn command(
    random: &mut Random,
    images: &[String],
    tag: &str,
    at: &str,
) -> (Vec<String>, &'static [i32]) {
    const VERBS: [&str; 16] = [
        "pull", "pull", "pull", "pull", "pull", "rm", "rm", "tag", "images", "mount", "mount-rw",
        "gc", "check", "df", "prune", "inspect",
    ];
    let image = random.of(&images.iter().collect::<Vec<_>>()).as_str();
    let (args, codes): (&[&str], &[i32]) = match random.of(&VERBS) {
        "pull" => (&["pull", "-q", image], &[0]),
        "rm" => (&["rm", "-f", random.of(&[image, image, tag])], &[0, 3, 8]),
        "tag" => (&["tag", image, tag], &[0, 3]),
        "inspect" => (&["inspect", image], &[0, 3]),
        "mount" => (&["mount", image, at], &[0, 3]),
        "mount-rw" => (&["mount", "--rw", image, at], &[0, 3]),
        "prune" => (&["prune", "--dangling"], &[0, 3]),
        "gc" => (&["gc"], &[0, 3]),
        "df" => (&["df"], &[0, 3]),
        "check" => (&["check"], &[0, 3]),
        _ => (&["images"], &[0, 3]),
    };
    (args.iter().map(|arg| (*arg).to_owned()).collect(), codes)
}

/// A root on which processes run at the same time.
struct Storm {
    place: tempfile::TempDir,
    rpull: Rpull,
    images: Vec<String>,
    seed: usize,
    ended: Mutex<BTreeMap<String, usize>>,
    kills: AtomicUsize,
}

impl Storm {
    fn new(images: Vec<String>) -> Self {
        let place = scratch::in_memory();
        let rpull = Rpull::on(place.path().join("root"));
        let seed = number("RPULL_TEST_SEED", 1);
        println!("RPULL_TEST_SEED={seed}");
        let (ended, kills) = (Mutex::default(), AtomicUsize::new(0));
        Self { place, rpull, images, seed, ended, kills }
    }

    /// Runs one command, which is killed if `fatal`. A command that hangs fails the test.
    fn run(&self, args: &[String], fatal: Option<Fatal>) -> Done {
        let mut command = self.rpull.command(args);
        if let Some(Fatal::Operation(n)) = fatal {
            command.env("RPULL_FAIL_AT", n.to_string());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let since = Instant::now();
        if let Some(Fatal::Time(time)) = fatal {
            std::thread::sleep(time);
            let _ = child.kill();
        }
        while child.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < Duration::from_secs(120), "{args:?} hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output().unwrap();
        let killed = output.status.signal().is_some();
        self.kills.fetch_add(usize::from(killed), Ordering::Relaxed);
        let how = if killed { "killed".to_owned() } else { output.status.to_string() };
        *self.ended.lock().unwrap().entry(format!("{} {how}", args[0])).or_default() += 1;
        output.into()
    }

    /// One process after the other, while `goes_on`.
    fn worker(&self, stream: usize, kills: bool, goes_on: &(dyn Fn() -> bool + Sync)) {
        let mut random = Random::new(self.seed, stream);
        let at = self.mount_point(stream);
        fs::create_dir_all(&at).unwrap();
        let (tag, target) = (format!("stress/tag-{stream}:one"), at.to_str().unwrap().to_owned());
        while goes_on() {
            let (args, codes) = command(&mut random, &self.images, &tag, &target);
            let fatal = Fatal::random(&mut random).filter(|_| kills);
            let done = self.run(&args, fatal);
            let ended = done.code.is_none_or(|code| codes.contains(&code));
            assert!(ended, "RPULL_TEST_SEED={}: {args:?}: {done}", self.seed);
            if args[0] == "mount" && is_mounted(&at) {
                let fatal = Fatal::random(&mut random).filter(|_| kills);
                let done = self.run(&["umount".to_owned(), target.clone()], fatal);
                let ended = done.code.is_none_or(|code| code == 0);
                assert!(ended, "RPULL_TEST_SEED={}: umount: {done}", self.seed);
                if is_mounted(&at) {
                    drop(Mounted(at.clone()));
                }
            }
        }
    }

    fn mount_point(&self, stream: usize) -> PathBuf {
        self.place.path().join(format!("mnt-{stream}"))
    }

    fn workers(&self, kills: bool, goes_on: &(dyn Fn() -> bool + Sync)) {
        std::thread::scope(|scope| {
            for stream in 0..PROCESSES {
                scope.spawn(move || self.worker(stream + usize::from(kills) * 100, kills, goes_on));
            }
        });
        println!("{:?}", self.ended.lock().unwrap());
    }

    /// Fails unless the next commands find whole images only, and nothing that is left of the dead.
    #[track_caller]
    fn assert_nothing_leaked(&self) {
        let root = self.rpull.root();
        for image in &self.images {
            self.rpull.ok(["pull", "-q", image]);
        }
        self.rpull.ok(["tag", &self.images[0], "stress/last:one"]);
        assert_consistent(root);
        assert_agreement(root);
        judge::judge_root(root);
        self.rpull.ok(["gc"]);
        assert_whole(&self.rpull);
        let ids: BTreeSet<String> =
            self.rpull.ok(["images", "-q"]).lines().map(str::to_owned).collect();
        for id in ids {
            self.rpull.ok(["rm", "-f", &id]);
        }
        assert_empty(root);
        self.rpull.ok(["gc"]);
        assert_empty(root);
        for dir in ["mounts", "used", "content/blobs/sha256"] {
            assert_eq!(names(&root.join("rpull").join(dir)), [""; 0], "left in {dir}");
        }
        // The locks of the table in `src/store/lock.rs` that are not of one blob.
        assert_eq!(names(&root.join("rpull/locks")), ["commit", "names", "queue", "store"]);
        assert_eq!(names(&root.join("rpull/content/locks")), ["index", "queue", "use"]);
        let unsynced = root.join("rpull/unsynced");
        for boot in names(&unsynced) {
            assert_eq!(names(&unsynced.join(boot)), [""; 0], "left in unsynced");
        }
    }
}

/// When a process is killed.
#[derive(Clone, Copy, Debug)]
enum Fatal {
    Operation(u64),
    Time(Duration),
}

impl Fatal {
    /// In half of the cases none, else after a random file operation or a random time.
    fn random(random: &mut Random) -> Option<Self> {
        let (operation, time) = (random.below(OPERATIONS), random.below(150));
        match random.below(6) {
            0 | 1 => Some(Self::Operation(1 + operation)),
            2 => Some(Self::Time(Duration::from_millis(time))),
            _ => None,
        }
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    mounts.contains(&format!(" {} ", at.display()))
}

impl Drop for Storm {
    fn drop(&mut self) {
        for name in names(self.place.path()).iter().filter(|name| name.starts_with("mnt-")) {
            let at = self.place.path().join(name);
            if is_mounted(&at) {
                let _ = Command::new("umount").arg("--lazy").arg(at).output();
            }
        }
    }
}

#[test]
fn processes_that_pull_overlapping_images_fetch_each_blob_once() {
    let (images, pushed) = images();
    let proxy = Proxy::plain();
    let storm = Storm::new(pushed.iter().map(|it| proxy.name(&it.name())).collect());
    std::thread::scope(|scope| {
        for stream in 0..PROCESSES {
            let storm = &storm;
            scope.spawn(move || {
                let count = storm.images.len();
                for n in 0..count {
                    let image = storm.images[(stream + n) % count].clone();
                    let done = storm.run(&["pull".to_owned(), "-q".to_owned(), image], None);
                    assert_eq!(done.code, Some(0), "{done}");
                }
            });
        }
    });
    let mut blobs: Vec<String> = pushed.iter().map(|it| it.id.clone()).collect();
    blobs.extend(images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest()));
    for blob in blobs {
        assert_eq!(proxy.count(&format!("/blobs/{blob}")), 1, "{blob}");
    }
    storm.assert_nothing_leaked();
}

#[test]
fn sixteen_processes_at_once_get_no_error_and_leak_nothing() {
    // Containers of other tests would keep copies of the mounts for a moment.
    scratch::in_private_mounts(sixteen_processes);
}

fn sixteen_processes() {
    let storm = Storm::new(images().1.iter().map(Pushed::name).collect());
    let left = AtomicUsize::new(number("RPULL_TEST_KILLS", 0).max(COMMANDS));
    storm.workers(false, &|| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    });
    storm.assert_nothing_leaked();
}

#[test]
fn random_kills_leave_whole_images_and_leak_nothing() {
    scratch::in_private_mounts(random_kills);
}

fn random_kills() {
    let storm = Storm::new(images().1.iter().map(Pushed::name).collect());
    let kills = number("RPULL_TEST_KILLS", 100);
    storm.workers(true, &|| storm.kills.load(Ordering::Relaxed) < kills);
    storm.assert_nothing_leaked();
}
