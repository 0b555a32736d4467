//! `rpull diff` of images and of layers.

use super::*;

#[test]
fn difference_of_layers_has_what_the_upper_ones_change() {
    let place = Place::new("diff-layers");
    let name = place.image.name();
    let lines = place.rpull.ok(["diff", "--layers", "1..2", &name]);
    let expected = [
        "C /etc",
        "D /etc/deleted (1B)",
        "C /hidden",
        "D /hidden/keep",
        "A /hidden/new (3B)",
        "D /hidden/old (1B)",
        "C /was-a-dir (1B)",
        "C /was-a-file (1B)",
        "A /was-a-file/below (1B)",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let stat = place.rpull.ok(["diff", "--stat", "--layers", "1..2", &name]);
    assert_eq!(stat, "2 added (4B), 4 changed (1B), 3 deleted (3B)\n");
    let back = place.rpull.ok(["diff", "--layers", "2..1", &name]);
    assert!(
        back.contains("A /etc/deleted (1B)\n") && back.contains("D /hidden/new (3B)\n"),
        "{back}"
    );
    assert_eq!(place.rpull.ok(["diff", "--layers", "2..2", &name]), "");
    for wrong in ["1..9", "0..1", "1", "a..b"] {
        assert_ne!(place.rpull.run(["diff", "--layers", wrong, &name]).code, Some(0), "{wrong}");
    }
}

#[test]
fn difference_of_images_that_share_layers_is_that_of_the_others() {
    let place = Place::new("diff-images");
    let hub = Hub::shared();
    let more = image().layer(Tar::new().file("etc/more", "more").end());
    let more = more.push(&hub.host, &format!("{}:one", hub.repository("diff-more")));
    place.rpull.ok(["pull", "-q", &more.name()]);
    let (one, two) = (place.image.name(), more.name());
    let lines = place.rpull.ok(["diff", &one, &two]);
    // A directory that no layer describes has no mode of its own to compare: 0755 in both.
    assert_eq!(lines, "C /etc\nA /etc/more (4B)\n");
    assert_eq!(place.rpull.ok(["diff", &two, &one]), "C /etc\nD /etc/more (4B)\n");
    let done = place.rpull.fails(2, ["diff", &one]);
    assert!(done.stderr.contains("give a second one"), "{done}");
    place.rpull.fails(3, ["diff", &one, "absent"]);
}
