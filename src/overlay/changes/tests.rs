//! Tests of the changes of a mount.

use std::fs as std_fs;
use std::os::unix::fs::symlink;

use rustix::fs::XattrFlags;

use super::*;

fn changes(dir: &Path) -> Changes {
    Changes::open(dir, XattrSpace::User, &Abilities::none()).unwrap()
}

fn mark(path: &Path, name: &str, value: &str) {
    fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
}

fn walk(dir: &Path) -> Result<Vec<(String, ChangeKind)>, ChangesError> {
    let shown = |change: Change| (String::from_utf8(change.path).unwrap(), change.kind);
    changes(dir).walk().map(|change| change.map(shown)).collect()
}

#[test]
fn changes_are_sorted_and_marks_are_translated() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for path in ["b", "a", "a/x", "a-b"] {
        std_fs::create_dir_all(at(path)).unwrap();
    }
    std_fs::write(at("a/x/f"), "f").unwrap();
    std_fs::write(at("gone"), "").unwrap();
    symlink("/etc", at("link")).unwrap();
    mark(&at("b"), "user.overlay.opaque", "y");
    mark(&at("a"), "user.overlay.opaque", "x");
    mark(&at("a"), "user.overlay.impure", "y");
    mark(&at("a"), "user.kept", "1");
    mark(&at("gone"), "user.overlay.whiteout", "");
    let (dir_of, other) = (|opaque| ChangeKind::Dir { opaque }, ChangeKind::Other);
    let expected = [
        ("a", dir_of(false)),
        ("a/x", dir_of(false)),
        ("a/x/f", other(FileType::RegularFile)),
        ("a-b", dir_of(false)),
        ("b", dir_of(true)),
        ("gone", ChangeKind::Whiteout),
        ("link", other(FileType::Symlink)),
    ];
    let expected: Vec<_> = expected.map(|(path, kind)| (path.to_owned(), kind)).into();
    assert_eq!(walk(dir.path()).unwrap(), expected);
    let first = changes(dir.path()).walk().next().unwrap().unwrap();
    assert_eq!(first.xattrs, [(b"user.kept".to_vec(), b"1".to_vec())]);
}

#[test]
fn change_that_a_layer_cannot_express_is_refused_by_its_name() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        std_fs::create_dir(dir.path().join("d")).unwrap();
        std_fs::write(dir.path().join("d/f"), "f").unwrap();
        prepare(dir.path());
        walk(dir.path()).unwrap_err().to_string()
    };
    let name = refused(&|dir| std_fs::write(dir.join("d/.wh.x"), "").unwrap());
    assert!(name.starts_with("cannot commit '/d/.wh.x': "), "{name}");
    let renamed = refused(&|dir| mark(&dir.join("d"), "user.overlay.redirect", "e"));
    assert!(renamed.starts_with("cannot commit '/d': ") && renamed.contains("redirect_dir"));
    let partial = refused(&|dir| mark(&dir.join("d/f"), "user.overlay.metacopy", ""));
    assert!(partial.starts_with("cannot commit '/d/f': ") && partial.contains("metacopy"));
}

#[test]
fn file_that_changes_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std_fs::write(&file, "1").unwrap();
    let changes = changes(dir.path());
    let change = changes.walk().next().unwrap().unwrap();
    let open = changes.open_file(&change).unwrap();
    changes.must_be_same(&change, &open).unwrap();
    std_fs::write(&file, "22").unwrap();
    let error = changes.must_be_same(&change, &open).unwrap_err();
    assert_eq!(error.to_string(), "'/f' changed while it was read");
    std_fs::remove_file(&file).unwrap();
    assert!(matches!(changes.open_file(&change), Err(ChangesError::Changed { .. })));
}

#[test]
fn marks_that_this_process_cannot_read_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Changes::open(dir.path(), XattrSpace::Trusted, &Abilities::none()).unwrap_err();
    assert!(matches!(error, ChangesError::Marks { .. }), "{error}");
}
