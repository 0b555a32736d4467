//! Fuzz target for the bodies of errors.

use super::{MAX_MESSAGE_SIZE, message};

#[test]
fn mutated_error_body_gives_a_short_message() {
    fuzz_harness::run("tests/corpus/error-body", 20_000, |input| {
        let text = message(input);
        assert!(text.len() <= MAX_MESSAGE_SIZE, "{} bytes", text.len());
    });
}
