//! Fail points for tests, in debug builds only: each file operation that names its path in errors
//! is one. With `RPULL_FAIL_AT=N` the process kills itself after its Nth operation, with
//! `RPULL_FAIL_AT=N:abort` it aborts. `RPULL_FAIL_LIST=FILE` appends one line per operation.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Plan {
    kill_after: Option<u64>,
    abort: bool,
    list: Option<File>,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts an operation, whose error would name `op` and `path`.
pub fn pass(op: &str, path: &Path) {
    let Some(plan) = PLAN.get_or_init(plan) else { return };
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(mut list) = plan.list.as_ref() {
        // One call, so that lines of several threads stay whole.
        let _ = list.write_all(format!("{count} {op} {}\n", path.display()).as_bytes());
    }
    if plan.kill_after == Some(count) {
        if !plan.abort {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        std::process::abort();
    }
}

fn plan() -> Option<Plan> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (at, list) = (variable("RPULL_FAIL_AT"), variable("RPULL_FAIL_LIST"));
    let open = |path: String| File::options().append(true).create(true).open(path).ok();
    (at.is_some() || list.is_some()).then(|| {
        let at = at.unwrap_or_default();
        let (count, signal) = at.split_once(':').unwrap_or((&at, ""));
        Plan { kill_after: count.parse().ok(), abort: signal == "abort", list: list.and_then(open) }
    })
}
