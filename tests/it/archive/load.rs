//! `rpull load`.

use std::fs::{self, File};
use std::process::Stdio;

use super::*;
use crate::support::dockerd::Dockerd;
use crate::support::image::{Index, gzip, sha256};
use crate::support::judge::judge_root;
use crate::support::snapshot::{assert_consistent, assert_empty, assert_same_trees, describe};

/// The diff IDs of the layers of an image in a store.
fn layers(rpull: &Rpull, name: &str) -> Vec<String> {
    let layers = rpull.json(["layers", "--format", "json", name]);
    let ids = layers.as_array().unwrap().iter();
    ids.map(|layer| layer["diffId"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_loaded(rpull: &Rpull, name: &str, image: &Image) {
    assert_eq!(layers(rpull, name), image.diff_ids());
    let id = sha256(&image.config());
    assert_eq!(rpull.json(["inspect", name])[0]["Id"], id);
    assert_consistent(rpull.root());
    rpull.ok(["check", "--deep"]);
}

#[test]
fn images_that_docker_saved_are_loaded() {
    let place = Place::new();
    let (one, two) = (image("from-docker"), oci_image("from-docker-two"));
    let pushed = [(&one, "load-docker"), (&two, "load-docker-two")]
        .map(|(image, stem)| place.pull(image, stem, &[]));
    let docker = Dockerd::shared();
    let names = pushed.map(|pushed| pushed.name());
    for name in &names {
        docker.ok(&["pull", "-q", name]);
    }
    let archive = place.text("docker.tar");
    docker.ok(&["save", "-o", &archive, &names[0], &names[1]]);
    docker.ok(&["rmi", &names[0], &names[1]]);
    let loaded = place.other("loaded");
    let mut said: Vec<String> =
        loaded.ok(["load", "-i", &archive]).lines().map(str::to_owned).collect();
    said.sort();
    let mut expected = names.clone().map(|name| format!("Loaded image: {name}"));
    expected.sort();
    assert_eq!(said, expected);
    for (name, image) in names.iter().zip([&one, &two]) {
        assert_loaded(&loaded, name, image);
    }
    // The trees are those of a pull, apart from what records the registry.
    let docker = Dockerd::start(loaded.root());
    for (name, image) in names.iter().zip([&one, &two]) {
        assert_eq!(docker.save(name), Ok(image.diff_ids()));
    }
    docker.stop();
}

#[test]
fn archives_of_podman_and_skopeo_are_loaded() {
    let place = Place::new();
    let image = oci_image("from-tools");
    let pushed = place.pull(&image, "load-tools", &["--keep-blobs"]);
    let name = pushed.name();
    let source = format!("docker://{name}");
    let pull = ["pull", "-q", "--tls-verify=false", &name];
    place.podman(&pull);
    for (n, format) in ["docker-archive", "oci-archive", "oci-dir"].iter().enumerate() {
        let archive = place.text(&format!("podman-{n}"));
        place.podman(&["save", "-q", "--format", format, "-o", &archive, &name]);
        let loaded = place.other(&format!("podman-root-{n}"));
        assert_eq!(loaded.ok(["load", "-i", &archive]), format!("Loaded image: {name}\n"));
        assert_loaded(&loaded, &name, &image);
    }
    for (n, target) in ["docker-archive", "oci-archive", "oci"].iter().enumerate() {
        let archive = place.text(&format!("skopeo-{n}"));
        let to = format!("{target}:{archive}:{name}");
        place.skopeo(&["copy", "-q", "--src-tls-verify=false", &source, &to]);
        let loaded = place.other(&format!("skopeo-root-{n}"));
        assert_eq!(loaded.ok(["load", "-q", "-i", &archive]), format!("Loaded image: {name}\n"));
        assert_loaded(&loaded, &name, &image);
    }
    assert_eq!(judge_root(&place.path("skopeo-root-1")), 4);
}

#[test]
fn archive_from_a_pipe_or_compressed_is_loaded_and_leaves_no_copy() {
    let place = Place::new();
    let image = image("piped");
    let pushed = place.pull(&image, "load-piped", &[]);
    let (name, archive) = (pushed.name(), place.path("image.tar"));
    place.rpull.ok(["save", "-o", archive.to_str().unwrap(), &name]);
    let tar = fs::read(&archive).unwrap();
    let packed = [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()];
    for (n, bytes) in packed.iter().enumerate() {
        let file = place.path(&format!("packed-{n}"));
        fs::write(&file, bytes).unwrap();
        let from_file = place.other(&format!("file-{n}"));
        from_file.ok(["load", "-i", file.to_str().unwrap()]);
        assert_loaded(&from_file, &name, &image);
        let from_pipe = place.other(&format!("pipe-{n}"));
        let mut cat = Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn().unwrap();
        let mut load = from_pipe.command(["load"]);
        let done = Done::from(load.stdin(cat.stdout.take().unwrap()).output().unwrap());
        cat.wait().unwrap();
        assert_eq!(done.stdout, format!("Loaded image: {name}\n"), "{done}");
        assert_loaded(&from_pipe, &name, &image);
        assert_eq!(fs::read_dir(from_pipe.root().join("rpull/tmp")).unwrap().count(), 0);
        from_pipe.ok(["rm", &name]);
        assert_empty(from_pipe.root());
    }
}

#[test]
fn saved_and_loaded_image_keeps_its_digest_also_after_other_images_are_removed() {
    let place = Place::new();
    let image = oci_image("round-trip");
    let pushed = place.pull(&image, "load-round", &["--keep-blobs"]);
    let (name, archive) = (pushed.name(), place.text("image.tar"));
    place.rpull.ok(["save", "-o", &archive, &name]);
    let second = place.other("second");
    second.ok(["load", "--keep-blobs", "-i", &archive]);
    let other = oci_image("round-other").push(&Hub::shared().host, "archive/round-other:one");
    second.ok(["pull", "-q", &other.name()]);
    second.ok(["rm", &other.name()]);
    second.ok(["gc"]);
    let again = place.text("again.tar");
    let saved = second.json(["save", "-o", &again, "--format", "json", &name]);
    assert_eq!(saved["digest"], pushed.digest);
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap(), "the archives differ");
    second.ok(["rm", &name]);
    assert_empty(second.root());
    let blobs = second.root().join("rpull/content/blobs/sha256");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn layers_that_the_store_has_are_not_unpacked_again() {
    let place = Place::new();
    let image = image("present");
    let pushed = place.pull(&image, "load-present", &[]);
    let (name, archive) = (pushed.name(), place.text("image.tar"));
    place.rpull.ok(["save", "-o", &archive, &name]);
    let before = describe(place.rpull.root());
    assert_eq!(place.rpull.ok(["load", "-i", &archive]), format!("Loaded image: {name}\n"));
    let mut after = describe(place.rpull.root());
    after.retain(|path, _| before.contains_key(path));
    assert_same_trees(&after, &before);
    let log = Done::from(place.rpull.command(["-v", "load", "-i", &archive]).output().unwrap());
    assert!(log.stderr.contains("is in the store"), "{log}");
}

#[test]
fn name_of_another_image_moves_as_docker_says() {
    let place = Place::new();
    let (first, second) = (image("moves-first"), image("moves-second"));
    let one = place.pull(&first, "load-moves", &[]);
    place.rpull.ok(["tag", &one.name(), "app:1"]);
    let archive = place.text("image.tar");
    place.rpull.ok(["save", "-o", &archive, "app:1"]);
    let other = place.other("other");
    let two = second.push(&Hub::shared().host, "archive/moves:two");
    other.ok(["pull", "-q", &two.name()]);
    other.ok(["tag", &two.name(), "app:1"]);
    let said = other.ok(["load", "-i", &archive]);
    let expected = format!(
        "The image app:1 already exists, renaming the old one with ID {} to empty string\n\
         Loaded image: app:1\n",
        two.id
    );
    assert_eq!(said, expected);
    assert_eq!(other.json(["inspect", "app:1"])[0]["Id"], one.id);
    // Without a name, it is the ID that is printed.
    place.rpull.ok(["save", "-o", &archive, &one.id]);
    let unnamed = place.other("unnamed");
    assert_eq!(unnamed.ok(["load", "-i", &archive]), format!("Loaded image ID: {}\n", one.id));
    assert_loaded(&unnamed, &one.id, &first);
    assert_eq!(unnamed.ok(["images", "-a"]).lines().count(), 2);
}

#[test]
fn platform_of_a_layout_for_several_is_chosen() {
    let place = Place::new();
    let (host, foreign) = (oci_image("host"), oci_image("foreign").platform("linux", "s390x", ""));
    let index = Index::new().add(foreign.clone()).add(host.clone()).attestation();
    let pushed = index.push(&Hub::shared().host, "archive/many:one");
    let to = format!("oci:{}:{}", place.text("layout"), pushed.name());
    let source = format!("docker://{}", pushed.name());
    place.skopeo(&["copy", "-q", "--all", "--src-tls-verify=false", &source, &to]);
    let (here, there) = (place.other("here"), place.other("there"));
    here.ok(["load", "-i", &place.text("layout")]);
    assert_loaded(&here, &pushed.name(), &host);
    there.ok(["load", "--platform", "linux/s390x", "-i", &place.text("layout")]);
    assert_loaded(&there, &pushed.name(), &foreign);
    let none = place.other("none");
    none.fails(3, ["load", "--platform", "linux/arm64", "-i", &place.text("layout")]);
}

#[test]
fn legacy_archive_with_linked_and_compressed_layers_is_loaded() {
    let place = Place::new();
    let image = image("legacy");
    let tars: Vec<&[u8]> = image.layers.iter().map(|layer| &layer.tar[..]).collect();
    let config = image.config();
    let manifest = r#"[{"Config":"c.json","RepoTags":["legacy:1"],"Layers":
        ["./a/layer.tar","b/layer.tar","c/layer.tar","d/layer.tar"]}]"#;
    let archive = Tar::new()
        .add(Entry::dir("a/"))
        .file("a/layer.tar", tars[0])
        .file("b/layer.tar", gzip(tars[1]))
        .file("c/layer.tar", zstd::encode_all(tars[2], 1).unwrap())
        .add(Entry::symlink("d/layer.tar", "../b/layer.tar"))
        .file("c.json", "replaced by the later entry")
        .file("c.json", &config)
        .file("manifest.json", manifest)
        .end();
    fs::write(place.path("legacy.tar"), archive).unwrap();
    let said = place.rpull.ok(["load", "-i", &place.text("legacy.tar")]);
    assert_eq!(said, "Loaded image: legacy:1\n");
    assert_loaded(&place.rpull, "legacy:1", &image);
}

#[test]
fn loads_of_one_archive_at_once_give_one_image() {
    let place = Place::new();
    let image = image("at-once");
    let name = place.pull(&image, "load-at-once", &[]).name();
    let archive = place.text("image.tar");
    place.rpull.ok(["save", "-o", &archive, &name]);
    let shared = place.other("shared");
    let start = |_| {
        let mut command = shared.command(["load", "-i", &archive]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = (0..5).map(start).collect();
    for child in running {
        let done = Done::from(child.wait_with_output().unwrap());
        assert_eq!(done.code, Some(0), "{done}");
        assert_eq!(done.stdout, format!("Loaded image: {name}\n"));
    }
    assert_loaded(&shared, &name, &image);
    shared.ok(["rm", &name]);
    assert_empty(shared.root());
}

#[test]
fn killed_load_leaves_nothing_after_the_next_command() {
    let place = Place::new();
    let pushed = place.pull(&image("killed"), "load-killed", &[]);
    let archive = place.text("image.tar");
    place.rpull.ok(["save", "-o", &archive, &pushed.name()]);
    let list = place.path("operations");
    let whole = place.other("whole");
    let mut command = whole.command(["load"]);
    command.env("RPULL_FAIL_LIST", &list).stdin(File::open(&archive).unwrap());
    assert!(command.output().unwrap().status.success());
    let operations = fs::read_to_string(&list).unwrap().lines().count();
    assert!(operations > 20, "{operations}");
    for at in (1..=operations).step_by(operations / 12) {
        let killed = place.other(&format!("killed-{at}"));
        let mut command = killed.command(["load"]);
        command.env("RPULL_FAIL_AT", at.to_string()).stdin(File::open(&archive).unwrap());
        let status = command.output().unwrap().status;
        assert!(!status.success(), "{at}");
        killed.ok(["load", "-i", &archive]);
        assert_consistent(killed.root());
        assert_eq!(fs::read_dir(killed.root().join("rpull/tmp")).unwrap().count(), 0);
        killed.ok(["rm", &pushed.name()]);
        assert_empty(killed.root());
    }
}
