//! Namespaces in which a process without root may mount.

use crate::error::Error;
use crate::namespace::{self, MappedIds};

/// Moves this process to a new user namespace and a new mount namespace, in which it is root and may mount.
/// What it mounts disappears with the last process of the namespace. newuidmap and newgidmap map the ranges of
/// IDs that /etc/subuid and /etc/subgid have for the user, so that layers keep their owners. A process that is
/// in a user namespace already, and may mount there, stays where it is.
///
/// Call it before the process starts a thread or opens a store.
///
/// # Errors
/// [`Error::Namespace`]: the system forbids it, this process has several threads, or it is root and may mount
/// without it. After some errors, the process is in a namespace that is of no use.
pub fn enter_user_namespace() -> Result<MappedIds, Error> {
    Ok(namespace::enter()?)
}
