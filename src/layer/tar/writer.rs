//! The writer of tar streams: ustar headers, and PAX records for what does not fit into them (POSIX.1-2008
//! pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Sparse Formats", PAX 1.0).
//!
//! Equal entries give equal bytes.

use std::io::{self, Read, Write};

use super::entry::EntryType;
use super::header::{BLOCK, Time};
use super::sparse::Extent;

/// What the header of an entry says.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// The name; that of a directory ends with a slash.
    pub name: &'a [u8],
    /// The target of a link.
    pub link: &'a [u8],
    /// The type; a global header cannot be written.
    pub kind: EntryType,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// The size of a regular file, bytes, with its holes.
    pub size: u64,
    /// The ranges of a sparse file that have data; the rest is left out. GNU tar reads whole blocks, so all
    /// but the last have a multiple of 512 bytes.
    pub extents: Option<&'a [Extent]>,
}

impl NewEntry<'_> {
    /// A regular file without a name, for all fields that do not matter.
    pub fn file() -> Self {
        Self {
            name: b"",
            link: b"",
            kind: EntryType::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: &[],
            size: 0,
            extents: None,
        }
    }
}

/// Writes a tar stream.
pub struct TarWriter<W> {
    out: W,
    /// Bytes of the current entry's data that are still to be written.
    remaining: u64,
    /// Bytes of padding after them.
    padding: usize,
    buffer: Vec<u8>,
}

/// Bytes that are read from a file at once.
const BUFFER_SIZE: usize = 128 << 10;

impl<W: Write> TarWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, remaining: 0, padding: 0, buffer: Vec::new() }
    }

    /// Writes the headers of an entry. The data of a regular file follows with [`data`](Self::data).
    ///
    /// # Errors
    /// The error of the output; `InvalidInput` if the data of the entry before is incomplete.
    pub fn entry(&mut self, entry: &NewEntry<'_>) -> io::Result<()> {
        self.end_entry()?;
        let map = entry.extents.map(|extents| sparse_map(extents, entry.size));
        let in_archive = match (&map, entry.kind) {
            (_, kind) if kind != EntryType::File => 0,
            (Some(map), _) => {
                map.len() as u64 + entry.extents.iter().flat_map(|it| *it).map(length).sum::<u64>()
            }
            (None, _) => entry.size,
        };
        let records = records(entry, in_archive);
        if !records.is_empty() {
            let name = [b"PaxHeaders.0/", last_part(entry.name)].concat();
            let mut header = Header::new(b'x', 0o644);
            header.name(&name);
            header.size(records.len() as u64);
            self.out.write_all(&header.finish())?;
            self.out.write_all(&records)?;
            self.out.write_all(&[0; BLOCK][..padding_of(records.len() as u64)])?;
        }
        let mut header = Header::new(flag(entry.kind)?, entry.mode);
        header.name(entry.name);
        header.link(entry.link);
        header.owner(entry.uid, entry.gid);
        header.mtime(entry.mtime.seconds);
        header.size(in_archive);
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            header.device(entry.device);
        }
        self.out.write_all(&header.finish())?;
        self.remaining = in_archive;
        self.padding = padding_of(in_archive);
        if let Some(map) = map {
            self.out.write_all(&map)?;
            self.remaining -= map.len() as u64;
        }
        Ok(())
    }

    /// Writes `count` bytes of the entry's data from `from`.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn data(&mut self, from: &mut impl Read, count: u64) -> Result<(), DataError> {
        let mut left = count.min(self.remaining);
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER_SIZE, 0);
        }
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_SIZE);
            let n = match from.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(DataError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(DataError::Read(e)),
            };
            self.out.write_all(&self.buffer[..n]).map_err(DataError::Write)?;
            left -= n as u64;
            self.remaining -= n as u64;
        }
        Ok(())
    }

    /// Writes the next bytes of the entry's data.
    ///
    /// # Errors
    /// The error of the output; `InvalidInput` if they are more than the size of the entry.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let remaining = self.remaining.checked_sub(bytes.len() as u64);
        let excess = || io::Error::new(io::ErrorKind::InvalidInput, "excess data of an entry");
        self.remaining = remaining.ok_or_else(excess)?;
        self.out.write_all(bytes)
    }

    /// Writes the end of the archive. Returns the output.
    ///
    /// # Errors
    /// As for [`entry`](Self::entry).
    pub fn finish(mut self) -> io::Result<W> {
        self.end()?;
        Ok(self.out)
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// As for [`entry`](Self::entry).
    pub fn end(&mut self) -> io::Result<()> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.remaining > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "incomplete data of an entry"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

/// Why the data of an entry was not written.
#[derive(Debug)]
pub enum DataError {
    /// The file cannot be read, or was truncated (`UnexpectedEof`).
    Read(io::Error),
    /// The output cannot be written.
    Write(io::Error),
}

/// Returns the PAX records of what does not fit into the header.
fn records(entry: &NewEntry<'_>, in_archive: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, key: &[u8], value: &[u8]| record(out, key, value);
    let number =
        |out: &mut Vec<u8>, key: &[u8], value: u64| record(out, key, value.to_string().as_bytes());
    if entry.extents.is_some() {
        text(&mut out, b"GNU.sparse.major", b"1");
        text(&mut out, b"GNU.sparse.minor", b"0");
        text(&mut out, b"GNU.sparse.name", entry.name);
        number(&mut out, b"GNU.sparse.realsize", entry.size);
    } else if entry.name.len() > NAME {
        text(&mut out, b"path", entry.name);
    }
    if entry.link.len() > NAME {
        text(&mut out, b"linkpath", entry.link);
    }
    if u64::from(entry.uid) > SMALL_NUMBER {
        number(&mut out, b"uid", entry.uid.into());
    }
    if u64::from(entry.gid) > SMALL_NUMBER {
        number(&mut out, b"gid", entry.gid.into());
    }
    if in_archive > LARGE_NUMBER {
        number(&mut out, b"size", in_archive);
    }
    let Time { seconds, nanos } = entry.mtime;
    if nanos != 0 || !u64::try_from(seconds).is_ok_and(|seconds| seconds <= LARGE_NUMBER) {
        text(&mut out, b"mtime", pax_time(seconds, nanos).as_bytes());
    }
    for (name, value) in entry.xattrs {
        text(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    out
}

/// Returns a time as a decimal number of seconds, which for a time before 1970 is negative as a whole.
fn pax_time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds, nanos) {
        (0.., nanos) => ("", seconds.unsigned_abs(), nanos),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        (_, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends a record, whose length counts its own digits: `11 mtime=5\n`.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Returns the map of a sparse file that comes before its data, in whole blocks. GNU tar needs an empty
/// range at the end of a file that ends with a hole.
fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
    let end = extents.last().map_or(0, |last| last.offset + last.length);
    let last = Extent { offset: size.cast_signed(), length: 0 };
    let last = (end != last.offset).then_some(last);
    let all: Vec<_> = extents.iter().chain(&last).collect();
    let mut map = format!("{}\n", all.len());
    for Extent { offset, length } in all {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len() + padding_of(map.len() as u64), 0);
    map
}

fn length(extent: &Extent) -> u64 {
    extent.length.unsigned_abs()
}

fn last_part(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let start = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    &name[start..]
}

fn padding_of(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn flag(kind: EntryType) -> io::Result<u8> {
    Ok(match kind {
        EntryType::File => b'0',
        EntryType::Hardlink => b'1',
        EntryType::Symlink => b'2',
        EntryType::Char => b'3',
        EntryType::Block => b'4',
        EntryType::Dir => b'5',
        EntryType::Fifo => b'6',
        EntryType::Global => return Err(io::ErrorKind::InvalidInput.into()),
    })
}

/// Bytes of a name in a header.
const NAME: usize = 100;
/// The largest number in a field of eight bytes: mode, owner, group, device.
const SMALL_NUMBER: u64 = 0o7777777;
/// The largest number in a field of twelve bytes: size, time.
const LARGE_NUMBER: u64 = 0o77777777777;

/// A ustar header. A value that does not fit is left out, because a PAX record has it.
struct Header([u8; BLOCK]);

impl Header {
    fn new(flag: u8, mode: u32) -> Self {
        let mut header = Self([0; BLOCK]);
        header.octal(100, 8, u64::from(mode & 0o7777));
        header.owner(0, 0);
        header.size(0);
        header.mtime(0);
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header.device((0, 0));
        header
    }

    fn name(&mut self, name: &[u8]) {
        let n = name.len().min(NAME);
        self.0[..n].copy_from_slice(&name[..n]);
    }

    fn link(&mut self, link: &[u8]) {
        let n = link.len().min(NAME);
        self.0[157..157 + n].copy_from_slice(&link[..n]);
    }

    fn owner(&mut self, uid: u32, gid: u32) {
        self.octal(108, 8, fitting(uid.into(), SMALL_NUMBER));
        self.octal(116, 8, fitting(gid.into(), SMALL_NUMBER));
    }

    fn size(&mut self, size: u64) {
        self.octal(124, 12, fitting(size, LARGE_NUMBER));
    }

    fn mtime(&mut self, seconds: i64) {
        self.octal(136, 12, fitting(u64::try_from(seconds).unwrap_or(0), LARGE_NUMBER));
    }

    fn device(&mut self, (major, minor): (u32, u32)) {
        self.octal(329, 8, u64::from(major));
        self.octal(337, 8, u64::from(minor));
    }

    fn octal(&mut self, at: usize, width: usize, value: u64) {
        let digits = format!("{value:0width$o}\0", width = width - 1);
        self.0[at..at + width].copy_from_slice(digits.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

fn fitting(value: u64, largest: u64) -> u64 {
    if value <= largest { value } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entry: &NewEntry<'_>, data: &[u8]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.data(&mut &data[..], data.len() as u64).unwrap();
        writer.finish().unwrap()
    }

    /// What GNU tar lists.
    fn listed(tar: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t"), tar).unwrap();
        let mut command = std::process::Command::new("tar");
        command.args(["--numeric-owner", "--full-time", "--utc", "-tvf"]).arg(dir.path().join("t"));
        let output = command.env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn entry_that_fits_a_header_has_no_records() {
        let entry =
            NewEntry { name: b"d/f", mode: 0o4755, uid: 1, gid: 2, size: 1, ..NewEntry::file() };
        let tar = written(&entry, b"x");
        assert_eq!(tar.len(), 4 * BLOCK);
        assert_eq!(listed(&tar), "-rwsr-xr-x 1/2               1 1970-01-01 00:00:00 d/f\n");
    }

    #[test]
    fn values_that_do_not_fit_a_header_are_in_records() {
        let name = vec![b'n'; 101];
        let xattrs = [(b"user.a".to_vec(), b"\0\n=\xff".to_vec())];
        let entry = NewEntry {
            name: &name,
            kind: EntryType::Symlink,
            link: &[b'l'; 200],
            uid: u32::MAX - 1,
            gid: 1 << 21,
            mtime: Time { seconds: -2, nanos: 0 },
            xattrs: &xattrs,
            ..NewEntry::file()
        };
        let tar = written(&entry, b"");
        let expected = format!(
            "l--------- 4294967294/2097152 0 1969-12-31 23:59:58 {} -> {}\n",
            "n".repeat(101),
            "l".repeat(200)
        );
        assert_eq!(listed(&tar), expected);
        let records = String::from_utf8_lossy(&tar[BLOCK..]).into_owned();
        assert!(records.contains("28 SCHILY.xattr.user.a=\0\n=\u{fffd}\n"), "{records}");
        let times = [(-2, 500_000_000, "-1.5"), (-1, 1, "-0.999999999"), (5, 20, "5.00000002")];
        for (seconds, nanos, text) in times {
            assert_eq!(pax_time(seconds, nanos), text);
        }
    }

    #[test]
    fn record_counts_the_digits_of_its_length() {
        for size in 80..=1100 {
            let mut out = Vec::new();
            record(&mut out, b"key", &vec![b'v'; size]);
            let digits = out.iter().position(|&byte| byte == b' ').unwrap();
            assert_eq!(std::str::from_utf8(&out[..digits]).unwrap(), out.len().to_string());
        }
    }

    #[test]
    fn sparse_file_is_extracted_with_its_holes() {
        let extents = [Extent { offset: 0, length: 512 }, Extent { offset: 1 << 20, length: 3 }];
        let entry = NewEntry {
            name: b"d/sparse",
            mode: 0o644,
            size: 2 << 20,
            extents: Some(&extents),
            ..NewEntry::file()
        };
        let data = [&[b'a'; 512][..], b"cde"].concat();
        let tar = written(&entry, &data);
        assert!(tar.len() < 10 * BLOCK);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t"), tar).unwrap();
        let mut command = std::process::Command::new("tar");
        command.arg("-C").arg(dir.path()).arg("-xf").arg(dir.path().join("t"));
        assert!(command.status().unwrap().success());
        let mut expected = vec![0; 2 << 20];
        expected[..512].fill(b'a');
        expected[1 << 20..][..3].copy_from_slice(b"cde");
        assert!(std::fs::read(dir.path().join("d/sparse")).unwrap() == expected);
    }

    #[test]
    fn truncated_file_is_an_error() {
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&NewEntry { name: b"f", size: 3, ..NewEntry::file() }).unwrap();
        assert!(matches!(writer.data(&mut &b"ab"[..], 3), Err(DataError::Read(_))));
        assert!(writer.finish().is_err());
    }
}
