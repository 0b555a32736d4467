//! Fuzz target for `WWW-Authenticate`.

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::Challenge;

fn parse(value: &[u8]) -> Option<Challenge> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Challenge::of(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]))
}

/// The challenge as a header's value, with quoted strings (RFC 9110, 5.6.4).
fn print(challenge: &Challenge) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#));
    match challenge {
        Challenge::Basic => "Basic realm=\"x\"".to_owned(),
        Challenge::Bearer { realm, service, scope } => {
            let mut value = format!("Bearer realm={}", quoted(realm));
            for (key, text) in [("service", service), ("scope", scope)] {
                if let Some(text) = text {
                    value += &format!(",{key}={}", quoted(text));
                }
            }
            value
        }
    }
}

#[test]
fn mutated_challenge_that_parses_is_the_same_after_printing() {
    fuzz_harness::run("tests/corpus/challenge", 20_000, |input| {
        let Some(challenge) = parse(input) else { return };
        let printed = print(&challenge);
        assert_eq!(parse(printed.as_bytes()), Some(challenge), "{printed}");
    });
}
