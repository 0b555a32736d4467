//! A container that runs in the foreground.
//!
//! Its files are in the directory of its writable mount:
//!
//! ```text
//! rpull/mounts/<16 hex digits>/
//!     upper/, work/, image        the writable mount
//!     run/                        0700  removed when the container has ended
//!         bundle/                 config.json, rootfs, hosts, hostname, resolv.conf
//!         state/                  the runtime's --root
//!         init/{upper,work}       mount points, a layer between the image and the changes
//!         runtime, log, pid
//!     volumes/<n>/{upper,work,merged}   anonymous volumes
//! ```
//!
//! The image, and the volumes above it, are mounted in a mount namespace of the runtime's own, so they
//! disappear with the container, however it ends. The runtime inherits the lock on the directory: while
//! one of rpull and the runtime lives, nothing is removed.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::bundle::{Draft, ROOTFS, source_of};
use super::options::RunOptions;
use super::runtime::{Paths, Runtime, errors_in};
use crate::api::image::Image;
use crate::api::store::Store;
use crate::bundle::{Bind, Volume};
use crate::error::Error;
use crate::fsutil::{self, At};
use crate::overlay::{self, Stack, Upper};
use crate::store::MountDir;

/// A running container. Dropped, it goes on; its writable mount is then kept.
#[derive(Debug)]
pub struct Container {
    child: Child,
    signals: Signals,
    store: Store,
    runtime: Runtime,
    dir: MountDir,
    remove: bool,
    lent: bool,
}

/// Sends signals to a container. It can outlive it.
#[derive(Debug, Clone)]
pub struct Signals {
    runtime: Arc<OwnedFd>,
}

impl Signals {
    /// Sends a signal, which the runtime passes on. Does nothing once the container has ended.
    pub fn send(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = pidfd_send_signal(&*self.runtime, signal);
        }
    }
}

/// The files of a container.
struct Place {
    base: PathBuf,
    run: PathBuf,
}

impl Place {
    fn of(dir: &MountDir) -> Self {
        Self { base: dir.path().to_owned(), run: dir.run() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.base.join("volumes").join(number.to_string())
    }
}

impl Image {
    /// Runs a container of the image, with the standard streams of this process. Standard input is only
    /// passed on if `stdin` is set. The runtime gets a process group of its own, unless it uses the
    /// terminal of this process.
    ///
    /// # Errors
    /// The image was removed or is damaged, has no such user or no command; the name is taken; the mount
    /// or the start of the runtime failed. What the runtime itself refuses is an error of
    /// [`Container::wait`].
    pub fn run(
        &self,
        options: &RunOptions,
        runtime: &Runtime,
        stdin: Stdin,
    ) -> Result<Container, Error> {
        end_stale(self.store())?;
        let plan = self.plan(options.top.as_ref())?;
        let draft = Draft::new(self, options, &plan)?;
        let plan = plan.temporary(options.remove || options.lent);
        let plan = match &options.name {
            Some(name) => plan.writable_as(name)?,
            None => plan.writable()?,
        };
        let (stack, dir, lock) = plan.into_parts();
        let none = || Error::Internal("a writable mount has no directory".to_owned());
        let dir = dir.ok_or_else(none)?;
        let place = Place::of(&dir);
        let started = overlay::in_private_mounts(|| {
            leave_other_mounts(self.store(), &draft.volumes)?;
            start(&place, &draft, &stack, options, runtime, &dir, stdin)
        });
        let rootfs = place.at("bundle").join(ROOTFS);
        let target = rootfs.display().to_string();
        let started = started.map_err(|source| Error::Mount { target, source });
        let child = match started.and_then(|started| started) {
            Ok(child) => child,
            Err(error) => {
                discard(self.store(), dir);
                return Err(error);
            }
        };
        // The writable mount protects the image from now on.
        drop(lock);
        self.store().begin().record_run(&dir);
        let signals = Signals { runtime: Arc::new(pidfd(&child)?) };
        let store = self.store().clone();
        let runtime = runtime.clone();
        let RunOptions { remove, lent, .. } = *options;
        Ok(Container { child, signals, store, runtime, dir, remove, lent })
    }
}

/// What a container reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing.
    Null,
    /// The standard input of this process, which is not a terminal.
    Inherit,
    /// The terminal of this process. Signals of its keys reach the runtime directly.
    Terminal,
}

/// Unmounts the mounts of the store's other images in this namespace: a copy of a mount would keep it in
/// use after it was unmounted on the machine, for as long as the container runs. Those that volumes show
/// stay.
fn leave_other_mounts(store: &Store, volumes: &[Volume]) -> Result<(), Error> {
    let records = store.begin();
    let is_shown = |target: &Path| {
        let sources = volumes.iter().filter_map(|volume| volume.source.as_ref());
        let mut sources = sources.filter_map(|source| std::path::absolute(source).ok());
        sources.any(|source| source.starts_with(target) || target.starts_with(&source))
    };
    for mount in overlay::mounts().at("list mounts of", store.root())?.iter().rev() {
        let Some(dirs) = mount.overlay_dirs() else { continue };
        let is_own = dirs.lower.iter().any(|lower| lower.starts_with(store.root()))
            || dirs.upper.is_some_and(|upper| records.changes_in(&upper).is_some());
        if is_own && !is_shown(&mount.target) {
            // What stays only delays a removal.
            let _ = overlay::detach(&mount.target);
        }
    }
    Ok(())
}

/// Mounts everything and starts the runtime, in a mount namespace of their own.
fn start(
    place: &Place,
    draft: &Draft,
    stack: &Stack,
    options: &RunOptions,
    runtime: &Runtime,
    dir: &MountDir,
    stdin: Stdin,
) -> Result<Child, Error> {
    let bundle = place.at("bundle");
    let rootfs = bundle.join(ROOTFS);
    for path in [&place.run, &bundle, &rootfs] {
        fsutil::ensure_dir(path, 0o700)?;
    }
    fsutil::write_new(&place.at("runtime"), runtime.name().as_bytes(), 0o600)?;
    let stack = with_mount_points(place, stack, &rootfs)?;
    mount(&stack, &rootfs)?;
    let mut binds = Vec::new();
    for (number, volume) in draft.volumes.iter().enumerate() {
        binds.push(match &volume.source {
            Some(source) => source_of(volume, source)?,
            None => anonymous(&place.volume(number), volume, &rootfs, stack.userxattr)?,
        });
    }
    let id = dir.id();
    draft.write(&bundle, &id, options, binds)?;
    dir.lend()?;
    let paths = Paths {
        bundle: &bundle,
        state: &place.at("state"),
        log: &place.at("log"),
        pid: &place.at("pid"),
    };
    let mut command = runtime.run(&paths, &id);
    if stdin == Stdin::Null {
        command.stdin(Stdio::null());
    }
    if let Some(output) = &options.output {
        let again = || output.try_clone().at("write", Path::new("the output"));
        command.stdout(again()?).stderr(again()?);
    }
    if stdin != Stdin::Terminal {
        // Otherwise the runtime could not read the terminal.
        command.process_group(0);
    }
    Ok(command.spawn().at("start", runtime.program())?)
}

/// Returns the stack with a layer of mount points, which are made in a first mount.
fn with_mount_points(place: &Place, stack: &Stack, rootfs: &Path) -> Result<Stack, Error> {
    let init = Upper { upper: place.at("init/upper"), work: place.at("init/work") };
    for path in [&place.at("init"), &init.upper, &init.work] {
        fsutil::ensure_dir(path, 0o755)?;
    }
    let first = Stack { upper: Some(init.clone()), ..stack.clone() };
    mount(&first, rootfs)?;
    let made = overlay::create_mount_points(rootfs);
    let unmounted = overlay::unmount(rootfs);
    made.and(unmounted).at("create mount points in", rootfs)?;
    Ok(stack.clone().with_layer(init.upper))
}

fn mount(stack: &Stack, target: &Path) -> Result<(), Error> {
    let failed = |source| Error::Mount { target: target.display().to_string(), source };
    stack.mount(target).map_err(failed)
}

/// Returns an anonymous volume, which begins with what the image has in this directory: an overlay of it,
/// so that nothing is copied.
fn anonymous(dir: &Path, volume: &Volume, rootfs: &Path, userxattr: bool) -> Result<Bind, Error> {
    let (upper, work, merged) = (dir.join("upper"), dir.join("work"), dir.join("merged"));
    fs::create_dir_all(dir).at("create", dir)?;
    for path in [&upper, &work, &merged] {
        fsutil::ensure_dir(path, 0o755)?;
    }
    let Volume { target, read_only, propagation, .. } = volume.clone();
    let Some(content) = directory_inside(rootfs, &target)? else {
        return Ok(Bind { source: upper, target, read_only, propagation });
    };
    let stat = rustix::fs::fstat(&content).at("read", &target)?;
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).at("set the owner of", &upper)?;
    fsutil::set_mode(&upper, stat.st_mode & 0o7777)?;
    let lower =
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&content)));
    let stack = Stack {
        lower: vec![lower.clone()],
        links: vec![lower],
        links_dir: dir.to_owned(),
        upper: Some(Upper { upper, work }),
        userxattr,
    };
    mount(&stack, &merged)?;
    Ok(Bind { source: merged, target, read_only, propagation })
}

/// Opens a directory of the image; `None` if there is none. No link leads out of the image.
fn directory_inside(rootfs: &Path, path: &Path) -> Result<Option<OwnedFd>, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty()).at("open", rootfs)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve).ok())
}

fn pidfd(child: &Child) -> Result<OwnedFd, Error> {
    let pid = Pid::from_child(child);
    Ok(pidfd_open(pid, PidfdFlags::empty()).at("watch", Path::new("the runtime"))?)
}

impl Container {
    /// The name of its writable mount.
    pub fn name(&self) -> &str {
        self.dir.name()
    }

    /// Returns what sends signals to it.
    pub fn signals(&self) -> Signals {
        self.signals.clone()
    }

    /// Waits until it has ended, and removes everything but its writable mount. That is removed too if it
    /// has no changes and no chosen name, or if [`RunOptions::remove`] is set.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the runtime could not start it; then the writable mount is removed.
    pub fn wait(mut self) -> Result<Ended, Error> {
        let ended = self.child.wait().at("wait for", self.runtime.program());
        let place = Place::of(&self.dir);
        // A runtime that was killed may not have written the file yet.
        let killed = ended.as_ref().is_ok_and(|status| status.signal().is_some());
        let started = killed || place.at("pid").exists();
        let result = match started {
            true => ended.map_err(Error::from).map(|status| Ended {
                code: exit_code(status),
                messages: errors_in(&place.at("log")),
                mount: None,
            }),
            false => Err(self.runtime.failure(&place.at("log"))),
        };
        end(&place, &self.runtime, &self.dir.id());
        let Self { store, dir, remove, lent, .. } = self;
        if lent && started {
            return result.map(|ended| Ended { mount: Some(dir), ..ended });
        }
        if remove || !started {
            discard(&store, dir);
        } else {
            let name = dir.name().to_owned();
            drop(dir);
            store.remove_unneeded_mount(&name)?;
        }
        result
    }
}

/// How a container ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The exit code of its command, or 128 and the number of the signal that killed it.
    pub code: u8,
    /// Errors that the runtime reports after the start, such as a command in an unknown format.
    pub messages: Vec<String>,
    /// Its writable mount, if that is left to the caller.
    pub(crate) mount: Option<MountDir>,
}

/// A runtime ends as the container's command does. A signal killed the runtime itself.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Ends what is left of a container, and removes its files.
fn end(place: &Place, runtime: &Runtime, id: &str) {
    let state = place.at("state");
    // Empty, unless the runtime was killed.
    if fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some()) {
        let _ = runtime.delete(&state, id).stdin(Stdio::null()).output();
    }
    let _ = fsutil::remove(&place.run);
}

impl Image {
    /// Calls `work` with the root of a temporary writable mount of the image. Returns its directory, in
    /// which the changes are.
    ///
    /// # Errors
    /// As for [`run`](Self::run), or the error of `work`.
    pub(in crate::api) fn change(
        &self,
        work: impl FnOnce(&Path) -> Result<(), Error> + Send,
    ) -> Result<MountDir, Error> {
        let (stack, dir, lock) = self.plan(None)?.temporary(true).writable()?.into_parts();
        let dir = dir.ok_or_else(|| Error::Internal("a mount has no directory".to_owned()))?;
        let rootfs = dir.run();
        let changed = overlay::in_private_mounts(|| {
            fsutil::ensure_dir(&rootfs, 0o700)?;
            mount(&stack, &rootfs)?;
            let worked = work(&rootfs);
            overlay::unmount(&rootfs).at("unmount", &rootfs)?;
            worked
        });
        drop(lock);
        let target = rootfs.display().to_string();
        match changed.map_err(|source| Error::Mount { target, source }).and_then(|done| done) {
            Ok(()) => Ok(dir),
            Err(error) => {
                discard(self.store(), dir);
                Err(error)
            }
        }
    }
}

/// Removes a writable mount that was not used, or is not wanted. What cannot be removed is left to the next
/// command.
pub(in crate::api) fn discard(store: &Store, dir: MountDir) {
    let name = dir.name().to_owned();
    let _ = fsutil::remove(&dir.run());
    drop(dir);
    let _ = store.remove_mount(&name, false);
}

/// Ends the containers whose rpull and runtime were killed, and removes what a killed rpull left.
pub(super) fn end_stale(store: &Store) -> Result<(), Error> {
    for dir in store.begin().stale_runs()? {
        let place = Place::of(&dir);
        let name = fsutil::read(&place.at("runtime"), 64).unwrap_or_default();
        let name = String::from_utf8(name).unwrap_or_default();
        let known = ["crun", "runc", "youki"].contains(&&*name);
        match Runtime::find(Some(&name)).ok().filter(|_| known) {
            Some(runtime) => end(&place, &runtime, &dir.id()),
            None => drop(fsutil::remove(&place.run)),
        }
        let (name, temporary) = (dir.name().to_owned(), dir.record().temporary);
        drop(dir);
        match temporary {
            true => drop(store.remove_mount(&name, false)),
            false => store.remove_unneeded_mount(&name)?,
        }
    }
    Ok(())
}
