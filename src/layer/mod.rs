//! Layers: a compressed stream becomes verified files and the tar-split metadata that gives its
//! tar back byte for byte. Everything here blocks; nothing here knows a network or a store.

pub mod budget;
mod changes_tar;
mod error;
mod extract;
mod limits;
mod local_tar;
mod stream;
mod tar;
mod tar_split;
mod tree_tar;
mod unpack;
mod usage;

pub use budget::{DECODER_OVERHEAD, WINDOWS_PER_LAYER};
pub use changes_tar::write_changes;
pub use error::{LayerError, LimitKind};
pub use extract::omissions::OmissionReport;
pub use limits::Limits;
pub use local_tar::{ArchiveEntry, is_tar, read_tar};
pub use stream::chunks::BufferPool;
pub use stream::compress::gzip;
pub use stream::decompress::{Compression, Decoder};
pub use stream::digests::BlobSpec;
pub use stream::zstd_reader::WindowGate;
pub use tar::entry::EntryType;
pub use tar::header::Time as TarTime;
pub use tar::index::{IndexedKind, index as index_tar};
pub use tar::writer::{DataError as TarDataError, NewEntry, TarWriter};
pub use tar_split::assemble::{TarAssembler, tar_size, verify};
pub use tar_split::damage::{DamagedFile, damaged_files};
pub use tar_split::marks::{Marks, marks, opaque_dirs};
pub use tree_tar::{LatestTimes, TreeTar, TreeTarError, TreeTarOptions};
pub use unpack::{Job, Unpacked, unpack};
pub use usage::ImageUsage;

#[cfg(test)]
mod tests;
