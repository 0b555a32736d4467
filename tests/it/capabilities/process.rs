//! Processes with few capabilities.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::wait;

/// Docker's default capabilities, which containerd gives, too.
pub const DOCKER: &str = "+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,\
                          +setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write";

/// A kind of process.
pub enum As<'a> {
    /// Root with these capabilities, as setpriv(1) writes them.
    Root(&'a str),
    /// Another user without capabilities.
    User(u32, u32),
    /// Root in a user namespace that this user makes with `unshare -Ur`.
    NamespaceOfOne(u32),
    /// Root in a user namespace that maps root to itself and 65,535 IDs to those from 100,000.
    NamespaceOfRanges,
}

/// A directory that a process owns, with the binary and a root.
pub struct Place(TempDir);

impl Place {
    /// Not in the project's tree, which other users may not be able to enter.
    pub fn new(process: &As) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(BINARY, dir.path().join("rpull")).unwrap();
        let (uid, gid) = match process {
            As::Root(_) | As::NamespaceOfRanges => (0, 0),
            As::User(uid, gid) => (*uid, *gid),
            As::NamespaceOfOne(uid) => (*uid, *uid),
        };
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// Runs rpull on the root as `process`.
    pub fn run(&self, process: &As, args: &[&str]) -> Done {
        let mut command = self.command(process, args);
        match process {
            As::NamespaceOfRanges => mapped(&mut command),
            _ => command.output().unwrap().into(),
        }
    }

    /// A command on the root as `process`.
    pub fn command(&self, process: &As, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        Rpull::on(self.root()).dress(&mut command);
        command.current_dir(self.path());
        match process {
            As::Root(capabilities) => {
                let separator = if capabilities.is_empty() { "" } else { "," };
                command.arg(format!("--bounding-set=-all{separator}{capabilities}"));
                command.arg("--inh-caps=-all");
            }
            As::User(uid, gid) => {
                command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
                command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
            }
            As::NamespaceOfOne(uid) => {
                command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
                command.args(["--clear-groups", "unshare", "-Ur"]);
            }
            As::NamespaceOfRanges => {
                let wait = "read mapped && exec \"$@\"";
                command.args(["--", "unshare", "--user", "--keep-caps", "sh", "-c", wait, "sh"]);
            }
        }
        command.arg(self.path().join("rpull")).args(args);
        command
    }
}

/// Runs a command that makes a user namespace and waits for a line.
fn mapped(command: &mut Command) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    // Only the shell that waits is past all that unshare(1) does with its capabilities.
    wait::until("a shell in a user namespace", || {
        fs::read_link(proc.join("ns/user")).unwrap() != own
            && fs::read_to_string(proc.join("comm")).unwrap() == "sh\n"
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), "0 0 1\n1 100000 65535\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"mapped\n").unwrap();
    child.wait_with_output().unwrap().into()
}
