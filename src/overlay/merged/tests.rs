//! The merged view against mounts of overlayfs.

mod compare;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs as stdfs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::*;
use crate::overlay::{Stack, XattrSpace, unmount};

/// What is created in a layer. Names repeat, so that layers hide each other's files.
#[derive(Debug, Clone)]
enum Op {
    File(String, u8),
    Dir(String, bool),
    Symlink(String, String),
    Hardlink(String, String),
    Whiteout(String),
    Fifo(String),
}

fn path() -> impl Strategy<Value = String> {
    vec("[ab]", 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    let parts = vec("a|b|\\.|\\.\\.", 1..4);
    ("/{0,1}", parts, "/{0,1}").prop_map(|(start, parts, end)| start + &parts.join("/") + &end)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, size)| Op::File(path, size)),
        3 => (path(), any::<bool>()).prop_map(|(path, opaque)| Op::Dir(path, opaque)),
        2 => (path(), target()).prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => (path(), path()).prop_map(|(old, new)| Op::Hardlink(old, new)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Fifo),
    ]
}

/// Does what `op` says, if nothing is in the way.
fn apply(layer: &Path, op: &Op, mtime: i64) {
    let (path, at) = match op {
        Op::File(path, _)
        | Op::Dir(path, _)
        | Op::Symlink(path, _)
        | Op::Hardlink(_, path)
        | Op::Whiteout(path)
        | Op::Fifo(path) => (path, layer.join(path)),
    };
    let mut parent = layer.to_owned();
    for part in Path::new(path).parent().into_iter().flatten() {
        parent.push(part);
        let _ = stdfs::create_dir(&parent);
        if !parent.symlink_metadata().unwrap().is_dir() {
            return;
        }
    }
    let node = |kind| fs::mknodat(CWD, &at, kind, Mode::from_raw_mode(0o600), 0);
    match op {
        Op::Dir(_, opaque) => {
            let _ = stdfs::create_dir(&at);
            if *opaque && at.symlink_metadata().unwrap().is_dir() {
                let name = XattrSpace::Trusted.opaque();
                fs::setxattr(&at, name, b"y", XattrFlags::empty()).unwrap();
            }
        }
        _ if at.symlink_metadata().is_ok() => return,
        Op::File(_, size) => {
            stdfs::write(&at, vec![*size; usize::from(*size)]).unwrap();
            stdfs::set_permissions(&at, PermissionsExt::from_mode(0o600 + u32::from(size & 7)))
                .unwrap();
        }
        Op::Symlink(_, target) => std::os::unix::fs::symlink(target, &at).unwrap(),
        Op::Hardlink(old, _) => {
            let old = layer.join(old);
            if old.symlink_metadata().is_ok_and(|old| old.is_file()) {
                stdfs::hard_link(old, &at).unwrap();
            }
            return;
        }
        Op::Whiteout(_) => node(FileType::CharacterDevice).unwrap(),
        Op::Fifo(_) => node(FileType::Fifo).unwrap(),
    }
    let time = fs::Timespec { tv_sec: mtime, tv_nsec: 5 };
    let times = fs::Timestamps { last_access: time, last_modification: time };
    let _ = fs::utimensat(CWD, &at, &times, fs::AtFlags::SYMLINK_NOFOLLOW);
}

/// The layers, topmost first, and a directory to mount them at.
struct Scratch {
    dir: tempfile::TempDir,
    lower: Vec<PathBuf>,
}

impl Scratch {
    fn new(layers: &[Vec<Op>]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        stdfs::create_dir(dir.path().join("m")).unwrap();
        let mut lower = Vec::new();
        for (number, ops) in layers.iter().enumerate() {
            let layer = dir.path().join(format!("l{number}"));
            stdfs::create_dir(&layer).unwrap();
            for (at, op) in ops.iter().enumerate() {
                apply(&layer, op, (100 * number + at) as i64);
            }
            lower.insert(0, layer);
        }
        Self { dir, lower }
    }

    fn tree(&self) -> MergedTree {
        let marked = || OpaqueDirs::Marked(vec![XattrSpace::Trusted]);
        let layers = self.lower.iter().map(|layer| MergedLayer::open(layer, marked()).unwrap());
        MergedTree::new(layers.collect())
    }

    fn mount(&self) -> Mounted {
        let stack = Stack {
            lower: self.lower.clone(),
            links: Vec::new(),
            links_dir: PathBuf::from("/"),
            upper: None,
            userxattr: false,
        };
        let at = self.dir.path().join("m");
        stack.mount(&at).unwrap();
        Mounted(at)
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0);
    }
}

/// A line for each entry, with everything that must be equal.
type Listing = BTreeMap<Vec<u8>, String>;

fn listing_of_mount(dir: &Path, below: &Path, found: &mut Listing) {
    for name in stdfs::read_dir(dir.join(below)).unwrap().map(|entry| entry.unwrap().file_name()) {
        let path = below.join(name);
        // A directory of one layer lists whiteouts, which do not exist.
        let Ok(meta) = dir.join(&path).symlink_metadata() else { continue };
        let text = match () {
            () if meta.is_file() => format!("{:?}", stdfs::read(dir.join(&path)).unwrap()),
            () if meta.is_symlink() => format!("{:?}", stdfs::read_link(dir.join(&path)).unwrap()),
            () => String::new(),
        };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let line = format!("{:o} {links} {} {text}", meta.mode(), meta.mtime());
        found.insert(path.as_os_str().as_bytes().to_vec(), line);
        if meta.is_dir() {
            listing_of_mount(dir, &path, found);
        }
    }
}

fn listing_of_tree(tree: &MergedTree) -> Listing {
    let mut found = Listing::new();
    let mut last = Vec::new();
    for entry in tree.walk(&tree.root().unwrap()) {
        let entry = entry.unwrap();
        let text = match entry.kind() {
            FileType::RegularFile => {
                let mut bytes = Vec::new();
                entry.open().unwrap().read_to_end(&mut bytes).unwrap();
                format!("{bytes:?}")
            }
            FileType::Symlink => format!("{:?}", OsStr::from_bytes(&entry.read_link().unwrap())),
            _ => String::new(),
        };
        let links = if entry.is_dir() { 0 } else { entry.stat.st_nlink };
        let line = format!("{:o} {links} {} {text}", entry.stat.st_mode, entry.stat.st_mtime);
        // The parts of the path are sorted, and a directory comes before its content.
        let parts: Vec<_> = entry.path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect();
        assert!(parts > last, "{:?} after {last:?}", parts);
        last = parts;
        assert!(found.insert(entry.path.clone(), line).is_none(), "twice");
    }
    found
}

/// Resolves a path in a mount as in a chroot. Returns the path that it leads to.
fn resolve_in_mount(dir: &Path, path: &str, follow: Follow) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(dir, flags, Mode::empty())?;
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, follow == Follow::No);
    let found = loop {
        match fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // A mount of another test interfered with `..`.
            Err(Errno::AGAIN) => {}
            found => break found?,
        }
    };
    let link = stdfs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
    Ok(link.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec())
}

fn in_private_mounts(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        #[expect(
            deprecated,
            reason = "its replacement guards against FILES only, which is not used"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).unwrap();
        work();
    });
    thread.join().unwrap();
}

fn check<S>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError> + Send + 'static,
) where
    S: Strategy + Send + 'static,
{
    in_private_mounts(move || {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&strategy, test).unwrap();
    });
}

fn layers() -> impl Strategy<Value = Vec<Vec<Op>>> {
    vec(vec(op(), 0..10), 2..5)
}

#[test]
fn walk_of_random_layers_equals_their_mount() {
    check(200, layers(), |layers| {
        let scratch = Scratch::new(&layers);
        let mount = scratch.mount();
        let mut expected = Listing::new();
        listing_of_mount(&mount.0, Path::new(""), &mut expected);
        prop_assert_eq!(listing_of_tree(&scratch.tree()), expected);
        Ok(())
    });
}

#[test]
fn lookup_in_random_layers_equals_resolution_in_their_mount() {
    check(300, (layers(), vec(target(), 20)), |(layers, paths)| {
        let scratch = Scratch::new(&layers);
        let mount = scratch.mount();
        let tree = scratch.tree();
        for path in paths {
            for follow in [Follow::Yes, Follow::No] {
                let found = tree.lookup(path.as_bytes(), follow).map(|entry| entry.path);
                let found = found.map_err(|error| match error {
                    LookupError::NotFound => Errno::NOENT,
                    LookupError::NotADirectory => Errno::NOTDIR,
                    LookupError::Loop => Errno::LOOP,
                    LookupError::Fs(error) => panic!("{error}"),
                });
                prop_assert_eq!(found, resolve_in_mount(&mount.0, &path, follow), "{}", path);
            }
        }
        Ok(())
    });
}

#[test]
fn walk_needs_descriptors_for_one_directory_only() {
    let deep = (0..60).map(|_| "a").collect::<Vec<_>>().join("/");
    let ops: Vec<Vec<Op>> = (0..20).map(|_| vec![Op::Dir(deep.clone(), false)]).collect();
    let scratch = Scratch::new(&ops);
    let tree = scratch.tree();
    let open = || stdfs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let most = tree.walk(&tree.root().unwrap()).map(|_| open()).max().unwrap();
    // Other tests of this process open files too.
    assert!(most < before + 150, "{most} descriptors, {before} before");
}

#[test]
fn content_of_a_skipped_directory_is_left_out() {
    let scratch = Scratch::new(&[vec![Op::File("a/b/a".into(), 1), Op::File("b".into(), 1)]]);
    let tree = scratch.tree();
    let mut walk = tree.walk(&tree.root().unwrap());
    assert_eq!(walk.next().unwrap().unwrap().path, b"a");
    walk.skip_content();
    assert_eq!(walk.next().unwrap().unwrap().path, b"b");
    assert!(walk.next().is_none());
}

#[test]
fn opaque_directory_that_is_known_by_name_hides_lower_layers() {
    let scratch =
        Scratch::new(&[vec![Op::File("a/old".into(), 1)], vec![Op::File("a/new".into(), 1)]]);
    let layer = |at: usize, names: &[&[u8]]| {
        let names = names.iter().map(|name| name.to_vec()).collect();
        MergedLayer::open(&scratch.lower[at], OpaqueDirs::Named(names)).unwrap()
    };
    let tree = MergedTree::new(vec![layer(0, &[b"a"]), layer(1, &[])]);
    assert!(matches!(tree.lookup(b"a/old", Follow::Yes), Err(LookupError::NotFound)));
    assert_eq!(tree.lookup(b"a/new", Follow::Yes).unwrap().layer(), 0);
}

#[test]
fn opaque_mark_of_a_root_hides_nothing_as_in_a_mount() {
    in_private_mounts(|| {
        let scratch = Scratch::new(&[vec![Op::File("a".into(), 1)], vec![Op::File("b".into(), 1)]]);
        let name = XattrSpace::Trusted.opaque();
        fs::setxattr(&scratch.lower[0], name, b"y", XattrFlags::empty()).unwrap();
        let mount = scratch.mount();
        let mut expected = Listing::new();
        listing_of_mount(&mount.0, Path::new(""), &mut expected);
        assert_eq!(expected.len(), 2);
        assert_eq!(listing_of_tree(&scratch.tree()), expected);
    });
}

#[test]
fn attributes_of_overlayfs_are_left_out_and_redirects_refused() {
    let scratch = Scratch::new(&[vec![Op::File("f".into(), 1), Op::Dir("d".into(), true)]]);
    let set = |path: &str, name: &str| {
        fs::setxattr(scratch.lower[0].join(path), name, b"v", XattrFlags::empty()).unwrap();
    };
    set("f", "user.a");
    set("f", "trusted.b");
    let tree = scratch.tree();
    let of = |path: &[u8]| tree.lookup(path, Follow::No).unwrap().xattrs();
    let (a, b) = (b"user.a".to_vec(), b"trusted.b".to_vec());
    assert_eq!(of(b"f").unwrap(), [(b, b"v".to_vec()), (a, b"v".to_vec())]);
    assert_eq!(of(b"d").unwrap(), []);
    set("d", "trusted.overlay.redirect");
    assert_eq!(of(b"d").unwrap_err().source.kind(), std::io::ErrorKind::Unsupported);
}
