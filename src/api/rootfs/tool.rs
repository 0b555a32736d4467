//! The tools that make file systems.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::layer::TreeTarError;

/// Bytes of a tool's messages that are kept.
const MAX_MESSAGE: u64 = 4 << 10;

/// Bytes of an archive without files.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// Runs a tool of the package `package`, with what `feed` writes as its standard input. Returns its messages.
///
/// # Errors
/// It is not installed or fails; the error of `feed`, unless the tool ended before.
pub fn run(
    mut command: Command,
    package: &str,
    feed: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<String, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| not_started(&tool, package, &e))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // A tool that waits until its messages are read would not read its input.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let fed = match stdin {
        Some(mut stdin) => feed(&mut stdin),
        None => Ok(()),
    };
    if matches!(&fed, Err(error) if !matches!(error, Error::Tar(TreeTarError::Write(_)))) {
        // An archive that ends early must not become a file system.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| Error::Other(format!("cannot wait for {tool}: {e}")))?;
    let message = reader.join().unwrap_or_default();
    match fed {
        Err(error) if !matches!(error, Error::Tar(TreeTarError::Write(_))) => Err(error),
        _ if !status.success() => Err(Error::Other(format!("{tool} failed ({status}): {message}"))),
        fed => fed.map(|()| message),
    }
}

/// Returns whether a tool of the package `package` reads a tar as its standard input. `command` is the one
/// that makes a file system of no use.
///
/// # Errors
/// It is not installed.
pub fn reads_tar(mut command: Command, package: &str) -> Result<bool, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| not_started(&tool, package, &e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that does not know the option ends before.
        let _ = stdin.write_all(&EMPTY_TAR);
    }
    let status = child.wait().map_err(|e| Error::Other(format!("cannot wait for {tool}: {e}")))?;
    Ok(status.success())
}

fn not_started(tool: &str, package: &str, error: &io::Error) -> Error {
    Error::Other(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{tool} is not installed: install the package {package}")
        }
        _ => format!("cannot start {tool}: {error}"),
    })
}
