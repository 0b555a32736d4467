//! Downloads that a later process continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::judge;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::{assert_consistent, names};
use crate::support::tar::{Tar, noise};

const SIZE: usize = 24 << 20;

/// Bytes per second and connection of the slow registry.
const SLOW: usize = 512 << 10;

/// An image with one blob of about `SIZE` bytes, and the blob's digest.
fn large(repository: &str) -> (Pushed, String) {
    let image = Image::new().packed(Tar::new().file("noise", noise(SIZE)).end(), Pack::Plain);
    let pushed = image.push(&Hub::shared().host, &format!("{repository}:latest"));
    (pushed, image.layers[0].digest())
}

fn partial(content: &Path, layer: &str) -> PathBuf {
    let hex = layer.strip_prefix("sha256:").unwrap();
    content.join("ingest").join(format!("{hex}.partial"))
}

/// Bytes of the blob that are listed as there.
fn kept(content: &Path, layer: &str) -> u64 {
    let list = fs::read_to_string(partial(content, layer).with_extension("ranges"));
    let bytes = |line: &str| {
        let (start, end) = line.split_once(' ')?;
        Some(end.parse::<u64>().ok()? - start.parse::<u64>().ok()?)
    };
    list.unwrap_or_default().lines().filter_map(bytes).sum()
}

/// Starts a pull by a slow registry, and returns when `least` bytes are kept.
fn begin(rpull: &Rpull, content: &Path, name: &str, layer: &str, least: u64) -> Child {
    let mut command = rpull.command(["pull", "-q", "--content", content.to_str().unwrap(), name]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while kept(content, layer) < least {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Pulls from a slow registry into a new place, and kills that when `least` bytes are kept.
fn killed(pushed: &Pushed, layer: &str, least: u64) -> Place {
    let slow = Proxy::every("/blobs/", Fault::Slow(SLOW));
    let place = place();
    let name = slow.name(&pushed.name());
    let mut child = begin(&place.rpull, &place.content, &name, layer, least);
    child.kill().unwrap();
    child.wait().unwrap();
    place
}

/// Bytes that the `Range` headers ask for.
fn asked(ranges: &[Option<String>]) -> u64 {
    let bytes = |range: &Option<String>| {
        let Some(range) = range else { return SIZE as u64 };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let last = last.parse().unwrap_or(SIZE as u64 + 1024);
        last - first.parse::<u64>().unwrap() + 1
    };
    ranges.iter().map(bytes).sum()
}

/// A root, and a content directory beside it.
struct Place {
    rpull: Rpull,
    content: PathBuf,
    _scratch: TempDir,
}

fn place() -> Place {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    Place { rpull, content: scratch.path().join("content"), _scratch: scratch }
}

#[test]
fn killed_download_is_continued_by_the_next_process() {
    let (pushed, layer) = large("test/continued");
    let Place { content, _scratch, .. } = killed(&pushed, &layer, 8 << 20);
    let there = kept(&content, &layer);
    // The next process is another root that shares the content.
    let Place { rpull: other, _scratch: _other, .. } = place();
    let proxy = Proxy::plain();
    other.ok(["pull", "-q", "--content", content.to_str().unwrap(), &proxy.name(&pushed.name())]);
    let ranges = proxy.ranges(&layer);
    assert!(ranges.iter().all(Option::is_some), "{ranges:?}");
    let (asked, size) = (asked(&ranges), SIZE as u64 + 2048);
    assert!(asked <= size - there, "{asked} bytes asked for, {there} of {size} were there");
    assert!(!partial(&content, &layer).exists());
    assert_eq!(names(&content.join("ingest")), [""; 0]);
    assert_consistent(other.root());
    judge::judge_root(other.root());
}

#[test]
fn resumed_bytes_are_reported_and_not_counted_again() {
    let (pushed, layer) = large("test/continued-reported");
    let Place { rpull, content, _scratch } = killed(&pushed, &layer, 8 << 20);
    let there = kept(&content, &layer);
    let name = pushed.name();
    let args = ["--progress", "json", "--content", content.to_str().unwrap(), &name];
    let events: Vec<Value> =
        rpull.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let resumed: Vec<_> = events.iter().filter(|event| event["event"] == "resumed").collect();
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    assert_eq!((&resumed[0]["layer"], &resumed[0]["bytes"]), (&json!(layer), &json!(there)));
    let downloads = events.iter().filter(|event| event["phase"] == "download");
    let done: Vec<u64> = downloads.map(|event| event["done"].as_u64().unwrap()).collect();
    assert!(done.iter().all(|done| *done > there) && done.is_sorted(), "{done:?}");
    assert!(done.last().is_some_and(|done| *done > SIZE as u64), "{done:?}");
}

#[test]
fn interrupted_download_is_continued_with_kept_blobs_and_without() {
    for keep in [&["--keep-blobs"][..], &[]] {
        let (pushed, layer) = large("test/continued-interrupted");
        let slow = Proxy::every("/blobs/", Fault::Slow(SLOW));
        let Place { rpull, content, _scratch } = place();
        let child = begin(&rpull, &content, &slow.name(&pushed.name()), &layer, 4 << 20);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!({ child }.wait().unwrap().code(), Some(130));
        let there = kept(&content, &layer);
        let proxy = Proxy::plain();
        let (name, content_flag) = (proxy.name(&pushed.name()), content.to_str().unwrap());
        let args = ["pull", "-q", "--content", content_flag, &name];
        rpull.ok([&args[..], keep].concat());
        assert!(asked(&proxy.ranges(&layer)) <= SIZE as u64 + 2048 - there);
        let blob = content.join("blobs/sha256").join(layer.strip_prefix("sha256:").unwrap());
        assert_eq!(blob.exists(), !keep.is_empty());
        assert!(!partial(&content, &layer).exists());
        assert_consistent(rpull.root());
    }
}

#[test]
fn damaged_partial_download_is_fetched_again() {
    let (pushed, layer) = large("test/continued-damaged");
    let Place { rpull, content, _scratch } = killed(&pushed, &layer, 4 << 20);
    let data = partial(&content, &layer);
    let size = data.metadata().unwrap().len();
    fs::write(&data, vec![7; size as usize]).unwrap();
    let name = pushed.name();
    let done = rpull.fails(0, ["pull", "--content", content.to_str().unwrap(), &name]);
    assert!(done.stderr.contains("the partial download of layer"), "{done}");
    assert!(!data.exists());
    assert_consistent(rpull.root());
    judge::judge_root(rpull.root());
}

#[test]
fn hostile_list_of_ranges_does_no_harm() {
    let (pushed, layer) = large("test/continued-hostile");
    let lists: [&[u8]; 4] =
        [b"0 18446744073709551615\n5 3\n-1 9\n", &[0xff; 4096], b"0 999999999999\n", b""];
    for list in lists {
        let Place { rpull, content, _scratch } = place();
        let data = partial(&content, &layer);
        fs::create_dir_all(data.parent().unwrap()).unwrap();
        fs::write(data.with_extension("ranges"), list).unwrap();
        rpull.ok(["pull", "-q", "--content", content.to_str().unwrap(), &pushed.name()]);
        assert_consistent(rpull.root());
    }
    // A link to a file elsewhere is not written through.
    let Place { rpull, content, _scratch } = place();
    let (data, target) = (partial(&content, &layer), content.with_file_name("target"));
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    fs::write(&target, "kept").unwrap();
    fs::write(data.with_extension("ranges"), "0 4\n").unwrap();
    std::os::unix::fs::symlink(&target, &data).unwrap();
    let done = rpull.run(["pull", "-q", "--content", content.to_str().unwrap(), &pushed.name()]);
    assert!(done.stderr.contains("symbolic link"), "{done}");
    assert_eq!(fs::read(&target).unwrap(), b"kept");
}

#[test]
fn registry_without_ranges_completes_a_partial_download() {
    let (pushed, layer) = large("test/continued-whole");
    let Place { rpull, content, _scratch } = killed(&pushed, &layer, 4 << 20);
    let whole = Proxy::every("/blobs/", Fault::SlowWhole(200 << 20));
    rpull.ok(["pull", "-q", "--content", content.to_str().unwrap(), &whole.name(&pushed.name())]);
    assert!(!partial(&content, &layer).exists());
    assert_consistent(rpull.root());
}

#[test]
fn fast_download_is_not_kept() {
    let (pushed, layer) = large("test/continued-fast");
    let proxy = Proxy::new(|_, path| match path.contains("/blobs/") {
        true => Fault::Cut(20 << 20),
        false => Fault::None,
    });
    let Place { rpull, content, _scratch } = place();
    let name = proxy.name(&pushed.name());
    let content_flag = content.to_str().unwrap();
    let done = rpull.run(["pull", "-q", "--retries", "0", "--content", content_flag, &name]);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(!partial(&content, &layer).exists());
}
