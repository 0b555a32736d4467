//! A document and the bytes it came as.

use bytes::Bytes;

use crate::digest::Digest;

/// A parsed document beside its bytes. What is stored and hashed is always the bytes as
/// served: writing the parsed value again would give another digest.
#[derive(Debug, Clone)]
pub struct Document<T> {
    /// As served.
    pub bytes: Bytes,
    /// Their sha256.
    pub digest: Digest,
    /// What the server or the descriptor called it.
    pub media_type: String,
    /// What rpull reads in it.
    pub parsed: T,
}
