//! The tar-split metadata of a layer (`tar-split.json.gz`): everything in its tar that is not file
//! content. Its lines are entries and segments.

pub mod assemble;
pub mod compressor;
pub mod damage;
pub mod line;
pub mod marks;
pub mod overwritten;
pub mod reader;
pub mod rewrite;
pub mod writer;
