//! Stores with many layers: a command reads only the records that it needs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::pull::takes_memory_below;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, Pushed};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::{assert_agreement, assert_consistent, chains, names};
use crate::support::tar::Tar;

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

#[test]
fn layers_with_large_zstd_windows_are_unpacked_one_at_a_time() {
    const LOG: u32 = 27;
    const SIZE: usize = (1 << LOG) + (9 << 20);
    let layer = |mark: &str| {
        let tar = Tar::new().file(mark, vec![0; SIZE]).end();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(LOG).unwrap();
        encoder.write_all(&tar).unwrap();
        (tar, encoder.finish().unwrap())
    };
    let image = ["one", "two", "three"].into_iter().fold(Image::oci(), |image, mark| {
        let (tar, blob) = layer(mark);
        image.blob(tar, blob, Pack::Zstd)
    });
    takes_memory_below(64 + (1 << (LOG - 20)), &image, "windows");
}
