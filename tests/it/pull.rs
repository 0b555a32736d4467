//! Pulls that go well: what is fetched, what is said.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pack, Pushed, Pusher, host_architecture};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{Done, Rpull};
use crate::support::snapshot::{self, assert_consistent};
use crate::support::tar::{Entry, Tar, noise};
use crate::support::wait::until;
use crate::support::{fixture, judge, scratch};

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file("mark", mark).file("more", mark.repeat(5000)).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// An own root, with what lies around it.
struct Place {
    _scratch: tempfile::TempDir,
    rpull: Rpull,
}

impl Place {
    fn new() -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        Self { _scratch: scratch, rpull }
    }
}

impl std::ops::Deref for Place {
    type Target = Rpull;
    fn deref(&self) -> &Rpull {
        &self.rpull
    }
}

#[test]
fn plain_progress_matches_docker_pull() {
    let image = Image::new().layer(layer("speak-1")).layer(layer("speak-2"));
    let pushed = push(&image, "speak");
    let ours = Place::new().ok(["pull", &pushed.repository]);
    let dockers = Dockerd::shared().ok(&["pull", &pushed.repository]);
    let settle = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        // How the middle is interleaved is chance, and only what waits says so.
        lines.retain(|l| !l.ends_with(": Waiting") && !l.ends_with(": Verifying Checksum"));
        let n = lines.len();
        lines[2..n - 3].sort();
        lines
    };
    assert_eq!(settle(&ours), settle(&dockers));
    assert!(ours.starts_with("Using default tag: latest\nlatest: Pulling from test/"), "{ours}");
}

#[test]
fn quiet_pull_prints_the_name_only() {
    let pushed = push(&Image::new().layer(layer("quiet")), "quiet");
    let place = Place::new();
    assert_eq!(place.ok(["pull", "-q", &pushed.name()]), format!("{}\n", pushed.name()));
    assert_eq!(place.ok(["pull", "-q", &pushed.name()]), format!("{}\n", pushed.name()));
    assert_eq!(place.ok(["-q", &pushed.by_digest()]), format!("{}\n", pushed.by_digest()));
}

#[test]
fn json_progress_has_one_event_per_line() {
    let pushed = push(&Image::new().layer(layer("json")), "json");
    let text = Place::new().ok(["pull", "--progress", "json", &pushed.name()]);
    let lines: Result<Vec<serde_json::Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines.unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(lines.len() > 2 && lines.iter().all(serde_json::Value::is_object), "{text}");
    assert!(text.contains(&pushed.digest) && text.contains(&pushed.id), "{text}");
}

#[test]
fn present_image_is_not_fetched_again() {
    let pushed = push(&Image::new().layer(layer("present")), "present");
    let proxy = Proxy::plain();
    let (tag, digest) = (proxy.name(&pushed.name()), proxy.name(&pushed.by_digest()));
    let place = Place::new();
    let first = place.ok(["pull", &tag]);
    assert!(first.contains("Status: Downloaded newer image for "), "{first}");
    proxy.forget();

    let second = place.ok(["pull", &tag]);
    assert!(second.contains(&format!("Status: Image is up to date for {tag}")), "{second}");
    let asked: Vec<_> = proxy.requests().into_iter().filter(|r| !r.ends_with(" /v2/")).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("HEAD ") && asked[0].ends_with("/manifests/latest"), "{asked:?}");
    proxy.forget();

    place.ok(["pull", &digest]);
    place.ok(["pull", "--policy", "missing", &tag]);
    place.ok(["pull", "--policy", "never", &tag]);
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn tag_that_moved_is_fetched_and_the_old_image_stays() {
    let hub = Hub::shared();
    let name = format!("{}:moving", hub.repository("moving"));
    let place = Place::new();
    let old = Image::new().layer(layer("old")).push(&hub.host, &name);
    place.ok(["pull", "-q", &old.name()]);
    let new = Image::new().layer(layer("new")).push(&hub.host, &name);
    assert!(place.ok(["pull", &new.name()]).contains("Status: Downloaded newer image"));
    let id = |name: &str| place.json(["inspect", name, "--format", "json"])[0]["Id"].clone();
    assert_eq!(id(&new.name()), new.id);
    assert_eq!(id(&old.by_digest()), old.id);
}

#[test]
fn layer_that_several_images_need_is_fetched_once() {
    let shared = layer("shared-by-two");
    let one = Image::new().layer(shared.clone()).layer(layer("once-1")).layer(shared.clone());
    let place = Place::new();
    let proxy = Proxy::plain();
    let mut names = vec![proxy.name(&push(&one, "once").name())];
    for n in 2..8 {
        let image = Image::new().layer(layer(&format!("once-{n}"))).layer(shared.clone());
        names.push(proxy.name(&push(&image, "once").name()));
    }
    place.ok(["pull"].into_iter().chain(names.iter().map(String::as_str)));
    let blob = format!("/blobs/{}", one.layers[0].digest());
    assert_eq!(proxy.count(&blob), 1, "{:?}", proxy.requests());
    assert_eq!(judge::judge_root(place.root()), 3 + 6 * 2);
    assert_consistent(place.root());
}

#[test]
fn layer_of_another_chain_is_copied() {
    let moved = Tar::new()
        .add(Entry::file("owned", "x").owner(5, 6).mode(0o4755).xattr("user.note", "kept"))
        .add(Entry::hardlink("linked", "owned").owner(5, 6).mode(0o4755))
        .add(Entry::dir("d/").mode(0o1777).pax("mtime", "1600000000.123"))
        .add(Entry::char_device("null", 1, 3))
        .add(Entry::whiteout("gone"))
        .add(Entry::opaque("d"))
        .add(Entry::symlink("s", "d").owner(7, 7))
        .end();
    let one = Image::new().layer(layer("chain-1")).layer(moved.clone());
    let two = Image::new().layer(layer("chain-2")).layer(moved);
    let (a, b) = (push(&one, "chain-a"), push(&two, "chain-b"));
    let proxy = Proxy::plain();
    let place = Place::new();
    place.ok(["pull", "-q", &proxy.name(&a.name())]);
    place.ok(["pull", "-q", &proxy.name(&b.name())]);
    let blob = format!("/blobs/{}", one.layers[1].digest());
    assert_eq!(proxy.count(&blob), 1, "{:?}", proxy.requests());
    // The copy is what dockerd has where it unpacked the layer a second time.
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &b.name()]);
    snapshot::assert_same_layers(place.root(), &docker.root, &two.diff_ids());
    judge::judge_root(place.root());
}

#[test]
fn zstd_and_multi_member_gzip_layers_are_pulled() {
    let image = Image::oci()
        .packed(layer("zstd"), Pack::Zstd)
        .packed(layer("members"), Pack::Members)
        .packed(layer("plain"), Pack::Plain);
    let place = Place::new();
    place.ok(["pull", "-q", &push(&image, "packs").name()]);
    assert_eq!(judge::judge_root(place.root()), 3);
}

#[test]
fn config_with_odd_fields_is_pulled() {
    let odd = serde_json::json!({"created": 17, "config": null, "moby.later": {"x": []}});
    let pushed = push(&Image::new().layer(layer("odd")).extra(odd), "odd");
    Place::new().ok(["pull", "-q", &pushed.name()]);
}

#[test]
fn index_of_many_platforms_gives_the_right_image() {
    let hub = Hub::shared();
    let image = |mark: &str| Image::oci().layer(layer(mark));
    let other = image("arm").platform("linux", "arm64", "v8");
    let mine = image("mine");
    let index = Index::new()
        .attestation()
        .add(image("old").platform("linux", "arm", "v6"))
        .add(other.clone())
        .add(mine.clone())
        .push(&hub.host, &format!("{}:many", hub.repository("many")));
    let id = |place: &Place| {
        let inspected = place.json(["inspect", &index.name(), "--format", "json"]);
        assert_eq!(inspected[0]["RepoDigests"][0], index.by_digest());
        inspected[0]["Id"].as_str().unwrap().to_owned()
    };
    let place = Place::new();
    place.ok(["pull", "-q", &index.name()]);
    assert_eq!(id(&place), crate::support::image::sha256(&mine.config()));
    if host_architecture() != "arm64" {
        let place = Place::new();
        place.ok(["pull", "-q", "--platform", "linux/arm64", &index.name()]);
        assert_eq!(id(&place), crate::support::image::sha256(&other.config()));
    }
}

/// Pushes an image in an index, which is in an index, and so on, `depth` times.
fn push_nested(depth: usize) -> Pushed {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let hub = Hub::shared();
    let name = format!("{}:latest", hub.repository("nested"));
    let image = Image::oci().layer(layer("nested"));
    let mut pushed = image.push(&hub.host, &name);
    let id = pushed.id.clone();
    let manifest = image.manifest();
    let (mut kind, mut size) = (manifest["mediaType"].clone(), manifest.to_string().len());
    for _ in 0..depth {
        let entry = serde_json::json!({"mediaType": kind, "size": size, "digest": pushed.digest});
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [entry],
        });
        (kind, size) = (INDEX.into(), index.to_string().len());
        pushed = Pusher::new(&hub.host, &name).manifest(&index);
    }
    Pushed { id, ..pushed }
}

#[test]
fn index_nested_more_than_three_times_is_refused() {
    let deepest = push_nested(3);
    let rpull = Place::new();
    rpull.ok(["pull", "-q", &deepest.name()]);
    assert_eq!(rpull.json(["inspect", &deepest.name()])[0]["Id"], deepest.id);
    for depth in [4, 30] {
        let rpull = Place::new();
        let pushed = push_nested(depth);
        let done = rpull.fails(6, ["pull", &pushed.name()]);
        assert!(done.stderr.contains("the index is nested too deeply"), "{done}");
        assert_eq!(
            std::fs::read_dir(rpull.root()).map_or(0, Iterator::count),
            0,
            "nothing is left"
        );
    }
}

#[test]
fn failure_of_one_image_leaves_the_others_pulled() {
    let pushed = push(&Image::new().layer(layer("among")), "among");
    let place = Place::new();
    let missing = format!("{}:nope", pushed.repository);
    let done = place.fails(3, ["pull", &missing, &pushed.name()]);
    assert!(done.stderr.contains("nope"), "{done}");
    place.ok(["inspect", &pushed.name()]);
    assert_consistent(place.root());
}

#[test]
fn pulls_at_once_on_one_root_all_succeed() {
    let shared = layer("at-once-base");
    let names: Vec<_> = ["x", "y", "z"]
        .iter()
        .map(|mark| {
            let image = Image::new().layer(shared.clone()).layer(layer(&format!("at-once-{mark}")));
            push(&image, "at-once").name()
        })
        .collect();
    let place = Place::new();
    let running: Vec<_> = names
        .iter()
        .chain(&names)
        .map(|name| {
            let mut command = place.command(["pull", "-q", name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in running {
        let done = Done::from(child.wait_with_output().unwrap());
        assert_eq!(done.code, Some(0), "{done}");
    }
    for name in &names {
        place.ok(["inspect", name]);
    }
    assert_eq!(judge::judge_root(place.root()), 4);
    assert_consistent(place.root());
}

#[test]
fn short_form_with_a_root_flag_pulls_into_that_root() {
    let pushed = fixture::push_hello(&format!("{}:latest", Hub::shared().repository("short")));
    let place = Place::new();
    let elsewhere = scratch::dir();
    let root = elsewhere.path().join("by-flag");
    place.ok(["--root", root.to_str().unwrap(), &pushed.name()]);
    assert!(!place.root().exists());
    assert_eq!(judge::judge_root(&root), 3);
}

#[test]
fn pull_interrupted_while_the_registry_stalls_exits_130_and_leaves_nothing() {
    let image = Image::new()
        .layer(Tar::new().file("large", noise(3_000_000)).end())
        .layer(Tar::new().file("larger", noise(5_000_000)).end());
    let pushed = push(&image, "interrupted");
    let blob = image.layers[0].digest();
    let stalled = blob.clone();
    let proxy =
        Proxy::new(
            move |_, path| {
                if path.ends_with(&stalled) { Fault::Stall(2_000_000) } else { Fault::None }
            },
        );
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        proxy.forget();
        let mut command = place.command(["pull", &proxy.name(&pushed.name())]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_staged(place.root(), "large");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let done = Done::from(child.wait_with_output().unwrap());
        assert_eq!(done.code, Some(130), "{done}");
        // It did not wait for the registry: the stall limit would have led to a second try.
        assert_eq!(proxy.count(&blob), 1, "{:?}", proxy.requests());
        assert!(!done.stderr.contains("attempt 2"), "{done}");
        assert_consistent(place.root());
        let images = place.root().join("image/overlay2/imagedb/content/sha256");
        assert!(snapshot::names(&images).is_empty());
        // And the same again, undisturbed, comes well.
        place.ok(["pull", "-q", &pushed.name()]);
        judge::judge_root(place.root());
    }
}

/// The bytes of the file `name` in layers that are not committed.
fn staged(root: &Path, name: &str) -> u64 {
    let overlay = root.join("overlay2");
    let size = |cache_id: String| {
        let file = overlay.join(cache_id).join("diff").join(name);
        file.metadata().map_or(0, |meta| meta.len())
    };
    snapshot::names(&overlay).into_iter().map(size).sum()
}

fn wait_until_staged(root: &Path, name: &str) {
    until(&format!("{name} is staged"), || staged(root, name) > 0);
}

#[test]
fn killed_pull_leaves_nothing_after_the_next_command() {
    let image = Image::new().layer(Tar::new().file("large", noise(4_000_000)).end());
    let pushed = push(&image, "killed");
    let stalled = image.layers[0].digest();
    let proxy =
        Proxy::new(
            move |_, path| {
                if path.ends_with(&stalled) { Fault::Stall(3_000_000) } else { Fault::None }
            },
        );
    let place = Place::new();
    let mut command = place.command(["pull", &proxy.name(&pushed.name())]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until_staged(place.root(), "large");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        (1..4_000_000).contains(&staged(place.root(), "large")),
        "a part of the file is staged"
    );
    let layerdb = place.root().join("image/overlay2/layerdb/sha256");
    assert_eq!(snapshot::names(&layerdb), [""; 0], "no layer is committed");
    place.ok(["pull", "-q", &pushed.name()]);
    assert_consistent(place.root());
    judge::judge_root(place.root());
}

/// A pull of this image takes less than `mib` MiB.
pub fn takes_memory_below(mib: u64, image: &Image, stem: &str) {
    let pushed = push(image, stem);
    let rpull = Place::new();
    assert_takes_memory_below(mib, rpull.command(["pull", "-q", &pushed.name()]));
}

/// The command succeeds and takes less than `mib` MiB.
#[track_caller]
pub fn assert_takes_memory_below(mib: u64, mut command: Command) {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    assert!(peak > 0 && peak < mib << 10, "{peak} KiB at the most");
}

#[test]
fn memory_with_a_large_layer_is_bounded() {
    let image = Image::new().packed(Tar::new().file("noise", noise(160 << 20)).end(), Pack::Plain);
    takes_memory_below(64, &image, "memory");
}

#[test]
fn memory_with_large_files_between_small_ones_is_bounded() {
    let large = noise(700 << 10);
    let layer = |n: usize| {
        let pairs = (0..60).fold(Tar::new(), |tar, file| {
            tar.file(&format!("small{n}-{file}"), "x").file(&format!("large{file}"), large.clone())
        });
        pairs.end()
    };
    let image = (0..6).fold(Image::new(), |image, n| image.packed(layer(n), Pack::Plain));
    takes_memory_below(64, &image, "memory-between");
}

#[test]
fn memory_with_data_that_a_decoder_skips_is_bounded() {
    // RFC 8878, 3.1.2: a frame to skip.
    let skipped = noise(80 << 20);
    let mut blob = [0x184d_2a50_u32.to_le_bytes(), (80_u32 << 20).to_le_bytes()].concat();
    blob.extend_from_slice(&skipped);
    let tar = layer("after what is skipped");
    blob.extend(zstd::encode_all(&tar[..], 3).unwrap());
    takes_memory_below(64, &Image::oci().blob(tar, blob, Pack::Zstd), "memory-skipped");
}
