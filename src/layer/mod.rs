//! Layers: a compressed stream becomes verified files and the record that gives its tar
//! back byte for byte. Everything here blocks; nothing here knows a network or a store.

mod behind;
mod chunks;
mod compression;
mod error;
mod extract;
mod gzip;
mod hashing;
mod header;
mod inflate;
mod limits;
mod make;
mod meta;
mod names;
mod omissions;
mod pax;
mod reassemble;
mod record_file;
mod sparse;
mod spool;
mod tar_reader;
mod tar_split;
mod unpack;
mod verify;
mod whiteouts;

pub use chunks::Pool;
pub use compression::{DECODER_ROOM, Decoder};
pub use error::LayerError;
pub use limits::Limits;
pub use meta::Owners;
pub use reassemble::{Reassembler, verify};
pub use unpack::{Job, Unpacked, unpack};
pub use verify::BlobSpec;
