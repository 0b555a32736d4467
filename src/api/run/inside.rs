//! Files inside of an image, read without mounting it.

use std::io::{self, Read};

use crate::bundle::Accounts;
use crate::error::Error;
use crate::fsutil::{At, FsError};
use crate::overlay::{Follow, LookupError, MergedLayer, MergedTree, OpaqueDirs, Stack, XattrSpace};

/// Bytes of a file of accounts at most: enough for 100,000 of them.
const MAX_SIZE: u64 = 16 << 20;

/// Returns the users and groups of an image.
pub(in crate::api) fn accounts(stack: &Stack) -> Result<Accounts, Error> {
    let tree = tree(stack)?;
    Ok(Accounts { passwd: read(&tree, b"etc/passwd")?, group: read(&tree, b"etc/group")? })
}

/// Returns the files of an image.
pub(in crate::api) fn tree(stack: &Stack) -> Result<MergedTree, Error> {
    let space = if stack.userxattr { XattrSpace::User } else { XattrSpace::Trusted };
    let open = |dir| MergedLayer::open(dir, OpaqueDirs::Marked(vec![space]));
    let layers: Result<Vec<MergedLayer>, FsError> =
        stack.lower.iter().map(|dir| open(dir)).collect();
    Ok(MergedTree::new(layers?))
}

/// Returns the bytes of a file; none if there is no such file.
fn read(tree: &MergedTree, path: &[u8]) -> Result<Vec<u8>, Error> {
    let entry = match tree.lookup(path, Follow::Yes) {
        Ok(entry) if entry.kind().is_file() => entry,
        Ok(_) | Err(LookupError::NotFound | LookupError::NotADirectory | LookupError::Loop) => {
            return Ok(Vec::new());
        }
        Err(LookupError::Fs(e)) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    let size = entry.open()?.take(MAX_SIZE + 1).read_to_end(&mut bytes);
    let size = size.at("read", &entry.host_path())?;
    if size as u64 > MAX_SIZE {
        let why = io::Error::new(io::ErrorKind::InvalidData, "it is larger than 16 MiB");
        Err(why).at("read", &entry.host_path())?;
    }
    Ok(bytes)
}
