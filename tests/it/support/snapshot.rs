//! Two views of a data root: the whole tree as text with its random ids replaced, and
//! a comparison of the trees of two roots.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::image::sha256;

const LAYERDB: &str = "image/overlay2/layerdb/sha256";

/// The chain ids of a stack of layers, base first, without `sha256:`: what layerdb's
/// directories are called (OCI image-spec config.md, "Layer ChainID").
pub fn chains(diff_ids: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let chain = match chains.last() {
            None => diff_id.clone(),
            Some(parent) => sha256(format!("{parent} {diff_id}").as_bytes()),
        };
        chains.push(chain);
    }
    chains.iter().map(|chain| chain["sha256:".len()..].to_owned()).collect()
}

/// The overlay2 directory of a layer.
pub fn layer_dir(root: &Path, chain: &str) -> PathBuf {
    let record = root.join(LAYERDB).join(chain).join("cache-id");
    let cache = fs::read_to_string(&record).unwrap_or_else(|e| panic!("{}: {e}", record.display()));
    root.join("overlay2").join(cache)
}

/// The files of a layer.
pub fn diff_dir(root: &Path, chain: &str) -> PathBuf {
    layer_dir(root, chain).join("diff")
}

/// What stands for the random ids of a root.
pub struct Ids {
    replace: Vec<(String, String)>,
}

impl Ids {
    /// `[CACHE_n]` and `[LINK_n]`, numbered in the order of the stack, base first.
    pub fn numbered(root: &Path) -> Self {
        Self::new(root, |n, _| (n + 1).to_string())
    }

    /// Named by chain id, so that the same layer has the same name in every root.
    pub fn by_chain(root: &Path) -> Self {
        Self::new(root, |_, chain| chain[..12].to_owned())
    }

    fn new(root: &Path, name: impl Fn(usize, &str) -> String) -> Self {
        let layerdb = root.join(LAYERDB);
        let mut chains = names(&layerdb);
        chains.sort_by_key(|chain| (depth(&layerdb, chain), chain.clone()));
        let mut replace = Vec::new();
        for (n, chain) in chains.iter().enumerate() {
            // A root in use may have a layer that is just being made.
            let Ok(cache) = fs::read_to_string(layerdb.join(chain).join("cache-id")) else {
                continue;
            };
            let name = name(n, chain);
            let link = fs::read_to_string(root.join("overlay2").join(&cache).join("link"));
            if let Ok(link) = link {
                replace.push((link, format!("[LINK_{name}]")));
            }
            replace.push((cache, format!("[CACHE_{name}]")));
        }
        Self { replace }
    }

    /// Also replaces a text of the caller's, such as the registry's port.
    pub fn and(mut self, from: &str, to: &str) -> Self {
        self.replace.push((from.to_owned(), to.to_owned()));
        self
    }

    pub fn apply(&self, text: &str) -> String {
        self.replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

fn depth(layerdb: &Path, chain: &str) -> usize {
    match fs::read_to_string(layerdb.join(chain).join("parent")) {
        Ok(parent) => 1 + depth(layerdb, parent.trim_start_matches("sha256:")),
        Err(_) => 0,
    }
}

/// The names in a directory, sorted; none if it is absent.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The whole root, one line a path: mode, path, and what a small text file holds.
pub fn snapshot_store(root: &Path, ids: &Ids) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot id");
    let mut lines = BTreeMap::new();
    for path in walk(root) {
        let relative = path.strip_prefix(root).expect("below the root");
        let shown = ids.apply(&relative.to_string_lossy()).replace(boot.trim(), "[BOOT]");
        // Its files are named by hashes of random ids, and have times in them.
        if shown.starts_with("rpull/layer-index/") {
            continue;
        }
        let meta = fs::symlink_metadata(&path).expect("lstat");
        let mut line = format!("{} {:04o} /{shown}", kind(&meta), meta.mode() & 0o7777);
        if meta.is_symlink() {
            let target = fs::read_link(&path).expect("readlink");
            let _ = write!(line, " -> {}", ids.apply(&target.to_string_lossy()));
        } else if meta.is_file() && shown.ends_with(".gz") {
            let _ = write!(line, " ({} entries)", tar_split_lines(&path).len());
        } else if meta.is_file() && meta.len() < 2000 {
            match String::from_utf8(fs::read(&path).expect("read")) {
                Ok(text) => drop(write!(line, " {}", ids.apply(&text).replace('\n', "\\n"))),
                Err(_) => drop(write!(line, " ({} bytes)", meta.len())),
            }
        }
        lines.insert(shown, line);
    }
    lines.into_values().map(|line| line + "\n").collect()
}

/// All of `image/overlay2` and `overlay2` but what differs from pull to pull: ids,
/// times of now, and how a gzip file is packed.
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let ids = Ids::by_chain(root);
    let mut tree = BTreeMap::new();
    for part in ["image", "overlay2"] {
        describe_into(&mut tree, root, &root.join(part), &ids);
    }
    tree
}

/// The same for the layers of one image alone, in a root that may have others.
fn describe_layers(root: &Path, chains: &[String]) -> BTreeMap<String, String> {
    let ids = Ids::by_chain(root);
    let mut tree = BTreeMap::new();
    for chain in chains {
        describe_into(&mut tree, root, &root.join(LAYERDB).join(chain), &ids);
        describe_into(&mut tree, root, &layer_dir(root, chain), &ids);
    }
    // Stands in a layer that has a child, in whatever image.
    tree.retain(|path, _| !path.ends_with("]/committed"));
    tree
}

fn describe_into(tree: &mut BTreeMap<String, String>, root: &Path, from: &Path, ids: &Ids) {
    let mut inodes = HashMap::new();
    for path in walk(from) {
        let relative = path.strip_prefix(root).expect("below the root");
        let bytes = relative.as_os_str().as_bytes();
        let shown = ids.apply(&bytes.escape_ascii().to_string());
        if passing(&shown) {
            continue;
        }
        let meta = fs::symlink_metadata(&path).expect("lstat");
        let mut line = format!("{} {:04o}", kind(&meta), meta.mode() & 0o7777);
        let _ = write!(line, " {}:{}", meta.uid(), meta.gid());
        if shown.contains("/diff/") {
            if !meta.is_dir() {
                let first = inodes.entry(meta.ino()).or_insert_with(|| shown.clone());
                if first != &shown {
                    let _ = write!(line, " same inode as {first}");
                }
            }
            let _ = write!(line, " {} rdev {}", time(&meta), meta.rdev());
        }
        for (name, value) in xattrs(&path) {
            // The kernel's own mark on an upper directory that was mounted.
            if name == "trusted.overlay.uuid" {
                continue;
            }
            let _ = write!(line, " {name}={}", value.escape_ascii());
        }
        let _ = write!(line, " {}", content(&path, &meta, ids));
        tree.insert(shown, line);
    }
}

/// What comes and goes with a running dockerd, or stays after overlayfs mounted a layer.
fn passing(path: &str) -> bool {
    path.starts_with("image/overlay2/layerdb/mounts")
        || path == "overlay2/backingFsBlockDev"
        || path.ends_with("/work/work")
}

fn content(path: &Path, meta: &Metadata, ids: &Ids) -> String {
    if meta.is_symlink() {
        let target = fs::read_link(path).expect("readlink");
        return format!(
            "-> {}",
            ids.apply(&target.as_os_str().as_bytes().escape_ascii().to_string())
        );
    }
    if !meta.is_file() {
        return String::new();
    }
    if path.ends_with("tar-split.json.gz") {
        return tar_split_lines(path).join("\n");
    }
    let bytes = fs::read(path).expect("read");
    match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() < 8192 => ids.apply(text),
        _ => sha256(&bytes),
    }
}

/// The entries of a tar-split file. How dockerd cuts what follows the last file entry into
/// segments, and whether an empty one ends them, depends on the timing of its reads, so it is
/// shown as one segment.
pub fn tar_split_lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    let file = fs::File::open(path).expect("tar-split.json.gz");
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let tail = lines.iter().rposition(|line| line.starts_with("{\"type\":1")).map_or(0, |n| n + 1);
    let mut shown = lines[..tail].to_vec();
    let mut end = Vec::new();
    for line in &lines[tail..] {
        let entry: serde_json::Value = serde_json::from_str(line).expect("an entry");
        let payload = entry["payload"].as_str().expect("a segment's payload");
        end.extend(data_encoding::BASE64.decode(payload.as_bytes()).expect("base64"));
    }
    shown.push(format!("end: {} bytes {}", end.len(), sha256(&end)));
    shown
}

/// Fails with the differing paths of two roots that should hold the same.
#[track_caller]
pub fn assert_same(ours: &Path, dockers: &Path) {
    assert_same_trees(&describe(ours), &describe(dockers));
}

/// The same for the layers with these diff ids, base first.
#[track_caller]
pub fn assert_same_layers(ours: &Path, dockers: &Path, diff_ids: &[String]) {
    let chains = chains(diff_ids);
    assert_same_trees(&describe_layers(ours, &chains), &describe_layers(dockers, &chains));
}

#[track_caller]
pub fn assert_same_trees(ours: &BTreeMap<String, String>, dockers: &BTreeMap<String, String>) {
    let mut report = String::new();
    for path in ours.keys().chain(dockers.keys().filter(|path| !ours.contains_key(*path))) {
        let (a, b) = (ours.get(path), dockers.get(path));
        if a != b {
            let _ = writeln!(report, "{path}\n  rpull  {}\n  docker {}", show(a), show(b));
        }
    }
    assert!(report.is_empty(), "the roots differ:\n{report}");
}

fn show(line: Option<&String>) -> &str {
    line.map_or("(absent)", String::as_str)
}

/// Every path below `root` and itself, directories before what they hold.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while next < paths.len() {
        let path = paths[next].clone();
        next += 1;
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            let mut below: Vec<_> =
                fs::read_dir(&path).expect("readdir").map(|e| e.expect("readdir").path()).collect();
            below.sort();
            paths.extend(below);
        }
    }
    paths.sort();
    paths
}

fn kind(meta: &Metadata) -> char {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () => '-',
    }
}

/// The time of last change; a time of today is the pull's own and says nothing.
fn time(meta: &Metadata) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    if meta.mtime() > i64::try_from(now).expect("a clock") - 86400 {
        return "[NOW]".to_owned();
    }
    format!("{}.{:09}", meta.mtime(), meta.mtime_nsec())
}

pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 65536];
    let Ok(n) = rustix::fs::llistxattr(path, &mut list[..]) else { return Vec::new() };
    let mut found = Vec::new();
    for name in list[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).expect("an xattr's name");
        let mut value = vec![0; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("getxattr");
        found.push((name.to_owned(), value[..n].to_vec()));
    }
    found.sort();
    found
}

/// Fails unless everything in the root belongs to something whole: what an interrupted or
/// failed pull must leave.
#[track_caller]
pub fn assert_consistent(root: &Path) {
    let layerdb = root.join(LAYERDB);
    let mut caches = Vec::new();
    let mut links = Vec::new();
    for chain in names(&layerdb) {
        let dir = layer_dir(root, &chain);
        caches.push(dir.file_name().expect("a cache id").to_string_lossy().into_owned());
        links.push(fs::read_to_string(dir.join("link")).expect("a link id"));
    }
    caches.push("l".to_owned());
    caches.sort();
    links.sort();
    if root.join("overlay2").exists() {
        assert_eq!(names(&root.join("overlay2")), caches, "overlay2 directories without a layer");
    }
    assert_eq!(names(&root.join("overlay2/l")), links, "short links without a layer");
    let swept =
        ["image/overlay2/layerdb/tmp", "rpull/journal", "rpull/tmp", "rpull/content/ingest"];
    for empty in swept {
        assert_eq!(names(&root.join(empty)), [""; 0], "left in {empty}");
    }
}

/// Fails unless overlay2 agrees with layerdb: what dockerd mounts for each layer is the layer
/// and those that its record stands on.
#[track_caller]
pub fn assert_agreement(root: &Path) {
    let layerdb = root.join(LAYERDB);
    let mut directories = BTreeMap::new();
    for chain in names(&layerdb) {
        let dir = layer_dir(root, &chain);
        assert!(dir.join("diff").is_dir(), "{chain} has no diff directory");
        if let Some(other) = directories.insert(dir.clone(), chain.clone()) {
            panic!("{chain} and {other} have the same directory");
        }
        let mut mounted = vec![fs::read_to_string(dir.join("link")).expect("a link id")];
        let lower = fs::read_to_string(dir.join("lower")).unwrap_or_default();
        let lower = lower.split(':').filter(|part| !part.is_empty());
        mounted.extend(lower.map(|part| part.strip_prefix("l/").expect("a link").to_owned()));
        let mut stack = vec![chain.clone()];
        while let Ok(parent) =
            fs::read_to_string(layerdb.join(&stack[stack.len() - 1]).join("parent"))
        {
            stack.push(parent.trim_start_matches("sha256:").to_owned());
        }
        let leads_to: Vec<_> = mounted
            .iter()
            .map(|link| {
                let target = fs::read_link(root.join("overlay2/l").join(link));
                target.unwrap_or_else(|e| panic!("l/{link} of {chain}: {e}"))
            })
            .collect();
        let expected: Vec<_> = stack
            .iter()
            .map(|chain| {
                let dir = layer_dir(root, chain);
                Path::new("..").join(dir.file_name().expect("a cache id")).join("diff")
            })
            .collect();
        assert_eq!(leads_to, expected, "the layers that dockerd mounts for {chain}");
        let has = |dir: &Path, name: &str| dir.join(name).exists();
        assert_eq!(has(&dir, "work"), stack.len() > 1, "work of {chain}");
        if let Some(parent) = stack.get(1) {
            assert!(has(&layer_dir(root, parent), "committed"), "{parent} has a child");
        }
    }
}

/// Fails if the root holds any layer, image or name, or half of one.
#[track_caller]
pub fn assert_empty(root: &Path) {
    assert_consistent(root);
    for empty in [LAYERDB, "image/overlay2/imagedb/content/sha256"] {
        assert_eq!(names(&root.join(empty)), [""; 0], "left in {empty}");
    }
    let named = fs::read_to_string(root.join("image/overlay2/repositories.json"));
    let named = named.unwrap_or_else(|_| "{\"Repositories\":{}}".to_owned());
    assert_eq!(named, "{\"Repositories\":{}}");
}
