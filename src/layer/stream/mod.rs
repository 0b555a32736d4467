//! The bytes of a layer: read from the blob, counted, hashed, decompressed and shared as chunks.

pub mod chunks;
pub mod compress;
pub mod decompress;
pub mod digests;
pub mod source;
pub mod zstd_reader;
