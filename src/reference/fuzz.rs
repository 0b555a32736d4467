//! Fuzz target for references.

use super::{DOCKER_HUB, Query, Reference};

#[test]
fn mutated_reference_that_parses_is_the_same_after_printing() {
    fuzz_harness::run("tests/corpus/reference", 20_000, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let _ = Query::parse(text);
        let Ok(reference) = text.parse::<Reference>() else { return };
        let again = |form: String| form.parse::<Reference>().ok();
        assert_eq!(again(reference.canonical()).as_ref(), Some(&reference));
        assert_eq!(again(reference.index_form()).as_ref(), Some(&reference));
        // Without a tag, 64 hex digits are an image ID.
        let (reference, _) = reference.with_default_tag();
        // As with dockerd, the familiar form of `docker.io/host.example/a` names a host.
        let first = reference.path().split('/').next().unwrap();
        if reference.domain() != DOCKER_HUB || !(first.contains('.') || first == "localhost") {
            assert_eq!(again(reference.to_string()).as_ref(), Some(&reference), "{reference}");
        }
        assert!(reference.path().len() <= 255, "{}", reference.path());
        let safe = |c: char| c.is_ascii_alphanumeric() || "-._/:@[]".contains(c);
        assert!(reference.canonical().chars().all(safe), "{reference}");
        assert!(!reference.path().split('/').any(|part| part.is_empty() || part.starts_with('.')));
    });
}
