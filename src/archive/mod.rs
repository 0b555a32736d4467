//! Images as archives: Docker's archive and the OCI image layout, in a tar or in a directory. Blocking.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<digest>     OCI image layout (OCI image-spec image-layout.md)
//! manifest.json  <any path>                         docker-archive (moby image/tarexport)
//! ```
//!
//! Docker 25 and later write a tar that is both: the paths in `manifest.json` lead to the blobs.

mod collect;
mod copy;
mod docker;
mod documents;
mod error;
mod files;
mod found;
mod layout;
mod location;
mod open;
mod read;
mod save;
mod sink;

pub use documents::ArchiveFormat;
pub use error::ArchiveError;
pub use files::FileRange;
pub use location::ArchiveLocation;
pub use read::{ArchiveKind, ArchiveReader, ArchivedImage};
pub use save::{SavePlan, SavedImage};
pub use sink::{DirSink, Sink, TarSink};
