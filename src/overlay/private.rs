//! Mounts that only one process and its children see, and whether this process may mount at all.

use std::io;
use std::thread;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountPropagationFlags, fsopen, mount_change};

use super::abilities::Capability;

/// Returns whether this process may mount in its mount namespace. A capability in a user namespace does
/// not tell it: the mount namespace can belong to another one, and AppArmor can forbid it.
pub fn may_mount() -> bool {
    match fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => true,
        // Before Linux 5.2.
        Err(Errno::NOSYS) => Capability::SysAdmin.is_effective(),
        Err(e) => !matches!(e, Errno::PERM | Errno::ACCESS),
    }
}

/// Runs `work` on a thread with a mount namespace of its own, which the processes that it starts share.
/// What it mounts disappears with the last of them. Mounts of the machine go on to appear there.
///
/// # Errors
/// The error of unshare(2) or mount(2): creating a namespace needs CAP_SYS_ADMIN.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let run = || {
            #[expect(
                deprecated,
                reason = "its replacement guards against FILES only, which is not used"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
            let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_change("/", flags)?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("mounts".to_owned()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts panicked")))
    })
}
