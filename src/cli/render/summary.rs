//! The lines that stay on the terminal when a pull has ended.

use std::time::Duration;

use rpull::event::Status;
use rpull::{Digest, Reference};

use super::rate::whole_seconds;
use crate::cli::quantity::human_size;

/// What was fetched and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes that were received.
    pub fetched: u64,
    /// Layers of which something was received.
    pub fetched_layers: usize,
    /// Bytes that were in the store or in the content store.
    pub reused: u64,
    /// Layers of which nothing had to be received.
    pub reused_layers: usize,
}

/// Returns Docker's line about the digest of an image.
pub fn digest(digest: &Digest) -> String {
    format!("Digest: {digest}")
}

/// Returns the words of Docker's line about the status of an image, and its name.
pub fn status(image: &Reference, status: Status) -> (&'static str, String) {
    let words = match status {
        Status::Downloaded => "Downloaded newer image",
        Status::UpToDate => "Image is up to date",
    };
    // By tag and digest, the tag was not looked at.
    let name = image.digest().map_or_else(|| image.clone(), |digest| image.with_digest(digest));
    (words, name.to_string())
}

/// Returns how blobs were kept, in one sentence.
pub fn kept(kept: usize, blobs: usize, fetched: usize, bytes: u64) -> String {
    format!("Kept {kept} of {blobs} blobs; {fetched} fetched ({})", human_size(bytes))
}

/// Returns what a pull would fetch, in one sentence.
pub fn planned(image: &Reference, layers: &[(Digest, u64)], requests: usize) -> String {
    let bytes = human_size(layers.iter().map(|(_, size)| size).sum());
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let n = layers.len();
    format!(
        "Would fetch {n} layer{} ({bytes}) in {requests} request{} for {image}",
        plural(n),
        plural(requests)
    )
}

/// Returns Docker's line about an image that was pushed.
pub fn pushed(image: &Reference, digest: &Digest, size: u64) -> String {
    let tag = image.tag().map(|tag| format!("{tag}: ")).unwrap_or_default();
    format!("{tag}digest: {digest} size: {size}")
}

/// Returns the line about what was fetched and reused in `time`, or about what a push sent.
pub fn sums(pushes: bool, sums: Sums, time: Duration) -> String {
    let layers = |count: usize| match count {
        0 => String::new(),
        1 => " (1 layer)".to_owned(),
        _ => format!(" ({count} layers)"),
    };
    let fetched = match sums.fetched_layers {
        0 => "nothing".to_owned(),
        count => human_size(sums.fetched) + &layers(count),
    };
    let reused = match sums.reused {
        0 => String::new(),
        bytes => format!(", reused {}{}", human_size(bytes), layers(sums.reused_layers)),
    };
    let verb = if pushes { "Pushed" } else { "Fetched" };
    format!("{verb} {fetched}{reused}, {}", seconds(time))
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        whole => whole_seconds(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_what_was_fetched_and_reused() {
        let both =
            Sums { fetched: 43_200_000, fetched_layers: 3, reused: 12_000, reused_layers: 1 };
        let time = Duration::from_millis(4120);
        assert_eq!(
            sums(false, both, time),
            "Fetched 43.2MB (3 layers), reused 12kB (1 layer), 4.1 s"
        );
        let resumed = Sums { reused_layers: 0, ..both };
        assert_eq!(sums(false, resumed, time), "Fetched 43.2MB (3 layers), reused 12kB, 4.1 s");
        let fetched = Sums { fetched: 7, fetched_layers: 1, ..Sums::default() };
        assert_eq!(sums(false, fetched, Duration::from_secs(65)), "Fetched 7B (1 layer), 1m05s");
        assert_eq!(sums(true, fetched, time), "Pushed 7B (1 layer), 4.1 s");
        let reused = Sums { reused: 12_000_000, reused_layers: 61, ..Sums::default() };
        assert_eq!(sums(false, reused, time), "Fetched nothing, reused 12MB (61 layers), 4.1 s");
    }
}
