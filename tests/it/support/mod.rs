//! What the tests stand on.

pub mod busybox;
pub mod container;
pub mod debian;
pub mod dockerd;
pub mod fixture;
pub mod guard;
pub mod hub;
pub mod image;
pub mod internet;
pub mod judge;
pub mod proxy;
pub mod rpull;
pub mod scratch;
pub mod snapshot;
pub mod socks;
// The unit tests of `layer` use the rest.
#[allow(dead_code)]
pub mod tar;
pub mod tar_split;
pub mod wait;
