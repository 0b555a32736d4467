//! The tests that need more than a function: servers, daemons, the built binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod capabilities;
mod check;
mod clean;
mod completions;
mod content;
mod crash;
mod damage;
mod debian;
mod dockerd;
mod dry_run;
mod errors;
mod exit_codes;
mod file_systems;
mod json;
mod language;
mod layering;
mod layout;
mod library;
mod links;
mod many;
mod mounts;
mod names;
mod platform;
mod power;
mod protocol;
mod pull;
mod registry;
mod special_files;
mod stress;
mod support;
mod terminal;
mod unpack;
mod verbs;
mod words;
