//! A user namespace and a mount namespace for this process, in which a user without root may mount.
//!
//! Only another process can map ranges of IDs, with newuidmap(1), and only this process can create its
//! namespace. So a helper starts first, and waits until the namespace exists.

mod map;
mod sub_ids;

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{getgid, getuid};
use rustix::thread::UnshareFlags;

use crate::overlay::{in_user_namespace, may_mount};

/// The IDs that a user namespace maps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappedIds {
    /// Those of this process, and its ranges of subordinate IDs (subuid(5)).
    Ranges,
    /// Those of this process alone.
    Own {
        /// Why not the ranges.
        why: String,
    },
    /// Those of the user namespace that this process was in before.
    Unchanged,
}

/// Why this process cannot have a namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The process is root of the machine.
    #[error("this process may mount already, as root of the machine")]
    NotNeeded,
    /// The process has more than one thread.
    #[error("cannot create a user namespace: the process has {0} threads")]
    Threads(usize),
    /// The system refuses it.
    #[error("cannot {act}: {source}{}", named(*.setting))]
    Refused {
        /// What failed.
        act: &'static str,
        /// The setting of the kernel that forbids it.
        setting: Option<Setting>,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A setting of the kernel that forbids user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The file in /proc/sys.
    pub file: &'static str,
    /// Its value that forbids them.
    value: &'static str,
    /// The name for sysctl(8), with a value that permits them.
    pub permitted: &'static str,
    /// Whether it forbids only to create a namespace, and nothing in it.
    only_creation: bool,
}

const SETTINGS: [Setting; 4] = [
    Setting {
        file: "/proc/sys/user/max_user_namespaces",
        value: "0",
        permitted: "user.max_user_namespaces=10000",
        only_creation: true,
    },
    Setting {
        file: "/proc/sys/user/max_mnt_namespaces",
        value: "0",
        permitted: "user.max_mnt_namespaces=10000",
        only_creation: true,
    },
    // A patch of Debian and Arch.
    Setting {
        file: "/proc/sys/kernel/unprivileged_userns_clone",
        value: "0",
        permitted: "kernel.unprivileged_userns_clone=1",
        only_creation: true,
    },
    // Ubuntu permits the namespace, and nothing in it.
    Setting {
        file: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        value: "1",
        permitted: "kernel.apparmor_restrict_unprivileged_userns=0",
        only_creation: false,
    },
];

const CREATE: &str = "create a user namespace";

fn named(setting: Option<Setting>) -> String {
    setting.map(|it| format!(" ({} is {})", it.file, it.value)).unwrap_or_default()
}

/// Moves this process, which has one thread, to new namespaces, in which it is root and may mount. What it
/// mounts disappears with the last process of the namespace. A process that may mount already, in a user
/// namespace, stays where it is.
///
/// # Errors
/// [`NamespaceError`]. After some errors, this process is in a namespace that is of no use.
pub fn enter() -> Result<MappedIds, NamespaceError> {
    match (may_mount(), in_user_namespace()) {
        (true, true) => return Ok(MappedIds::Unchanged),
        (true, false) => return Err(NamespaceError::NotNeeded),
        // Root of a user namespace that has the mount namespace of another one.
        (false, true) if unshare(UnshareFlags::NEWNS).is_ok() => return Ok(MappedIds::Unchanged),
        (false, _) => {}
    }
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(NamespaceError::Threads(threads));
    }
    // In a namespace without maps, both are those of nobody.
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let helper = map::Helper::start();
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|e| refused(CREATE, e))?;
    let failed = helper.and_then(map::Helper::run).err();
    map::own_where_missing(uid, gid)
        .map_err(|e| refused("map the IDs of this user in a user namespace", e))?;
    if !may_mount() {
        return Err(refused("mount in a user namespace", Errno::PERM.into()));
    }
    Ok(failed.map_or(MappedIds::Ranges, |why| MappedIds::Own { why }))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(deprecated, reason = "its replacement guards against FILES only, which is not used")]
    Ok(rustix::thread::unshare(flags)?)
}

fn refused(act: &'static str, source: io::Error) -> NamespaceError {
    let counts = |it: &&Setting| act == CREATE || !it.only_creation;
    let forbids =
        |it: &&Setting| fs::read_to_string(it.file).is_ok_and(|text| text.trim() == it.value);
    let setting = SETTINGS.iter().filter(counts).find(forbids).copied();
    NamespaceError::Refused { act, setting, source }
}
