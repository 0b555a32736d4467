//! The OCI runtime: its program, its command line, and what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::{Error, StartFailure};
use crate::fsutil;
use crate::overlay::in_user_namespace;

/// Bytes of the log of a runtime at most.
const MAX_LOG: u64 = 1 << 20;

/// What runc says before the reason.
const RUNC_PREFIX: &str = "runc run failed: unable to start container process: ";

/// An OCI runtime, such as crun or runc.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
}

/// Where one container has its files.
pub(super) struct Paths<'a> {
    pub bundle: &'a Path,
    pub state: &'a Path,
    pub log: &'a Path,
    pub pid: &'a Path,
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl Runtime {
    /// Finds the runtime `name`, which is a program in `PATH` or a path. Without a name, it is the first
    /// of crun, runc and youki; where cgroups v2 are not the only ones, runc comes first, because crun
    /// does not support that.
    ///
    /// # Errors
    /// [`Error::NoRuntime`] if there is none.
    pub fn find(name: Option<&str>) -> Result<Self, Error> {
        let unified = is_unified();
        let names: Vec<&str> = match name {
            Some(name) => vec![name],
            None if unified => vec!["crun", "runc", "youki"],
            None => vec!["runc", "crun", "youki"],
        };
        let found = names.iter().find_map(|name| program(name));
        let program = found.ok_or_else(|| Error::NoRuntime(names.join(", ")))?;
        Ok(Self { program })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The name of the program.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the command that runs a container in the foreground.
    pub(super) fn run(&self, paths: &Paths, id: &str) -> Command {
        let mut command = self.command(paths.state);
        command.arg("--log").arg(paths.log).args(["--log-format", "json"]);
        command.arg("run").arg("--bundle").arg(paths.bundle).arg("--pid-file").arg(paths.pid);
        command.arg(id);
        command
    }

    /// Returns the command that removes a container, and kills its processes.
    pub(super) fn delete(&self, state: &Path, id: &str) -> Command {
        let mut command = self.command(state);
        command.args(["delete", "--force", id]);
        command
    }

    fn command(&self, state: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(state);
        // A user has no cgroups of its own. runc ignores the failure by itself.
        if self.name() == "crun" && in_user_namespace() {
            command.args(["--cgroup-manager", "disabled"]);
        }
        command
    }

    /// Returns why a container did not start, by the runtime's log.
    pub(super) fn failure(&self, log: &Path) -> Error {
        let messages = errors_in(log);
        let message = match messages.last() {
            Some(message) => message.strip_prefix(RUNC_PREFIX).unwrap_or(message).to_owned(),
            None => "it gives no reason".to_owned(),
        };
        let cause = cause(&message);
        Error::Runtime { runtime: self.name(), message, cause }
    }
}

/// Returns the errors in a runtime's log. The last one is what ended it.
pub(super) fn errors_in(log: &Path) -> Vec<String> {
    let bytes = fsutil::read(log, MAX_LOG).unwrap_or_default();
    let lines = bytes.split(|&b| b == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
    lines.filter(|line| matches!(&*line.level, "error" | "fatal")).map(|line| line.msg).collect()
}

/// docker/cli decides by the text in the same way (cli/command/container/run.go). crun says only `open
/// executable` of a directory.
fn cause(message: &str) -> StartFailure {
    let message = message.to_lowercase();
    let has = |text| message.contains(text);
    if has("executable file") && has("not found") || has("no such file or directory") {
        StartFailure::NotFound
    } else if has("permission denied") || has("is a directory") || has("open executable") {
        StartFailure::NotExecutable
    } else {
        StartFailure::Other
    }
}

/// Returns whether the machine has cgroups v2 only.
pub(super) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return std::path::absolute(name).ok().filter(|path| is_program(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_read_off_the_messages_of_crun_and_runc() {
        for (message, expected) in [
            (
                "executable file `x` not found in $PATH: No such file or directory",
                StartFailure::NotFound,
            ),
            (
                "runc run failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                StartFailure::NotFound,
            ),
            ("exec: \"/x\": stat /x: no such file or directory", StartFailure::NotFound),
            ("open executable: Permission denied", StartFailure::NotExecutable),
            ("open executable: Operation not permitted", StartFailure::NotExecutable),
            ("exec: \"/etc\": permission denied", StartFailure::NotExecutable),
            ("cgroups in hybrid mode not supported", StartFailure::Other),
        ] {
            assert_eq!(cause(message), expected, "{message}");
        }
    }

    #[test]
    fn errors_are_read_from_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(errors_in(&log).is_empty());
        fs::write(
            &log,
            "{\"level\":\"warning\",\"msg\":\"a\"}\nnot JSON\n{\"msg\":\"b\",\"level\":\"error\"}\n",
        )
        .unwrap();
        assert_eq!(errors_in(&log), ["b"]);
    }

    #[test]
    fn runtime_that_does_not_exist_is_an_error() {
        let error = Runtime::find(Some("/nonexistent/crun")).unwrap_err();
        assert!(matches!(error, Error::NoRuntime(name) if name == "/nonexistent/crun"));
        assert!(Runtime::find(Some("/etc/passwd")).is_err());
    }
}
