//! The library's public face: a client, a store, and the images in it.

mod client;
mod image;
mod mount;
mod pull;
mod store;

pub use client::{Client, ClientBuilder, Resolution};
pub use image::{Image, ImageLayer};
pub use mount::MountPlan;
pub use pull::Pull;
pub use store::{Removal, Store};
