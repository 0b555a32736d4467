//! The layers that dockerd's build cache needs.

use std::collections::HashSet;
use std::io::{self, Read};

use super::{Store, StoreError};
use crate::fsutil::{self, At};
use crate::oci::ChainId;

impl Store {
    /// Returns the chain IDs in the databases of dockerd's build cache, where they are text (moby
    /// builder/builder-next/adapters/snapshot). Pages that the database freed can have chain IDs, too,
    /// so some layers are kept too long. If one that is needed were removed, builds that use the cache
    /// would fail.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub(super) fn build_cache(&self) -> Result<HashSet<ChainId>, StoreError> {
        let dir = self.layout.build_cache();
        let mut chains = HashSet::new();
        for name in fsutil::names_in(&dir)?.iter().filter(|name| name.ends_with(".db")) {
            let path = dir.join(name);
            let file = fsutil::open(&path).at("read", &path)?;
            digests_in(file, &mut chains).at("read", &path)?;
        }
        Ok(chains)
    }
}

/// Adds every `sha256:<64 hex digits>` in a file.
fn digests_in(mut file: impl Read, chains: &mut HashSet<ChainId>) -> io::Result<()> {
    const PREFIX: &[u8] = b"sha256:";
    const LENGTH: usize = PREFIX.len() + 64;
    const STEP_SIZE: u64 = 256 << 10;
    let mut bytes = Vec::new();
    while file.by_ref().take(STEP_SIZE).read_to_end(&mut bytes)? > 0 {
        for text in bytes.windows(LENGTH).filter(|text| text.starts_with(PREFIX)) {
            let digest = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            chains.extend(digest.map(ChainId));
        }
        // The next step completes a digest that was cut.
        bytes.drain(..bytes.len().saturating_sub(LENGTH - 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn digests_between_other_bytes_are_found() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let texts = [one, two].map(|digest| digest.to_string());
        let text = [b"\xffsha256:", texts[0].as_bytes(), b"s", texts[1].as_bytes()].concat();
        let find = |bytes: &[u8]| {
            let mut found = HashSet::new();
            digests_in(bytes, &mut found).unwrap();
            found
        };
        assert_eq!(find(&text), HashSet::from([ChainId(one), ChainId(two)]));
        assert_eq!(find(&text[text.len() - 70..]), HashSet::new());
        // A digest at the boundary of two steps.
        for at in (262_144 - 80)..262_150 {
            let mut long = vec![b'x'; at];
            long.extend(texts[0].as_bytes());
            assert_eq!(find(&long), HashSet::from([ChainId(one)]), "at {at}");
        }
    }
}
