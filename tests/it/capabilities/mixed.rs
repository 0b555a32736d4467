//! Roots that processes with and without capabilities write to.

use std::fs;

use super::process::{As, DOCKER, Place};
use super::{ALL, base, mounted, push, top};
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch::Mounted;
use crate::support::snapshot::{assert_consistent, names};
use crate::support::tar::{Entry, Tar};
use crate::support::wait;

const LIMITED: As = As::Root(DOCKER);

/// An image on the other one, with another opaque directory.
fn push_child(stem: &str) -> Pushed {
    let hub = Hub::shared();
    let name = format!("{}:latest", hub.repository(&format!("capabilities-{stem}")));
    let third = Tar::new().add(Entry::opaque("implied")).file("implied/new", "new").end();
    Image::new().layer(base()).layer(top()).layer(third).push(&hub.host, &name)
}

/// A tree without the names that the images delete.
fn assert_right(tree: &str) {
    for deleted in ["hidden/old", "deleted", "sealed"] {
        assert!(!tree.contains(deleted), "{deleted} is shown in\n{tree}");
    }
    assert!(tree.contains("hidden/new") && tree.contains("implied/new"), "{tree}");
}

#[test]
fn image_with_both_kinds_of_marks_is_refused_until_a_privileged_pull() {
    let place = Place::new(&LIMITED);
    let (parent, child) = (push("parent"), push_child("child"));
    let privileged = Rpull::on(place.root());
    privileged.ok(["pull", "-q", &parent.name()]);
    let before = names(&place.root().join("overlay2"));
    let done = place.run(&LIMITED, &["pull", &child.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    let after = names(&place.root().join("overlay2"));
    assert!(before.iter().all(|layer| after.contains(layer)), "no privileged layer is replaced");

    let m = place.path().join("m");
    fs::create_dir(&m).unwrap();
    let m = m.to_str().unwrap();
    for args in [&["mount", "--print"][..], &["mount"]] {
        let name = child.name();
        let args = [args, &[&name, m]].concat();
        let done = place.run(&LIMITED, &args);
        assert!(done.code == Some(7) && done.stderr.contains("hint: pull it again"), "{done}");
        let done = privileged.fails(7, args);
        assert!(done.stderr.contains("user.overlay.*"), "{done}");
    }
    // This process cannot read the marks of the other image either.
    let done = place.run(&LIMITED, &["mount", "--print", &parent.name(), m]);
    assert!(done.code == Some(7) && done.stderr.contains("cannot read them"), "{done}");
    assert!(mounted(&privileged, &parent).lines().count() == ALL.len());

    let done = privileged.run(["pull", "--policy", "never", &child.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("unpacked without privileges"), "{done}");
    let done = privileged.run(["pull", &child.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_right(&mounted(&privileged, &child));
    assert_consistent(&place.root());
    privileged.ok(["check", "--deep"]);
}

#[test]
fn image_without_opaque_directories_above_its_base_is_mounted_by_anyone() {
    let place = Place::new(&LIMITED);
    let hub = Hub::shared();
    let name = format!("{}:latest", hub.repository("capabilities-plain"));
    let plain = Tar::new().add(Entry::whiteout("deleted")).file("new", "new").end();
    let opaque = Tar::new().add(Entry::opaque("implied")).file("implied/new", "").end();
    let image = Image::new().layer(base()).layer(plain);
    let (below, above) = (image.clone(), image.layer(opaque));
    let below = below.push(&hub.host, &name);
    let above = above.push(&hub.host, &name.replace("latest", "above"));
    let privileged = Rpull::on(place.root());
    privileged.ok(["pull", "-q", &below.name()]);
    let done = place.run(&LIMITED, &["mount", "--print", &below.name(), "/m"]);
    assert!(done.code == Some(0) && done.stdout.contains("userxattr"), "{done}");
    let done = place.run(&LIMITED, &["pull", "-q", &above.name()]);
    assert_eq!(done.code, Some(0), "{done}");
    let done = place.run(&LIMITED, &["mount", "--print", &above.name(), "/m"]);
    assert!(done.code == Some(0) && done.stdout.contains("userxattr"), "{done}");
    let tree = mounted(&privileged, &above);
    assert!(!tree.contains("sealed") && !tree.contains("deleted"), "{tree}");
}

#[test]
fn privileged_pull_of_unprivileged_layers_makes_no_request() {
    let place = Place::new(&LIMITED);
    let pushed = push("requests");
    let proxy = Proxy::new(|_, _| Fault::None);
    let name = proxy.name(&pushed.by_digest());
    assert_eq!(place.run(&LIMITED, &["pull", "-q", &name]).code, Some(0));
    let before = proxy.requests().len();
    let privileged = Rpull::on(place.root());
    let done = privileged.run(["pull", &name]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("unpacking them again"), "{done}");
    assert_eq!(proxy.requests().len(), before, "not even one for the manifest");
    privileged.ok(["check", "--deep"]);
}

#[test]
fn privileged_pull_replaces_a_layer_that_an_unprivileged_one_staged_meanwhile() {
    let place = Place::new(&LIMITED);
    let hub = Hub::shared();
    let push = |base: Vec<u8>, stem: &str| {
        let image = Image::new().layer(base).layer(top());
        let blob = image.layers[0].digest();
        (image.push(&hub.host, &format!("{}:latest", hub.repository(stem))), blob)
    };
    let (stalled, base) = push(base(), "capabilities-stalled");
    let (other, _) = push(Tar::new().file("hidden/old", "other").end(), "capabilities-other");
    let proxy = Proxy::new(move |_, path| match path.contains(&base) {
        true => Fault::Stall(0),
        false => Fault::None,
    });
    // The base does not arrive, so the layer above it is staged and not committed.
    let mut command = place.command(&LIMITED, &["pull", "-q", &proxy.name(&stalled.name())]);
    let mut child = command.spawn().unwrap();
    let staged = place.root().join("image/overlay2/layerdb/tmp");
    let is_complete = |name: &String| name.starts_with("complete-");
    wait::until("a staged layer", || names(&staged).iter().any(is_complete));
    let privileged = Rpull::on(place.root());
    let done = privileged.run(["pull", "-q", &other.name()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(done.code, Some(0), "{done}");
    privileged.ok(["check", &other.name()]);
    let tree = mounted(&privileged, &other);
    assert!(tree.contains("hidden/new") && !tree.contains("hidden/old"), "{tree}");
}

#[test]
fn check_repair_with_capabilities_unpacks_unprivileged_layers_again() {
    let place = Place::new(&LIMITED);
    let pushed = push_child("repair");
    assert_eq!(place.run(&LIMITED, &["pull", "-q", &pushed.by_digest()]).code, Some(0));
    let privileged = Rpull::on(place.root());
    let done = privileged.fails(6, ["check"]);
    assert!(done.stdout.contains("which dockerd ignores"), "{done}");
    // A mounted layer stays.
    let image = names(&place.root().join("image/overlay2/imagedb/content/sha256")).remove(0);
    let m = tempfile::tempdir().unwrap();
    privileged.ok(["mount", &image, m.path().to_str().unwrap()]);
    let mount = Mounted(m.path().to_owned());
    let done = privileged.fails(6, ["check", "--repair"]);
    assert!(done.stdout.contains("unmount it first"), "{done}");
    let done = privileged.run(["pull", &pushed.by_digest()]);
    assert!(done.code == Some(0) && done.stderr.contains("is mounted at"), "{done}");
    assert!(m.path().join("implied/new").exists() && !m.path().join("implied/sealed").exists());
    drop(mount);
    let done = privileged.run(["check", "--repair"]);
    assert_eq!(done.code, Some(0), "{done}");
    privileged.ok(["pull", "-q", &pushed.name()]);
    assert_right(&mounted(&privileged, &pushed));
}

#[test]
fn record_of_a_layer_lasts_as_long_as_the_layer() {
    let place = Place::new(&LIMITED);
    let hub = Hub::shared();
    let name = format!("{}:latest", hub.repository("capabilities-record"));
    let top = Tar::new().add(Entry::opaque("d")).file("d/new", "").end();
    let pushed = Image::new().layer(Tar::new().file("d/old", "").end()).layer(top);
    let pushed = pushed.push(&hub.host, &name);
    let records = || names(&place.root().join("rpull/omitted"));
    let layers = || {
        let db = place.root().join("image/overlay2/layerdb/sha256");
        let id = |chain: &String| fs::read_to_string(db.join(chain).join("cache-id")).unwrap();
        let mut ids: Vec<String> = names(&db).iter().map(id).collect();
        ids.sort();
        ids
    };
    let mut killed = 0;
    // Killed after each file operation of a pull.
    for n in 1.. {
        let _ = fs::remove_dir_all(place.root());
        let mut command = place.command(&LIMITED, &["pull", "-q", &pushed.name()]);
        let done = Done::from(command.env("RPULL_FAIL_AT", n.to_string()).output().unwrap());
        if done.code == Some(0) {
            break;
        }
        killed += 1;
        let left: Vec<String> =
            layers().into_iter().filter(|layer| !records().contains(layer)).collect();
        assert!(left.is_empty(), "killed at {n}: {left:?} have no record");
        if n % 12 == 0 {
            for args in [&["pull", "-q", &pushed.name()][..], &["gc"]] {
                let done = place.run(&LIMITED, args);
                assert_eq!(done.code, Some(0), "after {n}: {done}");
            }
            assert_eq!(records(), layers(), "after {n}");
            assert_consistent(&place.root());
        }
    }
    assert!(killed > 30, "killed {killed} times");
    assert_eq!(records(), layers());
    let done = place.run(&LIMITED, &["rm", &pushed.name()]);
    assert_eq!((done.code, records().len()), (Some(0), 0), "{done}");
}

/// As after a power failure: nothing is known about the marks of the layers.
#[test]
fn record_that_lost_its_content_is_replaced_by_a_look_at_the_layer() {
    let place = Place::new(&LIMITED);
    let pushed = push_child("lost");
    assert_eq!(place.run(&LIMITED, &["pull", "-q", &pushed.name()]).code, Some(0));
    let records = place.root().join("rpull/omitted");
    for record in names(&records) {
        fs::write(records.join(record), "").unwrap();
    }
    let privileged = Rpull::on(place.root());
    let done = privileged.fails(6, ["check"]);
    assert!(done.stdout.contains("it is unknown what it lacks"), "{done}");
    assert_right(&mounted(&privileged, &pushed));
    assert_eq!(place.run(&LIMITED, &["check"]).code, Some(0));
    privileged.ok(["pull", "-q", &pushed.name()]);
    assert_right(&mounted(&privileged, &pushed));
    privileged.ok(["check"]);
}
