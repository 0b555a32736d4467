//! `gc`, `df` and `prune`: they remove what nothing needs, and never what something uses.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::check::{UsedRoot, assert_whole, build};
use crate::damage::{Place, flip};
use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, chains, walk};
use crate::support::tar::{Tar, noise};
use crate::support::{fixture, judge};

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// All paths of a root but lock files, which come and go.
fn paths(root: &Path) -> BTreeSet<PathBuf> {
    let all = walk(root).into_iter();
    all.filter(|path| !path.to_string_lossy().contains("/locks/")).collect()
}

/// Pulls an image and takes away its name and config, as if dockerd had lost them.
fn lose_an_image(rpull: &Rpull, pushed: &Pushed) {
    let docker = rpull.root().join("image/overlay2");
    let names = fs::read(docker.join("repositories.json")).unwrap();
    rpull.ok(["pull", "-q", &pushed.name()]);
    fs::write(docker.join("repositories.json"), names).unwrap();
    let id = pushed.id.trim_start_matches("sha256:");
    fs::remove_file(docker.join("imagedb/content/sha256").join(id)).unwrap();
}

/// Adds an orphan of each kind to a root. Returns the image whose layers are orphans now.
pub fn add_orphans(rpull: &Rpull) -> Pushed {
    let root = rpull.root();
    let lost = Image::new().layer(Tar::new().file("lost", noise(9000)).end());
    let lost = push(&lost.layer(Tar::new().file("top", "lost").end()), "lost");
    lose_an_image(rpull, &lost);
    let hex = |digit: &str| digit.repeat(64);
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(&format!("overlay2/{}/diff/file", hex("a")), &"x".repeat(5000));
    write(&format!("overlay2/{}/link", hex("a")), &"A".repeat(26));
    let links = root.join("overlay2/l");
    symlink(format!("../{}/diff", hex("a")), links.join("A".repeat(26))).unwrap();
    symlink(format!("../{}/diff", hex("b")), links.join("B".repeat(26))).unwrap();
    fs::create_dir(root.join("image/overlay2/layerdb/sha256").join(hex("c"))).unwrap();
    write("image/overlay2/layerdb/tmp/write-set-123456/diff", "sha256:");
    let distribution = root.join("image/overlay2/distribution");
    let distribution = distribution.strip_prefix(root).unwrap().display().to_string();
    write(&format!("{distribution}/diffid-by-digest/sha256/{}", hex("d")), &hex("d"));
    write(&format!("{distribution}/v2metadata-by-diffid/sha256/{}", hex("d")), "[]");
    write(&format!("rpull/content/ingest/{}.partial", hex("e")), "partial");
    write(&format!("rpull/content/ingest/{}.ranges", hex("e")), "\n0 7\n");
    write(&format!("rpull/content/blobs/sha256/{}", hex("f")), "unneeded");
    write(&format!("rpull/used/{}", hex("1")), "");
    lost
}

const KINDS: [&str; 8] = [
    "content-blob",
    "directory",
    "distribution",
    "last-use",
    "layer",
    "link",
    "partial-download",
    "staged-record",
];

fn kinds(json: &serde_json::Value) -> BTreeSet<&str> {
    let removed = json["removed"].as_array().unwrap();
    removed.iter().map(|orphan| orphan["kind"].as_str().unwrap()).collect()
}

#[test]
fn gc_removes_orphans_of_every_kind_and_nothing_else() {
    let place = Place::new();
    let (rpull, root) = (&place.rpull, place.root());
    let before = paths(root);
    add_orphans(rpull);
    // Changes of a mount, directories of containers and of BuildKit, and foreign files stay.
    let kept = [
        "rpull/mounts/fedcba9876543210/upper/changed".to_owned(),
        format!("overlay2/{}/diff/f", "97hedujzdfi3nwntmld3hmxvt"),
        format!("overlay2/{}/diff/f", "2".repeat(64)),
        format!("overlay2/{}-init/diff/f", "2".repeat(64)),
        "overlay2/note/f".to_owned(),
    ];
    for path in &kept {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "kept").unwrap();
    }
    let with_orphans = paths(root);
    let dry = rpull.json(["gc", "--dry-run", "--format", "json"]);
    assert_eq!(kinds(&dry), KINDS.into_iter().collect());
    assert_eq!(paths(root), with_orphans, "a dry run changes nothing");
    assert!(dry["bytes"].as_u64().unwrap() > 14_000, "{dry}");
    let df = rpull.json(["df", "--format", "json"]);
    assert_eq!(df["Orphans"].as_array().unwrap().len(), KINDS.len());
    assert_eq!(df["Reclaimable"]["Orphans"], dry["bytes"]);

    let done = rpull.json(["gc", "--format", "json"]);
    assert_eq!((&done["removed"], &done["bytes"]), (&dry["removed"], &dry["bytes"]));
    for path in &kept {
        assert!(root.join(path).exists(), "{path}");
        let top = root.join(
            path.split('/')
                .take(if path.starts_with("rpull") { 3 } else { 2 })
                .collect::<PathBuf>(),
        );
        fs::remove_dir_all(top).unwrap();
    }
    let after = paths(root);
    assert!(before == after, "{:?}", before.symmetric_difference(&after).collect::<Vec<_>>());
    assert_eq!(rpull.ok(["gc"]), "removed 0B\n");
    assert_whole(rpull);
    assert_consistent(root);
    assert_agreement(root);
    assert_eq!(judge::judge_root(root), 4);
}

#[test]
fn gc_keeps_all_layers_while_the_config_of_an_image_is_damaged() {
    let place = Place::new();
    let id = place.pushed.id.trim_start_matches("sha256:");
    flip(&place.config());
    // The content store has another copy, so the layers are known.
    assert_eq!(place.rpull.ok(["gc"]), "removed 0B\n");
    flip(&place.root().join("rpull/content/blobs/sha256").join(id));
    let done = place.rpull.run(["gc"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("all layers are kept"), "{done}");
    place.rpull.ok(["check", "--repair"]);
    assert_whole(&place.rpull);
    fs::write(place.root().join("image/overlay2/repositories.json"), "{").unwrap();
    place.rpull.fails(6, ["gc"]);
}

#[test]
fn gc_keeps_what_containers_mounts_and_the_build_cache_of_dockerd_use() {
    let UsedRoot { scratch, rpull, docker } = UsedRoot::new("gc");
    let root = rpull.root().to_owned();
    // Their layers belong to the build cache alone from now on.
    docker.ok(&["rmi", "-f", "built:0", "other:0", "again:1", "other:1"]);
    for args in [&["gc"][..], &["prune", "--dangling"]] {
        let done = rpull.fails(8, args.iter().copied());
        assert!(done.stderr.contains("running dockerd"), "{done}");
        // A dry run only reads.
        rpull.ok([args, &["--dry-run"]].concat());
    }
    docker.stop();
    rpull.ok(["rm", "built:1"]);
    rpull.ok(["gc"]);
    assert_eq!(rpull.ok(["gc"]), "removed 0B\n");
    assert_whole(&rpull);
    let docker = Dockerd::start(&root);
    assert_eq!(docker.ok(&["start", "--attach", "ended"]), fixture::LINE);
    docker.ok(&["run", "--rm", "--network", "none", "committed:one"]);
    docker.ok(&["export", "-o", scratch.path().join("tar").to_str().unwrap(), "created"]);
    build(&docker, &scratch.path().join("context"), "1", &["-t", "rebuilt:1"]);
    docker.ok(&["run", "--rm", "--network", "none", "rebuilt:1"]);
    docker.stop();
    assert_whole(&rpull);
}

#[test]
fn gc_keeps_layers_that_are_mounted() {
    let place = Place::new();
    let at = place.scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    let image = Image::new()
        .layer(Tar::new().file("one", "one").end())
        .layer(Tar::new().file("two", "two").end());
    let pushed = push(&image, "mounted");
    place.rpull.ok(["pull", "-q", &pushed.name()]);
    place.rpull.ok(["mount", &pushed.name(), at.to_str().unwrap()]);
    lose_an_image_that_is_there(&place.rpull, &pushed);
    place.rpull.ok(["gc"]);
    assert_eq!(fs::read_to_string(at.join("one")).unwrap(), "one");
    drop(mounted);
    let gone = place.rpull.ok(["gc"]);
    assert_eq!(gone.matches("removed layer ").count(), 2, "{gone}");
}

#[test]
fn removal_keeps_the_mark_of_a_directory_that_buildkit_created() {
    let base = Image::new().layer(Tar::new().file("base", "base").end());
    let below = push(&base, "below");
    let above = push(&base.clone().layer(Tar::new().file("above", "above").end()), "above");
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &below.name(), &above.name()]);
    // BuildKit names directories in another way, and builds on them without records.
    let docker = rpull.root().join("image/overlay2");
    let chain = &chains(&base.diff_ids())[0];
    let record = docker.join("layerdb/sha256").join(chain).join("cache-id");
    let (old, new) = (fs::read_to_string(&record).unwrap(), "97hedujzdfi3nwntmld3hmxvt");
    let overlay = rpull.root().join("overlay2");
    fs::rename(overlay.join(old), overlay.join(new)).unwrap();
    fs::write(record, new).unwrap();
    let link = fs::read_to_string(overlay.join(new).join("link")).unwrap();
    fs::remove_file(overlay.join("l").join(&link)).unwrap();
    symlink(format!("../{new}/diff"), overlay.join("l").join(link)).unwrap();
    rpull.ok(["rm", &above.name()]);
    assert!(overlay.join(new).join("committed").is_file());
}

fn lose_an_image_that_is_there(rpull: &Rpull, pushed: &Pushed) {
    let docker = rpull.root().join("image/overlay2");
    let text = fs::read(docker.join("repositories.json")).unwrap();
    let mut names: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let repositories = names["Repositories"].as_object_mut().unwrap();
    repositories.retain(|_, names| !names.to_string().contains(&pushed.id));
    fs::write(docker.join("repositories.json"), names.to_string()).unwrap();
    let id = pushed.id.trim_start_matches("sha256:");
    fs::remove_file(docker.join("imagedb/content/sha256").join(id)).unwrap();
}

#[test]
fn gc_removes_nothing_from_a_shared_content_directory() {
    let scratch = scratch::dir();
    let content = scratch.path().join("content");
    let rpull = Rpull::on(scratch.path().join("root"));
    let image = Image::new().layer(Tar::new().file("f", "shared").end());
    let pushed = push(&image, "gc-shared");
    let dir = ["--content", content.to_str().unwrap()];
    rpull.ok([&dir[..], &["pull", "-q", "--keep-blobs", &pushed.name()]].concat());
    let partial = content.join("ingest").join("e".repeat(64) + ".partial");
    fs::write(&partial, "partial").unwrap();
    rpull.ok([&dir[..], &["rm", &pushed.name()]].concat());
    let before = paths(&content);
    let gone = rpull.json([&dir[..], &["gc", "--format", "json"]].concat());
    assert_eq!(kinds(&gone), BTreeSet::from(["distribution"]));
    assert_eq!(paths(&content), before);
}

#[test]
fn df_shows_shared_and_unique_sizes() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let base = Image::new().layer(Tar::new().file("base", noise(3000)).end());
    let one = push(&base.clone().layer(Tar::new().file("one", noise(500)).end()), "df-one");
    let two = push(&base.layer(Tar::new().file("two", noise(70)).end()), "df-two");
    rpull.ok(["pull", "-q", &one.name()]);
    rpull.ok(["pull", "-q", &two.name()]);
    let df = rpull.json(["df", "--format", "json"]);
    assert_eq!((&df["LayersSize"], &df["LayersCount"]), (&3570.into(), &3.into()));
    assert_eq!(df["Reclaimable"], serde_json::json!({"Images": 3570, "Orphans": 0}));
    for (n, (pushed, unique)) in [(&one, 500), (&two, 70)].into_iter().enumerate() {
        let image = &df["Images"][n];
        assert_eq!(image["Id"], pushed.id, "the least recently used image is first");
        assert_eq!((&image["SharedSize"], &image["UniqueSize"]), (&3000.into(), &unique.into()));
        assert_eq!(image["Size"], 3000 + unique);
        assert_eq!(image["RepoTags"], serde_json::json!([pushed.name()]));
        assert_eq!(image["RepoDigests"], serde_json::json!([pushed.by_digest()]));
    }
    let table = rpull.ok(["df", "--images"]);
    assert!(table.contains("UNIQUE SIZE") && table.contains("3.57kB (100%)"), "{table}");
}

/// Three images of 1000, 2000 and 3000 bytes, last used 30, 20 and 10 days ago.
fn aged() -> (tempfile::TempDir, Rpull, [Pushed; 3]) {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let images = [1000, 2000, 3000].map(|size| {
        let image = Image::new().layer(Tar::new().file("noise", noise(size)).end());
        push(&image, &format!("aged-{size}"))
    });
    for (n, pushed) in images.iter().enumerate() {
        rpull.ok(["pull", "-q", &pushed.name()]);
        let used = rpull.root().join("rpull/used").join(pushed.id.trim_start_matches("sha256:"));
        let file = fs::File::options().append(true).open(used).unwrap();
        let days = 30 - 10 * u64::try_from(n).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    (scratch, rpull, images)
}

fn removed(rpull: &Rpull, args: &[&str]) -> Vec<String> {
    let json = rpull.json([&["prune", "--format", "json"], args].concat());
    let removed = json["removed"].as_array().unwrap();
    removed.iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn prune_removes_images_that_were_not_used_for_the_given_time() {
    let (_scratch, rpull, [old, middle, young]) = aged();
    let before = paths(rpull.root());
    assert_eq!(removed(&rpull, &["--unused-for", "2w", "--dry-run"]), [&*old.id, &*middle.id]);
    assert_eq!(paths(rpull.root()), before);
    // A pull of an image that is there is a use.
    rpull.ok(["pull", "-q", &old.name()]);
    assert_eq!(removed(&rpull, &["--unused-for", "2w"]), [&*middle.id]);
    assert_eq!(removed(&rpull, &["--unused-for", "2w"]), [""; 0]);
    // So is a look-up with --policy never, and inspect is not.
    rpull.ok(["inspect", &young.name()]);
    assert_eq!(removed(&rpull, &["--unused-for", "9d"]), [&*young.id]);
    rpull.ok(["pull", "-q", "--policy", "never", &old.name()]);
    // Docker keeps these records, too: they only save downloads.
    assert_eq!(kinds(&rpull.json(["gc", "--format", "json"])), BTreeSet::from(["distribution"]));
    assert_whole(&rpull);
}

#[test]
fn prune_keeps_the_most_recently_used_images_within_the_size() {
    let (scratch, rpull, [old, middle, young]) = aged();
    assert_eq!(removed(&rpull, &["--keep-bytes", "6kB"]), [""; 0]);
    assert_eq!(removed(&rpull, &["--keep-bytes", "5.5kB", "--dry-run"]), [&*old.id]);
    // A mount is a use, and a mounted image stays.
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    rpull.ok(["mount", &old.name(), at.to_str().unwrap()]);
    assert_eq!(removed(&rpull, &["--keep-bytes", "5.5kB"]), [&*middle.id]);
    let done = rpull.run(["prune", "--keep-bytes", "0"]);
    assert!(done.stdout.contains(&format!("removed {}", &young.id[7..19])), "{done}");
    assert!(done.stderr.contains("it is mounted at"), "{done}");
    drop(mounted);
    assert_eq!(removed(&rpull, &["--keep-bytes", "0"]), [&*old.id]);
    assert_whole(&rpull);
}

#[test]
fn prune_of_dangling_images_keeps_tagged_ones() {
    let (_scratch, rpull, [old, middle, young]) = aged();
    rpull.ok(["rm", &old.name()]);
    rpull.ok(["pull", "-q", &old.by_digest()]);
    assert_eq!(removed(&rpull, &["--dangling"]), [&*old.id]);
    rpull.ok(["pull", "-q", "--policy", "never", &middle.name(), &young.name()]);
    let done = rpull.fails(2, ["prune"]);
    assert!(done.stderr.contains("--dangling"), "{done}");
    let done = rpull.fails(2, ["prune", "--keep-bytes", "much"]);
    assert!(done.stderr.contains("20GB"), "{done}");
}

#[test]
fn killed_gc_is_finished_by_the_next_one() {
    let place = Place::new();
    let (rpull, root) = (&place.rpull, place.root());
    let before = paths(root);
    for round in 0..12 {
        add_orphans(rpull);
        let mut gc = rpull.command(["gc"]).stdout(Stdio::null()).spawn().unwrap();
        // The moments of the kills are spread over the run.
        std::thread::sleep(Duration::from_millis(2 * round));
        let _ = gc.kill();
        gc.wait().unwrap();
        assert_whole_but_orphans(rpull);
        rpull.ok(["gc"]);
        let after = paths(root);
        assert!(before == after, "{:?}", before.symmetric_difference(&after).collect::<Vec<_>>());
    }
    assert_whole(rpull);
    assert_agreement(root);
    assert_eq!(judge::judge_root(root), 4);
}

/// Fails if an image is damaged. Broken records of no image are orphans of the test.
#[track_caller]
pub fn assert_whole_but_orphans(rpull: &Rpull) {
    let done = rpull.run(["check", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    for damage in report["damage"].as_array().unwrap() {
        assert_eq!(damage["images"], serde_json::json!([]), "{done}");
    }
}

#[test]
fn prune_of_dangling_images_of_dockerd_removes_them_with_what_they_were_built_on() {
    let UsedRoot { scratch, rpull, docker } = UsedRoot::new("prune");
    let root = rpull.root().to_owned();
    let context = scratch.path().join("context");
    fs::write(context.join("one"), "another").unwrap();
    build(&docker, &context, "0", &["-t", "built:0"]);
    let dangling = docker.ok(&["images", "--quiet", "--no-trunc", "--filter", "dangling=true"]);
    assert_eq!(dangling.lines().count(), 1, "{dangling}");
    docker.stop();
    let dry = removed(&rpull, &["--dangling", "--dry-run"]);
    let done = rpull.json(["prune", "--dangling", "--format", "json"]);
    assert_eq!(done["kept"], serde_json::json!([]), "images with children are no news");
    let gone: Vec<_> =
        done["removed"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(gone, dry);
    assert!(gone.contains(&dangling.as_str()) && gone.len() > 1, "{gone:?}");
    rpull.ok(["gc"]);
    assert_whole(&rpull);
    let docker = Dockerd::start(&root);
    assert_eq!(docker.ok(&["images", "--quiet", "--filter", "dangling=true"]), "");
    for name in ["built:0", "built:1", "other:0", "committed:one"] {
        docker.ok(&["run", "--rm", "--network", "none", name]);
    }
    assert_eq!(docker.ok(&["start", "--attach", "ended"]), fixture::LINE);
    docker.stop();
}
