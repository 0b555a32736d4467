//! A tar stream as entries: headers, PAX records, sparse maps and paths, as Go's archive/tar
//! reads them.

pub mod entry;
pub mod header;
pub mod index;
pub mod number;
pub mod path;
pub mod pax;
pub mod reader;
pub mod sparse;
pub mod writer;
