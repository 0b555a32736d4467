//! Recovery after a boot, for every command: joins the store, which knows what to verify, with the
//! layers' own verification. Blocking.

use std::io;

use super::files::verify;
use crate::fsutil;
use crate::store::{Mode, Store, StoreError};

/// Verifies the layers that an earlier boot left unsynced, and drops damaged ones, before the store
/// is used. Without such layers, it costs the listing of one directory. `on_wait` gets what is waited
/// for, `on_drop` each reference of a dropped image.
///
/// A root that this process may not change is left as it is: dockerd uses it, or another user owns
/// it.
///
/// # Errors
/// [`StoreError`] if the root cannot be read or a damaged layer cannot be removed.
pub fn recover(
    store: &Store,
    on_wait: &dyn Fn(&str),
    on_drop: &dyn Fn(&str),
) -> Result<(), StoreError> {
    let unverified = match store.unverified() {
        Ok(None) => return Ok(()),
        // The command itself finds out that it cannot use the root, and reports that.
        Err(StoreError::Fs(e)) if is_unusable(&e.source) => return Ok(()),
        other => other?.unwrap_or_default(),
    };
    let _lock = match store.lock(Mode::Exclusive, on_wait) {
        Ok(lock) => lock,
        Err(StoreError::Dockerd { .. }) => return Ok(()),
        Err(StoreError::Fs(e)) if fsutil::is_read_only(&e.source) => return Ok(()),
        Err(e) => return Err(e),
    };
    if unverified > 0 {
        on_wait(&format!("the verification of {unverified} layers, which an earlier boot wrote"));
    }
    let recovered = store.recover(&|record| verify(store, record).is_ok())?;
    for reference in recovered.dropped {
        on_drop(&format!("{reference} was damaged when the machine stopped: pull it again"));
    }
    Ok(())
}

fn is_unusable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory)
}
