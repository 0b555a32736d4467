//! Whiteouts beside entries of the same layer, in every order.
//!
//! A whiteout hides what lower layers have (OCI image-spec layer.md, "Whiteouts") and never
//! what its own layer has. dockerd fails where the whiteout comes after the name, and shows
//! what the layer deleted where it comes before a directory. Both lose what the layer says,
//! so rpull follows the specification instead.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::direct::Layer;
use crate::support::scratch;
use crate::support::tar::{Entry, Tar};

/// Some entries, and the paths that a mount above the lower layer must show below `d`.
struct Case {
    name: &'static str,
    /// Entries that come first, in this order.
    first: Vec<Entry>,
    /// Entries that come in every order.
    any: Vec<Entry>,
    visible: &'static [&'static str],
}

/// What the lower layer has.
fn lower() -> Layer {
    let tar = Tar::new()
        .file("d/old", "old")
        .file("d/sub/old", "old")
        .file("real/d/old", "old")
        .file("real/d/sub/old", "old")
        .file("kept", "kept")
        .end();
    Layer::of(&tar)
}

fn cases() -> Vec<Case> {
    let case = |name, first, any, visible| Case { name, first, any, visible };
    let new = || Entry::file("d/new", "new");
    vec![
        case("implied", vec![], vec![Entry::whiteout("d"), new()], &["d", "d/new"]),
        case(
            "two files",
            vec![],
            vec![Entry::whiteout("d"), new(), Entry::file("d/more", "")],
            &["d", "d/more", "d/new"],
        ),
        case(
            "explicit",
            vec![],
            vec![Entry::whiteout("d"), Entry::dir("d/"), new()],
            &["d", "d/new"],
        ),
        case(
            "implied and below",
            vec![],
            vec![Entry::whiteout("d"), Entry::file("d/sub/new", "new")],
            &["d", "d/sub", "d/sub/new"],
        ),
        case(
            "explicit and below",
            vec![],
            vec![
                Entry::whiteout("d"),
                Entry::dir("d/"),
                Entry::dir("d/sub/"),
                Entry::file("d/sub/new", "new"),
            ],
            &["d", "d/sub", "d/sub/new"],
        ),
        case(
            "only a directory below",
            vec![],
            vec![Entry::whiteout("d"), Entry::dir("d/sub/")],
            &["d", "d/sub"],
        ),
        case(
            "nested",
            vec![],
            vec![
                Entry::whiteout("d"),
                Entry::whiteout("d/sub"),
                Entry::file("d/sub/new", "new"),
                new(),
            ],
            &["d", "d/new", "d/sub", "d/sub/new"],
        ),
        case(
            "nested alone",
            vec![],
            vec![Entry::whiteout("d/sub"), Entry::file("d/sub/new", "new"), new()],
            &["d", "d/new", "d/old", "d/sub", "d/sub/new"],
        ),
        case(
            "nested whiteout of another name",
            vec![],
            vec![Entry::whiteout("d"), Entry::whiteout("d/old"), new()],
            &["d", "d/new"],
        ),
        case(
            "opaque",
            vec![],
            vec![Entry::whiteout("d"), Entry::opaque("d"), new()],
            &["d", "d/new"],
        ),
        case(
            "twice",
            vec![],
            vec![Entry::whiteout("d"), Entry::whiteout("./d"), new()],
            &["d", "d/new"],
        ),
        case(
            "only whiteouts below",
            vec![],
            vec![Entry::whiteout("d"), Entry::whiteout("d/old"), Entry::whiteout("d/sub/old")],
            &[],
        ),
        case(
            "only an opaque mark below",
            vec![],
            vec![Entry::whiteout("d"), Entry::opaque("d"), Entry::opaque("d/sub")],
            &[],
        ),
        case(
            "an empty directory",
            vec![],
            vec![Entry::whiteout("d"), Entry::dir("d/"), Entry::whiteout("d/sub/old")],
            &["d"],
        ),
        case(
            "a hardlink",
            vec![Entry::file("a", "new")],
            vec![Entry::whiteout("d"), Entry::hardlink("d/new", "a")],
            &["a", "d", "d/new"],
        ),
        case("a file", vec![], vec![Entry::whiteout("d"), Entry::file("d", "new")], &["d"]),
        case(
            "a file, then a directory",
            vec![Entry::file("d", "gone"), Entry::whiteout("d")],
            vec![Entry::dir("d/")],
            &["d"],
        ),
        case(
            "a whiteout, a file, then a directory",
            vec![Entry::whiteout("d"), Entry::file("d", "gone")],
            vec![Entry::dir("d/")],
            &["d"],
        ),
        case(
            "an opaque directory, a file, then a directory",
            vec![Entry::opaque("d"), Entry::file("d", "gone")],
            vec![Entry::dir("d/")],
            &["d"],
        ),
        case(
            "a directory replaced, then a whiteout",
            vec![
                Entry::dir("d/"),
                Entry::dir("d/sub/"),
                Entry::dir("d/sub/deep/"),
                Entry::file("d", "gone"),
                Entry::dir("d/"),
            ],
            vec![Entry::whiteout("d/sub")],
            &["d", "d/old"],
        ),
        case(
            "a symlink to a directory",
            vec![Entry::dir("e/")],
            vec![Entry::whiteout("d"), Entry::symlink("d", "e"), Entry::file("e/new", "new")],
            &["d", "e", "e/new"],
        ),
        case(
            "below a symlink to a directory",
            vec![Entry::dir("e/"), Entry::symlink("d", "e")],
            vec![Entry::whiteout("d"), new()],
            &["d", "e", "e/new"],
        ),
        case(
            "through a symlink",
            vec![Entry::dir("real/"), Entry::symlink("l", "real")],
            vec![Entry::whiteout("l/d"), Entry::file("l/d/new", "new"), Entry::dir("real/d/")],
            &["l", "real", "real/d", "real/d/new"],
        ),
        case(
            "through a symlink and below",
            vec![Entry::dir("real/"), Entry::symlink("l", "/real")],
            vec![
                Entry::whiteout("real/d"),
                Entry::file("l/d/sub/new", "new"),
                Entry::dir("l/d/sub/"),
            ],
            &["l", "real", "real/d", "real/d/sub", "real/d/sub/new"],
        ),
    ]
}

fn orders(entries: &[Entry]) -> Vec<Vec<Entry>> {
    if entries.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for n in 0..entries.len() {
        let mut rest = entries.to_vec();
        let first = rest.remove(n);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

/// The paths that an overlay mount of `upper` above `lower` shows, in a mount namespace of
/// its own so that no mount can be left behind.
#[track_caller]
fn mounted(upper: &Path, lower: &Path) -> Vec<String> {
    let at = scratch::dir();
    let script = "mount -t overlay overlay -o \"ro,lowerdir=$1:$2\" \"$3\" && cd \"$3\" && find .";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([upper, lower, at.path()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut paths: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("./")).map(str::to_owned).collect();
    paths.sort();
    paths
}

#[test]
fn whiteout_beside_entries_in_every_order_hides_lower_layers_only() {
    let lower = lower();
    let mut wrong = String::new();
    for case in cases() {
        for order in orders(&case.any) {
            let entries = [case.first.clone(), order].concat();
            let names: Vec<_> =
                entries.iter().map(|entry| String::from_utf8_lossy(&entry.name)).collect();
            let shown = format!("{}: {names:?}", case.name);
            // It also checks that the layer can be reassembled.
            let layer = Layer::of(&Tar::of(entries.clone()).end());
            let in_real = case.visible.iter().any(|path| path.starts_with("real/d"));
            let untouched: &[&str] = match in_real {
                true => &["d", "d/old", "d/sub", "d/sub/old", "kept"],
                false => &["kept", "real", "real/d", "real/d/old", "real/d/sub", "real/d/sub/old"],
            };
            let mut expected = [case.visible, untouched].concat();
            expected.sort_unstable();
            let found = mounted(&layer.diff(), &lower.diff());
            if found != expected {
                let _ = writeln!(wrong, "{shown}\n  mounted  {found:?}\n  expected {expected:?}");
            }
            for path in case.visible.iter().filter(|path| path.ends_with("/new")) {
                assert_eq!(fs::read_to_string(layer.diff().join(path)).unwrap(), "new", "{shown}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
