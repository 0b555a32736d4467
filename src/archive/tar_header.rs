//! Headers of the tars that are written: ustar with fixed owners, modes and times, so that the same
//! images give the same bytes.

use crate::layer::TAR_BLOCK;

/// A header block.
pub type Block = [u8; TAR_BLOCK];

/// The largest size that eleven octal digits can express.
const MAX_OCTAL_SIZE: u64 = (1 << 33) - 1;

/// Returns the header of a regular file. `path` has at most 100 bytes.
pub fn file(path: &str, size: u64) -> Block {
    header(path, size, b'0', 0o644)
}

/// Returns the header of a directory. `path` ends with a slash and has at most 100 bytes.
pub fn dir(path: &str) -> Block {
    header(path, 0, b'5', 0o755)
}

/// Returns the number of zeros after `size` bytes of data.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % TAR_BLOCK as u64) as usize
}

fn header(path: &str, size: u64, kind: u8, mode: u32) -> Block {
    let mut block = [0; TAR_BLOCK];
    put(&mut block, 0, path.as_bytes());
    put(&mut block, 100, format!("{mode:07o}").as_bytes());
    put(&mut block, 108, b"0000000");
    put(&mut block, 116, b"0000000");
    if size <= MAX_OCTAL_SIZE {
        put(&mut block, 124, format!("{size:011o}").as_bytes());
    } else {
        // GNU's base-256 form, which Go, Python, libarchive and GNU tar read.
        block[124] = 0x80;
        put(&mut block, 128, &size.to_be_bytes());
    }
    put(&mut block, 136, b"00000000000");
    block[156] = kind;
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 329, b"0000000");
    put(&mut block, 337, b"0000000");
    put(&mut block, 148, b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0").as_bytes());
    block
}

fn put(block: &mut Block, at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_by_another_implementation() {
        for size in [0, 5, MAX_OCTAL_SIZE, MAX_OCTAL_SIZE + 1, 1 << 45] {
            let block = file("blobs/sha256/x", size);
            let header = ::tar::Header::from_byte_slice(&block);
            assert_eq!(header.size().unwrap(), size);
            assert_eq!(header.cksum().unwrap(), checksum(&block));
            assert_eq!(header.path().unwrap().to_str(), Some("blobs/sha256/x"));
            assert_eq!((header.mode().unwrap(), header.mtime().unwrap()), (0o644, 0));
            assert!(header.as_ustar().is_some() && header.entry_type().is_file());
        }
        assert!(::tar::Header::from_byte_slice(&dir("blobs/")).entry_type().is_dir());
        assert_eq!((padding(0), padding(1), padding(512), padding(513)), (0, 511, 0, 511));
    }

    fn checksum(block: &Block) -> u32 {
        let field = 148..156;
        let byte =
            |(at, byte): (usize, &u8)| if field.contains(&at) { 32 } else { u32::from(*byte) };
        block.iter().enumerate().map(byte).sum()
    }
}
