//! A DEFLATE decoder (RFC 1951) and a gzip reader (RFC 1952) without unsafe code.
//!
//! [`GzipReader`] decodes straight into the caller's buffer. DEFLATE refers back to as much as
//! 32 KiB of its own output, so the buffer begins with that history: `fill` puts it there, and
//! returns the range of the bytes that it decoded behind it.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! // "hello\n" by gzip(1).
//! let file = [
//!     31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 203, 72, 205, 201, 201, 231, 2, 0, 32, 48, 58, 54, 6, 0,
//!     0, 0,
//! ];
//! let mut reader = inflate::GzipReader::new(&file[..]);
//! let mut buffer = vec![0; inflate::BUFFER_OVERHEAD + 4096];
//! let decoded = reader.fill(&mut buffer)?;
//! assert_eq!(&buffer[decoded], b"hello\n");
//! assert!(reader.fill(&mut buffer)?.is_empty());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod deflate;
mod gzip;

use std::fmt;
use std::io;

pub use gzip::{BUFFER_OVERHEAD, GzipReader};

/// Invalid gzip or DEFLATE data, and why. [`GzipReader::fill`] returns it inside an
/// [`io::Error`] of the kind [`io::ErrorKind::InvalidData`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidData(&'static str);

impl fmt::Display for InvalidData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidData {}

impl From<InvalidData> for io::Error {
    fn from(invalid: InvalidData) -> Self {
        Self::new(io::ErrorKind::InvalidData, invalid)
    }
}
