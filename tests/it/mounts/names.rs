//! Writable mounts by their names, and mounts of some of an image's layers.
//!
//! A daemon of another test has a copy of each mount that is there when it starts, and with it a use of a writable
//! mount. Tests for which that matters have a mount namespace of their own.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Place, run};
use crate::support::rpull::Done;
use crate::support::scratch::{Mounted, in_private_mounts};

impl Place {
    /// Another mount point.
    fn dir(&self, name: &str) -> (String, Mounted) {
        let dir = self.scratch.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        (dir.to_str().unwrap().to_owned(), Mounted(dir))
    }

    /// The line of `mounts` with a name.
    #[track_caller]
    fn named(&self, name: &str) -> Value {
        let mut lines = self.mounts();
        lines.retain(|line| line["name"] == name);
        assert_eq!(lines.len(), 1, "{:?}", self.mounts());
        lines.remove(0)
    }

    /// The layers of the image, as `layers` lists them.
    fn layers(&self) -> Vec<Value> {
        let layers = self.rpull.json(["layers", "--format", "json", &self.image]);
        layers.as_array().unwrap().clone()
    }
}

fn done(child: Child) -> Done {
    child.wait_with_output().unwrap().into()
}

#[test]
fn writable_mounts_of_one_image_never_see_the_changes_of_each_other() {
    in_private_mounts(|| {
        let place = Place::new(3, "apart");
        let image = place.image.as_str();
        let dirs = ["a", "b", "c"].map(|name| (name, place.dir(name)));
        for (name, (dir, _)) in &dirs {
            place.rpull.ok(["mount", "--rw", "--name", name, image, dir]);
        }
        for (name, (dir, _)) in &dirs {
            fs::write(format!("{dir}/own"), name).unwrap();
            fs::remove_file(format!("{dir}/f0")).unwrap();
        }
        for (name, (dir, _)) in &dirs {
            assert_eq!(fs::read_to_string(format!("{dir}/own")).unwrap(), *name);
            assert_eq!(fs::read_dir(dir).unwrap().count(), 3);
            let line = place.named(name);
            assert_eq!((&line["target"], &line["image"]), (&dir.as_str().into(), &image.into()));
            assert!(line["written"].as_u64().unwrap() > 0 && line["created"].is_string(), "{line}");
            let said = place.rpull.ok(["umount", name]);
            assert!(said.starts_with(&format!("changes of {name} are kept in /")), "{said}");
        }
        // The layers are as they were.
        place.rpull.ok(["check", "--deep"]);
        assert_eq!(place.rpull.ok(["mounts", "rm", "a", "b"]), "a\nb\n");
        place.rpull.ok(["umount", "--discard", "c"]);
        assert_eq!(place.kept(), 0);
    });
}

#[test]
fn stale_mount_is_listed_and_mounted_again_with_its_changes() {
    in_private_mounts(|| {
        let place = Place::new(2, "stale");
        let (at, image) = (place.at(), place.image.as_str());
        place.rpull.ok(["mount", "--rw", "--name", "web", image, at]);
        fs::write(place.at.join("new"), "text").unwrap();
        let busy = place.rpull.fails(8, ["mount", "web", at]);
        assert!(busy.stderr.contains("cannot mount web: it is mounted at /"), "{busy}");
        // As after a restart of the machine.
        run("umount", &[at]);
        let line = place.named("web");
        assert_eq!((&line["mounted"], &line["target"]), (&false.into(), &Value::Null));
        assert_eq!(line["lastTarget"], at);
        assert!(place.rpull.ok(["mounts"]).contains("stale"));
        let (other, _mounted) = place.dir("other");
        let said = place.rpull.ok(["mount", "web", &other]);
        assert!(said.starts_with("changes of web are written to /"), "{said}");
        assert_eq!(fs::read_to_string(format!("{other}/new")).unwrap(), "text");
        assert_eq!(fs::read_to_string(format!("{other}/f1")).unwrap(), "1");
        assert_eq!(place.named("web")["target"], other.as_str());

        // An image of the same name is mounted by its tag.
        place.rpull.ok(["tag", image, "web:latest"]);
        place.rpull.ok(["mount", "web:latest", at]);
        assert!(!place.at.join("new").exists());
        let refused = place.rpull.fails(2, ["mount", "--rw", "--name", "x/y", "web:latest", at]);
        assert!(refused.stderr.contains("'x/y' is not a name"), "{refused}");
        place.rpull.ok(["umount", at]);
        place.rpull.ok(["rm", "web:latest"]);
        let refused = place.rpull.fails(2, ["mount", "--at-layer", "1", "web", at]);
        assert!(refused.stderr.contains("web is a writable mount, not an image"), "{refused}");
        place.rpull.ok(["umount", "--discard", "web"]);
        let missing = place.rpull.fails(3, ["mount", "web", at]);
        assert!(missing.stderr.contains("no such writable mount or image: web"), "{missing}");
    });
}

#[test]
fn image_below_a_writable_mount_is_not_removed() {
    in_private_mounts(|| {
        let place = Place::new(2, "based");
        let (at, image) = (place.at(), place.image.as_str());
        place.rpull.ok(["mount", "--rw", "--name", "web", "--at-layer", "1", image, at]);
        fs::write(place.at.join("new"), "text").unwrap();
        let refused = || {
            for args in [&["rm", image][..], &["rm", "-f", image]] {
                let busy = place.rpull.fails(8, args);
                assert!(busy.stderr.contains("the writable mount web is based on it"), "{busy}");
                assert!(busy.stderr.contains("`rpull umount --discard web`"), "{busy}");
            }
            let pruned = place.rpull.run(["prune", "--unused-for", "0s"]);
            assert!(pruned.stderr.contains("the writable mount web is based on it"), "{pruned}");
            place.rpull.ok(["gc"]);
            place.rpull.ok(["check", "--deep"]);
            assert_eq!(place.layers().len(), 2);
        };
        refused();
        place.rpull.ok(["umount", "web"]);
        refused();
        // Only a name is removed.
        place.rpull.ok(["tag", image, "other:name"]);
        place.rpull.ok(["rm", "other:name"]);
        // If another program removes the image, its layers stay for the mount.
        let id = place.rpull.ok(["images", "-q", "--no-trunc", image]);
        let hex = id.trim().trim_start_matches("sha256:");
        let docker = place.rpull.root().join("image/overlay2");
        fs::remove_file(docker.join("imagedb/content/sha256").join(hex)).unwrap();
        fs::write(docker.join("repositories.json"), r#"{"Repositories":{}}"#).unwrap();
        place.rpull.ok(["gc"]);
        assert_eq!(fs::read_dir(docker.join("layerdb/sha256")).unwrap().count(), 1);
        place.rpull.ok(["mount", "web", at]);
        assert_eq!(fs::read_to_string(place.at.join("new")).unwrap(), "text");
        assert_eq!(fs::read_to_string(place.at.join("f0")).unwrap(), "0");
        place.rpull.ok(["umount", "--discard", "web"]);
        place.rpull.ok(["gc"]);
        assert_eq!(fs::read_dir(docker.join("layerdb/sha256")).unwrap().count(), 0);
    });
}

#[test]
fn mount_at_a_layer_shows_the_layers_up_to_it() {
    let place = Place::new(3, "at-layer");
    let (at, image) = (place.at(), place.image.as_str());
    let layers = place.layers();
    let files = |args: &[&str]| {
        place.rpull.ok(["mount"].iter().chain(args).chain(&[image, at]));
        let files = fs::read_dir(at).unwrap().count();
        let line = place.mounts().remove(0);
        assert_eq!(line["image"], image, "{args:?}");
        let expected = if files < 3 { Value::from(files) } else { Value::Null };
        assert_eq!(line["atLayer"], expected, "{args:?}");
        place.rpull.ok(["umount", "--discard", at]);
        files
    };
    for n in 1..=3 {
        let position = n.to_string();
        assert_eq!(files(&["--at-layer", &position]), n);
        assert_eq!(files(&["--rw", "--at-layer", &position]), n);
        for key in ["diffId", "chainId", "distributionId"] {
            let id = layers[n - 1][key].as_str().unwrap();
            assert_eq!(files(&["--at", id]), n, "{key}");
            assert_eq!(files(&["--at", &id["sha256:".len()..][..12]]), n, "{key}");
        }
    }
    for (code, flag, value, text) in [
        (3, "--at-layer", "0", "has no layer 0: it has 3 layers"),
        (3, "--at-layer", "4", "has no layer 4: it has 3 layers"),
        (3, "--at", "sha256:000000000000", "has no layer sha256:000000000000"),
        (2, "--at", "sha256:0000", "is not a layer id"),
        (2, "--at", "\x1b[2J0000000000", "is not a layer id"),
    ] {
        let done = place.rpull.fails(code, ["mount", flag, value, image, at]);
        assert!(done.stderr.contains(text) && !done.stderr.contains('\x1b'), "{done}");
    }
}

#[test]
fn layer_id_of_two_layers_is_refused_with_both() {
    let place = Place::of(&["same", "other", "same"], "twice");
    let layers = place.layers();
    let id = layers[0]["diffId"].as_str().unwrap();
    let done = place.rpull.fails(2, ["mount", "--at", id, &place.image, place.at()]);
    let text = format!("ambiguous: 1 (diff ID {id}), 3 (diff ID {id})");
    assert!(done.stderr.contains(&text), "{done}");
    let chain = layers[2]["chainId"].as_str().unwrap();
    place.rpull.ok(["mount", "--at", chain, &place.image, place.at()]);
}

#[test]
fn one_of_several_processes_gets_a_name() {
    let place = Place::new(2, "race");
    let dirs: Vec<_> = (0..8).map(|n| place.dir(&format!("race{n}"))).collect();
    let start = |(dir, _): &(String, Mounted)| {
        let args = ["mount", "--rw", "--name", "web", &place.image, dir];
        let mut command = place.rpull.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ends: Vec<Done> =
        dirs.iter().map(start).collect::<Vec<_>>().into_iter().map(done).collect();
    let (won, lost): (Vec<_>, Vec<_>) = ends.iter().partition(|end| end.code == Some(0));
    assert_eq!(won.len(), 1, "{ends:?}");
    for end in lost {
        assert_eq!(end.code, Some(8), "{end}");
        let text = format!("the name web is in use by a writable mount of {}", place.image);
        assert!(end.stderr.contains(&text), "{end}");
    }
    assert_eq!(place.kept(), 1);
    place.rpull.ok(["umount", "--discard", "web"]);
}

#[test]
fn mount_of_an_earlier_version_has_the_name_of_its_directory() {
    in_private_mounts(|| {
        let place = Place::new(2, "earlier");
        let (at, image) = (place.at(), place.image.as_str());
        let old = place.rpull.root().join("rpull/mounts/0123456789abcdef");
        fs::create_dir_all(old.join("upper")).unwrap();
        fs::create_dir_all(old.join("work")).unwrap();
        fs::write(old.join("upper/new"), "text").unwrap();
        let id = place.rpull.ok(["images", "-q", "--no-trunc", image]);
        fs::write(old.join("image"), format!(r#"{{"image":"{image}","id":"{}"}}"#, id.trim()))
            .unwrap();
        let line = place.named("0123456789abcdef");
        assert_eq!((&line["image"], &line["mounted"]), (&image.into(), &false.into()));
        place.rpull.fails(8, ["rm", image]);
        place.rpull.ok(["mount", "0123456789abcdef", at]);
        assert_eq!(fs::read_to_string(place.at.join("new")).unwrap(), "text");
        place.rpull.ok(["umount", at]);
        // Without a record, only the changes are left.
        fs::remove_file(old.join("image")).unwrap();
        assert_eq!(place.named("0123456789abcdef")["image"], Value::Null);
        let done = place.rpull.fails(6, ["mount", "0123456789abcdef", at]);
        assert!(done.stderr.contains("is damaged: the record of a writable mount"), "{done}");
        place.rpull.ok(["mounts", "rm", "0123456789abcdef"]);
        assert_eq!(place.kept(), 0);
    });
}

#[test]
fn mount_in_another_namespace_is_listed_and_not_removed() {
    let place = Place::new(2, "elsewhere");
    let root = place.rpull.root().to_str().unwrap().to_owned();
    let script = r#"mount --make-rprivate / && "$@" && echo mounted && exec sleep 100"#;
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", crate::support::rpull::BINARY, "mount", "-q"])
        .args(["--rw", "--name", "far", &place.image, place.at()])
        .env("RPULL_ROOT", root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "far");
    assert_eq!(lines.next().unwrap().unwrap(), "mounted");
    let line = place.named("far");
    assert_eq!((&line["mounted"], &line["target"]), (&true.into(), &Value::Null));
    for args in
        [&["mounts", "rm", "far"][..], &["umount", "--discard", "far"], &["mount", "far", "/"]]
    {
        let busy = place.rpull.fails(8, args);
        assert!(busy.stderr.contains("another mount namespace"), "{busy}");
    }
    place.rpull.fails(2, ["umount", "far"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || place.named("far")["mounted"] == false;
    crate::support::wait::until("the namespace is gone", gone);
    place.rpull.ok(["mounts", "rm", "--force", "far"]);
    let missing = place.rpull.fails(3, ["mounts", "rm", "far"]);
    assert!(missing.stderr.contains("no such writable mount: far"), "{missing}");
}

#[test]
fn umount_of_a_name_leaves_what_is_mounted_above() {
    in_private_mounts(|| {
        let place = Place::new(2, "covered");
        let (at, image) = (place.at(), place.image.as_str());
        place.rpull.ok(["mount", "--rw", "--name", "below", image, at]);
        place.rpull.ok(["mount", "--rw", "--name", "above", image, at]);
        let done = place.rpull.fails(8, ["umount", "below"]);
        assert!(done.stderr.contains("another image is mounted on top of it at"), "{done}");
        place.rpull.ok(["umount", "above"]);
        place.rpull.ok(["umount", "below"]);
        assert_eq!(place.mounts().len(), 2);
        place.rpull.ok(["mounts", "rm", "above", "below"]);
        assert!(place.mounts().is_empty());
    });
}
