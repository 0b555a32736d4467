//! The generator of archives: entries of every kind over a few names, in every form that tar
//! programs write, with any end, compression and size of the buffers that they arrive in.

use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::Op;
use super::tar::{Entry, Long, Tar};

/// One generated layer.
#[derive(Debug, Clone)]
pub struct Archive {
    pub items: Vec<Item>,
    pub end: End,
    pub packing: Packing,
    /// The size of the buffers that the compressed bytes arrive in.
    pub buffer: usize,
}

/// An entry: its effect on the tree, and its form in the archive. The form has no effect on names
/// and contents.
#[derive(Debug, Clone)]
pub struct Item {
    pub op: Op,
    format: Format,
    long: Long,
    headers: Headers,
}

/// The format of a file's header and data.
#[derive(Debug, Clone, Copy)]
enum Format {
    Ustar,
    V7,
    Contiguous,
    /// The size is in a PAX record only.
    PaxSize,
    /// The name is in a PAX record only.
    PaxName,
    GnuSparse,
    PaxSparsePairs,
    PaxSparseMap,
    PaxSparse,
}

/// What the headers have besides a name and data.
#[derive(Debug, Clone, Copy)]
enum Headers {
    Plain,
    /// A size, though the kind has no data; data, though a whiteout needs none.
    Size,
    /// Numbers that need base 256.
    Base256,
    /// PAX records for times, attributes, and a vendor's own.
    Records,
    /// A global header before the entry.
    Global,
    /// Another PAX header before the entry's own.
    TwoPax,
}

/// What follows the last entry.
#[derive(Debug, Clone, Copy)]
pub enum End {
    None,
    ZeroBlocks(usize),
    /// Bytes that are no tar after the end.
    Garbage(usize),
    SecondArchive,
}

/// The compression of a layer.
#[derive(Debug, Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    /// Two gzip members; the first has this share of the bytes, in percent.
    GzipMembers(usize),
    GzipPadded,
    Zstd,
}

impl Item {
    fn bytes(&self) -> Vec<u8> {
        let entry = self.with_headers(self.with_long_names(self.entry()));
        let before = match self.headers {
            Headers::Global => Tar::new().global("comment", "for all entries"),
            Headers::TwoPax => Tar::new().raw_pax(b"19 comment=ignored\n"),
            _ => Tar::new(),
        };
        before.add(entry).unended()
    }

    fn entry(&self) -> Entry {
        let Op::File(path, content) = &self.op else { return self.op.entry() };
        let (map, data) = extents(content);
        let size = content.len() as u64;
        match self.format {
            Format::V7 if path.len() <= 100 => Entry::v7(path, content),
            Format::Ustar | Format::V7 => self.op.entry(),
            Format::Contiguous => self.op.entry().kind(b'7'),
            Format::PaxSize => self.op.entry().claims(0).pax("size", size.to_string()),
            Format::PaxName => Entry::file("ignored", content).pax("path", path),
            Format::GnuSparse => Entry::gnu_sparse(path, &map, size, &data),
            Format::PaxSparsePairs => Entry::pax_sparse_pairs(path, &map, size, &data),
            Format::PaxSparseMap => Entry::pax_sparse_map(path, &map, size, &data),
            Format::PaxSparse => Entry::pax_sparse(path, &map, size, &data),
        }
    }

    /// Sets how a long name is written. ustar's prefix takes only names that split at a slash.
    fn with_long_names(&self, entry: Entry) -> Entry {
        let splits = |at: usize| at <= 155 && entry.name.len() - at - 1 <= 100;
        let has_prefix = entry.link.len() <= 100
            && entry.kind != b'S'
            && (0..entry.name.len()).any(|at| entry.name[at] == b'/' && splits(at));
        match self.long {
            Long::Prefix if !has_prefix => entry.long(Long::Pax),
            long => entry.long(long),
        }
    }

    fn with_headers(&self, entry: Entry) -> Entry {
        match self.headers {
            Headers::Plain | Headers::Global | Headers::TwoPax => entry,
            Headers::Size => match self.op {
                Op::File(..) => entry,
                Op::Whiteout(_) | Op::Opaque(_) => entry.data("ignored"),
                _ => entry.claims(4096),
            },
            Headers::Base256 => entry.owner(3_000_000, 4_000_000).mtime(-86_400),
            Headers::Records => entry
                .pax("mtime", "1700000000.123456789")
                .pax("atime", "-1.5")
                .pax("VENDOR.key", "a=b\nc")
                .xattr("user.note", "text"),
        }
    }
}

/// The extents of `content` that are not zeros, and their data. As GNU tar does, an empty extent
/// marks the end of a file that ends with a hole.
fn extents(content: &str) -> (Vec<(u64, u64)>, Vec<u8>) {
    let (mut map, mut data, mut offset) = (Vec::new(), Vec::new(), 0);
    for run in content.as_bytes().chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        if run[0] != 0 {
            map.push((offset, run.len() as u64));
            data.extend(run);
        }
        offset += run.len() as u64;
    }
    if content.as_bytes().last().is_none_or(|last| *last == 0) {
        map.push((offset, 0));
    }
    (map, data)
}

/// The uncompressed archive.
pub fn tar<'a>(items: impl IntoIterator<Item = &'a Item>, end: End) -> Vec<u8> {
    let tar = items.into_iter().fold(Tar::new(), |tar, item| tar.raw(&item.bytes()));
    match end {
        End::None => tar,
        End::ZeroBlocks(count) => tar.raw(&vec![0; count * 512]),
        End::Garbage(size) => tar.raw(&[0; 1024]).raw(&vec![0xa5; size]),
        End::SecondArchive => tar.raw(&[0; 1024]).raw(&Tar::new().file("second", "x").end()),
    }
    .unended()
}

impl Packing {
    /// Compresses `tar`.
    pub fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => gzip(tar),
            Self::GzipMembers(percent) => {
                let (first, second) = tar.split_at(tar.len() * percent / 100);
                [gzip(first), gzip(second)].concat()
            }
            Self::GzipPadded => [gzip(tar), vec![0; 700]].concat(),
            Self::Zstd => zstd::encode_all(tar, 1).unwrap(),
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Generates archives. Entries may be invalid where they stand; the model knows which.
pub fn archives() -> impl Strategy<Value = Archive> {
    let buffer = select(vec![500, 4096, 1 << 18]);
    (vec(item(), 1..30), end(), packing(), buffer)
        .prop_map(|(items, end, packing, buffer)| Archive { items, end, packing, buffer })
}

fn item() -> impl Strategy<Value = Item> {
    (op(), format(), select(vec![Long::Pax, Long::Gnu, Long::Prefix]), headers())
        .prop_map(|(op, format, long, headers)| Item { op, format, long, headers })
}

fn op() -> impl Strategy<Value = Op> {
    // Without the capability for them, devices are left out.
    let devices = u32::from(crate::overlay::Abilities::expected().devices);
    prop_oneof![
        6 => path().prop_map(Op::Dir),
        8 => (path(), content()).prop_map(|(path, data)| Op::File(path, data)),
        6 => (path(), target()).prop_map(|(path, target)| Op::Symlink(path, target)),
        4 => (path(), path()).prop_map(|(path, target)| Op::Hardlink(path, target)),
        4 => path().prop_map(Op::Whiteout),
        2 => path().prop_map(Op::Opaque),
        1 => path().prop_map(Op::Fifo),
        devices => path().prop_map(Op::CharDevice),
        devices => path().prop_map(Op::BlockDevice),
    ]
}

/// Few names, so that entries meet: one name is a file, a directory, a symlink and a whiteout in
/// turn.
fn path() -> impl Strategy<Value = String> {
    let part = || {
        prop_oneof![
            30 => select(vec!["a", "b", "d"]).prop_map(str::to_owned),
            1 => Just("long".repeat(30)),
        ]
    };
    let path = prop_oneof![
        3 => part(),
        5 => (part(), part()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (part(), part(), part()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ];
    prop_oneof![
        12 => path.clone(),
        1 => path.clone().prop_map(|path| format!("./{path}")),
        1 => path.clone().prop_map(|path| format!("/{path}")),
        1 => path.prop_map(|path| format!("b/../{path}")),
    ]
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        30 => select(vec!["a", "b", "d"]).prop_map(str::to_owned),
        10 => path(),
        10 => select(vec![".", "..", "/", "../..", "../d", "/a/b", "missing"])
            .prop_map(str::to_owned),
        1 => Just("a/".repeat(80)),
    ]
}

/// Contents with and without zeros at their ends, and one over a chunk's size.
fn content() -> impl Strategy<Value = String> {
    let zeros = || prop_oneof![3 => Just(0), 1 => 1..600_usize];
    prop_oneof![
        30 => "[a-z]{0,3}",
        10 => (zeros(), "[a-z]{1,600}", zeros(), "[a-z]{1,9}", zeros()).prop_map(
            |(before, first, between, second, after)| {
                let zeros = |count| "\0".repeat(count);
                zeros(before) + &first + &zeros(between) + &second + &zeros(after)
            }
        ),
        1 => Just("0123456789abcdef".repeat(40_000)),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    use Format::*;
    let rare =
        vec![V7, Contiguous, PaxSize, PaxName, GnuSparse, PaxSparsePairs, PaxSparseMap, PaxSparse];
    prop_oneof![Just(Ustar), select(rare)]
}

fn headers() -> impl Strategy<Value = Headers> {
    use Headers::*;
    prop_oneof![3 => Just(Plain), 1 => select(vec![Size, Base256, Records, Global, TwoPax])]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => Just(End::ZeroBlocks(2)),
        1 => Just(End::None),
        1 => select(vec![1, 3, 20]).prop_map(End::ZeroBlocks),
        1 => select(vec![1, 511, 70_001, 1_200_000]).prop_map(End::Garbage),
        1 => Just(End::SecondArchive),
    ]
}

fn packing() -> impl Strategy<Value = Packing> {
    prop_oneof![
        3 => Just(Packing::Plain),
        1 => Just(Packing::Gzip),
        1 => (0..=100_usize).prop_map(Packing::GzipMembers),
        1 => Just(Packing::GzipPadded),
        1 => Just(Packing::Zstd),
    ]
}
