//! `rpull save`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::pull::assert_takes_memory_below;
use crate::support::dockerd::Dockerd;
use crate::support::image::sha256;
use crate::support::snapshot::assert_empty;

const FORMATS: [&[&str]; 3] = [&[], &["--format", "oci"], &["--format", "docker"]];

#[test]
fn saved_images_are_loaded_by_docker_with_their_layers() {
    let place = Place::new();
    let (kept, plain) = (image("dockers"), oci_image("dockers-plain"));
    let one = place.pull(&kept, "save-docker", &["--keep-blobs"]);
    let two = place.pull(&plain, "save-docker-plain", &[]);
    let docker = Dockerd::shared();
    for format in [FORMATS[0], FORMATS[2]] {
        let archive = place.text("images.tar");
        let names = [one.name(), two.name()];
        let args = [&["save", "-o", &archive], format, &[&names[0], &names[1]]].concat();
        assert_eq!(place.rpull.ok(args), "");
        let loaded = docker.ok(&["load", "-q", "-i", &archive]);
        let expected = [&one, &two].map(|it| format!("Loaded image: {}", it.name())).join("\n");
        assert_eq!(loaded, expected);
        for (pushed, image) in [(&one, &kept), (&two, &plain)] {
            assert_eq!(docker.json(&["inspect", &pushed.name()])[0]["Id"], pushed.id);
            assert_eq!(docker.save(&pushed.name()), Ok(image.diff_ids()));
            docker.ok(&["rmi", &pushed.name()]);
        }
    }
}

#[test]
fn saved_image_is_read_by_podman_and_skopeo() {
    for (image, stem) in [(image("tools"), "save-tools"), (oci_image("tools"), "save-tools-oci")] {
        for flags in [&["--keep-blobs"][..], &[]] {
            let place = Place::new();
            let pushed = place.pull(&image, stem, flags);
            for format in FORMATS {
                let archive = place.text("image.tar");
                let name = pushed.name();
                place.rpull.ok([&["save", "-o", &archive], format, &[&name]].concat());
                let loaded = place.podman(&["load", "-q", "-i", &archive]);
                assert_eq!(loaded.trim(), format!("Loaded image: {name}"), "{format:?}");
                let id = place.podman(&["images", "-q", "--no-trunc", &name]);
                assert_eq!(id.trim(), pushed.id, "{format:?} {flags:?}");
                place.podman(&["rmi", &name]);
                let transports: &[&str] = match format {
                    [] => &["docker-archive", "oci-archive"],
                    [_, "oci"] => &["oci-archive"],
                    _ => &["docker-archive"],
                };
                for transport in transports {
                    let copy = place.path("copy");
                    let _ = fs::remove_dir_all(&copy);
                    let source = format!("{transport}:{archive}");
                    place.skopeo(&["copy", "-q", &source, "dir:copy"]);
                    let manifest = fs::read(copy.join("manifest.json")).unwrap();
                    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
                    assert_eq!(manifest["config"]["digest"], pushed.id, "{source} {format:?}");
                }
            }
        }
    }
}

#[test]
fn digests_are_kept_if_the_content_store_has_the_blobs() {
    let place = Place::new();
    let image = oci_image("digests");
    let pushed = place.pull(&image, "save-digests", &["--keep-blobs"]);
    let (archive, name) = (place.path("image.tar"), pushed.name());
    let saved =
        place.rpull.json(["save", "-o", archive.to_str().unwrap(), "--format", "json", &name]);
    assert_eq!(saved["digest"], pushed.digest);
    let files = files(&archive);
    let entry = &json(&files, "index.json")["manifests"][0];
    assert_eq!(entry["digest"], pushed.digest);
    assert_eq!(sha256(&file(&files, &blob(&pushed.digest))), pushed.digest);
    for layer in &image.layers {
        assert_eq!(file(&files, &blob(&layer.digest())), layer.blob);
    }
    let item = &json(&files, "manifest.json")[0];
    assert_eq!(item["Config"], blob(&pushed.id));
    assert_eq!(item["RepoTags"], json!([name]));
    let layers: Vec<_> = image.layers.iter().map(|layer| blob(&layer.digest())).collect();
    assert_eq!(item["Layers"], json!(layers));
    let inspected = place.inspected(&format!("oci-archive:{}", archive.display()));
    assert_eq!(inspected["Digest"], pushed.digest);
}

#[test]
fn layers_without_blobs_are_saved_as_their_exact_tars_once() {
    let place = Place::new();
    let image = image("exact");
    let pushed = place.pull(&image, "save-exact", &[]);
    for (format, layer_path) in [
        (FORMATS[0], (|hex| format!("blobs/sha256/{hex}")) as fn(&str) -> String),
        (FORMATS[2], |hex| format!("{hex}.tar")),
    ] {
        let archive = place.path("image.tar");
        let to = archive.to_str().unwrap();
        place.rpull.ok([&["save", "-o", to], format, &[&pushed.name()]].concat());
        let files = files(&archive);
        for layer in &image.layers {
            assert_eq!(file(&files, &layer_path(hex(&layer.diff_id()))), layer.tar);
        }
        let mut names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a file is in the archive twice");
        assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn same_images_give_the_same_bytes_from_another_store() {
    let (one, two) = (Place::new(), Place::new());
    let images = [image("same"), oci_image("same-oci")];
    let mut saved = Vec::new();
    for place in [&one, &two] {
        let mut args = vec!["save".to_owned(), "-o".to_owned(), place.text("images.tar")];
        for (n, image) in images.iter().enumerate() {
            let pushed = image.push(&Hub::shared().host, &format!("archive/same-{n}:one"));
            place.rpull.ok(["pull", "-q", &pushed.name()]);
            args.push(pushed.name());
        }
        place.rpull.ok(args);
        saved.push(fs::read(place.path("images.tar")).unwrap());
    }
    assert!(saved[0] == saved[1], "the archives differ");
    // Standard output is the same archive.
    let names = [0, 1].map(|n| format!("{}/archive/same-{n}:one", Hub::shared().host));
    let output = one.rpull.command(["save", &names[0], &names[1]]).output().unwrap();
    assert!(output.stdout == saved[0], "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn names_are_chosen_as_docker_chooses_them() {
    let place = Place::new();
    let pushed = place.pull(&image("names"), "save-names", &[]);
    for name in ["app:1", "app:2", "other:1"] {
        place.rpull.ok(["tag", &pushed.name(), name]);
    }
    let saved = |args: &[&str]| {
        let to = place.text("names.tar");
        place.rpull.ok([&["save", "-o", &to], args].concat());
        let items = json(&files(&place.path("names.tar")), "manifest.json");
        assert_eq!(items.as_array().unwrap().len(), 1, "{items}");
        items[0]["RepoTags"].clone()
    };
    assert_eq!(saved(&["app"]), json!(["app:1", "app:2"]));
    assert_eq!(saved(&["app:2", "other", "app:2"]), json!(["app:2", "other:1"]));
    assert_eq!(saved(&[&pushed.id]), Value::Null);
    assert_eq!(saved(&[&hex(&pushed.id)[..12], "app:1"]), json!(["app:1"]));
    assert_eq!(saved(&[&pushed.by_digest()]), Value::Null);
    let archive = files(&place.path("names.tar"));
    assert_eq!(json(&archive, "index.json")["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn directory_is_a_layout_and_continues_after_an_interruption() {
    let place = Place::new();
    let image = oci_image("layout");
    let pushed = place.pull(&image, "save-layout", &["--keep-blobs"]);
    let (dir, name) = (place.text("layout/"), pushed.name());
    place.rpull.ok(["save", "-o", &dir, &name]);
    assert_eq!(place.inspected("oci:layout")["Digest"], pushed.digest);
    assert!(!place.path("layout/manifest.json").exists());
    let done = place.rpull.fails(2, ["save", "--dir", &dir, &name]);
    assert!(done.stderr.contains("it contains index.json"), "{done}");

    // What a killed save leaves, with a blob that is not whole.
    fs::remove_file(place.path("layout/index.json")).unwrap();
    let cut = place.path("layout").join(blob(&image.layers[0].digest()));
    fs::write(&cut, "cut").unwrap();
    place.rpull.ok(["save", "--dir", &dir, &name]);
    assert_eq!(fs::read(&cut).unwrap(), image.layers[0].blob);
    let docker = place.rpull.fails(2, ["save", "--format", "docker", "-o", &dir, &name]);
    assert!(docker.stderr.contains("a docker-archive is a file"), "{docker}");
    let outside = place.path("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir(place.path("linked")).unwrap();
    std::os::unix::fs::symlink(&outside, place.path("linked/blobs")).unwrap();
    place.rpull.fails(2, ["save", "--dir", &place.text("linked"), &name]);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn damaged_layer_or_full_disk_leaves_the_file_as_it_was() {
    let place = Place::new();
    let image = image("damaged");
    let pushed = place.pull(&image, "save-damaged", &[]);
    let layers = place.rpull.json(["layers", "--format", "json", &pushed.name()]);
    let damaged = format!("{}/etc/base", layers[0]["path"].as_str().unwrap());
    fs::write(damaged, "eval").unwrap();
    fs::create_dir(place.path("out")).unwrap();
    let to = place.text("out/image.tar");
    fs::write(&to, "before").unwrap();
    let done = place.rpull.fails(6, ["save", "-o", &to, &pushed.name()]);
    assert!(done.stderr.contains("etc/base"), "{done}");
    place.rpull.fails(6, ["save", "--dir", &place.text("layout"), &pushed.name()]);
    assert!(!place.path("layout/index.json").exists());
    place.rpull.fails(3, ["save", "-o", &to, "absent"]);
    place.rpull.fails(2, ["save", "-o", &to, "UPPER"]);
    assert_eq!(fs::read_to_string(&to).unwrap(), "before");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 1);

    let place = Place::new();
    let pushed = place.pull(&image, "save-full", &[]);
    let done = place.rpull.fails(7, ["save", "-o", "/dev/full", &pushed.name()]);
    assert!(done.stderr.contains("cannot write the archive: No space left"), "{done}");
    place.rpull.fails(2, ["save", "-o", &place.text("absent/image.tar"), &pushed.name()]);
}

#[test]
fn archive_of_a_damaged_blob_is_an_error() {
    let place = Place::new();
    let image = image("blob");
    let pushed = place.pull(&image, "save-blob", &["--keep-blobs"]);
    let kept = place.rpull.root().join("rpull/content").join(blob(&image.layers[2].digest()));
    let mut bytes = image.layers[2].blob.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(kept, bytes).unwrap();
    let to = place.text("image.tar");
    let done = place.rpull.fails(6, ["save", "-o", &to, &pushed.name()]);
    assert!(done.stderr.contains("is damaged: its digest is sha256:"), "{done}");
    assert!(!place.path("image.tar").exists());
    // A docker-archive needs no blobs.
    place.rpull.ok(["save", "--format", "docker", "-o", &to, &pushed.name()]);
}

#[test]
fn memory_of_a_save_and_a_load_is_bounded() {
    let place = Place::new();
    let image = Image::new().layer(Tar::new().file("noise", noise(120 << 20)).end());
    let manifest = json!([{"Config": "c", "RepoTags": ["large:1"], "Layers": ["l"]}]).to_string();
    let tar = Tar::new().file("l", &image.layers[0].tar).file("c", image.config());
    fs::write(place.path("in.tar"), tar.file("manifest.json", manifest).end()).unwrap();
    let input = fs::File::open(place.path("in.tar")).unwrap();
    let mut load = place.rpull.command(["load"]);
    load.stdin(input).stdout(std::process::Stdio::null());
    assert_takes_memory_below(64, load);
    let save = place.rpull.command(["save", "-o", &place.text("out.tar"), "large:1"]);
    assert_takes_memory_below(64, save);
}

#[test]
fn removal_waits_until_an_archive_is_written() {
    let place = Place::new();
    let image = Image::new().layer(Tar::new().file("noise", noise(1 << 20)).end());
    let name = place.pull(&image, "save-waits", &[]).name();
    // A pipe takes 64 KiB, so the archive is not written before it is read.
    let mut save = place.rpull.command(["save", &name]);
    let mut save = save.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = save.stdout.take().unwrap();
    out.read_exact(&mut [0; 512]).unwrap();
    let mut rm = place.rpull.command(["rm", &name]);
    let mut rm = rm.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(rm.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("waiting for "), "{line}");
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert!(save.wait().unwrap().success() && rm.wait().unwrap().success());
    assert!(rest.len() > 1 << 20);
    assert_empty(place.rpull.root());
}

#[test]
fn format_of_an_archive_is_refused_by_other_commands() {
    let place = Place::new();
    let done = place.rpull.fails(2, ["images", "--format", "oci"]);
    assert!(done.stderr.contains("work with save"), "{done}");
    let done = place.rpull.fails(2, ["save", "--format", "{{.ID}}", "x"]);
    assert!(done.stderr.contains("templates work with"), "{done}");
    let done = place.rpull.fails(2, ["save", "--format", "json", "x"]);
    assert!(done.stderr.contains("needs -o FILE"), "{done}");
}
