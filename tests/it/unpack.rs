//! Layers as archives: what rpull unpacks like dockerd, unpacks though dockerd does not, and refuses.
//!
//! `follow`: a real dockerd pulls the same image, and the two roots have the same content.
//! `beyond_docker`: dockerd would refuse the layer or could not save it; a real dockerd on rpull's
//! root saves it with the exact diff IDs. `refuse`: an error, nothing left, and no file outside the
//! root touched.

mod attributes;
mod beyond_docker;
mod direct;
mod follow;
mod refuse;
mod replace;
mod whiteout;
