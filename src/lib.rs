//! rpull: pull container images into Docker's own on-disk layout, without a daemon.

pub mod digest;
pub mod error;
pub mod fsutil;
pub mod layer;
pub mod oci;
pub mod overlay;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;
