//! Blocking work of an async pull: each piece runs on a thread of its own.

use tokio::task::JoinError;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerError;
use crate::store::StoreError;

/// What can fail while a layer is unpacked.
pub enum Failure {
    /// The layer.
    Layer(LayerError),
    /// The store.
    Store(StoreError),
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// The error for the user. A failure of the network that reached the layer as the end
    /// of its bytes becomes what it was.
    pub fn of(self, layer: Digest) -> Error {
        match self {
            Self::Store(error) => error.into(),
            Self::Layer(LayerError::Source(io)) => match io.downcast() {
                Ok(registry) => Error::Registry(registry),
                Err(io) => Error::Layer { layer, source: LayerError::Source(io) },
            },
            Self::Layer(source) => Error::Layer { layer, source },
        }
    }
}

/// Runs blocking work on a layer on a thread of its own.
pub async fn run<T: Send + 'static>(
    layer: Digest,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| failure.of(layer)),
        Err(error) => Err(ended(&error)),
    }
}

/// Runs blocking work on the store on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ended(&error)),
    }
}

/// Returns the error of a task that gave no result. A panic is a bug in rpull; anything else is a
/// task that was cancelled because the command ends.
pub fn ended(error: &JoinError) -> Error {
    if error.is_panic() { Error::Internal(error.to_string()) } else { Error::Interrupted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn panic_in_blocking_work_is_an_internal_error() {
        let layer = Digest::of(b"layer");
        let of_layer: Result<(), Error> = run(layer, || panic!("no such variant")).await;
        let of_store: Result<(), Error> = blocking(|| panic!("no such variant")).await;
        for error in [of_layer.unwrap_err(), of_store.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Other);
            assert!(error.to_string().starts_with("internal error: "), "{error}");
            assert!(error.to_string().contains("no such variant"), "{error}");
            assert!(error.hint().unwrap().contains("report"), "{:?}", error.hint());
        }
    }

    #[tokio::test]
    async fn cancelled_task_is_an_interruption() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let error = ended(&task.await.unwrap_err());
        assert_eq!(error.kind(), Kind::Interrupted);
    }
}
