//! Commands at the same time on one root: what each decides stays true until it has written it,
//! and each blob is fetched once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, assert_empty};
use crate::support::tar::{Tar, noise};
use crate::support::wait::until;

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file(mark, mark).file("noise", noise(20_000 + mark.len())).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// Two images on one base.
struct Siblings {
    a: Pushed,
    b: Pushed,
    b_image: Image,
}

impl Siblings {
    fn new(stem: &str) -> Self {
        let base = layer(&format!("{stem}-base"));
        let image =
            |mark: &str| Image::new().layer(base.clone()).layer(layer(&format!("{stem}-{mark}")));
        let b_image = image("b");
        Self { a: push(&image("a"), stem), b: push(&b_image, stem), b_image }
    }
}

fn start(rpull: &Rpull, args: &[&str]) -> Child {
    let mut command = rpull.command(args.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start rpull")
}

fn done(child: Child) -> Done {
    child.wait_with_output().expect("wait for rpull").into()
}

/// Stops requests at a point until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar, AtomicBool)>);

impl Gate {
    fn pass(&self) {
        let (open, opened, reached) = &*self.0;
        reached.store(true, Ordering::SeqCst);
        let open = open.lock().unwrap();
        drop(opened.wait_while(open, |open| !*open).unwrap());
    }

    fn is_reached(&self) -> bool {
        self.0.2.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A way to the registry on which requests with `text` in their path stop at the gate.
fn gated(text: String) -> (Proxy, Gate) {
    let gate = Gate::default();
    let seen = gate.clone();
    let proxy = Proxy::new(move |_, path| {
        if path.contains(&text) {
            seen.pass();
        }
        Fault::None
    });
    (proxy, gate)
}

/// A root with image `a`, and a pull of image `b` that stands at a request.
struct Stopped {
    _scratch: tempfile::TempDir,
    rpull: Rpull,
    gate: Gate,
    /// The name of `b` by the registry that stops.
    b: String,
    pull: Child,
}

impl Siblings {
    fn stop_pull_of_b(&self, step: &str) -> Stopped {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "-q", &self.a.name()]);
        let (proxy, gate) = gated(step.to_owned());
        let b = proxy.name(&self.b.name());
        let pull = start(&rpull, &["pull", "-q", &b]);
        until("the pull stops at the request", || gate.is_reached());
        Stopped { _scratch: scratch, rpull, gate, b, pull }
    }
}

#[test]
fn removal_during_each_request_of_a_pull_leaves_the_pulled_image_whole() {
    let images = Siblings::new("removed-meanwhile");
    let top = images.b_image.layers[1].digest();
    for step in ["/manifests/", &images.b.id, &top] {
        let Stopped { _scratch, rpull, gate, b, pull } = images.stop_pull_of_b(step);
        let mut rm = start(&rpull, &["rm", &images.a.name()]);
        // Either the removal is through, or it waits for the pull.
        let lines = first_line(&mut rm);
        until("the removal ends or waits", || !lines.lock().unwrap().is_empty());
        gate.open();
        let (pull, rm) = (done(pull), done(rm));
        assert_eq!((pull.code, rm.code), (Some(0), Some(0)), "at {step}: {pull}{rm}");
        rpull.ok(["pull", "-q", "--policy", "never", &b]);
        rpull.fails(3, ["inspect", &images.a.name()]);
        assert_consistent(rpull.root());
        assert_agreement(rpull.root());
        assert_eq!(judge::judge_root(rpull.root()), 2);
    }
}

#[test]
fn gc_during_each_request_of_a_pull_keeps_what_the_pull_staged() {
    let images = Siblings::new("gc-meanwhile");
    let top = images.b_image.layers[1].digest();
    for step in ["/manifests/", &images.b.id, &top] {
        let Stopped { _scratch, rpull, gate, b, pull } = images.stop_pull_of_b(step);
        // A reader sees what is staged, and does not count it as an orphan.
        let dry = rpull.json(["gc", "--dry-run", "--format", "json"]);
        assert_eq!(dry["removed"], serde_json::json!([]), "at {step}");
        let mut gc = start(&rpull, &["gc"]);
        let lines = first_line(&mut gc);
        until("the removal ends or waits", || !lines.lock().unwrap().is_empty());
        gate.open();
        let (pull, gc) = (done(pull), done(gc));
        assert_eq!((pull.code, gc.code), (Some(0), Some(0)), "at {step}: {pull}{gc}");
        for name in [&b, &images.a.name()] {
            rpull.ok(["pull", "-q", "--policy", "never", name]);
        }
        assert_consistent(rpull.root());
        assert_agreement(rpull.root());
        assert_eq!(judge::judge_root(rpull.root()), 3);
    }
}

/// What a running command has written on either output; something once it has ended.
fn first_line(child: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let outputs: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for output in outputs {
        let lines = lines.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 0 {
                lines.lock().unwrap().push(std::mem::take(&mut line));
            }
            lines.lock().unwrap().push(String::new());
        });
    }
    lines
}

#[test]
fn removal_that_waits_for_a_pull_goes_before_pulls_that_come_later() {
    let images = Siblings::new("queue");
    let other = push(&Image::new().layer(layer("queue-other")), "queue-other");
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &images.a.name()]);
    let (proxy, gate) = gated(images.b_image.layers[1].digest());
    let running = start(&rpull, &["pull", "-q", &proxy.name(&images.b.name())]);
    until("the first pull is at its layer", || gate.is_reached());
    let mut removal = start(&rpull, &["rm", &images.a.name()]);
    let said = first_line(&mut removal);
    until("the removal waits", || !said.lock().unwrap().is_empty());
    assert!(said.lock().unwrap()[0].starts_with("waiting for the store lock"), "{said:?}");
    let mut later = start(&rpull, &["pull", "-q", &other.name()]);
    let told = first_line(&mut later);
    until("the later pull waits", || !told.lock().unwrap().is_empty());
    assert!(told.lock().unwrap()[0].starts_with("waiting for the queue lock"), "{told:?}");
    // A command that only reads does not queue.
    rpull.ok(["inspect", &images.a.name()]);
    rpull.ok(["images"]);
    gate.open();
    for child in [running, removal, later] {
        let done = done(child);
        assert_eq!(done.code, Some(0), "{done}");
    }
    rpull.fails(3, ["inspect", &images.a.name()]);
    assert_eq!(judge::judge_root(rpull.root()), 3);
}

/// What one of two commands is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verb {
    PullA,
    PullB,
    RemoveA,
    TagA,
    PushA,
    MountA,
    MountWritableA,
}

#[test]
fn two_commands_stopped_at_each_lock_leave_what_they_promised() {
    use Verb::{MountA, MountWritableA, PullA, PullB, PushA, RemoveA, TagA};
    let images = Siblings::new("each-lock");
    let verbs = [PullA, PullB, RemoveA, TagA, MountA, MountWritableA];
    for lock in ["queue", "store", "commit", "names"] {
        for first in verbs {
            for second in verbs.into_iter().filter(|second| *second != first) {
                one_interleaving(&images, lock, first, second);
            }
        }
    }
    // A push adds to the store what a tag adds.
    for lock in ["store", "names"] {
        for other in [RemoveA, PullA] {
            one_interleaving(&images, lock, PushA, other);
            one_interleaving(&images, lock, other, PushA);
        }
    }
}

fn one_interleaving(images: &Siblings, lock: &str, first: Verb, second: Verb) {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let target = scratch.path().join("mnt");
    fs::create_dir(&target).unwrap();
    let writable = scratch.path().join("writable");
    fs::create_dir(&writable).unwrap();
    let _mounted = [Mounted(target.clone()), Mounted(writable.clone())];
    let rpull = Rpull::on(&root);
    rpull.ok(["pull", "-q", &images.a.name()]);
    let held = File::create(root.join("rpull/locks").join(lock)).unwrap();
    held.lock().unwrap();
    let start = |verb| start_verb(&rpull, images, &target, verb);
    let (one, two) = (start(first), start(second));
    // Long enough that both are at the lock or past it; the checks hold in either case.
    std::thread::sleep(Duration::from_millis(60));
    drop(held);
    let ends = [(first, done(one)), (second, done(two))];
    let what = format!("{first:?} and {second:?} at {lock}: {}{}", ends[0].1, ends[1].1);
    for (verb, end) in &ends {
        // The image may be gone before it is tagged or mounted, or be mounted when it is to go.
        let codes: &[i32] = match verb {
            Verb::PullA | Verb::PullB => &[0],
            Verb::RemoveA => &[0, 8],
            Verb::PushA | Verb::TagA | Verb::MountA | Verb::MountWritableA => &[0, 3],
        };
        assert!(end.code.is_some_and(|code| codes.contains(&code)), "{what}");
    }
    let succeeded = |verb| ends.iter().any(|(it, end)| *it == verb && end.code == Some(0));
    if succeeded(Verb::PullB) {
        rpull.ok(["pull", "-q", "--policy", "never", &images.b.name()]);
    }
    if succeeded(Verb::TagA) {
        rpull.ok(["inspect", "tagged:name"]);
    }
    if succeeded(Verb::PullA) && !succeeded(Verb::RemoveA) {
        rpull.ok(["pull", "-q", "--policy", "never", &images.a.name()]);
    }
    if succeeded(Verb::RemoveA) && !succeeded(Verb::PullA) {
        rpull.fails(3, ["inspect", &images.a.name()]);
    }
    if succeeded(Verb::MountA) {
        let mark = fs::read_dir(&target).unwrap().count();
        assert_eq!(mark, 3, "{what}");
    }
    if succeeded(Verb::MountWritableA) {
        assert_eq!(fs::read_dir(&writable).unwrap().count(), 3, "{what}");
        rpull.ok(["umount", writable.to_str().unwrap()]);
    }
    assert_eq!(fs::read_dir(root.join("rpull/mounts")).unwrap().count(), 0, "{what}");
    assert_consistent(&root);
    assert_agreement(&root);
    judge::judge_root(&root);
}

fn start_verb(rpull: &Rpull, images: &Siblings, target: &Path, verb: Verb) -> Child {
    let (a, b) = (images.a.name(), images.b.name());
    match verb {
        Verb::PullA => start(rpull, &["pull", "-q", &a]),
        Verb::PullB => start(rpull, &["pull", "-q", &b]),
        Verb::RemoveA => start(rpull, &["rm", &a]),
        Verb::TagA => start(rpull, &["tag", &a, "tagged:name"]),
        Verb::PushA => start(rpull, &["push", "-q", &a]),
        Verb::MountA => start(rpull, &["mount", &a, target.to_str().unwrap()]),
        Verb::MountWritableA => {
            let writable = target.with_file_name("writable");
            start(rpull, &["mount", "--rw", &a, writable.to_str().unwrap()])
        }
    }
}

/// Each blob of `images` was asked for once.
#[track_caller]
fn fetched_once(proxy: &Proxy, images: &[&Image], ids: &[&str]) {
    let layers = images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest());
    let mut blobs: Vec<String> = layers.chain(ids.iter().map(|id| (*id).to_owned())).collect();
    blobs.sort();
    blobs.dedup();
    for blob in blobs {
        let requests = proxy.count(&format!("/blobs/{blob}"));
        assert_eq!(requests, 1, "{blob}: {:?}", proxy.requests());
    }
}

#[test]
fn many_processes_that_pull_one_image_fetch_each_blob_once() {
    let image = (0..8).fold(Image::new(), |image, n| image.layer(layer(&format!("once-{n}"))));
    let pushed = push(&image, "processes");
    let proxy = Proxy::plain();
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let name = proxy.name(&pushed.name());
    let running: Vec<_> = (0..16).map(|_| start(&rpull, &["pull", "-q", &name])).collect();
    for child in running {
        let done = done(child);
        assert_eq!(done.code, Some(0), "{done}");
    }
    fetched_once(&proxy, &[&image], &[&pushed.id]);
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
    assert_eq!(judge::judge_root(rpull.root()), 8);
}

#[test]
fn processes_that_need_layers_in_opposite_order_share_them_and_do_not_wait_for_each_other() {
    let layers: Vec<_> = (0..4).map(|n| layer(&format!("opposite-{n}"))).collect();
    let up = layers.iter().fold(Image::new(), |image, tar| image.layer(tar.clone()));
    let down = layers.iter().rev().fold(Image::new(), |image, tar| image.layer(tar.clone()));
    let (pushed_up, pushed_down) = (push(&up, "up"), push(&down, "down"));
    let proxy = Proxy::plain();
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let names = [proxy.name(&pushed_up.name()), proxy.name(&pushed_down.name())];
    let running: Vec<_> = (0..6).map(|n| start(&rpull, &["pull", "-q", &names[n % 2]])).collect();
    for child in running {
        let done = done(child);
        assert_eq!(done.code, Some(0), "{done}");
    }
    fetched_once(&proxy, &[&up, &down], &[&pushed_up.id, &pushed_down.id]);
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
    assert_eq!(judge::judge_root(rpull.root()), 8);
    for pushed in [&pushed_up, &pushed_down] {
        rpull.ok(["rm", &proxy.name(&pushed.name())]);
    }
    assert_empty(rpull.root());
}

#[test]
fn process_whose_download_is_interrupted_leaves_the_layer_to_one_that_waits() {
    let image = Image::new().layer(layer("handed-on"));
    let pushed = push(&image, "handed-on");
    let stalls = AtomicBool::new(true);
    let blob = image.layers[0].digest();
    let stalled = blob.clone();
    let proxy = Proxy::new(move |_, path| {
        match path.ends_with(&stalled) && stalls.swap(false, Ordering::SeqCst) {
            true => Fault::Stall(100),
            false => Fault::None,
        }
    });
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let name = proxy.name(&pushed.name());
    let mut first = start(&rpull, &["pull", "-q", &name]);
    until("the first process fetches", || proxy.count(&blob) == 1);
    let mut second = start(&rpull, &["pull", "-q", &name]);
    let told = first_line(&mut second);
    let waits = |line: &String| line.starts_with("waiting for layer ");
    until("the second process waits", || told.lock().unwrap().iter().any(waits));
    first.kill().unwrap();
    first.wait().unwrap();
    let second = done(second);
    assert_eq!(second.code, Some(0), "{second}");
    assert_eq!(proxy.count(&blob), 2, "{:?}", proxy.requests());
    rpull.ok(["rm", &name]);
    assert_empty(rpull.root());
}

#[test]
fn interrupted_wait_for_each_lock_ends_while_the_lock_is_held() {
    let images = Siblings::new("interrupted-wait");
    for lock in ["queue", "store", "commit", "names"] {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "-q", &images.a.name()]);
        let held = File::create(rpull.root().join("rpull/locks").join(lock)).unwrap();
        held.lock().unwrap();
        let proxy = Proxy::plain();
        let mut child = start(&rpull, &["pull", "-q", &proxy.name(&images.b.name())]);
        let top = images.b_image.layers[1].digest();
        // What it asks for before it comes to the lock; it looks into the store first of all.
        let before = match lock {
            "store" => "",
            "names" => top.as_str(),
            _ => "/manifests/",
        };
        until("the pull is on its way", || before.is_empty() || proxy.count(before) > 0);
        // Long enough to be at the lock; if it is not yet, it ends just as well.
        std::thread::sleep(Duration::from_millis(150));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let since = Instant::now();
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if since.elapsed() > Duration::from_secs(60) => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        drop(held);
        let done = done(child);
        assert!(ended.is_some(), "it waits for {lock} after Ctrl-C: {done}");
        assert_eq!(done.code, Some(130), "{done}");
        rpull.ok(["pull", "-q", &images.b.name()]);
        assert_consistent(rpull.root());
        assert_agreement(rpull.root());
    }
}
