//! Parsed documents with their original bytes.

use bytes::Bytes;

use crate::digest::Digest;

/// A parsed document with its bytes. Only the bytes as served are stored and hashed, because
/// serialising the parsed value could change the digest.
#[derive(Debug, Clone)]
pub struct Document<T> {
    /// The bytes as served.
    pub bytes: Bytes,
    /// The SHA-256 of the bytes.
    pub digest: Digest,
    /// The media type from the document, the server or the descriptor.
    pub media_type: String,
    /// The parsed value.
    pub parsed: T,
}
