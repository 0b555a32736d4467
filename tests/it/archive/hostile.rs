//! Archives that no tool writes: nothing of them gets into the store, and nothing outside of it changes.

use std::fs;

use serde_json::json;

use super::*;
use crate::support::image::{gzip, sha256};

/// A docker-archive of `image` whose parts can be replaced.
fn archive(image: &Image, manifest: &Value) -> Tar {
    let mut tar = Tar::new().file("manifest.json", manifest.to_string());
    for (n, layer) in image.layers.iter().enumerate() {
        tar = tar.file(&format!("{n}.tar"), &layer.tar);
    }
    tar.file("config.json", image.config())
}

fn manifest(layers: usize) -> Value {
    let layers: Vec<_> = (0..layers).map(|n| format!("{n}.tar")).collect();
    json!([{"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": layers}])
}

#[track_caller]
fn refused(place: &Place, code: i32, tar: &[u8], says: &str) {
    fs::write(place.path("hostile.tar"), tar).unwrap();
    let done = place.rpull.fails(code, ["load", "-i", &place.text("hostile.tar")]);
    assert!(done.stderr.contains(says), "{says}: {done}");
    assert!(!done.stderr.contains("panicked"), "{done}");
    assert_eq!(done.stdout, "", "{done}");
    assert_eq!(place.rpull.ok(["images", "-aq"]), "", "{says}");
    let left = |path: &str| {
        let entries = fs::read_dir(place.rpull.root().join(path));
        entries.map_or(0, Iterator::count)
    };
    for path in ["image/overlay2/layerdb/tmp", "image/overlay2/layerdb/sha256", "rpull/tmp"] {
        assert_eq!(left(path), 0, "{says}: {path}");
    }
}

#[test]
fn document_that_is_invalid_is_refused() {
    let place = Place::new();
    let image = Image::new().layer(Tar::new().file("a", "a").end());
    place.rpull.fails(3, ["load", "-i", "/absent"]);
    // A root, so that its images can be listed.
    place.pull(&image, "hostile-root", &[]);
    let pushed = place.rpull.ok(["images", "-q", "--no-trunc"]);
    place.rpull.ok(["rm", pushed.trim()]);
    let check = |code, tar: Vec<u8>, says: &str| refused(&place, code, &tar, says);
    let with = |manifest: Value| archive(&image, &manifest).end();
    let one = |key: &str, value: Value| {
        let mut manifest = manifest(1);
        manifest[0][key] = value;
        with(manifest)
    };
    check(6, b"text".to_vec(), "invalid archive");
    check(6, Tar::new().file("x", "x").end(), "neither index.json nor manifest.json");
    check(6, Tar::new().file("repositories", "{}").end(), "before 1.10");
    check(6, Tar::new().file("manifest.json", "[").end(), "manifest.json: EOF");
    check(6, Tar::new().file("index.json", "[7]").end(), "index.json: ");
    check(6, Tar::new().file("index.json", "{}").end(), "it lists no images");
    check(6, with(json!({"Config": 1})), "manifest.json: ");
    check(6, one("Config", json!("absent")), "absent is missing");
    check(6, one("Config", json!("../../etc/passwd")), "is missing");
    check(6, one("Layers", json!(["/etc/passwd"])), "/etc/passwd is missing");
    check(6, one("Layers", json!(["0.tar", "0.tar"])), "layers from manifest don't match");
    check(6, one("Layers", Value::Null), "layers from manifest don't match");
    check(6, one("RepoTags", json!(["UPPER:1"])), "invalid tag 'UPPER:1'");
    check(6, one("RepoTags", json!(["a"])), "invalid tag 'a'");
    check(6, one("RepoTags", json!(["a:1\n\u{1b}[2J"])), r"invalid tag 'a:1; \u{1b}[2J'");
    check(6, one("Config", json!("0.tar")), "invalid image config");
    let big = vec![b' '; (8 << 20) + 1];
    check(6, Tar::new().file("manifest.json", &big).end(), "the limit is 8388608");
    let sparse = Entry::file("manifest.json", "").claims(1 << 40);
    check(6, Tar::new().add(sparse).end(), "truncated");
}

#[test]
fn layer_that_is_not_what_the_config_says_is_refused() {
    let place = Place::new();
    let layer = Tar::new().file("a", "a").end();
    let image = Image::new().layer(layer.clone());
    place.pull(&image, "hostile-layers", &[]);
    let pushed = place.rpull.ok(["images", "-q", "--no-trunc"]);
    place.rpull.ok(["rm", pushed.trim()]);
    let wrong = image.clone().claims_diff_ids(vec![sha256(b"other")]);
    refused(&place, 6, &archive(&wrong, &manifest(1)).end(), "digest");
    let mut config = wrong;
    config.layers[0].tar = gzip(&layer);
    refused(&place, 6, &archive(&config, &manifest(1)).end(), "verification failed");
    let climbing = Image::new().layer(Tar::new().file("../../../escaped", "x").end());
    fs::write(place.path("hostile.tar"), archive(&climbing, &manifest(1)).end()).unwrap();
    // As for a pull: the name stays within the layer, or is refused.
    place.rpull.run(["load", "-i", &place.text("hostile.tar")]);
    assert!(!place.path("escaped").exists() && !place.rpull.root().join("escaped").exists());
    let place = Place::new();
    place.pull(&image, "hostile-layers", &[]);
    place.rpull.ok(["rm", pushed.trim()]);
    let many = Image::new().layer(Tar::new().file("a", "a").file("b", "b").end());
    fs::write(place.path("hostile.tar"), archive(&many, &manifest(1)).end()).unwrap();
    let limit = ["load", "--max-entries", "1", "-i", &place.text("hostile.tar")];
    place.rpull.fails(6, limit);
    let text = place.text("bomb.tar.gz");
    fs::write(&text, gzip(&archive(&many, &manifest(1)).end())).unwrap();
    place.rpull.fails(6, ["load", "--max-image-size", "100", "-i", &text]);
    assert_eq!(place.rpull.ok(["images", "-aq"]), "");
}

#[test]
fn links_and_odd_files_lead_nowhere() {
    let place = Place::new();
    let image = Image::new().layer(Tar::new().file("a", "a").end());
    place.pull(&image, "hostile-links", &[]);
    let pushed = place.rpull.ok(["images", "-q", "--no-trunc"]);
    place.rpull.ok(["rm", pushed.trim()]);
    let text = manifest(1).to_string();
    for link in [
        Entry::symlink("0.tar", "0.tar"),
        Entry::symlink("0.tar", "/etc/passwd"),
        Entry::symlink("0.tar", "../../etc/passwd"),
        Entry::hardlink("0.tar", "/etc/passwd"),
        Entry::char_device("0.tar", 1, 5),
    ] {
        let tar = Tar::new()
            .file("manifest.json", &text)
            .file("config.json", image.config())
            .add(link)
            .end();
        refused(&place, 6, &tar, "0.tar is missing");
    }
    // A directory whose links leave it, or whose index is not a file.
    let layout = place.path("layout");
    fs::create_dir(&layout).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", layout.join("index.json")).unwrap();
    let load = ["load", "-i", layout.to_str().unwrap()];
    let done = place.rpull.fails(6, load);
    assert!(done.stderr.contains("neither index.json nor manifest.json"), "{done}");
    fs::remove_file(layout.join("index.json")).unwrap();
    assert!(Command::new("mkfifo").arg(layout.join("index.json")).status().unwrap().success());
    place.rpull.fails(6, load);
    let blob = "sha256:".to_owned() + &"0".repeat(64);
    let index = json!({"manifests": [{"mediaType": "m", "digest": blob, "size": 1}]});
    fs::remove_file(layout.join("index.json")).unwrap();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let done = place.rpull.fails(6, load);
    assert!(done.stderr.contains("it has no blob sha256:0000"), "{done}");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join("0".repeat(64)), "x").unwrap();
    let done = place.rpull.fails(6, load);
    assert!(done.stderr.contains("the digest of a document is"), "{done}");
}
