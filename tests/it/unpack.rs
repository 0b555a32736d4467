//! Layers as they come: what rpull follows, holds and refuses.
//!
//! *Follow*: a real dockerd pulls the same image, and the two roots hold the same.
//! *Hold*: dockerd would refuse the layer or could not save it; rpull's root, given to a
//! real dockerd, saves it with the exact diff ids. *Refuse*: an error, nothing left, and
//! a canary outside the root that nobody touched.

mod attributes;
mod direct;
mod follow;
mod hold;
mod refuse;
mod replace;
mod whiteout;
