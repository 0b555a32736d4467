//! Containers: an OCI runtime runs a command in a writable mount of an image.

mod bundle;
pub(super) mod container;
pub(super) mod inside;
mod options;
mod runtime;

pub use bundle::Bundle;
pub use container::{Container, Ended, Signals, Stdin};
pub use options::RunOptions;
pub use runtime::Runtime;
