//! The files of layers. Blocking.

use std::path::Path;

use super::gate::WorkError;
use crate::layer::{self, LayerError};
use crate::overlay::DiffDir;
use crate::store::{LayerRecord, Store};

/// Opens the files of a layer.
///
/// # Errors
/// [`LayerError::Open`] if it is missing or cannot be read.
pub fn open_diff(path: &Path) -> Result<DiffDir, WorkError> {
    DiffDir::open(path).map_err(|e| WorkError::Layer(LayerError::open(path, e)))
}

/// Verifies that the files of a committed layer have its diff ID: reassembles and hashes its tar.
///
/// # Errors
/// [`WorkError::Layer`] if not, or if a file cannot be read.
pub fn verify(store: &Store, record: &LayerRecord) -> Result<(), WorkError> {
    let from = open_diff(&store.layers().diff_path(record))?;
    let tar_split = store.layers().tar_split(&record.chain)?;
    Ok(layer::verify(tar_split, &from, record.diff_id)?)
}
