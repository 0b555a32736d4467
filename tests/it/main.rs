//! The tests that need more than a function: servers, daemons, the built binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod layering;
mod support;
mod unpack;
