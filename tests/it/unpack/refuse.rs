//! What must not be unpacked: an error that says why, nothing left behind, and nothing
//! outside the root touched. More archives and their errors are in src/layer/tests/refusals.rs.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch;
use crate::support::snapshot;
use crate::support::tar::{Entry, Tar};

/// A root and, outside it, files that no layer may touch.
struct Yard {
    scratch: TempDir,
}

impl Yard {
    fn new() -> Self {
        let scratch = scratch::dir();
        fs::create_dir(scratch.path().join("outside")).unwrap();
        fs::write(scratch.path().join("outside/canary"), "alive").unwrap();
        fs::write(scratch.path().join("canary"), "alive").unwrap();
        Self { scratch }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// The way from a layer's directory (`root/overlay2/ID/diff`) to this yard.
    fn up() -> String {
        "../../../..".to_owned()
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let outside = self.scratch.path().join("outside");
        assert_eq!(snapshot::names(&outside), ["canary"]);
        assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "alive");
        assert_eq!(fs::read_to_string(self.scratch.path().join("canary")).unwrap(), "alive");
        assert_eq!(fs::metadata(outside.join("canary")).map(|m| nlink(&m)).unwrap(), 1);
        let mut around = snapshot::names(self.scratch.path());
        around.retain(|name| name != "root");
        assert_eq!(around, ["canary", "outside"]);
    }
}

fn nlink(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(meta)
}

/// rpull refuses the image made of `layers`, and says `why` in one line.
#[track_caller]
fn refused_in(yard: &Yard, layers: Vec<Vec<u8>>, args: &[&str], why: &str) -> Done {
    let hub = Hub::shared();
    let only = layers.len() == 1;
    let image = layers.into_iter().fold(Image::new(), Image::layer);
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("refused")));
    let name = pushed.name();
    let args = ["pull", "-q", &name].into_iter().chain(args.iter().copied());
    let done = Rpull::on(yard.root()).fails(6, args);
    assert!(done.stderr.contains(why), "'{why}' is not in: {done}");
    assert!(done.stdout.is_empty(), "{done}");
    snapshot::assert_consistent(&yard.root());
    if only {
        snapshot::assert_empty(&yard.root());
    }
    yard.assert_untouched();
    done
}

#[track_caller]
fn refused(tar: Vec<u8>, why: &str) {
    refused_in(&Yard::new(), vec![tar], &[], why);
}

fn entry(entry: Entry) -> Vec<u8> {
    Tar::new().file("before", "x").add(entry).file("after", "x").end()
}

#[test]
fn name_that_climbs_is_refused() {
    let climb = format!("{}/canary", Yard::up());
    refused(entry(Entry::file(&climb, "dead")), "climbs");
    refused(entry(Entry::file(format!("a/b/../../{climb}"), "dead")), "climbs");
    refused(entry(Entry::file(format!("./{climb}"), "dead")), "climbs");
    refused(entry(Entry::dir("../")), "climbs");
    refused(entry(Entry::symlink(&climb, "x")), "climbs");
}

#[test]
fn whiteout_that_climbs_is_refused() {
    let yard = Yard::new();
    let climb = format!("{}/outside/.wh.canary", Yard::up());
    refused_in(&yard, vec![entry(Entry::file(climb, ""))], &[], "climbs");
    let opaque = format!("{}/outside/.wh..wh..opq", Yard::up());
    refused_in(&yard, vec![entry(Entry::file(opaque, ""))], &[], "climbs");
}

/// A symlink as a parent is resolved as if the layer were the whole world, so this
/// either stays inside or fails; what it never does is reach the canary.
#[test]
fn entry_through_a_symlink_that_leaves_stays_inside() {
    let yard = Yard::new();
    let outside = yard.scratch.path().join("outside");
    let targets = [format!("{}/outside", Yard::up()), outside.display().to_string()];
    let mut pulled = 0;
    for target in targets {
        for victim in [
            Entry::file("way/canary", "dead"),
            Entry::file("way/new", "dead"),
            Entry::whiteout("way/canary"),
        ] {
            let tar = Tar::new().add(Entry::symlink("way", &target)).add(victim).end();
            let hub = Hub::shared();
            let pushed = Image::new()
                .layer(tar)
                .push(&hub.host, &format!("{}:latest", hub.repository("way")));
            let done = Rpull::on(yard.root()).run(["pull", "-q", &pushed.name()]);
            assert!(matches!(done.code, Some(0 | 6)), "{done}");
            pulled += usize::from(done.code == Some(0));
            snapshot::assert_consistent(&yard.root());
            yard.assert_untouched();
        }
    }
    println!("{pulled} of 6 stayed inside");
}

#[test]
fn hardlink_out_of_the_layer_is_refused() {
    let yard = Yard::new();
    let relative = format!("{}/outside/canary", Yard::up());
    let absolute = yard.scratch.path().join("outside/canary").display().to_string();
    refused_in(&yard, vec![entry(Entry::hardlink("h", relative))], &[], "hardlink");
    refused_in(&yard, vec![entry(Entry::hardlink("h", absolute))], &[], "hardlink");
    let through = Tar::new()
        .add(Entry::symlink("way", format!("{}/outside", Yard::up())))
        .add(Entry::hardlink("h", "way/canary"))
        .end();
    refused_in(&yard, vec![through], &[], "hardlink");
}

#[test]
fn hardlink_to_a_lower_layer_is_refused() {
    let base = Tar::new().file("below", "x").end();
    let top = Tar::new().add(Entry::hardlink("h", "below")).end();
    refused_in(&Yard::new(), vec![base, top], &[], "hardlink");
}

#[test]
fn truncated_archive_is_refused() {
    let whole = Tar::new().file("before", "x").file("x", vec![b'x'; 2000]).unended();
    refused(whole[..1536 + 1000].to_vec(), "truncated");
}

#[test]
fn layer_over_its_size_limit_is_refused() {
    let tar = Tar::new().file("zeros", vec![0; 1_000_000]).end();
    refused_in(&Yard::new(), vec![tar], &["--max-layer-size", "500000"], "limit");
}

#[test]
fn layer_over_its_entry_limit_is_refused() {
    let tar = Tar::of((0..20).map(|n| Entry::file(format!("f{n}"), ""))).end();
    refused_in(&Yard::new(), vec![tar], &["--max-entries", "10"], "limit");
}

#[test]
fn image_over_a_limit_is_refused_although_its_layers_are_not() {
    let layer = |n: usize| Tar::new().file(&format!("{n}"), vec![b'x'; 4000]).file("e", "").end();
    for flags in [["--max-image-size", "11000"], ["--max-image-entries", "5"]] {
        refused_in(&Yard::new(), (0..3).map(layer).collect(), &flags, "its image");
    }
}

#[test]
fn path_over_its_depth_limit_is_refused() {
    let tar = Tar::new().file(&"d/".repeat(30), "").end();
    refused_in(&Yard::new(), vec![tar], &["--max-path-depth", "20"], "limit");
}
