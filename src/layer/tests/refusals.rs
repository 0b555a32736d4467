//! What is not unpacked: a table of archives and their errors.

use super::Layer;
use super::tar::{Entry, Long, Tar};
use crate::digest::Digest;
use crate::layer::{BlobSpec, LayerError, LimitKind, Limits};

/// An archive with the entry between two others.
fn around(entry: Entry) -> Vec<u8> {
    Tar::new().file("before", "x").add(entry).file("after", "x").end()
}

#[rustfmt::skip]
fn cases() -> Vec<(Vec<u8>, &'static str)> {
    let file = || Entry::file("f", "x");
    let big = || Entry::file("PaxHeaders.0/f", "").claims(1 << 40);
    let whole = Tar::new().file("f", vec![b'x'; 2000]).unended();
    let long = Tar::new().file(&"n/".repeat(150), "x").unended();
    let sparse = |map: &[(u64, u64)]| around(Entry::gnu_sparse("f", map, 50, b"sixsix"));
    vec![
        (around(Entry::dir("../")), "refused entry '../': the name climbs out of the layer"),
        (around(Entry::file("a/../../b", "")), "refused entry 'a/../../b': the name climbs out of the layer"),
        (around(Entry::symlink("./../b", "x")), "refused entry './../b': the name climbs out of the layer"),
        (around(Entry::whiteout("../b")), "refused entry '../.wh.b': the name climbs out of the layer"),
        (around(Entry::opaque("../b")), "refused entry '../b/.wh..wh..opq': the name climbs out of the layer"),
        (around(file().pax("path", "../b")), "refused entry '../b': the name climbs out of the layer"),
        (around(Entry::file("a/../".repeat(30) + "../b", "").long(Long::Gnu)), "the name climbs out of the layer"),
        (around(Entry::hardlink("h", "../b")), "refused entry 'h': a hardlink to a file outside the layer"),
        (around(Entry::hardlink("h", "b")), "refused entry 'h': a hardlink to 'b', which is not in this layer"),
        (around(Entry::hardlink("h", "h")), "refused entry 'h': a hardlink to itself"),
        (Tar::new().dir("d/").add(Entry::hardlink("h", "d")).end(), "refused entry 'h': a hardlink to 'd', which is not in this layer"),
        (Tar::of([Entry::symlink("l", "/etc"), Entry::hardlink("h", "l/passwd")]).end(), "refused entry 'h': a hardlink to 'l/passwd', which is not in this layer"),
        (around(file().xattr("trusted.overlay.redirect", "y")), "trusted.overlay.redirect"),
        (around(Entry::dir("d/").xattr("user.overlay.opaque", "y")), "user.overlay.opaque"),
        (around(Entry::char_device("x", 0, 0)), "0:0"),
        (around(Entry::char_device("x", 1 << 12, 1)), "out of range"),
        (around(Entry::block_device("x", 1, 1 << 20)), "out of range"),
        (around(Entry::file(".wh.", "")), "whiteout"),
        (around(Entry::file("d/.wh..", "")), "whiteout"),
        (around(Entry::file(".wh...", "")), "whiteout"),
        (around(file().owner(u64::from(u32::MAX), 0)), "refused entry 'f': its owner 4294967295 is out of range"),
        (around(file().owner(0, 1 << 40)), "refused entry 'f': its group 1099511627776 is out of range"),
        (around(file().pax("uid", "-1")), "refused entry 'f': its owner -1 is out of range"),
        (around(file().kind(b'!')), "refused entry 'f': unknown tar entry type '!'"),
        (around(Entry::symlink("/", "/etc")), "refused entry '/': it would replace the layer's root"),
        (around(file().bad_checksum()), "invalid tar at byte 1536: a header with a wrong checksum"),
        (Tar::new().raw_pax(b"99 path=x\n").end(), "an invalid PAX record"),
        (Tar::new().raw_pax(b"no length\n").end(), "an invalid PAX record"),
        (Tar::new().raw_pax(b"12 path=a\0b\n").end(), "a PAX name with a NUL"),
        (Tar::new().raw_pax(b"12 size=-12\n").file("f", "x").end(), "a negative size"),
        (Tar::new().raw_pax(b"12 size=abc\n").file("f", "x").end(), "a PAX value that is not a number"),
        (Tar::new().add(big().kind(b'x')).end(), "the size of an extended header is over 1048576"),
        (Tar::new().add(big().kind(b'L')).end(), "the size of an extended header is over 1048576"),
        (Tar::new().raw(&[0; 512]).file("f", "x").end(), "a zero block inside the archive"),
        (sparse(&[(0, 100)]), "an invalid sparse map"),
        (sparse(&[(5, 3), (2, 3)]), "an invalid sparse map"),
        (sparse(&[(u64::MAX >> 2, 6)]), "an invalid sparse map"),
        (whole[..100].to_vec(), "truncated tar: it ends at byte 100, inside a header"),
        (whole[..512 + 1000].to_vec(), "truncated tar: it ends at byte 1512, inside a file's data"),
        (long[..700].to_vec(), "truncated tar: it ends at byte 700, inside an extended header"),
    ]
}

#[test]
fn invalid_archive_is_refused_with_its_reason() {
    for (tar, reason) in cases() {
        match Layer::of(&tar) {
            Err(error) => assert!(error.to_string().contains(reason), "{error}, not '{reason}'"),
            Ok(_) => panic!("unpacked, though '{reason}'"),
        }
    }
}

#[test]
fn archive_over_a_limit_is_refused_with_its_name() {
    let tar = Tar::new().file("a/b/c", vec![0; 5000]).file("d", "").file("e", "").end();
    let most = Limits::default();
    for (limits, kind) in [
        (Limits { bytes: 4999, ..most }, LimitKind::Bytes),
        (Limits { entries: 2, ..most }, LimitKind::Entries),
        (Limits { depth: 2, ..most }, LimitKind::Depth),
    ] {
        match Layer::read(&tar, None, 4096, limits) {
            Err(LayerError::Limit { what, .. }) => assert_eq!(what, kind),
            other => panic!("{kind:?}: {:?}", other.map(|layer| layer.unpacked)),
        }
    }
    let exact = Limits { bytes: 7168, entries: 3, depth: 3, ..most };
    assert!(Layer::read(&tar, None, 4096, exact).is_ok());
}

/// Whatever else is wrong: a blob with another digest must be reported as such.
#[test]
fn blob_with_another_digest_is_reported_before_its_content() {
    let invalid = around(Entry::dir("../"));
    let spec = BlobSpec { digest: Digest::of(b"another"), size: invalid.len() as u64 };
    let error = Layer::read(&invalid, Some(spec), 4096, Limits::default()).err().unwrap();
    assert!(matches!(error, LayerError::Digest { .. }), "{error}");
}
