//! Archives as sources of a pull: `rpull oci:DIR:NAME`.

use std::fs;

use super::*;

#[test]
fn image_of_each_transport_is_pulled() {
    let place = Place::new();
    let image = oci_image("transport");
    let pushed = place.pull(&image, "source", &["--keep-blobs"]);
    let name = pushed.name();
    place.rpull.ok(["save", "-o", &place.text("layout/"), &name]);
    place.rpull.ok(["save", "-o", &place.text("both.tar"), &name]);
    let (layout, both) = (place.text("layout"), place.text("both.tar"));
    for (n, source) in [
        format!("oci:{layout}:{name}"),
        format!("oci:{layout}"),
        format!("oci:{layout}:one"),
        format!("oci-archive:{both}:{name}"),
        format!("docker-archive:{both}:{name}"),
        format!("docker-archive:{both}"),
    ]
    .iter()
    .enumerate()
    {
        let root = place.other(&format!("root-{n}"));
        let planned = root.json(["pull", "--dry-run", "--format", "json", source]);
        assert_eq!((&planned["id"], &planned["requests"]), (&pushed.id.clone().into(), &0.into()));
        let said = root.ok(["pull", source]);
        assert!(said.contains(&format!("Status: Downloaded newer image for {name}")), "{said}");
        let inspected = root.json(["inspect", &name]);
        assert_eq!(inspected[0]["Id"], pushed.id, "{source}");
        let again = root.ok([source]);
        assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    }
    // As the cache of the pull itself is a layout.
    let cache = format!("oci:{}/rpull/content:{name}", place.rpull.root().display());
    place.other("cached").ok([&*cache]);
}

#[test]
fn image_that_the_archive_does_not_name_is_not_found() {
    let place = Place::new();
    let pushed = place.pull(&image("choose"), "source-choose", &[]);
    for name in ["choose:1", "choose:2"] {
        place.rpull.ok(["tag", &pushed.name(), name]);
    }
    let other = place.pull(&image("choose-other"), "source-other", &[]);
    place.rpull.ok(["save", "-o", &place.text("layout/"), "choose", &other.name()]);
    let root = place.other("other");
    let layout = format!("oci:{}", place.text("layout"));
    let several = root.fails(2, ["pull", &layout]);
    assert!(several.stderr.contains("the archive has 2 images: "), "{several}");
    let none = root.fails(3, ["pull", &format!("{layout}:absent")]);
    assert!(none.stderr.contains("the archive has no image 'absent'"), "{none}");
    root.fails(3, ["pull", "oci:/absent/layout"]);
    let file = place.path("file");
    fs::write(&file, "text").unwrap();
    root.fails(6, ["pull", &format!("oci-archive:{}", file.display())]);
    root.ok(["pull", "-q", &format!("{layout}:choose:2")]);
    assert_eq!(root.json(["inspect", "choose:2"])[0]["RepoTags"], serde_json::json!(["choose:2"]));
}
