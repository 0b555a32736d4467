//! What an archive becomes: a table of archives and their files.

use super::Layer;
use super::tar::{Entry, Long, Tar};
use super::tree::listing;

/// A subject, its archive, and the listing of its files.
type Case = (&'static str, Tar, &'static str);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let long = || "long".repeat(30);
    vec![
        ("implied parent", Tar::new().file("a/b/f", "x"), "
            755 a: directory
            755 a/b: directory
            644 a/b/f: file \"x\""),
        ("directory after its files", Tar::new().file("d/f", "x").add(Entry::dir("d/").mode(0o711)), "
            711 d: directory
            644 d/f: file \"x\""),
        ("mode with special bits", Tar::of([
            Entry::file("f", "x").mode(0o4755), Entry::dir("tmp/").mode(0o1777), Entry::dir("s/").mode(0o2775),
        ]), "
            4755 f: file \"x\"
            2775 s: directory
            1777 tmp: directory"),
        ("name with dots and slashes", Tar::new().file("./a//b", "1").file("/c", "2").file("d/../e", "3"), "
            755 a: directory
            644 a/b: file \"1\"
            644 c: file \"2\"
            644 e: file \"3\""),
        ("V7 name with a slash at its end", Tar::of([Entry::v7("d/", "").mode(0o755), Entry::v7("d/f", "x")]), "
            755 d: directory
            644 d/f: file \"x\""),
        ("contiguous file", Tar::of([Entry::file("f", "x").kind(b'7')]), "
            644 f: file \"x\""),
        ("fifo", Tar::of([Entry::fifo("p")]), "
            644 p: fifo"),
        ("symlink", Tar::of([Entry::symlink("l", "../../etc")]), "
            777 l: symlink \"../../etc\""),
        ("hardlink with another mode", Tar::of([
            Entry::file("f", "x").mode(0o600), Entry::hardlink("h", "/f").mode(0o755),
        ]), "
            755 f: file \"x\"
            755 h: file \"x\""),
        ("GNU name before a PAX name", Tar::of([
            Entry::file(long(), "x").long(Long::Gnu).pax("path", "ignored").mode(0o600),
        ]), "
            600 longlonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglong: file \"x\""),
        ("PAX name, link and size", Tar::of([
            Entry::file("ignored", "text").claims(0).pax("path", "f").pax("size", "4"),
            Entry::symlink("l", "ignored").pax("linkpath", "f"),
        ]), "
            644 f: file \"text\"
            777 l: symlink \"f\""),
        ("size on kinds without data", Tar::of([
            Entry::file("f", "x"), Entry::dir("d/").claims(4096), Entry::symlink("l", "f").claims(1),
            Entry::hardlink("h", "f").claims(4), Entry::file("last", "y"),
        ]), "
            755 d: directory
            644 f: file \"x\"
            644 h: file \"x\"
            777 l: symlink \"f\"
            644 last: file \"y\""),
        ("sparse file in four formats", Tar::of([
            Entry::gnu_sparse("a", &[(1, 2), (5, 1)], 7, b"xyz"),
            Entry::pax_sparse_pairs("b", &[(1, 2), (5, 1)], 7, b"xyz"),
            Entry::pax_sparse_map("c", &[(1, 2), (5, 1)], 7, b"xyz"),
            Entry::pax_sparse("d", &[(1, 2), (5, 1)], 7, b"xyz"),
        ]), r#"
            644 a: file "\0xy\0\0z\0"
            644 b: file "\0xy\0\0z\0"
            644 c: file "\0xy\0\0z\0"
            644 d: file "\0xy\0\0z\0""#),
        ("file that is repeated", Tar::new().file("f", "the first").file("./f", "2"), "
            644 f: file \"2\""),
        ("directory that is repeated", Tar::of([
            Entry::dir("d/").mode(0o700), Entry::file("d/f", "kept"), Entry::dir("d/").mode(0o755),
        ]), "
            755 d: directory
            644 d/f: file \"kept\""),
        ("directory that a file replaces", Tar::new().file("d/sub/f", "x").file("d", "now a file"), "
            644 d: file \"now a file\""),
        ("symlink that a file replaces", Tar::of([Entry::symlink("l", "/etc/passwd"), Entry::file("l", "x")]), "
            644 l: file \"x\""),
        ("file through a symlink", Tar::of([
            Entry::dir("usr/"), Entry::symlink("rel", "usr"), Entry::symlink("abs", "/usr"),
            Entry::symlink("up", "../../usr"), Entry::file("rel/1", "1"), Entry::file("abs/2", "2"),
            Entry::file("up/3", "3"),
        ]), "
            777 abs: symlink \"/usr\"
            777 rel: symlink \"usr\"
            777 up: symlink \"../../usr\"
            755 usr: directory
            644 usr/1: file \"1\"
            644 usr/2: file \"2\"
            644 usr/3: file \"3\""),
        ("whiteout of a lower file", Tar::of([Entry::whiteout("d/f"), Entry::whiteout("g").data("text")]), "
            755 d: directory
            0 d/f: whiteout
            0 g: whiteout"),
        ("whiteout of a name in the layer", Tar::of([
            Entry::file("f", "x"), Entry::whiteout("f"), Entry::whiteout("g"), Entry::file("g", "y"),
            Entry::file("d/f", "z"), Entry::whiteout("d"),
        ]), "
            755 d: directory opaque
            644 d/f: file \"z\"
            644 f: file \"x\"
            644 g: file \"y\""),
        ("opaque mark", Tar::of([Entry::file("d/f", "x"), Entry::opaque("d"), Entry::opaque("e")]), "
            755 d: directory opaque
            644 d/f: file \"x\"
            755 e: directory opaque"),
        ("global header", Tar::new().global("path", "ignored").file("f", "x").global("path", "ignored"), "
            644 f: file \"x\""),
        ("archive after the end", Tar::new().file("f", "x").raw(&[0; 1024]).file("g", "y"), "
            644 f: file \"x\""),
        ("empty archive", Tar::new(), ""),
    ]
}

#[test]
fn unpacked_archive_has_the_listed_files_and_is_reassembled() {
    for (subject, tar, expected) in cases() {
        let tar = tar.end();
        let layer = Layer::of(&tar).unwrap_or_else(|e| panic!("{subject}: {e}"));
        let expected: Vec<&str> = expected.lines().map(str::trim).skip(1).collect();
        let actual = listing(&layer.diff());
        assert_eq!(actual.lines().collect::<Vec<_>>(), expected, "{subject}");
        assert!(layer.assembled().as_ref() == Ok(&tar), "{subject}: {:?}", layer.assembled().err());
    }
}
