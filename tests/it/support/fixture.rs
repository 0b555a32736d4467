//! The image `hello` of `tests/fixtures`: two platforms, three layers each (gzip, gzip
//! with a whiteout, zstd), a program that prints [`LINE`].

use std::path::{Path, PathBuf};

use super::hub::Hub;
use super::image::{Pushed, push_layout};

/// What `/hello` says.
pub const LINE: &str = "Hello from rpull: this came from a registry without a daemon.";

pub fn hello() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hello")
}

/// Pushes it as `name` to the shared registry.
pub fn push_hello(name: &str) -> Pushed {
    push_layout(&Hub::shared().host, name, &hello())
}
