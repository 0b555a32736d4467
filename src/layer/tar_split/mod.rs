//! The tar-split metadata of a layer: everything in its tar that is not file content.

pub mod assemble;
pub mod overwritten;
pub mod rewrite;
pub mod writer;
