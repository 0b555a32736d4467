//! Fuzz tests on the stable toolchain: a target is called with mutations of a committed corpus.
//!
//! A target takes any bytes and panics if an invariant does not hold. `cargo test` calls it with
//! every file of the corpus and with a fixed number of mutations, the same on every machine. Two
//! environment variables change that:
//!
//! - `FUZZ_SECONDS`: mutate for so long, with new seeds on every run.
//! - `FUZZ_SEED`: mutate with this seed only, to repeat a failure.
//!
//! A failure prints its seed, and writes the input to a file. Fix the cause, and add the input to
//! the corpus under a name that describes it.

mod mutate;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Calls `target` with the files of the directory `corpus`, and with `cases` mutations of them.
///
/// # Panics
/// If `target` does, with the seed and the file of the input. If the corpus is empty or an
/// environment variable is not a number.
pub fn run(corpus: impl AsRef<Path>, cases: u64, target: impl Fn(&[u8])) {
    let corpus = corpus.as_ref();
    let inputs = read(corpus);
    for (name, input) in &inputs {
        call(&target, corpus, input, name);
    }
    let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, input)| input).collect();
    let mutated = |seed| call(&target, corpus, &mutate::input(&inputs, seed), &seed.to_string());
    if let Some(seed) = variable("FUZZ_SEED") {
        return mutated(seed);
    }
    let Some(seconds) = variable("FUZZ_SECONDS") else {
        return (0..cases).for_each(mutated);
    };
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Nanoseconds since 1970 fit 64 bits until 2554.
    let first = u64::try_from(now.as_nanos()).unwrap_or_default();
    let mut seeds = first..;
    while began.elapsed() < limit {
        seeds.by_ref().take(100).for_each(mutated);
    }
}

/// The files of the directory with their names, in the order of the names.
fn read(corpus: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(corpus) else { panic!("no corpus in {}", corpus.display()) };
    let mut inputs: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, fs::read(entry.path()).ok()?))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus {} is empty", corpus.display());
    inputs
}

/// Calls `target`. A panic goes on with the name of the input and the file that it is written to.
fn call(target: &impl Fn(&[u8]), corpus: &Path, input: &[u8], name: &str) {
    let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| target(input))) else { return };
    let target = corpus.file_name().unwrap_or_default().to_string_lossy();
    let path = std::env::temp_dir().join(format!("fuzz-{target}-{name}"));
    let written = match fs::write(&path, input) {
        Ok(()) => format!("its input is in {}", path.display()),
        Err(e) => format!("its input is {}: {e}", input.escape_ascii()),
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    panic!("fuzz target {target} failed for the seed or file {name}; {written}: {text}");
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let Ok(number) = value.parse() else { panic!("{name} is not a number: {value}") };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This crate's sources, which begin with a comment.
    fn corpus() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
    }

    #[test]
    fn panic_of_a_target_names_its_seed_and_its_input() {
        let run = || run(corpus(), 5000, |input| assert!(input.starts_with(b"//!"), "not a doc"));
        let panic = panic::catch_unwind(run).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("failed for the seed or file ") && text.ends_with("not a doc"));
        let path = text.split("its input is in ").nth(1).unwrap().split(": ").next().unwrap();
        assert!(!fs::read(path).unwrap().starts_with(b"//!"), "{path}");
        fs::remove_file(path).unwrap();
    }

    #[test]
    #[should_panic(expected = "no corpus in ")]
    fn missing_corpus_is_a_panic() {
        run(corpus().join("missing"), 1, |_| {});
    }
}
