//! Runs the built `rpull` the way a shell would, with nothing of this machine's
//! environment: no home, no credentials, no proxy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command under test: the one that cargo built, or the one that `tests/portability` names
/// when it compiles the tests.
pub const BINARY: &str = match option_env!("RPULL_TEST_BINARY") {
    Some(binary) => binary,
    None => env!("CARGO_BIN_EXE_rpull"),
};

/// An rpull command on one root.
pub struct Rpull {
    root: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Rpull {
    pub fn on(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(BINARY);
        self.dress(&mut command);
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    /// Gives `command` the environment that [`Rpull`] runs in.
    pub fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/nonexistent")
            .env("RPULL_ROOT", &self.root)
            .stdin(Stdio::null());
    }

    pub fn run<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.command(args).output().expect("start rpull").into()
    }

    /// Runs, expects success, gives stdout.
    #[track_caller]
    pub fn ok<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{done}");
        done.stdout
    }

    #[track_caller]
    pub fn json<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }

    /// Runs, expects this exit code.
    #[track_caller]
    pub fn fails<S: AsRef<str>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, Some(code), "{done}");
        done
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n-- stdout\n{}-- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}
