//! Fail points for tests, in debug builds only: each file operation that names its path in errors
//! is one. With `RPULL_FAIL_AT=N` the process kills itself after its Nth operation, with
//! `RPULL_FAIL_AT=N:abort` it aborts, and with `RPULL_FAIL_AT=N:stop` it stops until it gets
//! SIGCONT; several are separated by commas. `RPULL_FAIL_LIST=FILE` appends one line per operation.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

struct Plan {
    points: Vec<(u64, How)>,
    list: Option<File>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Kill,
    Abort,
    Stop,
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
    match plan.points.iter().find(|(at, _)| *at == count) {
        Some((_, How::Stop)) => drop(kill_process(getpid(), Signal::STOP)),
        Some((_, how)) => {
            if *how == How::Kill {
                let _ = kill_process(getpid(), Signal::KILL);
            }
            std::process::abort();
        }
        None => {}
    }
}

fn plan() -> Option<Plan> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (at, list) = (variable("RPULL_FAIL_AT"), variable("RPULL_FAIL_LIST"));
    let open = |path: String| File::options().append(true).create(true).open(path).ok();
    (at.is_some() || list.is_some()).then(|| {
        let at = at.unwrap_or_default();
        Plan { points: at.split(',').filter_map(point).collect(), list: list.and_then(open) }
    })
}

fn point(text: &str) -> Option<(u64, How)> {
    let (count, how) = text.split_once(':').unwrap_or((text, ""));
    let how = match how {
        "abort" => How::Abort,
        "stop" => How::Stop,
        _ => How::Kill,
    };
    Some((count.parse().ok()?, how))
}
