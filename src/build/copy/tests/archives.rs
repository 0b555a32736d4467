use super::*;

#[test]
fn added_archive_is_unpacked_and_other_files_are_copied() {
    let (dir, base_dir) = (context_dir(), tempfile::tempdir().unwrap());
    std::os::unix::fs::chown(dir.path().join("d/f"), Some(5), Some(6)).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir.path()).args(["--sort=name", "-czf"]);
    tar.arg(dir.path().join("a.tgz")).args(["d/f", "d/hard", "d/l", "d/sub"]);
    assert!(tar.status().unwrap().success());
    let context = open(dir.path());
    let from = CopyFrom::Context(&context);
    let add =
        |sources: &[&str], to| CopySpec { unpack: true, owner: Some((1, 1)), ..spec(sources, to) };
    let unpacked = |dir: &str| {
        vec![
            format!("-rw-r--r-- 5/6 {dir}f"),
            format!("hrw-r--r-- 5/6 {dir}hard link to {dir}f"),
            format!("lrwxrwxrwx 0/0 {dir}l -> f"),
            format!("drwxr-s--x 0/0 {dir}sub/"),
            format!("-rw------- 0/0 {dir}sub/g"),
        ]
    };
    let dirs = |names: [&str; 2]| names.map(|name| format!("drwxr-xr-x 0/0 {name}")).to_vec();
    let expected = [dirs(["x/", "x/d/"]), unpacked("x/d/")].concat();
    assert_eq!(copied(from, &add(&["a.tgz"], "/x"), None), expected);
    // A symlink of the image leads to another directory.
    fs::create_dir_all(base_dir.path().join("x/e")).unwrap();
    symlink("e", base_dir.path().join("x/d")).unwrap();
    let base = tree(base_dir.path());
    let expected = [dirs(["x/", "x/e/"]), unpacked("x/e/")].concat();
    assert_eq!(copied(from, &add(&["a.tgz"], "/x"), Some(&base)), expected);
    // Sources after the archive come after its content.
    let expected = [expected, vec!["-rwxr-xr-x 1/1 x/caps".to_owned()]].concat();
    assert_eq!(copied(from, &add(&["a.tgz", "caps"], "/x/"), Some(&base)), expected);
    assert_eq!(copied(from, &add(&["caps"], "/x"), None), ["-rwxr-xr-x 1/1 x"]);
    assert_eq!(copied(from, &spec(&["a.tgz"], "/x"), None), ["-rw-r--r-- 0/0 x"]);
    let prepared = prepare(from, &add(&["a.tgz"], "/x"), None).unwrap();
    fs::write(dir.path().join("a.tgz"), "no archive").unwrap();
    assert!(
        matches!(prepared.write(std::io::sink()), Err(CopyError::Changed(path)) if path == "a.tgz")
    );
}

#[test]
fn archive_keeps_names_that_are_not_text() {
    let dir = context_dir();
    let mut tar = crate::layer::TarWriter::new(Vec::new());
    let header = crate::layer::NewEntry::file();
    tar.entry(&crate::layer::NewEntry { name: b"d\xff/f\xfe", ..header }).unwrap();
    fs::write(dir.path().join("a.tar"), tar.finish().unwrap()).unwrap();
    let context = open(dir.path());
    let add = CopySpec { unpack: true, ..spec(&["a.tar"], "/") };
    let tar = written(prepare(CopyFrom::Context(&context), &add, None).unwrap());
    assert!(tar.starts_with(b"d\xff/\0"));
    assert!(tar[512..].starts_with(b"d\xff/f\xfe\0"));
}

#[test]
fn invalid_archive_is_an_error() {
    let dir = context_dir();
    let context = open(dir.path());
    for (name, content, why) in [
        ("a.txz", b"\xfd7zXZ\0".to_vec(), "xz"),
        ("up.tar", archive(dir.path(), "--transform=s,^,../,"), "climbs"),
        ("whiteout.tar", archive(dir.path(), "--transform=s,^,.wh.,"), ".wh."),
        ("cut.tar", archive(dir.path(), "--totals")[..600].to_vec(), "file's data"),
    ] {
        fs::write(dir.path().join(name), content).unwrap();
        let add = CopySpec { unpack: true, ..spec(&[name], "/x/") };
        let error = error(CopyFrom::Context(&context), &add, None);
        assert!(
            error.starts_with(&format!("cannot unpack {name}: ")) && error.contains(why),
            "{error}"
        );
    }
}

fn archive(dir: &Path, option: &str) -> Vec<u8> {
    fs::write(dir.join("big"), vec![1; 1000]).unwrap();
    let output = Command::new("tar").arg("-C").arg(dir).args(["-cP", option, "big"]).output();
    output.unwrap().stdout
}
