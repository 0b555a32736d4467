use std::fs;
use std::path::PathBuf;

use super::*;

const PAGE: usize = 512;

/// A key, its value, and whether the value is a bucket.
type Element<'a> = (&'a str, Vec<u8>, bool);

fn header(number: u64, kind: u16, count: usize) -> Vec<u8> {
    let mut page = number.to_le_bytes().to_vec();
    page.extend(kind.to_le_bytes());
    page.extend((count as u16).to_le_bytes());
    page.extend(0u32.to_le_bytes());
    page
}

fn leaf(number: u64, elements: &[Element<'_>]) -> Vec<u8> {
    let mut page = header(number, LEAF, elements.len());
    let mut position = HEADER * elements.len();
    for (key, value, is_bucket) in elements {
        for field in [u32::from(*is_bucket), position as u32, key.len() as u32, value.len() as u32]
        {
            page.extend(field.to_le_bytes());
        }
        position = position + key.len() + value.len() - HEADER;
    }
    for (key, value, _) in elements {
        page.extend(key.as_bytes());
        page.extend(value);
    }
    page
}

fn branch(number: u64, children: &[(&str, u64)]) -> Vec<u8> {
    let mut page = header(number, BRANCH, children.len());
    let mut position = HEADER * children.len();
    for (key, child) in children {
        page.extend((position as u32).to_le_bytes());
        page.extend((key.len() as u32).to_le_bytes());
        page.extend(child.to_le_bytes());
        position = position + key.len() - HEADER;
    }
    page.extend(children.iter().flat_map(|(key, _)| key.bytes()));
    page
}

/// The value of a bucket at the page `root`, or of one with the leaf `inner`.
fn bucket(root: u64, inner: &[u8]) -> Vec<u8> {
    let mut value = root.to_le_bytes().to_vec();
    value.extend(0u64.to_le_bytes());
    value.extend(inner);
    value
}

fn meta(number: u64, transaction: u64, root: u64) -> Vec<u8> {
    let mut meta = Vec::new();
    for field in [MAGIC, 2, PAGE as u32, 0] {
        meta.extend(field.to_le_bytes());
    }
    for field in [root, 0, 2, 9, transaction] {
        meta.extend(u64::to_le_bytes(field));
    }
    meta.extend(fnv1a(&meta).to_le_bytes());
    let mut page = header(number, 4, 0);
    page.extend(meta);
    page
}

/// A database whose namespace `moby` has `images`, and `default` has one image. An older transaction
/// had another root bucket, without anything.
pub fn database(images: &[&str]) -> Vec<u8> {
    let image = |name| (name, bucket(0, &leaf(0, &[("createdat", vec![1], false)])), true);
    let images: Vec<_> = images.iter().copied().map(image).collect();
    let others = bucket(0, &leaf(0, &[("images", bucket(0, &leaf(0, &[image("x")])), true)]));
    let pages = [
        meta(0, 7, 2),
        meta(1, 6, 3),
        leaf(2, &[("v1", bucket(4, &[]), true)]),
        leaf(3, &[]),
        branch(4, &[("default", 5), ("moby", 6)]),
        leaf(5, &[("default", others, true)]),
        leaf(6, &[("moby", bucket(7, &[]), true), ("version", vec![8], false)]),
        leaf(7, &[("content", bucket(0, &leaf(0, &[])), true), ("images", bucket(8, &[]), true)]),
        leaf(8, &images),
    ];
    let padded = pages.into_iter().map(|mut page| {
        assert!(page.len() <= PAGE, "{}", page.len());
        page.resize(PAGE, 0);
        page
    });
    padded.flatten().collect()
}

struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        fs::write(&path, bytes).unwrap();
        Self { _dir: dir, path }
    }

    fn has_images(&self) -> bool {
        has_images(&self.path, "moby")
    }
}

#[test]
fn images_are_found_in_their_namespace_only() {
    let scratch = Scratch::new(&database(&["docker.io/library/a:1", "docker.io/library/b:1"]));
    assert!(scratch.has_images());
    assert!(has_images(&scratch.path, "default"));
    for absent in ["k8s.io", "", "a", "version", "zzz"] {
        assert!(!has_images(&scratch.path, absent), "{absent}");
    }
    assert!(!Scratch::new(&database(&[])).has_images());
}

#[test]
fn newest_valid_meta_is_used() {
    let mut bytes = database(&["a"]);
    // A torn write of the newer meta leaves the older transaction, which has no images.
    bytes[HEADER + META] ^= 1;
    assert!(!Scratch::new(&bytes).has_images());
}

#[test]
fn page_that_leads_to_itself_ends() {
    let mut bytes = database(&["a"]);
    let itself = branch(4, &[("default", 4), ("moby", 4)]);
    bytes[4 * PAGE..4 * PAGE + itself.len()].copy_from_slice(&itself);
    assert!(!Scratch::new(&bytes).has_images());
}

#[test]
fn page_with_another_number_is_not_followed() {
    for (page, name) in [(8, "images"), (6, "moby"), (2, "root")] {
        let mut bytes = database(&["a"]);
        bytes[page * PAGE] = 77;
        assert!(!Scratch::new(&bytes).has_images(), "{name}");
    }
}

#[test]
fn truncated_database_has_no_images() {
    let bytes = database(&["a"]);
    let scratch = Scratch::new(&bytes);
    let file = File::options().write(true).open(&scratch.path).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert!(!scratch.has_images(), "{length} bytes");
    }
}

/// Every byte of the tree in turn has other values: nothing panics, and everything ends.
#[test]
fn altered_database_is_read_to_an_end() {
    let bytes = database(&["a"]);
    let scratch = Scratch::new(&bytes);
    let file = File::options().write(true).open(&scratch.path).unwrap();
    let mut changed = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        for other in [0, 0x7F, 0xFF, byte ^ 1] {
            file.write_all_at(&[other], at as u64).unwrap();
            changed += usize::from(!scratch.has_images());
        }
        file.write_all_at(&[byte], at as u64).unwrap();
    }
    assert!(changed > 100, "{changed}");
    assert!(scratch.has_images());
}

#[test]
fn huge_overflow_is_not_read() {
    let mut bytes = database(&["a"]);
    bytes[8 * PAGE + 12..8 * PAGE + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(!Scratch::new(&bytes).has_images());
}

#[test]
fn path_that_is_not_a_file_has_no_images() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for path in [dir.path(), &pipe, &dir.path().join("absent")] {
        assert!(!has_images(path, "moby"), "{}", path.display());
    }
}
