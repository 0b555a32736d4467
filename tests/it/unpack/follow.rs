//! What dockerd takes too: its root and ours hold the same, byte for byte.

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack, gzip};
use crate::support::judge;
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::assert_same_layers;
use crate::support::tar::{Entry, Long, Tar, noise};

/// Both pull `image`; both roots must hold the same layers, ours also for our own judge.
#[track_caller]
pub fn both(stem: &str, image: &Image) {
    let hub = Hub::shared();
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository(stem)));
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &pushed.name()]);
    assert_eq!(docker.save(&pushed.name()), Ok(image.diff_ids()), "dockerd itself cannot save it");
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    Rpull::on(&root).ok(["pull", "-q", &pushed.name()]);
    assert_same_layers(&root, &docker.root, &image.diff_ids());
    judge::judge_root(&root);
}

pub fn one(tar: Vec<u8>) -> Image {
    Image::new().layer(tar)
}

/// A base for layers that take away from it.
fn base() -> Vec<u8> {
    Tar::new()
        .dir("d/")
        .file("d/a", "a")
        .file("d/b", "b")
        .dir("d/sub/")
        .file("d/sub/c", "c")
        .file("f", "f")
        .add(Entry::symlink("l", "d"))
        .end()
}

#[test]
fn hardlinks_match_docker() {
    let tar = Tar::new()
        .add(Entry::file("a", "one inode").mode(0o640).owner(7, 8))
        .add(Entry::hardlink("b", "a").mode(0o640).owner(7, 8))
        .dir("d/")
        .add(Entry::hardlink("d/c", "./a").mode(0o640).owner(7, 8))
        .add(Entry::hardlink("d/e", "/a").mode(0o640).owner(7, 8))
        .add(Entry::symlink("s", "nowhere"))
        .add(Entry::file("suid", "x").mode(0o4755))
        .add(Entry::hardlink("suid2", "suid").mode(0o4755))
        .end();
    both("hardlinks", &one(tar));
}

#[test]
fn hardlink_with_another_header_matches_docker() {
    let tar = Tar::new()
        .add(Entry::file("a", "data").mode(0o600).owner(1, 1))
        .add(Entry::hardlink("b", "a").mode(0o755).owner(2, 3).mtime(1_600_000_000))
        .end();
    both("hardlink-meta", &one(tar));
}

#[test]
fn symlinks_match_docker() {
    let tar = Tar::new()
        .add(Entry::symlink("relative", "usr/bin"))
        .add(Entry::symlink("absolute", "/usr/bin"))
        .add(Entry::symlink("dangling", "../../nowhere"))
        .add(Entry::symlink("self", "self"))
        .add(Entry::symlink("owned", "x").owner(1000, 1000).mtime(5))
        .add(Entry::symlink("long", "t/".repeat(90)))
        .add(Entry::symlink("longer", "g/".repeat(90)).long(Long::Gnu))
        .end();
    both("symlinks", &one(tar));
}

#[test]
fn extended_attributes_match_docker() {
    // cap_net_bind_service=ep in the kernel's revision 2.
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let tar = Tar::new()
        .add(Entry::file("ping", "x").mode(0o755).xattr("security.capability", capability))
        .add(Entry::file("owned", "x").owner(5, 5).xattr("security.capability", capability))
        .add(
            Entry::file("noted", "y")
                .xattr("user.note", "a note")
                .xattr("user.raw", b"\x00\xff\n="),
        )
        .add(Entry::dir("dir/").xattr("user.note", "on a directory"))
        .add(Entry::file("trusted", "z").xattr("trusted.mine", "kept"))
        .end();
    both("xattrs", &one(tar));
}

#[test]
fn devices_and_fifos_match_docker() {
    let tar = Tar::new()
        .dir("dev/")
        .add(Entry::char_device("dev/null", 1, 3).mode(0o666))
        .add(Entry::block_device("dev/loop0", 7, 0).mode(0o660).owner(0, 6))
        .add(Entry::char_device("dev/large", 511, 70_000).mode(0o600))
        .add(Entry::fifo("dev/initctl").mode(0o600).owner(3, 4))
        .end();
    both("devices", &one(tar));
}

#[test]
fn setuid_setgid_and_sticky_match_docker() {
    let tar = Tar::new()
        .add(Entry::file("su", "x").mode(0o4755))
        .add(Entry::file("wall", "x").mode(0o2755).owner(0, 5))
        .add(Entry::file("both", "x").mode(0o6711).owner(33, 33))
        .add(Entry::dir("tmp/").mode(0o1777))
        .add(Entry::dir("mail/").mode(0o2775).owner(0, 8))
        .add(Entry::file("mail/x", "in a setgid directory"))
        .add(Entry::dir("mail/sub/").mode(0o755))
        .add(Entry::dir("mail/sub2/").mode(0o700).owner(5, 5))
        .file("mail/implied/x", "below a directory that no entry names")
        .add(Entry::dir("staff/").mode(0o2777))
        .file("staff/implied/x", "x")
        .add(Entry::symlink("staff/link", "x"))
        .add(Entry::fifo("staff/fifo").mode(0o644))
        .add(Entry::dir("closed/").mode(0))
        .add(Entry::file("closed/x", "in a closed directory").mode(0))
        .end();
    both("modes", &one(tar));
}

#[test]
fn large_owners_match_docker() {
    let tar = Tar::new()
        .add(Entry::file("octal", "x").owner(2_097_151, 2_097_151))
        .add(Entry::file("base256", "x").owner(3_000_000, 4_000_000))
        .add(Entry::file("pax", "x").pax("uid", "4294967294").pax("gid", "70000"))
        .add(Entry::dir("dir/").owner(1_000_000_000, 1))
        .add(Entry::symlink("link", "x").owner(4_000_000_000, 2))
        .end();
    both("owners", &one(tar));
}

#[test]
fn long_names_match_docker() {
    let part = "n".repeat(60);
    let deep = format!("{part}/{part}/{part}");
    let longest = "x".repeat(255);
    let tar = Tar::new()
        .add(Entry::file(format!("prefix/{part}/{part}"), "1").long(Long::Prefix))
        .add(Entry::file(format!("pax/{deep}"), "2").long(Long::Pax))
        .add(Entry::file(format!("gnu/{deep}"), "3").long(Long::Gnu))
        .add(Entry::file(&longest, "4"))
        .add(Entry::hardlink(format!("{deep}-hard"), format!("pax/{deep}")).long(Long::Gnu))
        .add(Entry::dir(format!("gnu/{deep}.d/")).long(Long::Gnu))
        .add(Entry::file(format!("gnu/{deep}.d/f"), "5").long(Long::Pax))
        .end();
    both("long", &one(tar));
}

#[test]
fn names_that_are_not_utf8_or_need_escapes_match_docker() {
    let tar = Tar::new()
        .add(Entry::file(b"caf\xe9", "latin-1"))
        .add(Entry::dir(b"\xff\xfe/"))
        .add(Entry::file(b"\xff\xfe/x", "below"))
        .add(Entry::file("sp ace\ttab\nline", "blank"))
        .add(Entry::file("<a>&\"b\"\\c", "json"))
        .add(Entry::file("sep\u{2028}\u{2029}\u{7f}\u{1}\u{8}\u{c}", "separators"))
        .add(Entry::file("\u{1f980}", "crab"))
        .add(Entry::symlink("to-latin", b"caf\xe9"))
        .end();
    both("bytes", &one(tar));
}

#[test]
fn times_below_a_second_and_far_away_match_docker() {
    let tar = Tar::new()
        .add(Entry::file("nanos", "x").pax("mtime", "1700000000.123456789"))
        .add(Entry::file("short", "x").pax("mtime", "1700000000.5").pax("atime", "1600000000.25"))
        .add(Entry::file("long", "x").pax("mtime", "1700000000.1234567899"))
        .add(Entry::file("before", "x").mtime(-86400))
        .add(Entry::file("before-pax", "x").pax("mtime", "-1.5"))
        .add(Entry::file("epoch", "x").mtime(0))
        .add(Entry::dir("dir/").pax("mtime", "1500000000.000000001"))
        .add(Entry::file("dir/later", "x"))
        .add(Entry::symlink("link", "x").pax("mtime", "1400000000.75"))
        .end();
    both("times", &one(tar));
}

#[test]
fn whiteout_of_a_file_or_directory_matches_docker() {
    let tar = Tar::new()
        .add(Entry::whiteout("f").owner(3, 4))
        .add(Entry::whiteout("d/a"))
        .add(Entry::whiteout("d/sub"))
        .add(Entry::whiteout("not-there"))
        .end();
    both("whiteouts", &Image::new().layer(base()).layer(tar));
}

#[test]
fn opaque_directory_in_any_order_matches_docker() {
    for (n, entries) in [
        [Entry::opaque("d"), Entry::file("d/new", "1"), Entry::file("d/b", "2")],
        [Entry::file("d/new", "1"), Entry::opaque("d"), Entry::file("d/b", "2")],
        [Entry::file("d/new", "1"), Entry::file("d/b", "2"), Entry::opaque("d")],
    ]
    .into_iter()
    .enumerate()
    {
        let with_dir = Tar::of([vec![Entry::dir("d/").mode(0o700)], entries.to_vec()].concat());
        both(&format!("opaque-{n}"), &Image::new().layer(base()).layer(with_dir.end()));
        let implied = Tar::of(entries).end();
        both(&format!("opaque-implied-{n}"), &Image::new().layer(base()).layer(implied));
    }
}

#[test]
fn opaque_root_matches_docker() {
    let tar = Tar::new().add(Entry::file(".wh..wh..opq", "")).file("only", "this").end();
    both("opaque-root", &Image::new().layer(base()).layer(tar));
}

#[test]
fn name_after_a_whiteout_in_a_lower_layer_matches_docker() {
    let gone = Tar::new().add(Entry::whiteout("d")).add(Entry::whiteout("f")).end();
    let back = Tar::new().dir("d/").file("d/x", "x").dir("f/").file("f/y", "y").end();
    both("again", &Image::new().layer(base()).layer(gone).layer(back));
}

#[test]
fn change_of_type_between_layers_matches_docker() {
    let tar = Tar::new()
        .file("d", "a file now")
        .dir("f/")
        .file("f/inside", "x")
        .add(Entry::dir("l/"))
        .end();
    both("types", &Image::new().layer(base()).layer(tar));
}

#[test]
fn implied_parents_match_docker() {
    let tar = Tar::new()
        .file("a/b/c/file", "x")
        .add(Entry::symlink("e/f/link", "x"))
        .add(Entry::dir("g/h/i/").mode(0o700))
        .add(Entry::whiteout("j/k/gone"))
        .add(Entry::dir("a/b/").mode(0o750).owner(9, 9))
        .end();
    both("implied", &one(tar));
}

#[test]
fn dotted_and_absolute_names_match_docker() {
    let tar = Tar::new()
        .add(Entry::dir("./").mode(0o700).owner(12, 34))
        .dir("./etc/")
        .file("./etc/x", "x")
        .file("/abs/olute", "y")
        .file("double//slash", "z")
        .file("./a/./b", "w")
        .end();
    both("dots", &one(tar));
}

#[test]
fn directories_after_their_files_match_docker() {
    let tar = Tar::new()
        .file("late/x", "x")
        .add(Entry::dir("late/").mode(0o711).mtime(1_234_567_890))
        .add(Entry::dir("bare").mode(0o750))
        .file("bare/y", "y")
        .end();
    both("late", &one(tar));
}

#[test]
fn files_of_old_archives_match_docker() {
    let tar = Tar::new().add(Entry::v7("v7", "x")).add(Entry::file("ustar", "x").kind(0)).end();
    both("v7", &one(tar));
}

#[test]
fn global_header_and_unknown_records_match_docker() {
    let tar = Tar::new()
        .global("comment", "0123456789abcdef")
        .add(Entry::file("x", "x").pax("VENDOR.unknown", "kept in the record").pax("comment", "c"))
        .end();
    both("global", &one(tar));
}

#[test]
fn archive_with_an_odd_end_matches_docker() {
    let tar = || Tar::new().file("x", "some data");
    both("end-none", &one(tar().unended()));
    both("end-one-block", &one(tar().raw(&[0; 512]).unended()));
    both("end-many", &one(tar().raw(&[0; 40960]).unended()));
    both("end-garbage", &one(tar().raw(&[0; 1024]).raw(&[0xa5; 70_001]).unended()));
    let second = Tar::new().file("not-unpacked", "y").end();
    both("end-second", &one(tar().raw(&[0; 1024]).raw(&second).unended()));
}

#[test]
fn empty_layers_match_docker() {
    both("empty", &Image::new().layer(Tar::new().end()).layer(Tar::new().dir("./").end()));
}

#[test]
fn files_of_many_sizes_match_docker() {
    let mut tar = Tar::new();
    for size in [0, 1, 511, 512, 513, 4095, 4096, 65_536, 1_048_577, 3_000_000] {
        tar = tar.file(&format!("size-{size}"), noise(size));
    }
    both("sizes", &one(tar.file("zeros", vec![0; 2_000_000]).end()));
}

#[test]
fn layers_in_every_compression_match_docker() {
    let tar = || Tar::new().file("x", "packed ".repeat(999)).end();
    both("plain", &Image::new().packed(tar(), Pack::Plain));
    both("members", &Image::new().packed(tar(), Pack::Members));
    both("oci-gzip", &Image::oci().packed(tar(), Pack::Gzip));
    // Told by its magic, whatever the manifest says.
    both("mislabelled", &Image::oci().blob(tar(), gzip(&tar()), Pack::Plain));
    let junk = [gzip(&tar()), vec![0; 512]].concat();
    both("padded", &Image::new().blob(tar(), junk, Pack::Gzip));
}

#[test]
fn layer_that_is_repeated_in_an_image_matches_docker() {
    let again = Tar::new().file("again", "x").end();
    let image = Image::new().layer(again.clone()).layer(base()).layer(again.clone()).layer(again);
    both("twice", &image);
}
