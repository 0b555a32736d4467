//! The tree of layers and its picture, of images that were pulled.

use std::fs;
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::tar::Tar;

fn tar(mark: &str) -> Vec<u8> {
    Tar::new().file(mark, mark).end()
}

/// Pulls two images that share a base layer, and one that has the top layer of the first above another
/// base.
fn pulled(rpull: &Rpull) -> [Pushed; 3] {
    let hub = Hub::shared();
    let repository = hub.repository("tree");
    [["base", "one"], ["base", "two"], ["other", "one"]].map(|marks| {
        let image = marks.iter().fold(Image::new(), |image, mark| image.layer(tar(mark)));
        let pushed = image.push(&hub.host, &format!("{repository}:{}-{}", marks[0], marks[1]));
        rpull.ok(["pull", "-q", &pushed.name()]);
        pushed
    })
}

#[test]
fn tree_of_pulled_images_shows_shared_layers_once() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let images = pulled(&rpull);
    let json = rpull.json(["layers", "--tree", "--format", "json"]);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5, "{json}");
    assert_eq!(layers[0]["images"], serde_json::json!([images[0].id, images[1].id]), "{json}");
    let copies: Vec<_> = layers.iter().map(|layer| layer["copies"].as_u64().unwrap()).collect();
    assert_eq!(copies, [1, 2, 1, 1, 2], "{json}");
    // The same numbers as those of other commands.
    let alone = rpull.json(["layers", "--format", "json", &images[1].name()]);
    for (layer, same) in [(0, 0), (2, 1)] {
        for key in ["position", "distributionId", "diffId", "chainId", "cacheId", "size", "path"] {
            assert_eq!(layers[layer][key], alone[same][key], "{key}");
        }
    }
    let space = rpull.json(["df", "--format", "json"]);
    for image in json["images"].as_array().unwrap() {
        let same = space["Images"].as_array().unwrap().iter().find(|it| it["Id"] == image["id"]);
        let same = same.unwrap();
        assert_eq!((&image["size"], &image["unique"]), (&same["Size"], &same["UniqueSize"]));
    }

    let text = rpull.ok(["layers", "--tree"]);
    assert!(
        text.is_ascii() && text.contains("|- ") && text.contains("3 images, 5 layers"),
        "{text}"
    );
    let mut utf8 = rpull.command(["layers", "--tree", "--no-trunc"]);
    let utf8 = utf8.env("LC_CTYPE", "C.UTF-8").output().unwrap();
    let text = String::from_utf8(utf8.stdout).unwrap();
    assert!(text.contains(&format!("└─ {}", alone[1]["chainId"].as_str().unwrap())), "{text}");
    let other = rpull.ok(["layers", "--tree", &images[2].name()]);
    assert!(other.contains("1 image, 2 layers") && !other.contains("base-"), "{other}");
    assert_eq!(rpull.ok(["-q", "layers", "--tree"]).lines().count(), 5);
}

#[test]
fn picture_is_well_formed_and_has_every_id() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root <&>"));
    pulled(&rpull);
    let file = scratch.path().join("layers.svg");
    assert_eq!(rpull.ok(["layers", "--svg", file.to_str().unwrap()]), "");
    let svg = fs::read_to_string(&file).unwrap();
    assert_eq!(rpull.ok(["layers", "--svg", "-"]), svg);
    let json = rpull.json(["layers", "--tree", "--format", "json"]);
    for layer in json["layers"].as_array().unwrap() {
        for key in ["distributionId", "diffId", "chainId", "cacheId"] {
            assert!(svg.contains(layer[key].as_str().unwrap()), "{key}: {layer}");
        }
    }
    let parse = "import sys, xml.dom.minidom as dom; root = dom.parse(sys.argv[1]).documentElement; \
                 print(root.tagName, len(root.getElementsByTagName('rect')))";
    let parsed = Command::new("python3").args(["-c", parse]).arg(&file).output().unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    // The background, the five layers and the three images.
    assert_eq!(String::from_utf8_lossy(&parsed.stdout), "svg 9\n");
    rpull.fails(2, ["layers", "--svg", "-", "--tree"]);
    rpull.fails(2, ["layers"]);
    for place in ["/nonexistent/file", "/dev/full"] {
        let done = rpull.fails(1, ["layers", "--svg", place]);
        assert!(done.stderr.contains(&format!("cannot write {place}: ")), "{done}");
    }
}
