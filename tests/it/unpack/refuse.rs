//! What must not be unpacked: an error that says why, nothing left behind, and nothing
//! outside the root touched.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::rpull::{BINARY, Done, Rpull};
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
fn a_name_that_climbs() {
    let climb = format!("{}/canary", Yard::up());
    refused(entry(Entry::file(&climb, "dead")), "climbs");
    refused(entry(Entry::file(format!("a/b/../../{climb}"), "dead")), "climbs");
    refused(entry(Entry::file(format!("./{climb}"), "dead")), "climbs");
    refused(entry(Entry::dir("../")), "climbs");
    refused(entry(Entry::symlink(&climb, "x")), "climbs");
}

#[test]
fn a_long_name_that_climbs() {
    let climb = format!("{}{}/canary", "a/../".repeat(40), Yard::up());
    refused(entry(Entry::file(&climb, "dead")), "climbs");
    let gnu = Entry::file(&climb, "dead").long(crate::support::tar::Long::Gnu);
    refused(entry(gnu), "climbs");
    let hidden = Entry::file("harmless", "dead").pax("path", format!("{}/canary", Yard::up()));
    refused(entry(hidden), "climbs");
}

#[test]
fn a_whiteout_that_climbs() {
    let yard = Yard::new();
    let climb = format!("{}/outside/.wh.canary", Yard::up());
    refused_in(&yard, vec![entry(Entry::file(climb, ""))], &[], "climbs");
    let opaque = format!("{}/outside/.wh..wh..opq", Yard::up());
    refused_in(&yard, vec![entry(Entry::file(opaque, ""))], &[], "climbs");
}

/// A symlink as a parent is resolved as if the layer were the whole world, so this
/// either stays inside or fails; what it never does is reach the canary.
#[test]
fn a_symlink_that_leaves_and_an_entry_through_it() {
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
fn a_hardlink_out_of_the_layer() {
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
fn a_hardlink_to_a_lower_layer() {
    let base = Tar::new().file("below", "x").end();
    let top = Tar::new().add(Entry::hardlink("h", "below")).end();
    refused_in(&Yard::new(), vec![base, top], &[], "hardlink");
}

#[test]
fn a_hardlink_to_a_directory_or_itself() {
    refused(Tar::new().dir("d/").add(Entry::hardlink("h", "d")).end(), "hardlink");
    refused(entry(Entry::hardlink("h", "h")), "hardlink");
}

#[test]
fn attributes_that_are_overlayfss_own() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.whiteout"] {
        refused(entry(Entry::file("x", "x").xattr(name, "y")), name);
        refused(entry(Entry::dir("d/").xattr(name, "y")), name);
    }
}

#[test]
fn a_device_that_overlayfs_takes_for_a_whiteout() {
    refused(entry(Entry::char_device("x", 0, 0)), "0:0");
}

#[test]
fn whiteouts_of_nothing() {
    for name in [".wh.", "d/.wh..", ".wh..."] {
        refused(entry(Entry::file(name, "")), "whiteout");
    }
}

#[test]
fn owners_that_no_file_can_have() {
    refused(entry(Entry::file("x", "x").owner(u64::from(u32::MAX), 0)), "out of range");
    refused(entry(Entry::file("x", "x").owner(0, 1 << 40)), "out of range");
    refused(entry(Entry::file("x", "x").pax("uid", "-1")), "out of range");
}

#[test]
fn devices_that_linux_has_not() {
    refused(entry(Entry::char_device("x", 1 << 12, 1)), "out of range");
    refused(entry(Entry::block_device("x", 1, 1 << 20)), "out of range");
}

#[test]
fn devices_when_they_cannot_be_made() {
    let yard = Yard::new();
    let hub = Hub::shared();
    let image = Image::new().layer(entry(Entry::char_device("null", 1, 3)));
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("no-mknod")));
    let rpull = Rpull::on(yard.root());
    let mut command = Command::new("setpriv");
    rpull.dress(&mut command);
    command.args(["--bounding-set=-mknod", BINARY, "pull", "-q", &pushed.name()]);
    let done = Done::from(command.output().unwrap());
    assert!(matches!(done.code, Some(6 | 7)), "{done}");
    assert!(done.stderr.contains("null"), "{done}");
    snapshot::assert_empty(&yard.root());
}

#[test]
fn truncated_archives() {
    let whole = Tar::new().file("x", vec![b'x'; 2000]).unended();
    refused(whole[..100].to_vec(), "truncated");
    refused(whole[..512 + 1000].to_vec(), "truncated");
    let long = Tar::new().file(&"n/".repeat(150), "x").unended();
    refused(long[..700].to_vec(), "truncated");
}

#[test]
fn a_bad_checksum() {
    refused(entry(Entry::file("x", "x").bad_checksum()), "checksum");
}

#[test]
fn a_type_that_is_unknown() {
    let mut odd = Entry::file("x", "x");
    odd.kind = b'!';
    refused(entry(odd), "type");
}

#[test]
fn pax_records_that_lie() {
    refused(Tar::new().raw_pax(b"99 path=x\n").file("x", "x").end(), "tar");
    refused(Tar::new().raw_pax(b"no length\n").file("x", "x").end(), "tar");
    refused(Tar::new().raw_pax(b"11 path=a\0b\n").file("x", "x").end(), "tar");
    refused(Tar::new().raw_pax(b"12 size=-12\n").file("x", "x").end(), "tar");
}

#[test]
fn an_auxiliary_header_without_end() {
    let mut pax = Entry::file("PaxHeaders.0/x", "").claims(1 << 40);
    pax.kind = b'x';
    refused(Tar::new().add(pax).end(), "");
    let mut gnu = Entry::file("././@LongLink", "").claims(1 << 40);
    gnu.kind = b'L';
    refused(Tar::new().add(gnu).end(), "");
}

#[test]
fn a_sparse_map_that_lies() {
    for map in [&[(0, 100)][..], &[(5, 3), (2, 3)], &[(u64::MAX >> 2, 6)]] {
        refused(entry(Entry::gnu_sparse("x", map, 50, b"sixsix")), "sparse");
    }
}

#[test]
fn more_bytes_than_allowed() {
    let tar = Tar::new().file("zeros", vec![0; 1_000_000]).end();
    refused_in(&Yard::new(), vec![tar], &["--max-layer-size", "500000"], "limit");
}

#[test]
fn more_entries_than_allowed() {
    let tar = Tar::of((0..20).map(|n| Entry::file(format!("f{n}"), ""))).end();
    refused_in(&Yard::new(), vec![tar], &["--max-entries", "10"], "limit");
}

#[test]
fn deeper_than_allowed() {
    let tar = Tar::new().file(&"d/".repeat(30), "").end();
    refused_in(&Yard::new(), vec![tar], &["--max-path-depth", "20"], "limit");
}

#[test]
fn a_layer_whose_root_is_a_file() {
    refused(Tar::new().add(Entry::symlink("/", "/etc")).end(), "root");
}
