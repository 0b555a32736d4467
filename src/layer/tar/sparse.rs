//! Sparse files: which runs of a file an archive holds (GNU tar manual, "Sparse
//! Formats"). dockerd cannot give such entries back; here they stay raw in tar-split.

use super::header::{BLOCK, number};

/// A run of data at an offset of the file, both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where in the file.
    pub offset: i64,
    /// How long.
    pub length: i64,
}

/// Where the data of a sparse file belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// The runs, in the order of the data.
    pub runs: Vec<Run>,
    /// The file's size with its holes, in bytes.
    pub size: u64,
}

/// The most runs that are taken; Go's reader bounds the map by its 1 MiB too.
const MOST_RUNS: usize = 1 << 16;

impl SparseMap {
    /// Checks that the runs follow each other, lie within `size` and need `data` bytes.
    ///
    /// # Errors
    /// A word on what is wrong.
    pub fn new(runs: Vec<Run>, size: i64, data: u64) -> Result<Self, &'static str> {
        const BAD: &str = "an invalid sparse map";
        let size_u = u64::try_from(size).map_err(|_| BAD)?;
        let (mut end, mut sum) = (0i64, 0i64);
        for run in &runs {
            let next = run.offset.checked_add(run.length).ok_or(BAD)?;
            if run.offset < end || run.length < 0 || next > size {
                return Err(BAD);
            }
            end = next;
            sum += run.length;
        }
        if u64::try_from(sum) != Ok(data) || runs.len() > MOST_RUNS {
            return Err(BAD);
        }
        Ok(Self { runs, size: size_u })
    }

    /// Cuts `bytes`, which stand at `offset` of the packed data, into the pieces that
    /// belong together in the file: `each` gets a piece and its place there.
    ///
    /// # Errors
    /// What `each` says.
    pub fn each_run<E>(
        &self,
        offset: u64,
        mut bytes: &[u8],
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut before = 0;
        let mut offset = offset;
        for run in &self.runs {
            let (start, length) = (run.offset.unsigned_abs(), run.length.unsigned_abs());
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

/// Reads `count` old-GNU runs of 24 bytes each from `bytes`; an empty offset ends them.
///
/// # Errors
/// A field is no number.
pub fn old_gnu_runs(bytes: &[u8], count: usize, runs: &mut Vec<Run>) -> Result<(), &'static str> {
    for field in bytes.chunks_exact(24).take(count) {
        if field[0] == 0 {
            break;
        }
        runs.push(Run { offset: number(&field[..12])?, length: number(&field[12..])? });
        if runs.len() > MOST_RUNS {
            return Err("a sparse map with too many runs");
        }
    }
    Ok(())
}

/// A reader of the PAX 1.0 map, which stands in decimal lines before the data, padded to
/// whole blocks.
#[derive(Default)]
pub struct MapReader {
    line: Vec<u8>,
    numbers: Vec<i64>,
}

impl MapReader {
    /// Takes one block in; the runs, once the map is complete.
    ///
    /// # Errors
    /// A line is no number, or there are too many.
    pub fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Run>>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err("an invalid sparse map");
                }
                continue;
            }
            self.numbers.push(super::pax::integer(&self.line)?);
            self.line.clear();
            let wanted = usize::try_from(self.numbers[0]).map_err(|_| "an invalid sparse map")?;
            if wanted > MOST_RUNS {
                return Err("a sparse map with too many runs");
            }
            if self.numbers.len() == 1 + 2 * wanted {
                let pairs = self.numbers[1..].as_chunks::<2>().0;
                return Ok(Some(
                    pairs.iter().map(|&[offset, length]| Run { offset, length }).collect(),
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
    fn a_map_must_fit_its_data_and_size() {
        let runs = |list: &[(i64, i64)]| {
            list.iter().map(|&(offset, length)| Run { offset, length }).collect()
        };
        assert!(SparseMap::new(runs(&[(0, 3), (10, 2)]), 20, 5).is_ok());
        assert!(SparseMap::new(runs(&[(0, 3), (10, 2)]), 20, 6).is_err(), "wrong sum");
        assert!(SparseMap::new(runs(&[(0, 3), (2, 2)]), 20, 5).is_err(), "overlap");
        assert!(SparseMap::new(runs(&[(0, 3), (19, 2)]), 20, 5).is_err(), "past the end");
    }

    #[test]
    fn data_goes_to_its_runs_however_it_is_cut() {
        let runs = vec![Run { offset: 2, length: 3 }, Run { offset: 10, length: 2 }];
        let map = SparseMap::new(runs, 20, 5).unwrap();
        for cut in 0..=5 {
            let mut file = [b'.'; 20];
            let mut put = |at: u64, bytes: &[u8]| {
                file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
                Ok::<(), ()>(())
            };
            map.each_run(0, &b"abcde"[..cut], &mut put).unwrap();
            map.each_run(cut as u64, &b"abcde"[cut..], &mut put).unwrap();
            assert_eq!(&file, b"..abc.....de........", "cut at {cut}");
        }
    }

    #[test]
    fn a_map_before_the_data_ends_where_its_count_says() {
        let mut block = [0; BLOCK];
        block[..13].copy_from_slice(b"2\n0\n3\n10\n2\n\0\0");
        let runs = MapReader::default().block(&block).unwrap().unwrap();
        assert_eq!(runs, [Run { offset: 0, length: 3 }, Run { offset: 10, length: 2 }]);
    }
}
