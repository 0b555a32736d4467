//! Work on all cores.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does `work` on each item, on all cores, and returns the results in any order. If the system refuses
/// threads, fewer do it.
///
/// # Errors
/// The first error of `work`, which is not called again then.
pub fn on_all_cores<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Ok(Vec::new())));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(item);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *results, result) {
                (Ok(all), Ok(result)) => all.push(result),
                (Ok(_), Err(e)) => *results = Err(e),
                (Err(_), _) => return,
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            // Without more threads, this one does all of the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_until_one_fails() {
        let items: Vec<u32> = (0..100).collect();
        let mut doubled = on_all_cores(&items, |n| Ok::<_, ()>(n * 2)).unwrap();
        doubled.sort_unstable();
        assert_eq!(doubled, (0..200).step_by(2).collect::<Vec<_>>());
        let failed = on_all_cores(&items, |n| if *n == 50 { Err(*n) } else { Ok(()) });
        assert_eq!(failed, Err(50));
    }
}
