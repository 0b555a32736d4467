//! Sparse files: the extents of a file whose data is in the archive (GNU tar manual, "Sparse
//! Formats"). dockerd cannot reproduce such entries; rpull stores them raw in the metadata.

use super::header::BLOCK;
use super::number;

/// A range of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its offset in the file, bytes.
    pub offset: i64,
    /// Its length, bytes.
    pub length: i64,
}

/// The layout of a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// The extents, in the order of the data.
    pub extents: Vec<Extent>,
    /// The file's size including its holes, bytes.
    pub size: u64,
}

/// Extents of a file at most. Go's reader limits the map too, to 1 MiB.
const MAX_EXTENTS: usize = 1 << 16;

impl SparseMap {
    /// Creates a map, if the extents are in order, lie within `size` and have `data` bytes.
    ///
    /// # Errors
    /// A description of what is invalid.
    pub fn new(extents: Vec<Extent>, size: i64, data: u64) -> Result<Self, &'static str> {
        const BAD: &str = "an invalid sparse map";
        let size_u = u64::try_from(size).map_err(|_| BAD)?;
        let (mut end, mut sum) = (0i64, 0i64);
        for extent in &extents {
            let next = extent.offset.checked_add(extent.length).ok_or(BAD)?;
            if extent.offset < end || extent.length < 0 || next > size {
                return Err(BAD);
            }
            end = next;
            sum += extent.length;
        }
        if u64::try_from(sum) != Ok(data) || extents.len() > MAX_EXTENTS {
            return Err(BAD);
        }
        Ok(Self { extents, size: size_u })
    }

    /// Splits `bytes`, which start at `offset` of the archived data, at the bounds of the extents,
    /// and calls `each` with the offset in the file and the bytes of every part.
    ///
    /// # Errors
    /// The error of `each`.
    pub fn each_extent<E>(
        &self,
        offset: u64,
        mut bytes: &[u8],
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut before = 0;
        let mut offset = offset;
        for extent in &self.extents {
            let (start, length) = (extent.offset.unsigned_abs(), extent.length.unsigned_abs());
            if offset < before + length && !bytes.is_empty() {
                let within = offset - before;
                let n = usize::try_from(length - within).unwrap_or(usize::MAX).min(bytes.len());
                each(start + within, &bytes[..n])?;
                bytes = &bytes[n..];
                offset += n as u64;
            }
            before += length;
        }
        Ok(())
    }
}

/// Appends up to `count` extents of the old GNU format, 24 bytes each, to `extents`. An empty
/// offset ends them.
///
/// # Errors
/// A description of what is invalid.
pub fn old_gnu_extents(
    bytes: &[u8],
    count: usize,
    extents: &mut Vec<Extent>,
) -> Result<(), &'static str> {
    for field in bytes.chunks_exact(24).take(count) {
        if field[0] == 0 {
            break;
        }
        let (offset, length) = (number::field(&field[..12])?, number::field(&field[12..])?);
        extents.push(Extent { offset, length });
        if extents.len() > MAX_EXTENTS {
            return Err("a sparse map with too many extents");
        }
    }
    Ok(())
}

/// A reader of the PAX 1.0 map: decimal lines before the data, padded to whole blocks.
#[derive(Default)]
pub struct MapReader {
    line: Vec<u8>,
    numbers: Vec<i64>,
}

impl MapReader {
    /// Parses one block. Returns the extents once the map is complete.
    ///
    /// # Errors
    /// A description of what is invalid.
    pub fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Extent>>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err("an invalid sparse map");
                }
                continue;
            }
            self.numbers.push(number::decimal(&self.line)?);
            self.line.clear();
            let count = usize::try_from(self.numbers[0]).map_err(|_| "an invalid sparse map")?;
            if count > MAX_EXTENTS {
                return Err("a sparse map with too many extents");
            }
            if self.numbers.len() == 1 + 2 * count {
                let pairs = self.numbers[1..].as_chunks::<2>().0;
                return Ok(Some(
                    pairs.iter().map(|&[offset, length]| Extent { offset, length }).collect(),
                ));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_that_does_not_fit_data_or_size_is_an_error() {
        let extents = |list: &[(i64, i64)]| {
            list.iter().map(|&(offset, length)| Extent { offset, length }).collect()
        };
        assert!(SparseMap::new(extents(&[(0, 3), (10, 2)]), 20, 5).is_ok());
        assert!(SparseMap::new(extents(&[(0, 3), (10, 2)]), 20, 6).is_err(), "wrong sum");
        assert!(SparseMap::new(extents(&[(0, 3), (2, 2)]), 20, 5).is_err(), "overlap");
        assert!(SparseMap::new(extents(&[(0, 3), (19, 2)]), 20, 5).is_err(), "past the end");
    }

    #[test]
    fn data_in_any_two_parts_goes_to_its_extents() {
        let extents = vec![Extent { offset: 2, length: 3 }, Extent { offset: 10, length: 2 }];
        let map = SparseMap::new(extents, 20, 5).unwrap();
        for cut in 0..=5 {
            let mut file = [b'.'; 20];
            let mut put = |at: u64, bytes: &[u8]| {
                file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
                Ok::<(), ()>(())
            };
            map.each_extent(0, &b"abcde"[..cut], &mut put).unwrap();
            map.each_extent(cut as u64, &b"abcde"[cut..], &mut put).unwrap();
            assert_eq!(&file, b"..abc.....de........", "cut at {cut}");
        }
    }

    #[test]
    fn map_before_data_ends_at_its_count() {
        let mut block = [0; BLOCK];
        block[..13].copy_from_slice(b"2\n0\n3\n10\n2\n\0\0");
        let extents = MapReader::default().block(&block).unwrap().unwrap();
        assert_eq!(extents, [Extent { offset: 0, length: 3 }, Extent { offset: 10, length: 2 }]);
    }
}
