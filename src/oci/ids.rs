//! IDs of images, layers and stacks of layers. Each is a distinct type around [`Digest`] without
//! implicit conversions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// Returns the digest.
            pub fn digest(&self) -> Digest {
                self.0
            }
            /// Returns the 64 hex digits, the name of the ID's file or directory.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
            /// Returns the first 12 hex digits, Docker's short form.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// The SHA-256 of a layer's uncompressed tar (`rootfs.diff_ids` of a config).
    DiffId
}
id! {
    /// The ID of a stack of layers: the key in Docker's layer database.
    ChainId
}
id! {
    /// The SHA-256 of the bytes of an image config.
    ImageId
}

impl ChainId {
    /// Returns the chain ID of a layer above `parent`: the diff ID for the base, else the SHA-256
    /// of `"<parent> <diff id>"` (OCI image-spec config.md, "Layer ChainID").
    pub fn above(parent: Option<ChainId>, layer: DiffId) -> Self {
        match parent {
            None => Self(layer.0),
            Some(parent) => Self(Digest::of(format!("{parent} {layer}").as_bytes())),
        }
    }

    /// Returns the chain IDs of a stack, base first.
    pub fn stack(layers: &[DiffId]) -> Vec<ChainId> {
        let mut parent = None;
        let above = |layer: &DiffId| {
            let chain = ChainId::above(parent, *layer);
            parent = Some(chain);
            chain
        };
        layers.iter().map(above).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_id_is_the_digest_of_parent_and_diff_id() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        let stack = ChainId::stack(&[a, b]);
        assert_eq!(stack[0].digest(), a.digest());
        assert_eq!(stack[1].digest(), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
