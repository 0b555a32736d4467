//! The ids that a digest can be. They never turn into each other by accident:
//! each wraps [`Digest`] and has no conversion but its own constructor.

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
            /// The hash value itself.
            pub fn digest(&self) -> Digest {
                self.0
            }
            /// The 64 hex digits: the name of this id's file or directory.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
            /// The first 12 hex digits, for people.
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
    /// The sha256 of a layer's uncompressed tar (`rootfs.diff_ids` of a config).
    DiffId
}
id! {
    /// What a stack of layers is known by: the key of Docker's layer db.
    ChainId
}
id! {
    /// The sha256 of an image's config, byte for byte.
    ImageId
}

impl ChainId {
    /// The chain id of a layer above `parent`: the diff id itself for the base, else
    /// the sha256 of `"<parent> <diff id>"` (OCI image-spec config.md, "Layer ChainID").
    pub fn above(parent: Option<ChainId>, layer: DiffId) -> Self {
        match parent {
            None => Self(layer.0),
            Some(parent) => Self(Digest::of(format!("{parent} {layer}").as_bytes())),
        }
    }

    /// The chain ids of a whole stack, base first.
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
