//! The README's first command.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Needs root, as the demo mounts the image to run it.
#[test]
fn demo_as_root_runs_the_image_and_leaves_nothing() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    fs::create_dir_all(&scratch).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_try")).env("TMPDIR", &scratch).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("/hello prints: Hello from rpull"), "{stdout}\n{stderr}");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{}", scratch.display());
}
