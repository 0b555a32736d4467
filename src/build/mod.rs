//! Builds as dockerd's classic builder does them: what a Dockerfile says, the variables in it, the image that
//! each instruction gives, and the cache of them. Nothing runs here; `api/build` does that.

mod args;
mod cache;
pub mod copy;
mod dockerfile;
mod stage;

pub use args::BuildArgs;
pub use cache::cached;
pub use dockerfile::{Dockerfile, Instruction, Stage, trigger};
pub use stage::{CopyStep, Outcome, StageState, arguments};
