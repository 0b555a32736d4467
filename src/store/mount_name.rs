//! The names of writable mounts.

use super::StoreError;

/// Bytes of a name at most.
const MAX_LENGTH: usize = 128;

/// Random names before one with a number is taken.
const ATTEMPTS: usize = 8;

const FIRST: [&str; 32] = [
    "amber", "bold", "brave", "brisk", "calm", "clear", "cool", "deep", "eager", "fair", "fast",
    "fine", "fresh", "gentle", "glad", "golden", "green", "keen", "kind", "light", "lively",
    "loyal", "mild", "neat", "proud", "quick", "quiet", "rapid", "smart", "solid", "swift", "warm",
];

const SECOND: [&str; 32] = [
    "badger", "beaver", "birch", "brook", "cedar", "cliff", "cloud", "crane", "delta", "falcon",
    "field", "finch", "forest", "harbor", "hazel", "heron", "island", "lake", "maple", "meadow",
    "otter", "owl", "pine", "raven", "reef", "river", "robin", "spruce", "stone", "swan", "valley",
    "willow",
];

/// Checks a name: letters, digits, `_`, `.` and `-`, as in the names of docker's containers
/// (moby daemon/names).
///
/// # Errors
/// [`StoreError::MountName`] if it is not one.
pub fn check(name: &str) -> Result<(), StoreError> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let goes_on = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    match begins && goes_on && name.len() <= MAX_LENGTH {
        true => Ok(()),
        false => Err(StoreError::MountName(name.to_owned())),
    }
}

/// Returns a random name of two words that is not taken.
///
/// # Errors
/// [`StoreError::Random`] if the kernel's random generator fails.
pub fn generate(is_taken: impl Fn(&str) -> bool) -> Result<String, StoreError> {
    let mut name = String::new();
    for _ in 0..ATTEMPTS {
        let mut bytes = [0_u8; 2];
        getrandom::fill(&mut bytes).map_err(|e| StoreError::Random(std::io::Error::other(e)))?;
        let [first, second] = bytes.map(|byte| usize::from(byte % 32));
        name = format!("{}_{}", FIRST[first], SECOND[second]);
        if !is_taken(&name) {
            return Ok(name);
        }
    }
    let numbered = (2_u32..).map(|number| format!("{name}{number}"));
    Ok(numbered.into_iter().find(|name| !is_taken(name)).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker_containers() {
        for name in ["a", "web", "Web_1.2-x", "0123456789abcdef", &"n".repeat(128)] {
            check(name).unwrap();
        }
        let long = "n".repeat(129);
        for name in ["", "-a", ".a", "_a", "a/b", "a b", "a\n", "\x1b[2J", "ä", "a:b", "..", &long]
        {
            let refused = check(name).unwrap_err();
            assert!(matches!(refused, StoreError::MountName(it) if it == name));
        }
    }

    #[test]
    fn generated_name_is_valid_and_not_taken() {
        let name = generate(|_| false).unwrap();
        check(&name).unwrap();
        let numbered = generate(|name| !name.ends_with('3')).unwrap();
        check(&numbered).unwrap();
        assert!(numbered.ends_with('3'), "{numbered}");
    }
}
