//! Signals during commands that change the store in several steps: they stop between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use rpull::{Error, internal};

/// Whether the user interrupted the command.
pub struct Interruption(Arc<AtomicBool>);

impl Interruption {
    /// Starts to watch for SIGINT and SIGTERM. They end waits for locks, and no longer the process:
    /// the command calls [`check`](Self::check) between its steps. A second signal ends the process;
    /// the next command then finishes what it began.
    ///
    /// # Errors
    /// [`Error::Other`] if the system has no resources for it.
    pub fn watch() -> Result<Self, Error> {
        let failed = |e| Error::Other(format!("cannot watch for signals: {e}"));
        let runtime = Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            let watch = |kind| signal(kind).map_err(failed);
            (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?)
        };
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let watch = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                    if set.swap(true, Ordering::Relaxed) {
                        // The user insists; the journal names the rest.
                        std::process::exit(130);
                    }
                    internal::stop_waiting();
                }
            });
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
        Ok(Self(flag))
    }

    /// Ends the command if the user interrupted it.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}
