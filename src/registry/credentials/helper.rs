//! Docker's credential helpers (docker/docker-credential-helpers): a program
//! `docker-credential-<name>` is run with `get`, reads the server's name and answers JSON.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use super::{Credential, Found, Secret, without_values, wrong};
use crate::registry::RegistryError;

/// What a helper says when it knows nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The most bytes that a helper may answer.
const LONGEST_ANSWER: usize = 1 << 20;

/// Finds and runs helpers.
#[derive(Debug, Clone)]
pub struct Helpers {
    dir: Option<PathBuf>,
    limit: Duration,
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
    /// Helpers are looked for in `dir` and then in `PATH`, and killed after `limit`.
    pub fn new(dir: Option<PathBuf>, limit: Duration) -> Self {
        Self { dir, limit }
    }

    /// Asks the helper `name`, which `file` names, for the credential of `server`.
    ///
    /// # Errors
    /// [`RegistryError::NoHelper`] if there is no such program; [`RegistryError::Credentials`] if it
    /// cannot be run, fails, or does not end in time.
    pub fn get(
        &self,
        name: &str,
        file: &Path,
        server: &str,
    ) -> Result<Option<Found>, RegistryError> {
        let program = format!("docker-credential-{name}");
        let in_dir = self.dir.as_ref().map(|dir| dir.join(&program)).filter(|path| path.exists());
        let mut command = Command::new(in_dir.unwrap_or_else(|| PathBuf::from(&program)));
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut helper = Running(command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => RegistryError::NoHelper {
                program: program.clone(),
                file: file.display().to_string(),
            },
            _ => wrong(&program, e),
        })?);
        let (status, said) = helper.talk(server, self.limit).map_err(|e| wrong(&program, e))?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if !status.success() {
            return if said.contains(NOT_FOUND) { Ok(None) } else { Err(wrong(&program, said)) };
        }
        let answer: Answer = serde_json::from_str(&said).map_err(|e| {
            wrong(&program, format!("its output is not valid: {}", without_values(&e)))
        })?;
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

/// A helper that runs. Dropped, it is killed and reaped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then this only reaps it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Writes `input`, and reads until the helper ends: a process that it leaves behind may
    /// keep the pipe open.
    fn talk(&mut self, input: &str, limit: Duration) -> io::Result<(ExitStatus, Vec<u8>)> {
        let began = Instant::now();
        if let Some(mut stdin) = self.0.stdin.take() {
            // A pipe takes a server's name at once. A helper that does not read its input may
            // have ended already; its answer counts.
            let _ = stdin.write_all(input.as_bytes());
        }
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let ended = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        let (mut stdout, mut answer) = (self.0.stdout.take(), Vec::new());
        loop {
            let left = limit.saturating_sub(began.elapsed());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut events = vec![PollFd::new(&ended, PollFlags::IN)];
            events.extend(stdout.as_ref().map(|stdout| PollFd::new(stdout, PollFlags::IN)));
            match poll(&mut events, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => {
                    let text = format!("no answer for {} seconds", limit.as_secs_f64());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Ok(_) => {}
            }
            let readable = events.get(1).is_some_and(|event| !event.revents().is_empty());
            drop(events);
            // What it wrote before it ended is read first.
            let Some(open) = stdout.as_mut().filter(|_| readable) else {
                return Ok((self.0.wait()?, answer));
            };
            let mut buffer = [0; 4096];
            match open.read(&mut buffer)? {
                0 => stdout = None,
                read => answer.extend_from_slice(&buffer[..read]),
            }
            if answer.len() > LONGEST_ANSWER {
                return Err(io::Error::other(format!(
                    "its output is larger than {LONGEST_ANSWER} bytes"
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Longer than any test waits for a helper that should answer.
    const LONG: Duration = Duration::from_secs(60);

    fn get(script: &str, limit: Duration) -> (tempfile::TempDir, Result<Option<Found>, String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        let script = script.replace("DIR", dir.path().to_str().unwrap());
        // Another process writes it: one that this process starts meanwhile would inherit the
        // open file, and the kernel runs no program that is open for writing.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
        let mut install = install.spawn().unwrap();
        let mut stdin = install.stdin.take().unwrap();
        stdin.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        drop(stdin);
        assert!(install.wait().unwrap().success());
        let found = Helpers::new(Some(dir.path().into()), limit).get(
            "test",
            Path::new("config.json"),
            "host",
        );
        (dir, found.map_err(|e| e.to_string()))
    }

    #[test]
    fn silent_helper_is_killed_and_reaped() {
        for silence in
            ["exec sleep 600", "exec >&-; exec sleep 600", "while :; do echo; sleep 0.1; done"]
        {
            let script = format!("echo $$ > DIR/pid\n{silence}");
            let (dir, found) = get(&script, Duration::from_secs(1));
            let error = found.unwrap_err();
            assert!(error.contains("docker-credential-test: no answer for 1 seconds"), "{error}");
            let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
            let process = std::path::Path::new("/proc").join(pid.trim());
            assert!(!process.exists(), "{silence}: {pid} was not reaped");
        }
    }

    #[test]
    fn helper_that_leaves_a_process_behind_has_answered_when_it_ends() {
        let script = r#"sleep 30 & echo '{"Username":"u","Secret":"s"}'"#;
        let found = get(script, Duration::from_secs(10)).1.unwrap().unwrap();
        assert!(matches!(found.credential, Credential::Basic { .. }), "{found:?}");
    }

    #[test]
    fn helper_that_reads_nothing_has_answered() {
        let found = get(r#"exec <&-; echo '{"Username":"u","Secret":"s"}'"#, LONG).1.unwrap();
        assert!(found.is_some());
    }

    #[test]
    fn endless_answer_is_refused() {
        let error = get("exec yes", LONG).1.unwrap_err();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
    }
}
