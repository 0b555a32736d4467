//! The documents of the OCI image spec and Docker's v2 schema 2, as far as a pull
//! reads them.

mod ids;

pub use ids::{ChainId, DiffId, ImageId};
