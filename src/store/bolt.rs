//! The part of bbolt's file format that tells whether containerd has images (bbolt `page.go`,
//! `bucket.go`, `meta.go`; containerd core/metadata/buckets.go). Read-only, for a file that another
//! program may be writing: what cannot be followed counts as absent.
//!
//! A page is at its number times the page size. It begins with its number, kind, number of elements
//! and number of further pages that it continues on. The first two pages are metas, and the valid one
//! with the higher transaction leads to the tree of the root bucket. A bucket is a tree of its own, or
//! a single leaf inside the value of its parent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::fsutil;

const MAGIC: u32 = 0xED0C_DAED;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const IS_BUCKET: u32 = 1;

/// Bytes of a page before its elements, of each element, and of a bucket before its inner leaf.
const HEADER: usize = 16;

/// Bytes of a meta before its checksum.
const META: usize = 56;

/// Further pages that one page may continue on: containerd's keys and values need none.
const MAX_OVERFLOW: usize = 15;

/// Levels of one tree: a tree of containerd has two or three.
const MAX_DEPTH: usize = 16;

/// Returns whether containerd's database at `path` lists an image in `namespace`. Reads at most 60 pages,
/// one or two at a time and each of at most 1 MiB; in practice about ten of 4 KiB.
pub fn has_images(path: &Path, namespace: &str) -> bool {
    let count = Database::open(path).and_then(|database| {
        let names = ["v1", namespace, "images"];
        let images = names
            .iter()
            .try_fold(database.root()?, |bucket, name| database.bucket(bucket, name.as_bytes()))?;
        matches!(images.kind()?, BRANCH | LEAF).then(|| images.count())?
    });
    count.is_some_and(|count| count > 0)
}

struct Database {
    file: File,
    page_size: usize,
}

/// The bytes of a page.
struct Page(Vec<u8>);

impl Database {
    fn open(path: &Path) -> Option<Self> {
        let file = fsutil::open(path).ok()?;
        let mut meta = [0; HEADER + META];
        file.read_exact_at(&mut meta, 0).ok()?;
        let page_size = usize::try_from(u32_at(&meta, HEADER + 8)?).ok()?;
        let is_valid = (512..=1 << 16).contains(&page_size) && page_size.is_power_of_two();
        is_valid.then_some(Self { file, page_size })
    }

    /// Returns the first page of the root bucket.
    fn root(&self) -> Option<Page> {
        let metas = (0..2).filter_map(|number| {
            let page = self.page(number)?.0;
            let meta = page.get(HEADER..)?;
            let is_valid = u32_at(meta, 0)? == MAGIC && u64_at(meta, META)? == fnv1a(&meta[..META]);
            let (transaction, root) = (u64_at(meta, 48)?, u64_at(meta, 16)?);
            is_valid.then_some((transaction, root))
        });
        self.page(metas.max()?.1)
    }

    fn page(&self, number: u64) -> Option<Page> {
        let start = number.checked_mul(self.page_size as u64)?;
        let mut page = vec![0; self.page_size];
        self.file.read_exact_at(&mut page, start).ok()?;
        let overflow = usize::try_from(u32_at(&page, 12)?).ok()?;
        if u64_at(&page, 0)? != number || overflow > MAX_OVERFLOW {
            return None;
        }
        if overflow > 0 {
            page.resize(self.page_size * (1 + overflow), 0);
            self.file.read_exact_at(&mut page, start).ok()?;
        }
        Some(Page(page))
    }

    /// Returns the first page of the bucket `name` in the bucket that begins with `page`.
    fn bucket(&self, mut page: Page, name: &[u8]) -> Option<Page> {
        for _ in 0..MAX_DEPTH {
            let elements = 0..page.count()?;
            match page.kind()? {
                LEAF => {
                    let mut buckets = elements.filter_map(|n| page.bucket_in_leaf(n));
                    let (_, value) = buckets.find(|(key, _)| *key == name)?;
                    return match u64_at(value, 0)? {
                        0 => Some(Page(value.get(HEADER..)?.to_vec())),
                        root => self.page(root),
                    };
                }
                BRANCH => {
                    let children = elements.filter_map(|n| page.child(n));
                    let (_, child) = children.take_while(|(key, _)| *key <= name).last()?;
                    page = self.page(child)?;
                }
                _ => return None,
            }
        }
        None
    }
}

impl Page {
    fn kind(&self) -> Option<u16> {
        u16_at(&self.0, 8)
    }

    /// Returns the number of elements.
    fn count(&self) -> Option<usize> {
        Some(usize::from(u16_at(&self.0, 10)?))
    }

    /// Returns the first key below an element of a branch, and the page that it leads to.
    fn child(&self, n: usize) -> Option<(&[u8], u64)> {
        let at = HEADER * (1 + n);
        let key = self.slice(at.checked_add(self.number(at)?)?, self.number(at + 4)?)?;
        Some((key, u64_at(&self.0, at + 8)?))
    }

    /// Returns the key and the value of an element of a leaf, if it is a bucket.
    fn bucket_in_leaf(&self, n: usize) -> Option<(&[u8], &[u8])> {
        let at = HEADER * (1 + n);
        let start = at.checked_add(self.number(at + 4)?)?;
        let key = self.slice(start, self.number(at + 8)?)?;
        let value = self.slice(start.checked_add(key.len())?, self.number(at + 12)?)?;
        (u32_at(&self.0, at)? & IS_BUCKET != 0).then_some((key, value))
    }

    fn number(&self, at: usize) -> Option<usize> {
        usize::try_from(u32_at(&self.0, at)?).ok()
    }

    fn slice(&self, start: usize, size: usize) -> Option<&[u8]> {
        self.0.get(start..start.checked_add(size)?)
    }
}

/// The checksum of a meta: FNV-1a with 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
pub(super) mod tests;
