//! Tar archives of this machine that are not layers yet.

use std::io::BufRead;

use super::LayerError;
use super::budget;
use super::stream::decompress::Decoder;
use super::tar::header::{self, BLOCK};

/// Returns whether `file` is a tar, plain or compressed: whether its first block is a header.
///
/// # Errors
/// [`LayerError::Compression`] for a compression that cannot be decoded, the error of `file`.
pub fn is_tar(file: impl BufRead) -> Result<bool, LayerError> {
    let mut decoder = Decoder::new(file, Box::new(|_| true))?;
    let mut buffer = vec![0; budget::BUFFER_SIZE];
    // What cannot be decoded is not an archive.
    let Ok(filled) = decoder.fill(&mut buffer) else { return Ok(false) };
    let block = buffer[filled].first_chunk::<BLOCK>();
    Ok(block.is_some_and(|block| *block != [0; BLOCK] && header::parse(block).is_ok()))
}
