//! rpull: pull container images into Docker's own on-disk layout, without a daemon.

pub mod digest;
pub mod oci;
pub mod progress;
pub mod reference;
