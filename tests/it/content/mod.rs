//! The content store: one directory for many roots and jobs, restored by anybody, read by
//! other tools.

mod hostile;
mod offline;
mod tools;
mod trim;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pack, Pushed, sha256};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::snapshot::{assert_consistent, names};
use crate::support::tar::{Tar, noise};
use crate::support::{judge, scratch};

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file("mark", mark).file("noise", noise(100_000)).end()
}

fn image(mark: &str) -> Image {
    Image::new().layer(layer("base")).layer(layer(mark))
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// A cache and the roots that use it.
struct Cache {
    scratch: tempfile::TempDir,
    content: PathBuf,
}

impl Cache {
    fn new() -> Self {
        let scratch = scratch::dir();
        let content = scratch.path().join("cache");
        Self { scratch, content }
    }

    fn root(&self, name: &str) -> Rpull {
        Rpull::on(self.scratch.path().join(name))
    }

    fn content(&self) -> &str {
        self.content.to_str().unwrap()
    }

    fn keeping<'a>(&'a self, image: &'a str) -> [&'a str; 6] {
        ["--content", self.content(), "pull", "-q", "--keep-blobs", image]
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.content.join("blobs/sha256").join(hex(digest))
    }
}

fn index(content: &Path) -> Value {
    serde_json::from_slice(&fs::read(content.join("index.json")).unwrap()).unwrap()
}

/// What a reader of image layouts needs: how many blobs there are.
#[track_caller]
fn assert_layout(content: &Path) -> usize {
    let marker: Value =
        serde_json::from_slice(&fs::read(content.join("oci-layout")).unwrap()).unwrap();
    assert_eq!(marker["imageLayoutVersion"], "1.0.0");
    let blobs = content.join("blobs/sha256");
    for name in names(&blobs) {
        let bytes = fs::read(blobs.join(&name)).unwrap();
        assert_eq!(sha256(&bytes), format!("sha256:{name}"));
        assert_eq!(blobs.join(&name).symlink_metadata().unwrap().mode(), 0o100_644);
    }
    for entry in index(content)["manifests"].as_array().unwrap() {
        let digest = entry["digest"].as_str().unwrap();
        let manifest = fs::read(blobs.join(hex(digest))).unwrap();
        assert_eq!(entry["size"], manifest.len());
    }
    assert_eq!(names(&content.join("ingest")), [""; 0]);
    let locks = names(&content.join("locks"));
    assert!(locks.iter().all(|name| ["index", "queue", "use"].contains(&&**name)), "{locks:?}");
    names(&blobs).len()
}

#[test]
fn cache_shared_by_roots_at_once_fetches_each_blob_once() {
    let images = [image("once-1"), image("once-2")];
    let proxy = Proxy::every("/blobs/", Fault::Slow(400_000));
    let pushed = images.clone().map(|image| proxy.name(&push(&image, "shared-once").name()));
    for round in 0..2 {
        let cache = Cache::new();
        proxy.forget();
        let running: Vec<_> = (0..8)
            .map(|n| {
                let root = cache.root(&format!("root-{n}"));
                let mut command = root.command(cache.keeping(&pushed[0]));
                command.arg(&pushed[1]).stdout(Stdio::piped()).stderr(Stdio::piped());
                (root, command.spawn().unwrap())
            })
            .collect();
        for (root, child) in running {
            let done = Done::from(child.wait_with_output().unwrap());
            assert_eq!(done.code, Some(0), "round {round}: {done}");
            assert_consistent(root.root());
            assert_eq!(judge::judge_root(root.root()), 3);
        }
        let blobs = images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest());
        for blob in blobs.chain(images.iter().map(|image| sha256(&image.config()))) {
            let gets = proxy.requests();
            let gets = gets.iter().filter(|r| r.starts_with("GET ") && r.ends_with(&blob)).count();
            assert_eq!(gets, 1, "{blob}: {:?}", proxy.requests());
        }
        // Two manifests, two configs, three layers.
        assert_eq!(assert_layout(&cache.content), 7);
    }
}

#[test]
fn removal_from_one_root_leaves_a_shared_cache_as_it_is() {
    let pushed = push(&image("shared-rm"), "shared-rm");
    let cache = Cache::new();
    let (one, two) = (cache.root("one"), cache.root("two"));
    one.ok(cache.keeping(&pushed.name()));
    two.ok(cache.keeping(&pushed.name()));
    let before = index(&cache.content);
    one.ok(["--content", cache.content(), "rm", &pushed.name()]);
    assert_eq!(assert_layout(&cache.content), 4);
    assert_eq!(index(&cache.content), before);
    // Without the flag, the root's own content is meant, which it does not have.
    two.ok(["rm", &pushed.name()]);
    assert_eq!(assert_layout(&cache.content), 4);

    let proxy = Proxy::plain();
    let three = cache.root("three");
    three.ok(cache.keeping(&proxy.name(&pushed.by_digest())));
    assert_eq!(proxy.requests(), [""; 0], "all of it comes from the cache");
}

#[test]
fn own_content_that_another_root_uses_is_not_trimmed() {
    let (first, second) = (push(&image("own-1"), "own"), push(&image("own-2"), "own"));
    let cache = Cache::new();
    let owner = cache.root("owner");
    let own = owner.root().join("rpull/content");
    owner.ok(["pull", "-q", "--keep-blobs", &first.name()]);
    let guest = cache.root("guest");
    guest.ok(["--content", own.to_str().unwrap(), "pull", "-q", "--keep-blobs", &second.name()]);
    assert_eq!(assert_layout(&own), 7);
    owner.ok(["rm", &first.name()]);
    assert_eq!(assert_layout(&own), 7);
}

#[test]
fn own_content_is_trimmed_however_its_path_is_written() {
    let pushed = push(&image("own-path"), "own-path");
    let cache = Cache::new();
    let root = cache.root("root");
    fs::create_dir(root.root()).unwrap();
    symlink(root.root(), cache.scratch.path().join("link")).unwrap();
    let path = cache.scratch.path().join("link/../root/rpull/content");
    let own = ["--content", path.to_str().unwrap()];
    root.ok(own.into_iter().chain(["pull", "-q", "--keep-blobs", &pushed.name()]));
    assert_eq!(assert_layout(&root.root().join("rpull/content")), 4);
    root.ok(own.into_iter().chain(["rm", &pushed.name()]));
    assert_eq!(assert_layout(&root.root().join("rpull/content")), 0);
}

#[test]
fn own_content_that_is_a_link_or_a_mount_is_not_trimmed() {
    let pushed = push(&image("own-link"), "own-link");
    for is_mount in [false, true] {
        let cache = Cache::new();
        fs::create_dir(&cache.content).unwrap();
        let (one, two) = (cache.root("one"), cache.root("two"));
        let mut mounts = Vec::new();
        for root in [&one, &two] {
            let own = root.root().join("rpull/content");
            fs::create_dir_all(own.parent().unwrap()).unwrap();
            if is_mount {
                fs::create_dir(&own).unwrap();
                mount(["--bind", cache.content(), own.to_str().unwrap()]);
                mounts.push(scratch::Mounted(own));
            } else {
                symlink(&cache.content, own).unwrap();
            }
            root.ok(["pull", "-q", "--keep-blobs", &pushed.name()]);
        }
        one.ok(["rm", &pushed.name()]);
        assert_eq!(assert_layout(&cache.content), 4);
    }
}

#[track_caller]
fn mount<const N: usize>(args: [&str; N]) {
    assert!(Command::new("mount").args(args).status().unwrap().success());
}

#[test]
fn download_that_was_killed_leaves_nothing_after_the_next_pull() {
    let image = image("killed");
    let pushed = push(&image, "content-killed");
    let proxy = Proxy::every("/blobs/", Fault::Stall(50_000));
    let cache = Cache::new();
    let root = cache.root("root");
    let mut command = root.command(cache.keeping(&proxy.name(&pushed.name())).map(str::to_owned));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ingest = cache.content.join("ingest");
    let since = Instant::now();
    let arrived = |name: &String| {
        name.len() > 64 && ingest.join(name).metadata().is_ok_and(|meta| meta.len() > 0)
    };
    while !names(&ingest).iter().any(arrived) {
        assert!(since.elapsed() < Duration::from_secs(30), "nothing is downloaded");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(names(&ingest), [""; 0]);
    cache.root("other").ok(cache.keeping(&pushed.name()));
    assert_eq!(assert_layout(&cache.content), 4);
}

#[test]
fn pull_of_a_blob_that_another_process_fetches_waits_and_reports_it_once() {
    let image = image("waits");
    let pushed = push(&image, "waits");
    let digest = image.layers[0].digest();
    let cache = Cache::new();
    fs::create_dir_all(cache.content.join("locks")).unwrap();
    let path = cache.content.join(format!("locks/blob-{}", hex(&digest)));
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let (root, proxy) = (cache.root("root"), Proxy::plain());
    let name = proxy.name(&pushed.name());
    let mut command = root.command(["--content", cache.content(), "--keep-blobs", &name]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The holder is named where the kernel's list of locks shows it in one read.
    let waiting = format!("waiting for blob {}, which ", &hex(&digest)[..12]);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(&waiting) && stderr.read_line(&mut said).unwrap() > 0 {}
    assert_eq!(proxy.count(&digest), 0);
    fs::write(cache.blob(&digest), &image.layers[0].blob).unwrap();
    fs::remove_file(path).unwrap();
    drop(lock);
    stderr.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said.matches(&waiting).count(), 1, "{said}");
    assert_eq!(proxy.count(&digest), 0, "{:?}", proxy.requests());
}

/// An entry and its blob, as another tool would write them.
fn add_foreign(content: &Path) -> (Value, String) {
    let manifest = image("foreign").manifest().to_string();
    let digest = sha256(manifest.as_bytes());
    fs::write(content.join("blobs/sha256").join(hex(&digest)), &manifest).unwrap();
    let entry = json!({
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "digest": digest,
        "size": manifest.len(),
        "artifactType": "unknown/to-rpull",
        "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/foreign:1"},
    });
    let mut listed = index(content);
    listed["manifests"].as_array_mut().unwrap().insert(0, entry.clone());
    listed["org.example.unknown"] = json!({"kept": [1, null]});
    fs::write(content.join("index.json"), listed.to_string()).unwrap();
    (entry, digest)
}

#[test]
fn entries_of_other_tools_survive_pulls_and_removals() {
    let (first, second) = (push(&image("with-1"), "with"), push(&image("with-2"), "with"));
    let cache = Cache::new();
    let root = cache.root("root");
    let content = root.root().join("rpull/content");
    root.ok(["pull", "-q", &first.name()]);
    let (entry, digest) = add_foreign(&content);
    root.ok(["pull", "-q", &second.name()]);
    assert_eq!(index(&content)["manifests"].as_array().unwrap().len(), 3);
    root.ok(["rm", &first.name()]);
    root.ok(["rm", &second.name()]);
    let listed = index(&content);
    assert_eq!(listed["manifests"], json!([entry]));
    assert_eq!(listed["org.example.unknown"], json!({"kept": [1, null]}));
    assert_eq!(names(&content.join("blobs/sha256")), [hex(&digest)]);
}

#[test]
fn read_only_cache_is_read_and_the_rest_fetched() {
    let (kept, new) = (push(&image("ro-1"), "ro"), push(&image("ro-2"), "ro"));
    let cache = Cache::new();
    cache.root("first").ok(cache.keeping(&kept.name()));
    let read_only = scratch::Mounted(cache.scratch.path().join("read-only"));
    let at = read_only.0.to_str().unwrap();
    fs::create_dir(at).unwrap();
    mount(["--bind", cache.content(), at]);
    mount(["-o", "remount,bind,ro", at]);
    let before = index(&cache.content);
    let proxy = Proxy::plain();
    let root = cache.root("root");
    root.ok(["--content", at, "pull", "-q", &proxy.name(&kept.by_digest())]);
    assert_eq!(proxy.requests(), [""; 0]);
    let keeping = ["--content", at, "pull", "-q", "--keep-blobs", &new.name()].map(str::to_owned);
    let done = root.run(keeping);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(done.stderr.matches("is read-only").count(), 1, "{done}");
    root.ok(["--content", at, "rm", &new.name()]);
    assert_eq!(index(&cache.content), before);
    assert_eq!(assert_layout(&cache.content), 4);
}
