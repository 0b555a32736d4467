//! Mounts that only one process and its children see.

use std::io;
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_change};

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
