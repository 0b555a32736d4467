//! The maps of IDs of a new user namespace.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{getgid, getuid};

use super::sub_ids;

/// Bytes of messages of the helper at most.
const MAX_MESSAGE: u64 = 1000;

/// The process that maps the ranges. It starts before the namespace exists, because programs that are
/// started in the namespace have no rights outside of it.
pub struct Helper(Child);

impl Helper {
    /// Starts it for this process. It waits for [`run`](Self::run), and ends without it.
    ///
    /// # Errors
    /// Why there are no ranges to map.
    pub fn start() -> Result<Self, String> {
        let (newuidmap, newgidmap) = (installed("newuidmap")?, installed("newgidmap")?);
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let name = user_name();
        let ranges = |file: &str| match sub_ids::of_user(file, uid, name.as_deref()) {
            ranges if ranges.is_empty() => {
                let user = name.clone().unwrap_or_else(|| format!("user {uid}"));
                Err(format!("{file} has no range for {user}"))
            }
            ranges => Ok(ranges),
        };
        let uids = sub_ids::arguments(uid, &ranges("/etc/subuid")?);
        let gids = sub_ids::arguments(gid, &ranges("/etc/subgid")?);
        let process = std::process::id();
        let script = format!(
            "read -r _ && \"$1\" {process} {uids} && \"$2\" {process} {gids} >&2 || exit 1"
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).args([newuidmap, newgidmap]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().map(Self).map_err(|e| format!("cannot start /bin/sh: {e}"))
    }

    /// Maps the IDs of this process and the ranges, once this process is in the namespace.
    ///
    /// # Errors
    /// What newuidmap or newgidmap said.
    pub fn run(mut self) -> Result<(), String> {
        let mut said = String::new();
        let mut run = || -> io::Result<bool> {
            if let Some(mut stdin) = self.0.stdin.take() {
                stdin.write_all(b"\n")?;
            }
            if let Some(stderr) = self.0.stderr.take() {
                let mut bytes = Vec::new();
                stderr.take(MAX_MESSAGE).read_to_end(&mut bytes)?;
                said = String::from_utf8_lossy(&bytes).into_owned();
            }
            Ok(self.0.wait()?.success())
        };
        match run() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let line = said.lines().find(|line| !line.trim().is_empty());
                Err(line.unwrap_or("newuidmap failed").trim().to_owned())
            }
            Err(e) => Err(format!("newuidmap: {e}")),
        }
    }
}

impl Drop for Helper {
    /// Ends the helper if it still waits.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Maps the IDs that this process had outside of the namespace to root, where nothing else is mapped.
///
/// # Errors
/// The error of writing the maps in /proc.
pub fn own_where_missing(uid: u32, gid: u32) -> io::Result<()> {
    let is_empty =
        |name: &str| fs::read_to_string(format!("/proc/self/{name}")).map(|map| map.is_empty());
    if is_empty("uid_map")? {
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    }
    if is_empty("gid_map")? {
        // The kernel requires it of a process without rights outside of the namespace.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

fn installed(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(name)).filter(is_program);
    found.next().ok_or_else(|| format!("{name} is not installed"))
}

/// The name of the user of this process, also of a directory service.
fn user_name() -> Option<String> {
    let output = Command::new("id").arg("-un").stderr(Stdio::null()).output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}
