//! Where tests put what they make, and processes that end with the tests.
//!
//! Everything lies under cargo's `target/tmp`, in directories that carry this process's
//! id. Statics are never dropped, so the next run sweeps what a finished one left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};

use rustix::mount::MountPropagationFlags;
use tempfile::TempDir;

/// A directory that goes away with the value.
pub fn dir() -> TempDir {
    builder().tempdir_in(base()).expect("a scratch directory")
}

/// The same on tmpfs where there is one, for tests that make many small trees.
pub fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { builder().tempdir_in(memory).expect("a scratch directory") } else { dir() }
}

/// A directory that lasts as long as this process.
pub fn lasting() -> PathBuf {
    dir().keep()
}

/// What is kept between runs because it costs much to make.
pub fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    fs::create_dir_all(&dir).expect("the cache directory");
    dir
}

fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(base).expect("target/tmp");
        for entry in fs::read_dir(base).expect("target/tmp").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("it-").and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Someone else may be sweeping the same directory.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        base.to_owned()
    })
}

fn builder() -> tempfile::Builder<'static, 'static> {
    static PREFIX: OnceLock<String> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| format!("it-{}-", std::process::id()));
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    builder
}

/// Starts `program` so that it is killed when this process ends, however it ends.
///
/// The kernel's parent-death signal comes when the *thread* that forked ends, and a
/// test's thread ends long before the process, so one parked thread forks for all.
pub fn spawn_bound(program: &str, configure: impl FnOnce(&mut Command) + Send + 'static) -> Child {
    type Job = Box<dyn FnOnce() + Send>;
    static FORKER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        Mutex::new(sender)
    });
    let program = program.to_owned();
    let (answer, child) = mpsc::channel();
    let job = move || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program);
        configure(&mut command);
        let _ = answer.send(command.spawn().unwrap_or_else(|e| panic!("start {program}: {e}")));
    };
    forker.lock().expect("the forker").send(Box::new(job)).expect("the forking thread");
    child.recv().expect("the forking thread")
}

/// The same for one that lasts as long as this process.
pub fn spawn_lasting(program: &str, configure: impl FnOnce(&mut Command) + Send + 'static) {
    static LASTING: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let child = spawn_bound(program, configure);
    LASTING.lock().expect("the children").push(child);
}

/// A mount point that is free again whatever the test comes to.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Runs `work` on a thread with a mount namespace of its own, which its children share.
pub fn in_private_mounts(work: fn()) {
    let thread = std::thread::spawn(move || {
        #[expect(
            deprecated,
            reason = "its replacement guards against FILES only, which is not used"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).expect("unshare");
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).expect("private mounts");
        work();
    });
    thread.join().expect("the thread with private mounts");
}
