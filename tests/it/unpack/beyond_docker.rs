//! What dockerd refuses or could not give back: we pull it, and a real dockerd on our
//! root saves it with the exact diff ids.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch;
use crate::support::snapshot::{self, chains};
use crate::support::tar::{Entry, Tar};

/// The name of an image, and the tars of its layers.
type Case = (&'static str, fn() -> Vec<Vec<u8>>);

const CASES: &[Case] = &[
    ("file-twice", file_twice),
    ("dotted-twice", dotted_twice),
    ("directory-twice", directory_twice),
    ("type-changes", type_changes),
    ("relinked", relinked),
    ("global-twice", global_twice),
    ("gnu-sparse", gnu_sparse),
    ("pax-sparse", pax_sparse),
    ("stated-sizes", stated_sizes),
    ("whiteout-data", whiteout_data),
    ("whiteout-late", whiteout_late),
    ("opaque-twice", opaque_twice),
    ("through-relative", through_relative),
    ("through-absolute", through_absolute),
    ("file-then-fifo", file_then_fifo),
    ("inner-dots", inner_dots),
    ("contiguous", contiguous),
];

struct Pulled {
    root: PathBuf,
    pulls: BTreeMap<&'static str, (Pushed, Image, Done)>,
    docker: Dockerd,
}

/// All cases in one root, with a dockerd on it.
fn pulled() -> &'static Pulled {
    static PULLED: OnceLock<Pulled> = OnceLock::new();
    PULLED.get_or_init(|| {
        let hub = Hub::shared();
        let root = scratch::lasting().join("root");
        let mut pulls = BTreeMap::new();
        for (name, layers) in CASES {
            let image = layers().into_iter().fold(Image::new(), Image::layer);
            let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository(name)));
            let done = Rpull::on(&root).run(["pull", "-q", &pushed.name()]);
            pulls.insert(*name, (pushed, image, done));
        }
        let docker = Dockerd::start(&root);
        Pulled { root, pulls, docker }
    })
}

/// The case's pull went well, a real dockerd saves it exactly; gives the top layer's tree.
#[track_caller]
fn saved(name: &str) -> PathBuf {
    let pulled = pulled();
    let (pushed, image, done) = &pulled.pulls[name];
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(pulled.docker.save(&pushed.name()), Ok(image.diff_ids()));
    let chain = chains(&image.diff_ids()).pop().unwrap();
    judge::judge(&pulled.root, &chain).unwrap();
    snapshot::diff_dir(&pulled.root, &chain)
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn file_twice() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .file("x", "the first, and longer")
            .file("between", "b")
            .file("x", "the second")
            .file("x", "the last")
            .end(),
    ]
}

#[test]
fn repeated_file_is_saved_exactly() {
    let tree = saved("file-twice");
    assert_eq!(text(tree.join("x")), "the last");
    assert_eq!(text(tree.join("between")), "b");
}

fn dotted_twice() -> Vec<Vec<u8>> {
    vec![Tar::new().dir("d").file("d/x", "one").file("./d//x", "two").dir("./d/").end()]
}

#[test]
fn name_in_two_spellings_is_saved_exactly() {
    assert_eq!(text(saved("dotted-twice").join("d/x")), "two");
}

fn directory_twice() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .add(Entry::dir("d/").mode(0o700))
            .file("d/x", "stays")
            .add(Entry::dir("d/").mode(0o755).owner(5, 6))
            .end(),
    ]
}

#[test]
fn repeated_directory_is_saved_exactly() {
    let tree = saved("directory-twice");
    let meta = fs::metadata(tree.join("d")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 5, 6));
    assert_eq!(text(tree.join("d/x")), "stays");
}

fn type_changes() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .file("file-dir", "gone but recorded")
            .dir("file-dir/")
            .file("file-dir/x", "x")
            .dir("dir-file/")
            .file("dir-file/deep", "gone with its directory")
            .file("dir-file", "a file")
            .add(Entry::symlink("link-file", "/etc/passwd"))
            .file("link-file", "not through the link")
            .file("file-link", "replaced")
            .add(Entry::symlink("file-link", "target"))
            .end(),
    ]
}

#[test]
fn name_that_changes_its_type_is_saved_exactly() {
    let tree = saved("type-changes");
    assert_eq!(text(tree.join("file-dir/x")), "x");
    assert_eq!(text(tree.join("dir-file")), "a file");
    assert!(fs::symlink_metadata(tree.join("link-file")).unwrap().is_file());
    assert_eq!(fs::read_link(tree.join("file-link")).unwrap(), Path::new("target"));
}

fn relinked() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .file("a", "old")
            .add(Entry::hardlink("b", "a"))
            .file("a", "new")
            .add(Entry::hardlink("c", "a"))
            .file("b", "newest")
            .end(),
    ]
}

#[test]
fn repeated_file_with_links_is_saved_exactly() {
    let tree = saved("relinked");
    assert_eq!(["a", "b", "c"].map(|name| text(tree.join(name))), ["new", "newest", "new"]);
}

fn global_twice() -> Vec<Vec<u8>> {
    vec![Tar::new().global("comment", "1").file("x", "x").global("comment", "2").end()]
}

#[test]
fn two_global_headers_are_saved_exactly() {
    assert_eq!(text(saved("global-twice").join("x")), "x");
}

fn gnu_sparse() -> Vec<Vec<u8>> {
    let parts: Vec<_> = (0..30).map(|n| (n * 8192, 512)).collect();
    let data: Vec<u8> = (0..30u8).flat_map(|n| [n + 1; 512]).collect();
    vec![
        Tar::new()
            .add(Entry::gnu_sparse("few", &[(0, 5), (100_000, 3)], 200_000, b"startend"))
            .add(Entry::gnu_sparse("many", &parts, 300_000, &data))
            .file("after", "read at the right place")
            .end(),
    ]
}

#[test]
fn gnu_sparse_files_are_saved_exactly() {
    let tree = saved("gnu-sparse");
    let few = fs::read(tree.join("few")).unwrap();
    assert_eq!(
        (few.len(), &few[..5], &few[100_000..100_003]),
        (200_000, &b"start"[..], &b"end"[..])
    );
    assert!(few[5..100_000].iter().chain(&few[100_003..]).all(|b| *b == 0));
    let many = fs::read(tree.join("many")).unwrap();
    assert_eq!((many.len(), many[29 * 8192]), (300_000, 30));
    assert_eq!(text(tree.join("after")), "read at the right place");
}

fn pax_sparse() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .add(Entry::pax_sparse("sparse", &[(10, 4), (70_000, 3)], 70_010, b"fourtwo"))
            .add(Entry::pax_sparse_map("old", &[(4000, 3)], 5000, b"xyz"))
            .add(Entry::pax_sparse_pairs("oldest", &[(4000, 3)], 5000, b"xyz"))
            .file("after", "read at the right place")
            .end(),
    ]
}

#[test]
fn pax_sparse_files_are_saved_exactly() {
    let tree = saved("pax-sparse");
    let sparse = fs::read(tree.join("sparse")).unwrap();
    assert_eq!(
        (sparse.len(), &sparse[10..14], &sparse[70_000..70_003]),
        (70_010, &b"four"[..], &b"two"[..])
    );
    for name in ["old", "oldest"] {
        let old = fs::read(tree.join(name)).unwrap();
        assert_eq!((old.len(), &old[4000..4003]), (5000, &b"xyz"[..]), "{name}");
    }
    assert_eq!(text(tree.join("after")), "read at the right place");
}

fn stated_sizes() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .add(Entry::dir("d/").claims(4096))
            .file("x", "data")
            .add(Entry::symlink("s", "x").claims(1))
            .add(Entry::hardlink("h", "x").claims(4))
            .add(Entry::fifo("p").claims(9))
            .file("after", "read at the right place")
            .end(),
    ]
}

#[test]
fn size_on_an_entry_without_data_is_saved_exactly() {
    let tree = saved("stated-sizes");
    assert_eq!(text(tree.join("h")), "data");
    assert_eq!(text(tree.join("after")), "read at the right place");
}

fn whiteout_data() -> Vec<Vec<u8>> {
    let base = Tar::new().file("x", "x").dir("d/").file("d/y", "y").end();
    let top = Tar::new()
        .add(Entry::whiteout("x").data("a whiteout with words"))
        .add(Entry::opaque("d").data("an opaque one, too"))
        .end();
    vec![base, top]
}

#[test]
fn whiteouts_with_data_are_saved_exactly() {
    let tree = saved("whiteout-data");
    assert!(fs::symlink_metadata(tree.join("x")).unwrap().file_type().is_char_device());
    assert!(snapshot::names(&tree.join("d")).is_empty());
}

fn whiteout_late() -> Vec<Vec<u8>> {
    let base = Tar::new().file("x", "below").dir("d/").file("d/y", "below").end();
    let top = Tar::new()
        .file("x", "above")
        .add(Entry::whiteout("x"))
        .dir("d/")
        .file("d/z", "above")
        .add(Entry::whiteout("d"))
        .add(Entry::whiteout("e"))
        .file("e", "the whiteout came first")
        .end();
    vec![base, top]
}

/// A whiteout hides what lower layers have, in whatever order it comes.
#[test]
fn whiteout_before_or_after_its_name_hides_lower_layers_only() {
    let tree = saved("whiteout-late");
    assert_eq!(text(tree.join("x")), "above");
    assert_eq!(text(tree.join("d/z")), "above");
    assert_eq!(text(tree.join("e")), "the whiteout came first");
    let opaque = snapshot::xattrs(&tree.join("d"));
    assert_eq!(opaque, [("trusted.overlay.opaque".to_owned(), b"y".to_vec())]);
}

fn opaque_twice() -> Vec<Vec<u8>> {
    let base = Tar::new().dir("d/").file("d/y", "below").end();
    let top = Tar::new()
        .add(Entry::opaque("d"))
        .file("d/x", "above")
        .add(Entry::opaque("./d"))
        .add(Entry::whiteout("y"))
        .add(Entry::whiteout("y"))
        .end();
    vec![base, top]
}

#[test]
fn repeated_whiteouts_are_saved_exactly() {
    assert_eq!(snapshot::names(&saved("opaque-twice").join("d")), ["x"]);
}

fn through_relative() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .dir("usr/lib/")
            .add(Entry::symlink("lib", "usr/lib"))
            .file("lib/x", "through a relative symlink")
            .add(Entry::hardlink("lib/y", "lib/x"))
            .end(),
    ]
}

#[test]
fn file_through_a_relative_symlink_is_saved_exactly() {
    let tree = saved("through-relative");
    assert_eq!(text(tree.join("usr/lib/x")), "through a relative symlink");
    assert_eq!(text(tree.join("usr/lib/y")), "through a relative symlink");
    assert!(fs::symlink_metadata(tree.join("lib")).unwrap().is_symlink());
}

fn through_absolute() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .dir("run/")
            .dir("var/")
            .add(Entry::symlink("var/run", "/run"))
            .file("var/run/written-by-rpull", "through an absolute symlink")
            .add(Entry::symlink("up", "../../run"))
            .file("up/written-by-rpull-2", "and one that climbs")
            .end(),
    ]
}

/// Docker would unpack this in a chroot and later open the host's `/run/...`.
#[test]
fn file_through_an_absolute_symlink_is_saved_exactly() {
    let tree = saved("through-absolute");
    assert_eq!(text(tree.join("run/written-by-rpull")), "through an absolute symlink");
    assert_eq!(text(tree.join("run/written-by-rpull-2")), "and one that climbs");
    assert!(!Path::new("/run/written-by-rpull").exists());
}

fn file_then_fifo() -> Vec<Vec<u8>> {
    vec![Tar::new().file("x", "docker save would wait here").add(Entry::fifo("/x")).end()]
}

#[test]
fn file_that_became_a_fifo_is_saved_exactly() {
    let tree = saved("file-then-fifo");
    assert!(fs::symlink_metadata(tree.join("x")).unwrap().file_type().is_fifo());
}

fn inner_dots() -> Vec<Vec<u8>> {
    vec![Tar::new().dir("a/").file("a/../b", "inside all the way").end()]
}

#[test]
fn name_with_dots_inside_the_layer_is_saved_exactly() {
    assert_eq!(text(saved("inner-dots").join("b")), "inside all the way");
}

fn contiguous() -> Vec<Vec<u8>> {
    vec![Tar::new().add(Entry::file("x", "a contiguous file is a file").kind(b'7')).end()]
}

#[test]
fn contiguous_file_is_saved_exactly() {
    assert_eq!(text(saved("contiguous").join("x")), "a contiguous file is a file");
}
