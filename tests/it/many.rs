//! Stores with many layers: a command reads only the records that it needs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::pull::takes_memory_below;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed, sha256};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::{assert_agreement, assert_consistent, chains, names};
use crate::support::tar::{Tar, noise};

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file(mark, mark.repeat(90)).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

fn records(root: &Path, image: &Image) -> Vec<PathBuf> {
    let layerdb = root.join("image/overlay2/layerdb/sha256");
    chains(&image.diff_ids()).iter().map(|chain| layerdb.join(chain)).collect()
}

/// Makes every read of a record fail, and returns what restores it.
fn poison(record: &Path) -> impl FnOnce() + use<> {
    let saved: Vec<_> = names(record)
        .into_iter()
        .map(|name| (record.join(&name), fs::read(record.join(name)).unwrap()))
        .collect();
    for (path, _) in &saved {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }
    || {
        for (path, bytes) in saved {
            fs::remove_dir(&path).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn command_does_not_read_records_of_other_layers() {
    let base = Image::new().layer(layer("base")).layer(layer("middle"));
    let (one, two) = (base.clone().layer(layer("one")), base.layer(layer("two")));
    let other = Image::new().layer(layer("other")).layer(layer("more")).layer(layer("last"));
    let pushed = [(&one, "one"), (&two, "two"), (&other, "other")].map(|(it, stem)| push(it, stem));
    let [first, second, without] = &pushed;
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let rpull = Rpull::on(&root);
    rpull.ok(["pull", "-q", &first.name()]);
    // Layers of no image, as a killed pull leaves them.
    let named = root.join("image/overlay2/repositories.json");
    let before = fs::read(&named).unwrap();
    rpull.ok(["pull", "-q", &without.name()]);
    fs::write(&named, before).unwrap();
    let id = without.id.trim_start_matches("sha256:");
    fs::remove_file(root.join("image/overlay2/imagedb/content/sha256").join(id)).unwrap();
    // The index notices that another program removed the config, before the records are damaged.
    rpull.ok(["images"]);
    let restore: Vec<_> = records(&root, &other).iter().map(|record| poison(record)).collect();

    rpull.ok(["pull", "-q", "--policy", "never", &first.name()]);
    rpull.ok(["pull", "-q", &second.name()]);
    rpull.ok(["pull", "-q", &second.by_digest()]);
    rpull.ok(["images"]);
    rpull.ok(["tag", &second.name(), "another:name"]);
    rpull.ok(["rm", &second.name(), "another:name"]);
    rpull.ok(["rm", &first.name()]);

    restore.into_iter().for_each(|restore| restore());
    let left = names(&root.join("image/overlay2/layerdb/sha256"));
    let mut expected = chains(&other.diff_ids());
    expected.sort();
    assert_eq!(left, expected, "the layers of the removed images are gone");
    assert_consistent(&root);
    assert_agreement(&root);
    rpull.ok(["pull", "-q", &without.name()]);
}

/// Runs a command and returns the files and directories below the root that it opens, or tries to.
fn opened(rpull: &Rpull, args: &[&str]) -> Vec<String> {
    let trace = scratch::dir();
    let file = trace.path().join("trace");
    let command = rpull.command(args);
    let mut traced = std::process::Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"]).arg(&file);
    traced.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(key, value),
            None => traced.env_remove(key),
        };
    }
    let output = traced.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(file).unwrap();
    // Also those relative to an open directory, as in the content store.
    let path = |line: &str| Some(line.split('"').nth(1)?.to_owned());
    let opened = trace.lines().filter(|line| line.contains("open")).filter_map(path);
    let root = rpull.root().to_str().unwrap();
    opened.filter(|path| path.starts_with(root) || !path.starts_with('/')).collect()
}

/// The names of all files of an image: config, manifest, records and directories of its layers.
fn names_of(root: &Path, image: &Image, pushed: &Pushed) -> Vec<String> {
    let hex = |id: &str| id.trim_start_matches("sha256:").to_owned();
    let mut names = vec![hex(&pushed.id), hex(&pushed.digest)];
    names.extend(chains(&image.diff_ids()));
    names.extend(
        records(root, image).iter().map(|it| fs::read_to_string(it.join("cache-id")).unwrap()),
    );
    names
}

#[test]
fn removal_opens_no_file_of_another_image() {
    let base = Image::new().layer(layer("base"));
    let images: Vec<Image> =
        (0..5).map(|n| base.clone().layer(layer(&format!("own {n}")))).collect();
    let pushed: Vec<Pushed> = images.iter().map(|image| push(image, "opened")).collect();
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    for image in &pushed {
        rpull.ok(["pull", "-q", &image.name()]);
    }
    let common = names_of(rpull.root(), &base, &pushed[0]);
    let others = (1..5).flat_map(|n| names_of(rpull.root(), &images[n], &pushed[n]));
    let others: Vec<String> = others.filter(|name| !common.contains(name)).collect();
    let opened = opened(&rpull, &["rm", &pushed[0].name()]);
    assert!(opened.iter().any(|path| path.contains(common[0].as_str())), "{opened:#?}");
    let foreign = opened.iter().filter(|path| others.iter().any(|name| path.contains(name)));
    assert_eq!(foreign.collect::<Vec<_>>(), [""; 0]);
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
    // The shared layer is the last user's.
    for image in &pushed[1..] {
        rpull.ok(["rm", &image.name()]);
    }
    assert_eq!(names(&rpull.root().join("image/overlay2/layerdb/sha256")), [""; 0]);
    assert_eq!(names(&rpull.root().join("rpull/content/blobs/sha256")), [""; 0]);
}

#[test]
fn list_of_images_opens_two_files_per_image() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let mut counts = Vec::new();
    for n in 0..4 {
        let image = (0..9).fold(Image::new(), |image, k| image.layer(layer(&format!("{n}-{k}"))));
        rpull.ok(["pull", "-q", &push(&image, "listed").name()]);
        counts.push(opened(&rpull, &["images"]).len());
    }
    assert!(counts[3] <= counts[0] + 2 * 3, "{counts:?}");
    // Another program removes an image: the index is compared once.
    let config = fs::read_dir(rpull.root().join("image/overlay2/imagedb/content/sha256"));
    fs::remove_file(config.unwrap().next().unwrap().unwrap().path()).unwrap();
    assert_eq!(rpull.ok(["images", "-q"]).lines().count(), 3);
    let again = opened(&rpull, &["images"]).len();
    assert!(again <= counts[2], "{again}: {counts:?}");
}

#[test]
fn layer_that_only_an_image_of_another_program_has_too_stays() {
    let image = Image::new().layer(layer("both")).layer(layer("twice"));
    let pushed = push(&image, "both");
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &pushed.name()]);
    // dockerd commits another image with the same layers.
    let configs = rpull.root().join("image/overlay2/imagedb/content/sha256");
    let config = fs::read_to_string(configs.join(pushed.id.trim_start_matches("sha256:")));
    let other = config.unwrap().replacen('{', r#"{"author":"another","#, 1);
    fs::write(configs.join(sha256(other.as_bytes()).trim_start_matches("sha256:")), other).unwrap();
    rpull.ok(["rm", &pushed.name()]);
    for record in records(rpull.root(), &image) {
        assert!(record.is_dir(), "{} is a layer of an image", record.display());
    }
    assert_consistent(rpull.root());
}

#[test]
fn layers_that_another_program_added_keep_their_parent() {
    let lower = Image::new().layer(layer("base")).layer(layer("middle"));
    let (one, two) = (lower.clone().layer(layer("one")), lower.layer(layer("two")));
    let (first, second) = (push(&one, "lower"), push(&two, "upper"));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &first.name()]);
    rpull.ok(["pull", "-q", &second.name()]);
    // The index is rebuilt without the record, which another program then adds.
    let record = records(rpull.root(), &two).pop().unwrap();
    let aside = scratch.path().join("aside");
    fs::rename(&record, &aside).unwrap();
    rpull.ok(["tag", &first.name(), "first:again"]);
    fs::rename(&aside, &record).unwrap();
    let id = second.id.trim_start_matches("sha256:");
    fs::remove_file(rpull.root().join("image/overlay2/imagedb/content/sha256").join(id)).unwrap();
    rpull.ok(["rm", &first.name(), "first:again"]);
    for record in records(rpull.root(), &two) {
        assert!(record.is_dir(), "{} is the parent of a layer", record.display());
    }
    assert!(!records(rpull.root(), &one)[2].exists());
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
}

#[test]
fn removal_that_was_killed_is_finished_by_the_next_command() {
    let image = Image::new().layer(layer("killed")).layer(layer("removal"));
    let pushed = push(&image, "killed-removal");
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &pushed.name()]);
    let top = records(rpull.root(), &image).pop().unwrap();
    let removing = format!("{}-{}-removing", top.display(), "0".repeat(64));
    fs::rename(&top, &removing).unwrap();
    // A command that only reads does not finish it, nor does it hide it.
    rpull.fails(6, ["pull", "-q", "--policy", "never", &pushed.name()]);
    assert!(Path::new(&removing).exists());
    rpull.ok(["pull", "-q", &pushed.name()]);
    assert!(!Path::new(&removing).exists());
    assert_consistent(rpull.root());
    assert_agreement(rpull.root());
}

/// Adds a layer that is compressed by zstd at `level`, with a window of `1 << log` bytes if given.
fn with_zstd(image: Image, tar: Vec<u8>, level: i32, log: Option<u32>) -> Image {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
    if let Some(log) = log {
        encoder.window_log(log).unwrap();
    }
    encoder.write_all(&tar).unwrap();
    image.blob(tar, encoder.finish().unwrap(), Pack::Zstd)
}

#[test]
fn layers_with_large_zstd_windows_are_unpacked_one_at_a_time() {
    const LOG: u32 = 27;
    let image = ["one", "two", "three"].into_iter().fold(Image::oci(), |image, mark| {
        let tar = Tar::new().file(mark, vec![0; (1 << LOG) + (9 << 20)]).end();
        with_zstd(image, tar, 1, Some(LOG))
    });
    takes_memory_below(64 + (1 << (LOG - 20)), &image, "windows");
}

#[test]
fn memory_with_layers_of_zstd_level_19_is_bounded() {
    // Small files between large ones keep all buffers in use, too.
    let large = noise(700 << 10);
    let image = (0..6).fold(Image::oci(), |image, n| {
        let pairs = (0..40).fold(Tar::new(), |tar, file| {
            tar.file(&format!("small{n}-{file}"), "x").file(&format!("large{file}"), large.clone())
        });
        with_zstd(image, pairs.end(), 19, None)
    });
    let window = 8;
    takes_memory_below(64 + window, &image, "windows-19");
}
