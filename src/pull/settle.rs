//! Commits one layer, or finds out what is missing for that. Blocking.

use super::files::verify;
use super::gate::WorkError;
use crate::oci::DiffId;
use crate::overlay::CacheId;
use crate::store::{CommitOutcome, LayerRecord, Store, StoreError};

/// How often a layer is repaired or staged anew at most, if other processes interfere.
pub const MAX_ROUNDS: usize = 10;

/// What became of a layer.
pub enum Settled {
    /// It is committed, and right.
    Committed(LayerRecord),
    /// It is committed and damaged, for that reason. Its directory is to be replaced.
    Damaged(LayerRecord, String),
    /// It is neither committed nor staged by any process.
    Missing,
}

/// Commits the staged layer with the content `diff_id` above `parent`, unless it is committed
/// already, in another directory than `broken`. A committed layer whose links are wrong, or that
/// `suspect` speaks against, is verified and repaired. The caller holds the store lock.
///
/// # Errors
/// [`StoreError`] if a record cannot be read or written.
pub fn settle(
    store: &Store,
    parent: Option<&LayerRecord>,
    diff_id: DiffId,
    broken: Option<&CacheId>,
    mut suspect: Option<String>,
) -> Result<Settled, StoreError> {
    let mut rounds = 0;
    loop {
        let outcome = store.layers().ensure_committed(parent, diff_id, broken)?;
        let (record, why) = match (outcome, suspect.take()) {
            (CommitOutcome::Missing, _) => return Ok(Settled::Missing),
            (CommitOutcome::Committed(record), None) => return Ok(Settled::Committed(record)),
            (CommitOutcome::Committed(record), Some(why))
            | (CommitOutcome::Suspect(record, why), _) => (record, why),
        };
        match verify(store, &record) {
            Ok(()) if rounds < MAX_ROUNDS => store.layers().repair(&record, parent)?,
            Ok(()) | Err(WorkError::Layer(_)) => return Ok(Settled::Damaged(record, why)),
            Err(WorkError::Store(e)) => return Err(e),
        }
        rounds += 1;
    }
}
