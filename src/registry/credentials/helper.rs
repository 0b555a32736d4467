//! Docker's credential helpers (docker/docker-credential-helpers): a program
//! `docker-credential-<name>` is run with `get`, reads the server's name and answers JSON.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Credential, Found, Secret, wrong};
use crate::registry::RegistryError;

/// What a helper says when it knows nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Finds and runs helpers.
#[derive(Debug, Clone)]
pub struct Helpers {
    dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helpers {
    /// Helpers are looked for in `dir` and then in `PATH`.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Asks the helper `name` for the credential of `server`.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if it cannot be run or fails.
    pub fn get(&self, name: &str, server: &str) -> Result<Option<Found>, RegistryError> {
        let program = format!("docker-credential-{name}");
        let wrong = |cause: String| wrong(&program, cause);
        let in_dir = self.dir.as_ref().map(|dir| dir.join(&program)).filter(|path| path.exists());
        let mut child = Command::new(in_dir.unwrap_or_else(|| PathBuf::from(&program)))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| wrong(e.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input may be gone already; its answer counts.
            let _ = stdin.write_all(server.as_bytes());
        }
        let output = child.wait_with_output().map_err(|e| wrong(e.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            return if said.contains(NOT_FOUND) { Ok(None) } else { Err(wrong(said)) };
        }
        let answer: Answer =
            serde_json::from_str(&said).map_err(|e| wrong(format!("its answer: {e}")))?;
        if answer.username.is_empty() && answer.secret.is_empty() {
            return Ok(None);
        }
        let password = Secret::new(answer.secret);
        let credential = match answer.username.as_str() {
            "<token>" => Credential::Identity(password),
            _ => Credential::Basic { username: answer.username, password },
        };
        Ok(Some(Found { credential, from: program }))
    }
}
