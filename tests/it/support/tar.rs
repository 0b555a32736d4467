//! Writes tar archives byte for byte, invalid ones too. The unit tests of `layer` include this file.
//!
//! The `tar` crate's builder tidies names and refuses what is hostile, so it cannot
//! make the layers that these tests need. Formats: POSIX pax (ustar header and `x`/`g`
//! records), GNU tar's `L`, `K`, `S` and base-256 numbers.

/// How a name or link target that does not fit its header field is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Long {
    /// A `path=` / `linkpath=` record.
    Pax,
    /// A GNU `L` / `K` entry before the header.
    Gnu,
    /// Split at a slash into ustar's prefix and name.
    Prefix,
}

/// One entry of an archive. Everything can be set to what no tar program would write.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    device: (u32, u32),
    claimed_size: Option<u64>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    long: Long,
    magic: bool,
    bad_checksum: bool,
    sparse_map: Vec<(u64, u64)>,
    real_size: u64,
}

/// 2023-11-14T22:13:20Z: a time no machine's clock shows by accident.
pub const MTIME: i64 = 1_700_000_000;

impl Entry {
    pub fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: MTIME,
            link: Vec::new(),
            data: Vec::new(),
            device: (0, 0),
            claimed_size: None,
            pax: Vec::new(),
            long: Long::Pax,
            magic: true,
            bad_checksum: false,
            sparse_map: Vec::new(),
            real_size: 0,
        }
    }

    pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(b'0', name) }
    }

    pub fn dir(name: impl AsRef<[u8]>) -> Self {
        Self::new(b'5', name).mode(0o755)
    }

    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'2', name).mode(0o777) }
    }

    pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'1', name) }
    }

    pub fn char_device(name: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(b'3', name) }
    }

    pub fn block_device(name: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(b'4', name) }
    }

    pub fn fifo(name: impl AsRef<[u8]>) -> Self {
        Self::new(b'6', name)
    }

    /// The whiteout of `name`: `dir/.wh.base`.
    pub fn whiteout(name: &str) -> Self {
        match name.rsplit_once('/') {
            Some((dir, base)) => Self::file(format!("{dir}/.wh.{base}"), b""),
            None => Self::file(format!(".wh.{name}"), b""),
        }
    }

    /// What makes `dir` hide everything below it.
    pub fn opaque(dir: &str) -> Self {
        Self::file(format!("{}/.wh..wh..opq", dir.trim_end_matches('/')), b"")
    }

    /// GNU's own sparse format: `map` names the (offset, length) of the parts in `data`.
    pub fn gnu_sparse(name: &str, map: &[(u64, u64)], real_size: u64, data: &[u8]) -> Self {
        let mut entry = Self::file(name, data);
        entry.kind = b'S';
        entry.sparse_map = map.to_vec();
        entry.real_size = real_size;
        entry
    }

    /// PAX sparse 0.0: a pair of records per extent.
    pub fn pax_sparse_pairs(name: &str, map: &[(u64, u64)], real_size: u64, data: &[u8]) -> Self {
        let entry = Self::file(format!("GNUSparseFile.0/{name}"), data)
            .pax("GNU.sparse.size", real_size.to_string())
            .pax("GNU.sparse.numblocks", map.len().to_string())
            .pax("GNU.sparse.name", name);
        map.iter().fold(entry, |entry, (offset, length)| {
            entry
                .pax("GNU.sparse.offset", offset.to_string())
                .pax("GNU.sparse.numbytes", length.to_string())
        })
    }

    /// PAX sparse 0.1: the map is one record.
    pub fn pax_sparse_map(name: &str, map: &[(u64, u64)], real_size: u64, data: &[u8]) -> Self {
        let map: Vec<_> = map.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
        Self::file(format!("GNUSparseFile.0/{name}"), data)
            .pax("GNU.sparse.size", real_size.to_string())
            .pax("GNU.sparse.numblocks", map.len().to_string())
            .pax("GNU.sparse.map", map.join(","))
            .pax("GNU.sparse.name", name)
    }

    /// PAX sparse 1.0: the map stands in front of the data.
    pub fn pax_sparse(name: &str, map: &[(u64, u64)], real_size: u64, data: &[u8]) -> Self {
        let mut packed = format!("{}\n", map.len()).into_bytes();
        for (offset, length) in map {
            packed.extend(format!("{offset}\n{length}\n").bytes());
        }
        packed.resize(packed.len().next_multiple_of(512), 0);
        packed.extend(data);
        Self::file(format!("GNUSparseFile.0/{name}"), packed)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", name)
            .pax("GNU.sparse.realsize", real_size.to_string())
    }

    pub fn kind(mut self, kind: u8) -> Self {
        self.kind = kind;
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn mtime(mut self, seconds: i64) -> Self {
        self.mtime = seconds;
        self
    }

    /// A PAX record before this entry's header.
    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    pub fn long(mut self, long: Long) -> Self {
        self.long = long;
        self
    }

    /// A file in the format of Unix V7, which has no magic and no type flag for files.
    pub fn v7(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { kind: 0, magic: false, ..Self::file(name, data) }
    }

    /// The size the header claims, whatever the data's is.
    pub fn claims(mut self, size: u64) -> Self {
        self.claimed_size = Some(size);
        self
    }

    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self
    }

    pub fn bad_checksum(mut self) -> Self {
        self.bad_checksum = true;
        self
    }

    /// All blocks of this entry: auxiliary headers, header, data, padding.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut pax = self.pax.clone();
        let (name, prefix) = self.place(&mut out, &mut pax, &self.name, b'L', "path");
        let (link, _) = self.place(&mut out, &mut pax, &self.link, b'K', "linkpath");
        if !pax.is_empty() {
            out.extend(records(b'x', "PaxHeaders.0/entry", &pax));
        }
        let mut header = self.header(&name, &prefix, &link);
        if self.kind == b'S' {
            self.sparse_header(&mut header, &mut out);
        } else {
            seal(&mut header, self.bad_checksum);
            out.extend(header);
        }
        out.extend(&self.data);
        pad(&mut out);
        out
    }

    /// Where a name goes: (header field, ustar prefix), the rest into `out` or `pax`.
    fn place(
        &self,
        out: &mut Vec<u8>,
        pax: &mut Vec<(Vec<u8>, Vec<u8>)>,
        value: &[u8],
        gnu_kind: u8,
        key: &str,
    ) -> (Vec<u8>, Vec<u8>) {
        if value.len() <= 100 {
            return (value.to_vec(), Vec::new());
        }
        match self.long {
            Long::Pax => pax.push((key.as_bytes().to_vec(), value.to_vec())),
            Long::Gnu => {
                let data = [value, b"\0"].concat();
                let entry = Entry::file("././@LongLink", data).mode(0).mtime(0).long(Long::Gnu);
                out.extend(Entry { kind: gnu_kind, ..entry }.bytes());
            }
            Long::Prefix => {
                let at = (0..value.len().min(156))
                    .rev()
                    .find(|&i| value[i] == b'/' && value.len() - i - 1 <= 100)
                    .expect("no slash at which this name splits into prefix and name");
                return (value[at + 1..].to_vec(), value[..at].to_vec());
            }
        }
        (value[..100].to_vec(), Vec::new())
    }

    fn header(&self, name: &[u8], prefix: &[u8], link: &[u8]) -> [u8; 512] {
        let mut h = [0; 512];
        h[..name.len()].copy_from_slice(name);
        number(&mut h[100..108], u64::from(self.mode));
        number(&mut h[108..116], self.uid);
        number(&mut h[116..124], self.gid);
        number(&mut h[124..136], self.claimed_size.unwrap_or(self.data.len() as u64));
        signed(&mut h[136..148], self.mtime);
        h[156] = self.kind;
        h[157..157 + link.len()].copy_from_slice(link);
        if !self.magic {
            return h;
        }
        if self.kind == b'S' || self.long == Long::Gnu {
            h[257..265].copy_from_slice(b"ustar  \0");
        } else {
            h[257..265].copy_from_slice(b"ustar\x0000");
            h[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        if matches!(self.kind, b'3' | b'4') {
            number(&mut h[329..337], u64::from(self.device.0));
            number(&mut h[337..345], u64::from(self.device.1));
        }
        h
    }

    /// Four parts fit the header, 21 each block after it.
    fn sparse_header(&self, header: &mut [u8; 512], out: &mut Vec<u8>) {
        let put = |block: &mut [u8], parts: &[(u64, u64)]| {
            for (i, (offset, length)) in parts.iter().enumerate() {
                number(&mut block[i * 24..i * 24 + 12], *offset);
                number(&mut block[i * 24 + 12..i * 24 + 24], *length);
            }
        };
        let (first, rest) = self.sparse_map.split_at(self.sparse_map.len().min(4));
        put(&mut header[386..482], first);
        header[482] = u8::from(!rest.is_empty());
        number(&mut header[483..495], self.real_size);
        seal(header, self.bad_checksum);
        out.extend(*header);
        let mut chunks = rest.chunks(21).peekable();
        while let Some(parts) = chunks.next() {
            let mut block = [0; 512];
            put(&mut block, parts);
            block[504] = u8::from(chunks.peek().is_some());
            out.extend(block);
        }
    }
}

/// An archive under construction.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        entries.into_iter().fold(Self::new(), Self::add)
    }

    pub fn add(mut self, entry: Entry) -> Self {
        self.0.extend(entry.bytes());
        self
    }

    pub fn dir(self, name: &str) -> Self {
        self.add(Entry::dir(name))
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.add(Entry::file(name, data))
    }

    /// A global PAX header (`g`).
    pub fn global(mut self, key: &str, value: &str) -> Self {
        let pairs = [(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
        self.0.extend(records(b'g', "pax_global_header", &pairs));
        self
    }

    /// A PAX header of exactly these bytes, valid or not.
    pub fn raw_pax(self, body: &[u8]) -> Self {
        self.add(Entry { kind: b'x', ..Entry::file("PaxHeaders.0/raw", body) })
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The archive as it should be: two blocks of zeros at its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// The archive with nothing after its last entry.
    pub fn unended(self) -> Vec<u8> {
        self.0
    }
}

/// A PAX header entry. A record's length counts its own digits.
fn records(kind: u8, name: &str, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in pairs {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend(format!("{length} ").bytes());
        body.extend(key);
        body.push(b'=');
        body.extend(value);
        body.push(b'\n');
    }
    Entry { kind, ..Entry::file(name, body) }.bytes()
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(512), 0);
}

/// Octal with a NUL if it fits, else GNU's base-256 with the top bit set.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        field[digits] = 0;
    } else {
        signed_base256(field, i128::from(value));
    }
}

fn signed(field: &mut [u8], value: i64) {
    match u64::try_from(value) {
        Ok(value) => number(field, value),
        Err(_) => signed_base256(field, i128::from(value)),
    }
}

fn signed_base256(field: &mut [u8], value: i128) {
    let bytes = value.to_be_bytes();
    let n = field.len();
    field.copy_from_slice(&bytes[16 - n..]);
    field[0] = if value < 0 { 0xff } else { field[0] | 0x80 };
}

fn seal(header: &mut [u8; 512], bad: bool) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum::<u32>() + u32::from(bad);
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Bytes that do not compress, the same on every call (xorshift64).
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ size as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}
