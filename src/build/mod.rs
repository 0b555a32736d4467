//! Images from Dockerfiles. Blocking.

#[allow(dead_code, unused_imports, reason = "the steps of a build will use it")]
pub mod copy;
