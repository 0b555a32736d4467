//! The memory for the windows of zstd streams, which all layers of a command share.
//!
//! A layer takes memory only if it is free; otherwise it ends its download, so that it holds
//! nothing that other layers need, and waits for it (`pull/stage`). Therefore layers cannot wait for
//! each other. Waiting layers are served in order, so that none waits forever.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::layer::{WINDOWS_PER_LAYER, WindowGate};

/// Bytes of one permit.
const UNIT: u64 = 64 << 10;

/// The memory for all windows of a command.
pub struct Windows {
    free: Arc<Semaphore>,
    /// All permits.
    all: u32,
}

/// Memory that a layer has.
pub type Window = Arc<OwnedSemaphorePermit>;

impl Windows {
    /// Creates the memory for `jobs` layers at a time.
    pub fn new(jobs: usize) -> Self {
        let bytes = jobs.saturating_mul(WINDOWS_PER_LAYER) as u64;
        let all =
            u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Returns the gate of a layer that has `window` already.
    pub fn gate(&self, window: Option<Window>) -> WindowGate {
        let (free, all) = (self.free.clone(), self.all);
        let mut permits = window.as_ref().map_or(0, |window| count(window));
        let mut more = Vec::new();
        Box::new(move |bytes| {
            let _keep = &window;
            let missing = units(bytes, all).saturating_sub(permits);
            // No permits are taken by a layer that waits for more.
            let Ok(taken) = free.clone().try_acquire_many_owned(missing) else { return false };
            more.push(taken);
            permits += missing;
            true
        })
    }

    /// Waits for a window of `bytes`. A layer that had `before` and needed more gets all memory, so
    /// that it begins anew at most twice.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the command ends.
    pub async fn acquire(&self, bytes: u64, before: Option<Window>) -> Result<Window, Error> {
        let count = match before {
            Some(_) => self.all,
            None => units(bytes, self.all),
        };
        drop(before);
        let permit = self.free.clone().acquire_many_owned(count).await;
        Ok(Arc::new(permit.map_err(|_| Error::Interrupted)?))
    }
}

fn count(window: &OwnedSemaphorePermit) -> u32 {
    u32::try_from(window.num_permits()).unwrap_or(u32::MAX)
}

/// Returns the permits for `bytes`; all of them for a window that is larger.
fn units(bytes: u64, all: u32) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn windows_of_all_layers_stay_within_the_memory() {
        let windows = Windows::new(6);
        let mut gates: Vec<_> = (0..4).map(|_| windows.gate(None)).collect();
        let allowed: Vec<bool> = gates.iter_mut().map(|gate| gate(3 * MIB)).collect();
        assert_eq!(allowed, [true, true, true, false]);
        assert!(!gates[0](4 * MIB), "nothing is free");
        drop(gates.remove(1));
        assert!(gates[0](6 * MIB) && gates[0](5 * MIB));
        assert!(!gates[2](1));
    }

    #[tokio::test]
    async fn window_larger_than_the_memory_waits_for_all_others() {
        let windows = Arc::new(Windows::new(2));
        let (mut small, mut large) = (windows.gate(None), windows.gate(None));
        assert!(small(MIB) && !large(512 * MIB));
        drop(large);
        let shared = windows.clone();
        let waiting = tokio::spawn(async move { shared.acquire(512 * MIB, None).await.unwrap() });
        tokio::task::yield_now().await;
        drop(small);
        assert!(!windows.gate(None)(MIB), "a layer that came later does not overtake it");
        let window = waiting.await.unwrap();
        assert!(windows.gate(Some(window))(512 * MIB));
        assert!(windows.gate(None)(8 * MIB));
    }

    #[tokio::test]
    async fn layer_that_needs_more_than_it_waited_for_gets_all_memory() {
        let windows = Windows::new(6);
        let first = windows.acquire(2 * MIB, None).await.unwrap();
        assert_eq!(count(&first), 32);
        let second = windows.acquire(3 * MIB, Some(first)).await.unwrap();
        assert_eq!(count(&second), windows.all);
        assert!(windows.gate(Some(second))(512 * MIB));
    }
}
