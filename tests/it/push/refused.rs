//! Registries that accept no push, and why.

use super::*;
use crate::support::guard::{PASSWORD, Tokens, USER};

fn refused(stem: &str, fault: Fault, on: &'static str) -> (Rpull, String, TempDir) {
    let way = Proxy::new(move |method, _| match method == on {
        true => fault.clone(),
        false => Fault::None,
    });
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository(stem));
    let (scratch, rpull, _) = tagged(&two_layers(stem), stem, &name);
    (rpull, name, scratch)
}

#[test]
fn refusal_is_reported_in_the_words_of_the_registry_with_one_hint() {
    let cases = [
        (
            "denied",
            4,
            "403 Forbidden",
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            "requested access to the resource is denied",
            "log in with an account",
        ),
        (
            "unauthorized",
            4,
            "401 Unauthorized",
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            "authentication required",
            "log in",
        ),
        (
            "unknown",
            3,
            "404 Not Found",
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
            "repository name not known to registry",
            "create the repository",
        ),
        (
            "large",
            5,
            "413 Payload Too Large",
            "<html><h1>413</h1></html>",
            "status 413: payload too large",
            "raise the limit",
        ),
        (
            "read-only",
            5,
            "405 Method Not Allowed",
            r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#,
            "The operation is unsupported.",
            "read-only",
        ),
    ];
    for (stem, code, status, body, text, hint) in cases {
        let (rpull, name, _scratch) = refused(stem, Fault::Instead(status, "", body), "POST");
        let done = rpull.fails(code, ["push", &name]);
        assert!(done.stderr.contains(text), "{stem}: {done}");
        let hints = done.stderr.lines().filter(|line| line.contains("hint")).collect::<Vec<_>>();
        assert!(hints.len() == 1 && hints[0].contains(hint), "{stem}: {done}");
        assert_consistent(rpull.root());
    }
}

#[test]
fn refused_manifest_is_not_recorded() {
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    let no = Fault::Instead("400 Bad Request", "", body);
    let way = Proxy::every("/manifests/", no);
    let name = format!("{}/{}:v1", way.host, Hub::shared().repository("invalid"));
    let (_scratch, rpull, _) = tagged(&two_layers("invalid"), "invalid", &name);
    let done = rpull.fails(5, ["push", &name]);
    assert!(done.stderr.contains("manifest invalid"), "{done}");
    let digests = rpull.json(["inspect", &name])[0]["RepoDigests"].to_string();
    assert!(!digests.contains(&way.host), "{digests}");
}

#[test]
fn token_of_a_push_is_for_the_target_and_the_source_of_its_mounts() {
    let (tokens, hub) = (Tokens::shared(), Hub::shared());
    let (scratch, pushed) = (scratch::dir(), put(&two_layers("tokens"), "tokens-from"));
    let from = pushed.name().replace(&hub.host, &tokens.host);
    let path = hub.repository("tokens-to");
    let name = format!("{}/{path}:v1", tokens.host);
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", &from]);
    rpull.ok(["tag", &from, &name]);
    // Without a login, the token server gives no right to push.
    let done = rpull.fails(4, ["push", &name]);
    assert!(done.stderr.contains("log in"), "{done}");
    tokens.log.lock().unwrap().clear();
    let mut command = rpull.command(["push", "--username", USER, &name]);
    let done = command.env("RPULL_PASSWORD", PASSWORD).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains(": Mounted from "), "{done:?}");
    let log = tokens.log.lock().unwrap().clone();
    let log: Vec<_> = log.iter().filter(|line| line.contains(&path.replace('/', "%2F"))).collect();
    let both =
        |line: &&&String| line.contains("pull%2Cpush") && line.matches("scope=").count() == 2;
    assert!(log.iter().any(|line| both(&line)), "{log:?}");
    // One exchange for the target, and one for the mounts.
    assert_eq!(log.len(), 2, "{log:?}");
}
