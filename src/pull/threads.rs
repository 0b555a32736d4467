//! Threads that are started before they are needed, so that a limit of processes is an error.
//!
//! tokio panics if its first threads are refused. If later ones are refused, it queues their work
//! behind that of the others: layers that are unpacked would wait for bytes, and a name resolution
//! that brings these bytes would wait for the layers.

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::runtime::Handle;

use crate::error::Error;

/// Starts `count` threads at the same time, to find out whether the system allows it, and ends
/// them.
///
/// # Errors
/// [`Error::Threads`] if it does not.
pub fn try_threads(count: usize) -> Result<(), Error> {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let start = || {
        let wait = wait.clone();
        let until_released = move || drop(wait.lock().map(|wait| wait.recv()));
        thread::Builder::new().spawn(until_released)
    };
    let mut threads = Vec::new();
    let started: io::Result<()> = (0..count).try_for_each(|_| {
        threads.push(start()?);
        Ok(())
    });
    drop(release);
    for thread in threads {
        let _ = thread.join();
    }
    started.map_err(Error::Threads)
}

/// Starts `count` blocking threads of the runtime in addition to those that are busy.
///
/// # Errors
/// [`Error::Threads`] if the system refuses them.
pub fn reserve_threads(runtime: &Handle, count: usize) -> Result<(), Error> {
    try_threads(count)?;
    // None of them is idle while the lock is held, so that each closure starts one.
    let hold = Arc::new(Mutex::new(()));
    let held = hold.lock();
    for _ in 0..count {
        let hold = hold.clone();
        runtime.spawn_blocking(move || drop(hold.lock()));
    }
    drop(held);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn reserved_threads_run_at_the_same_time() {
        const COUNT: usize = 5;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        reserve_threads(runtime.handle(), COUNT).unwrap();
        let barrier = Arc::new(Barrier::new(COUNT));
        let meet = |_| {
            let barrier = barrier.clone();
            runtime.spawn_blocking(move || {
                barrier.wait();
                thread::current().id()
            })
        };
        let tasks: Vec<_> = (0..COUNT).map(meet).collect();
        let ids = tasks.into_iter().map(|task| runtime.block_on(task).unwrap());
        assert_eq!(ids.collect::<HashSet<_>>().len(), COUNT);
    }

    #[test]
    fn no_threads_can_always_start() {
        try_threads(0).unwrap();
    }
}
