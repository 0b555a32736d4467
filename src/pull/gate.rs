//! The border between async code and the store: the only way across it.
//!
//! The store blocks, and a runtime with two worker threads has no thread to spare for that. A
//! [`StoreGate`] owns the store and lends it to blocking threads only.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::JoinError;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerError;
use crate::overlay::Abilities;
use crate::store::{self, ContentLock, Lock, Mode, Store, StoreError};

/// The error of blocking work on a layer in the store.
pub enum WorkError {
    /// The layer.
    Layer(LayerError),
    /// The store.
    Store(StoreError),
}

impl From<LayerError> for WorkError {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl WorkError {
    /// Returns the error for the user. `blob` names the layer.
    fn of_blob(self, blob: Digest) -> Error {
        match self {
            Self::Store(error) => error.into(),
            Self::Layer(source) => Error::Layer { layer: blob, source },
        }
    }
}

/// The store of an async pull. Cheap to clone.
#[derive(Clone)]
pub struct StoreGate(Arc<Locked>);

struct Locked {
    store: Arc<Store>,
    /// The store lock, once the pull writes. Work that has begun keeps it, even if the pull is
    /// cancelled.
    lock: OnceCell<(Lock, Option<ContentLock>)>,
    /// What was probed under the lock.
    abilities: OnceLock<Arc<Abilities>>,
}

impl StoreGate {
    /// Creates the gate to `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self(Arc::new(Locked { store, lock: OnceCell::new(), abilities: OnceLock::new() }))
    }

    /// Takes the store lock as a command that adds, once, and keeps it as long as the gate and
    /// its work exist: no removal can invalidate what the pull plans from now on. Sweeps what
    /// dead processes left, and probes what this process may do with the files of layers. Takes the
    /// right to use the content store, too.
    pub async fn lock_to_write(&self, on_wait: impl Fn(String)) -> Result<(), Error> {
        let lock = || async {
            let pending = self.run(|store| store.pending_lock(Mode::Shared)).await?;
            let pending = Arc::new(Mutex::new(pending));
            let attempt =
                move |_: &Store| pending.lock().unwrap_or_else(PoisonError::into_inner).attempt();
            let lock = self.wait(&on_wait, attempt).await?;
            let probed = self.run(|store| store.sweep().and_then(|()| store.probe())).await?;
            self.0.abilities.get_or_init(|| Arc::new(probed));
            let content = self.wait(on_wait, |store| store.content().try_use()).await?;
            Ok((lock, content))
        };
        self.0.lock.get_or_try_init(lock).await.map(drop)
    }

    /// Returns what this process may do with the files of layers, once the pull writes.
    pub fn abilities(&self) -> Option<Arc<Abilities>> {
        self.0.abilities.get().cloned()
    }

    /// Runs `work` with the store on a blocking thread. Work that has begun runs to its end, even
    /// if the returned future is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.spawn(work).await??)
    }

    /// As [`Self::run`], for work on a layer. `blob` names the layer in errors.
    pub async fn run_on_layer<T: Send + 'static>(
        &self,
        blob: Digest,
        work: impl FnOnce(&Store) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, Error> {
        self.spawn(work).await?.map_err(|error| error.of_blob(blob))
    }

    /// Calls `attempt` until it returns a lock. `on_wait` is called once, with what is waited for.
    /// The wait is asynchronous, so that the command can be interrupted.
    pub async fn wait<T: Send + 'static>(
        &self,
        on_wait: impl Fn(String),
        attempt: impl Fn(&Store) -> Result<Result<T, String>, StoreError> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let (mut reported, mut _span) = (false, None);
        loop {
            match self.run(attempt.clone()).await? {
                Ok(lock) => return Ok(lock),
                Err(what) if !reported => {
                    _span = Some(tracing::info_span!("wait", "for" = %what));
                    on_wait(what);
                    reported = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(store::POLL).await;
        }
    }

    async fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let locked = self.0.clone();
        tokio::task::spawn_blocking(move || work(&locked.store)).await.map_err(|e| join_error(&e))
    }
}

/// Returns the error of a task that gave no result. A panic is a bug in rpull; anything else is a
/// task that was cancelled because the command ends.
pub fn join_error(error: &JoinError) -> Error {
    if error.is_panic() { Error::Internal(error.to_string()) } else { Error::Interrupted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn gate() -> StoreGate {
        StoreGate::new(Arc::new(Store::at(std::path::Path::new("/nonexistent"), None)))
    }

    #[tokio::test]
    async fn panic_in_blocking_work_is_an_internal_error() {
        let of_store = gate().run::<()>(|_| panic!("no such variant")).await;
        let blob = Digest::of(b"layer");
        let of_layer = gate().run_on_layer::<()>(blob, |_| panic!("no such variant")).await;
        for error in [of_layer.unwrap_err(), of_store.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(error.to_string().starts_with("internal error: "), "{error}");
            assert!(error.to_string().contains("no such variant"), "{error}");
        }
    }

    #[tokio::test]
    async fn cancelled_task_is_an_interruption() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let error = join_error(&task.await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
