//! The grammar of references, with one function per part.

use super::{DOCKER_HUB, Reason};

const LEGACY_HUB: &str = "index.docker.io";

/// Returns whether `text` is an image ID: 64 lower-case hex digits (distribution/reference).
pub fn is_bare_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Splits a reference into domain and rest. The first component is a domain if it contains a
/// dot, a colon or a capital, or is `localhost`.
pub fn split_domain(input: &str) -> (&str, &str) {
    let Some((first, rest)) = input.split_once('/') else { return (DOCKER_HUB, input) };
    if first == LEGACY_HUB {
        return (DOCKER_HUB, rest);
    }
    let host = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase());
    if host { (first, rest) } else { (DOCKER_HUB, input) }
}

/// Checks `host[:port]`.
pub fn check_domain(domain: &str) -> Result<(), Reason> {
    let wrong = || Reason::Domain(domain.to_owned());
    let (host, port) = match domain.rfind(']') {
        Some(end) => domain.split_at(end + 1),
        None => domain.split_at(domain.find(':').unwrap_or(domain.len())),
    };
    let port_ok = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_domain_component),
    };
    if port_ok && host_ok { Ok(()) } else { Err(wrong()) }
}

fn is_domain_component(part: &str) -> bool {
    let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
}

/// Checks a repository's path.
pub fn check_path(path: &str) -> Result<(), Reason> {
    if path.is_empty() {
        return Err(Reason::NoPath);
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Reason::Uppercase(path.to_owned()));
    }
    match path.split('/').find(|part| !is_component(part)) {
        Some(part) => Err(Reason::Component(part.to_owned())),
        None => Ok(()),
    }
}

fn is_component(part: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separators_ok = part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'));
    alnum(first) && alnum(last) && separators_ok
}

/// Returns whether `text` is a valid tag.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}
