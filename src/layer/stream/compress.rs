//! Compression of a layer's tar.

use std::io::Read;

use flate2::Compression;
use flate2::read::GzEncoder;

/// Returns the gzip stream of `tar`, by the level of docker. The same bytes give the same stream: it
/// contains neither a time nor a name.
pub fn gzip(tar: impl Read) -> impl Read {
    GzEncoder::new(tar, Compression::new(6))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn stream_of_the_same_bytes_is_the_same() {
        let tar: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let pack = || {
            let mut packed = Vec::new();
            io::copy(&mut gzip(tar.as_slice()), &mut packed).unwrap();
            packed
        };
        let packed = pack();
        assert_eq!(packed, pack());
        assert!(packed.len() < tar.len() / 2);
        let mut again = Vec::new();
        io::copy(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut again).unwrap();
        assert_eq!(again, tar);
    }
}
