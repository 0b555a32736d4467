//! The record of a committed layer.

use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// A committed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// The chain ID of the stack up to this layer.
    pub chain: ChainId,
    /// The chain ID of the stack below; `None` for a base layer.
    pub parent: Option<ChainId>,
    /// The SHA-256 of its tar.
    pub diff_id: DiffId,
    /// Its directory in `overlay2`.
    pub cache_id: CacheId,
    /// The sum of the sizes of its non-directories, bytes.
    pub size: u64,
}
