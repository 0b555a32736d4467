//! Fuzz target for credential files.

use super::docker_config::FromEnvironment;
use super::{CredentialSource, Secret};

/// The secrets of the corpus: a token, and `user:password` in base64.
const SECRETS: [&str; 2] = ["hunter2", "dXNlcjpwYXNz"];

#[test]
fn mutated_credential_file_is_read_or_refused_without_its_secrets() {
    fuzz_harness::run("tests/corpus/credentials", 20_000, |input| {
        let json = String::from_utf8_lossy(input);
        let file = FromEnvironment::new(Secret::new(json));
        for host in ["docker.io", "host:5000", "host"] {
            let Err(error) = file.find(host, "a/b") else { continue };
            let text = error.to_string();
            assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
        }
    });
}
