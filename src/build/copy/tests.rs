mod archives;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::overlay::{MergedLayer, MergedTree, OpaqueDirs};

/// A context like the one that the expected lists were made of with dockerd 20.10.
fn context_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("d/sub")).unwrap();
    for (name, mode) in [("suid", 0o6755), ("caps", 0o755), ("d/f", 0o644), ("d/sub/g", 0o600)] {
        fs::write(at(name), name).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (link, target) in [
        ("d/l", "f"),
        ("d/dl", "sub"),
        ("lf", "suid"),
        ("ld", "/d"),
        ("out", "../../etc/hostname"),
        ("loop", "loop"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    fs::hard_link(at("d/f"), at("d/hard")).unwrap();
    fs::set_permissions(at("d/sub"), fs::Permissions::from_mode(0o2751)).unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

fn open(dir: &Path) -> Context {
    Context::open(dir, &dir.join("Dockerfile")).unwrap()
}

fn tree(dir: &Path) -> MergedTree {
    let layer = MergedLayer::open(dir, OpaqueDirs::Marked(Vec::new())).unwrap();
    MergedTree::new(vec![layer])
}

fn spec(sources: &[&str], destination: &str) -> CopySpec {
    CopySpec {
        sources: sources.iter().map(|&source| source.to_owned()).collect(),
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        unpack: false,
    }
}

fn written(prepared: super::prepared::Prepared<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    prepared.write(&mut out).unwrap();
    out
}

/// Type, mode, owner and name of each entry, as GNU tar lists them.
fn listed(tar: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t"), tar).unwrap();
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "-tvf"]).arg(dir.path().join("t"));
    let output = command.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (mode, owner) = (fields.next().unwrap(), fields.next().unwrap());
        let name: Vec<_> = fields.skip(3).collect();
        format!("{mode} {owner} {}", name.join(" "))
    };
    text.lines().map(line).collect()
}

fn copied(from: CopyFrom<'_>, spec: &CopySpec, base: Option<&MergedTree>) -> Vec<String> {
    listed(&written(prepare(from, spec, base).unwrap()))
}

fn error(from: CopyFrom<'_>, spec: &CopySpec, base: Option<&MergedTree>) -> String {
    prepare(from, spec, base).unwrap_err().to_string()
}

#[test]
fn copies_of_a_context_equal_those_of_docker() {
    let dir = context_dir();
    let context = open(dir.path());
    let from = CopyFrom::Context(&context);
    let content = |prefix: &str, owner: &str| {
        [
            ("lrwxrwxrwx", "dl -> sub"),
            ("-rw-r--r--", "f"),
            ("hrw-r--r--", &format!("hard link to {prefix}f")),
            ("lrwxrwxrwx", "l -> f"),
            ("drwxr-s--x", "sub/"),
            ("-rw-------", "sub/g"),
        ]
        .map(|(mode, name)| format!("{mode} {owner} {prefix}{name}"))
        .to_vec()
    };
    let dir_line = |name: &str| format!("drwxr-xr-x 0/0 {name}");
    let suid = |name: &str| format!("-rwxr-xr-x 0/0 {name}");
    let cases: [(&[&str], &str, Vec<String>); 9] = [
        (&["suid"], "/a/b/suid", vec![dir_line("a/"), dir_line("a/b/"), suid("a/b/suid")]),
        (
            &["suid", "caps", "d"],
            "/x/",
            [vec![dir_line("x/"), suid("x/caps")], content("x/", "0/0"), vec![suid("x/suid")]]
                .concat(),
        ),
        (&["d"], "/y", [vec![dir_line("y/")], content("y/", "0/0")].concat()),
        (&["lf"], "/lf", vec![suid("lf")]),
        (&["ld/"], "/ld", [vec![dir_line("ld/")], content("ld/", "0/0")].concat()),
        (&["s*"], "/w/", vec![dir_line("w/"), suid("w/suid")]),
        (
            &["d/l", "d/dl"],
            "/q/",
            vec![dir_line("q/"), "-rw------- 0/0 q/g".to_owned(), "-rw-r--r-- 0/0 q/l".to_owned()],
        ),
        (&["d/../suid"], "/dd", vec![suid("dd")]),
        (&["./d/[a-f]"], "/f", vec!["-rw-r--r-- 0/0 f".to_owned()]),
    ];
    for (sources, destination, expected) in cases {
        assert_eq!(copied(from, &spec(sources, destination), None), expected, "{sources:?}");
    }
    // A created directory above a file gets the owner; one above a directory does not.
    let owned = CopySpec { owner: Some((7, 8)), ..spec(&["d"], "/c/e") };
    let expected = [vec![dir_line("c/"), "drwxr-xr-x 7/8 c/e/".to_owned()], content("c/e/", "7/8")];
    assert_eq!(copied(from, &owned, None), expected.concat());
    let owned = CopySpec { owner: Some((7, 8)), mode: Some(0o4711), ..spec(&["suid"], "/c/e/") };
    let expected = ["drwxr-xr-x 7/8 c/", "drwxr-xr-x 7/8 c/e/", "-rws--x--x 7/8 c/e/suid"];
    assert_eq!(copied(from, &owned, None), expected);
}

#[test]
fn copies_of_a_stage_keep_owners_and_modes_unless_one_is_given() {
    let dir = context_dir();
    let stage = tree(dir.path());
    std::os::unix::fs::chown(dir.path().join("suid"), Some(5), Some(6)).unwrap();
    fs::set_permissions(dir.path().join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let from = CopyFrom::Stage(&stage);
    assert_eq!(copied(from, &spec(&["/suid"], "/s"), None), ["-rwsr-xr-x 5/6 s"]);
    let owned = CopySpec { owner: Some((0, 1)), ..spec(&["/suid"], "/s") };
    assert_eq!(copied(from, &owned, None), ["-rwxr-xr-x 0/1 s"]);
    assert_eq!(error(from, &spec(&["no"], "/"), None), "stat no: file does not exist");
}

#[test]
fn destination_follows_links_of_the_image_and_keeps_its_directories() {
    let (dir, base_dir) = (context_dir(), tempfile::tempdir().unwrap());
    let at = |name: &str| base_dir.path().join(name);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::set_permissions(at("usr"), fs::Permissions::from_mode(0o1770)).unwrap();
    std::os::unix::fs::chown(at("usr"), Some(3), Some(4)).unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    symlink("../../../usr/new/./x", at("usr/dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    fs::write(at("file"), "").unwrap();
    let (context, base) = (open(dir.path()), tree(base_dir.path()));
    let from = CopyFrom::Context(&context);
    let copied = |destination: &str| copied(from, &spec(&["caps"], destination), Some(&base));
    let (usr, bin) = ("drwxrwx--T 3/4 usr/", "drwxr-xr-x 0/0 usr/bin/");
    assert_eq!(copied("/bin"), [usr, bin, "-rwxr-xr-x 0/0 usr/bin/caps"]);
    assert_eq!(copied("/bin/../bin/./y"), [usr, bin, "-rwxr-xr-x 0/0 usr/bin/y"]);
    let new = ["drwxr-xr-x 0/0 usr/new/", "-rwxr-xr-x 0/0 usr/new/x"];
    assert_eq!(copied("/usr/dangling"), [usr, new[0], new[1]]);
    assert_eq!(copied("/file"), ["-rwxr-xr-x 0/0 file"]);
    assert_eq!(copied("/"), ["-rwxr-xr-x 0/0 caps"]);
    for (source, destination, why) in [
        ("caps", "/file/x", "not a directory"),
        ("caps", "/file/", "not a directory"),
        ("d", "/file", "not a directory"),
        ("caps", "/loop", "too many levels of symbolic links"),
    ] {
        let expected = format!("cannot copy to {destination}: {why}");
        assert_eq!(error(from, &spec(&[source], destination), Some(&base)), expected);
    }
}

#[test]
fn missing_and_forbidden_sources_have_dockers_errors() {
    let dir = context_dir();
    let context = open(dir.path());
    let from = CopyFrom::Context(&context);
    let not_found = |path: &str| {
        format!(
            "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
        )
    };
    for path in ["no", "out", "caps/x", "d/no/x"] {
        assert_eq!(error(from, &spec(&[path], "/"), None), not_found(path));
    }
    for path in ["no*", "[a", "*/*/*/*"] {
        assert_eq!(error(from, &spec(&[path], "/"), None), "no source files were specified");
    }
    let outside = error(from, &spec(&["../x"], "/"), None);
    assert_eq!(outside, "forbidden path outside the build context: ../x ()");
    let several = error(from, &spec(&["caps", "suid"], "/x"), None);
    assert_eq!(
        several,
        "When using COPY with more than one source file, the destination must be a directory and end with a /"
    );
    let looped = error(from, &spec(&["loop"], "/"), None);
    assert_eq!(looped, "cannot copy loop: too many levels of symbolic links");
    let status = Command::new("mkfifo").arg(dir.path().join("d/fifo")).status().unwrap();
    assert!(status.success());
    let fifo = error(from, &spec(&["d"], "/"), None);
    assert!(fifo.starts_with("cannot copy d/fifo: it is not"), "{fifo}");
    fs::remove_file(dir.path().join("d/fifo")).unwrap();
    fs::write(dir.path().join("d/.wh.f"), "").unwrap();
    let whiteout = error(from, &spec(&["d"], "/"), None);
    assert!(whiteout.starts_with("cannot copy d/.wh.f: names that begin"), "{whiteout}");
}

#[test]
fn ignored_files_are_left_out() {
    let dir = context_dir();
    let names = |patterns: &str, source: &str| {
        fs::write(dir.path().join(".dockerignore"), patterns).unwrap();
        let context = Context::open(dir.path(), &dir.path().join("Dockerfile"))?;
        let prepared = prepare(CopyFrom::Context(&context), &spec(&[source], "/x/"), None);
        prepared.map(|prepared| {
            let lines = listed(&written(prepared));
            let name = |line: &String| line.split(' ').nth(2).unwrap().to_owned();
            lines.iter().map(name).collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(names("*\n!d/sub", ".").unwrap(), "x/ x/d/ x/d/sub/ x/d/sub/g");
    assert_eq!(names("*\n!d/sub", "d").unwrap(), "x/ x/sub/ x/sub/g");
    assert_eq!(names("d/*\n!d/l", "d").unwrap(), "x/ x/l");
    assert_eq!(names("d/l\nd/dl\nd/hard\nd/sub/g", "d").unwrap(), "x/ x/f x/sub/");
    for (patterns, source) in
        [("suid", "lf"), ("lf", "lf"), ("d", "d"), ("ld", "ld/f"), ("d\n!d/no", "d")]
    {
        assert!(
            matches!(names(patterns, source), Err(CopyError::NotFound(path)) if path == source)
        );
    }
    assert!(matches!(names("s*", "s*"), Err(CopyError::NoSource)));
    assert!(matches!(names("a\n[", "d"), Err(CopyError::IgnorePattern { line: 2, .. })));
    // The file of the Dockerfile comes first.
    fs::write(dir.path().join("Dockerfile.dockerignore"), "*\n!suid").unwrap();
    assert_eq!(names("d", ".").unwrap(), "x/ x/suid");
}

#[test]
fn checksum_follows_content_mode_owner_and_names_but_not_times() {
    let dir = context_dir();
    let context = open(dir.path());
    let from = CopyFrom::Context(&context);
    let checksum = |spec: &CopySpec| prepare(from, spec, None).unwrap().checksum();
    let copy = spec(&["d"], "/x");
    let first = checksum(&copy);
    let file = fs::File::options().write(true).open(dir.path().join("d/f")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(checksum(&copy), first);
    let mut all = BTreeMap::from([(first.hex(), "first")]);
    let mut add = |spec: &CopySpec, what| {
        let digest = checksum(spec).hex();
        assert_eq!(all.insert(digest, what), None, "{what}");
    };
    add(&CopySpec { owner: Some((1, 0)), ..copy.clone() }, "owner");
    add(&CopySpec { mode: Some(0o600), ..copy.clone() }, "mode");
    fs::write(dir.path().join("d/f"), "d/F").unwrap();
    add(&copy, "content");
    fs::rename(dir.path().join("d/l"), dir.path().join("d/m")).unwrap();
    add(&copy, "name");
    fs::remove_file(dir.path().join("d/dl")).unwrap();
    symlink("suc", dir.path().join("d/dl")).unwrap();
    add(&copy, "target");
    let text = prepare(from, &spec(&["d*"], "/x/"), None).unwrap().checksum_text();
    assert!(text.starts_with("dir:") && text.len() == 68, "{text}");
    let two = prepare(from, &spec(&["caps", "suid"], "/"), None).unwrap().checksum_text();
    assert!(two.starts_with("multi:"), "{two}");
}

#[test]
fn later_source_replaces_an_earlier_one_at_the_same_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/n/below")).unwrap();
    fs::create_dir_all(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("b/n"), "file").unwrap();
    let context = open(dir.path());
    let names = |sources: &[&str]| {
        let lines = copied(CopyFrom::Context(&context), &spec(sources, "/x/"), None);
        lines.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["a", "b"]), ["x/", "x/n"]);
    assert_eq!(names(&["b", "a"]), ["x/", "x/n/", "x/n/below/"]);
}

#[test]
fn file_that_changes_after_the_checksum_is_an_error() {
    let dir = context_dir();
    let context = open(dir.path());
    let file = dir.path().join("caps");
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(&file, "CAPS").unwrap(),
        &|| fs::write(&file, "longer").unwrap(),
        &|| fs::write(&file, "").unwrap(),
        &|| {
            fs::remove_file(&file).unwrap();
            symlink("/etc/passwd", &file).unwrap();
        },
    ];
    for change in changes {
        fs::write(&file, "caps").unwrap();
        let prepared = prepare(CopyFrom::Context(&context), &spec(&["caps"], "/x"), None).unwrap();
        change();
        let error = prepared.write(std::io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "caps changed while it was copied");
    }
}

#[test]
fn full_output_is_an_error() {
    let dir = context_dir();
    let context = open(dir.path());
    let prepared = prepare(CopyFrom::Context(&context), &spec(&["d"], "/x"), None).unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    assert!(matches!(prepared.write(full), Err(CopyError::Write(_))));
}
