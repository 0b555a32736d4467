//! Overlay mounts of a stack of layers.
//!
//! mount(2) accepts at most one page of options, and fsconfig(2) strings of at most 255 bytes. A
//! stack that needs more is mounted with directory handles (Linux 6.13), or else, like dockerd
//! does it, by the short links of the layers, relative to the overlay2 directory.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
};

/// Bytes of options that mount(2) accepts, with the closing NUL.
const OPTION_PAGE: usize = 4096;

/// Bytes of a value that fsconfig(2) accepts, and with it mount(8) since util-linux 2.39.
const LONGEST_VALUE: usize = 255;

/// Options of a writable mount, as dockerd sets them or requires them of the kernel (moby
/// daemon/graphdriver/overlay2): otherwise, depending on the kernel's defaults, a renamed directory or a changed
/// mode is stored as a reference to a lower layer, and the changes cannot be mounted above a copy of it.
const WRITABLE: [(&str, &str); 3] =
    [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")];

/// An overlay mount of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// The layers' `diff` directories, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// The short links of the same layers, relative to `links_dir`.
    pub links: Vec<PathBuf>,
    /// The directory that contains the links.
    pub links_dir: PathBuf,
    /// The writable part; `None` for a read-only mount.
    pub upper: Option<Upper>,
    /// Whether overlayfs's marks are in `user.overlay.*`.
    pub userxattr: bool,
}

/// The writable part of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// The directory of changed files.
    pub upper: PathBuf,
    /// overlayfs's scratch directory, on the same file system.
    pub work: PathBuf,
}

impl Stack {
    /// Returns the options of mount(2) or mount(8), with absolute paths. mount(2) accepts less than
    /// 4096 bytes.
    pub fn options(&self) -> String {
        self.options_with(&self.lower, self.upper.as_ref())
    }

    /// Returns shorter options, whose paths are relative to the directory of the links.
    fn relative_options(&self) -> String {
        let upper = self.upper.as_ref().map(|upper| Upper {
            upper: self.relative(&upper.upper),
            work: self.relative(&upper.work),
        });
        self.options_with(&self.links, upper.as_ref())
    }

    fn relative(&self, path: &Path) -> PathBuf {
        let below = self.links_dir.parent().and_then(|root| path.strip_prefix(root).ok());
        below.map_or_else(|| path.to_owned(), |below| Path::new("..").join(below))
    }

    fn options_with(&self, lower: &[PathBuf], upper: Option<&Upper>) -> String {
        self.all_options(lower, upper).join(",")
    }

    fn all_options(&self, lower: &[PathBuf], upper: Option<&Upper>) -> Vec<String> {
        let lower: Vec<String> = lower.iter().map(|path| escape(path)).collect();
        let mut options = vec![format!("lowerdir={}", lower.join(":"))];
        if let Some(Upper { upper, work }) = upper {
            options.push(format!("upperdir={}", escape(upper)));
            options.push(format!("workdir={}", escape(work)));
            options.extend(self.writable().map(|(key, value)| format!("{key}={value}")));
        }
        if self.userxattr {
            options.push("userxattr".to_owned());
        }
        options
    }

    /// Returns the options of a writable mount. With `userxattr`, the kernel forbids the others.
    fn writable(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        WRITABLE.into_iter().take(if self.userxattr { 1 } else { WRITABLE.len() })
    }

    /// Returns the mount as an entry of `mounts` has it in the OCI runtime-spec (config.md): its type,
    /// its source and its options.
    pub fn entry(&self) -> (&'static str, &Path, Vec<String>) {
        let read_only = || "ro".to_owned();
        if self.is_bind() {
            return ("bind", &self.lower[0], vec!["bind".to_owned(), read_only()]);
        }
        let mut options = self.all_options(&self.lower, self.upper.as_ref());
        if self.upper.is_none() {
            options.insert(0, read_only());
        }
        ("overlay", Path::new("overlay"), options)
    }

    /// Returns the mount(8) command for what [`mount`](Self::mount) does at `target`; `None` if
    /// mount(8) cannot do it, because the options are longer than a page. A command with long
    /// paths changes to the directory of the links, and is for a shell.
    pub fn command(&self, target: &Path) -> Option<String> {
        if self.is_bind() {
            let source = quote(self.lower[0].as_os_str());
            return Some(format!("mount --bind -o ro {source} {}", quote(target.as_os_str())));
        }
        let read_only = if self.upper.is_none() { "ro," } else { "" };
        let line = |options: &str, target: &Path| {
            // mount(8) must not use fsconfig(2) for long values.
            let longest = options.split(',').map(str::len).max().unwrap_or(0);
            let env =
                if longest > LONGEST_VALUE { "env LIBMOUNT_FORCE_MOUNT2=always " } else { "" };
            let options = quote(OsStr::new(&format!("{read_only}{options}")));
            format!("{env}mount -t overlay overlay -o {options} {}", quote(target.as_os_str()))
        };
        let options = self.options();
        if fits_a_page(&options) {
            return Some(line(&options, target));
        }
        let options = Some(self.relative_options()).filter(|options| fits_a_page(options))?;
        let target = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
        let dir = quote(self.links_dir.as_os_str());
        Some(format!("(cd {dir} && {})", line(&options, &target)))
    }

    /// Mounts the stack at `target`.
    ///
    /// # Errors
    /// The error of mount(2), or of fsopen(2) and its related calls.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        if self.is_bind() {
            mount::mount_bind(&self.lower[0], target)?;
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            let read_only = mount::mount_remount(target, flags, "");
            if read_only.is_err() {
                // A writable mount would change the layer.
                let _ = unmount(target);
            }
            return Ok(read_only?);
        }
        let options = self.options();
        if fits_a_page(&options) {
            return self.mount_with(&options, target);
        }
        match self.mount_by_handles(target)? {
            Supported::Yes => Ok(()),
            Supported::No => self.mount_by_links(target),
        }
    }

    /// Returns the stack with another layer above the others, the directory of changes of an earlier mount
    /// of it.
    #[must_use]
    pub fn with_layer(mut self, diff: PathBuf) -> Self {
        self.links.insert(0, self.relative(&diff));
        self.lower.insert(0, diff);
        self
    }

    /// Returns whether to bind-mount: overlayfs requires two layers or an upper directory.
    fn is_bind(&self) -> bool {
        self.lower.len() == 1 && self.upper.is_none()
    }

    fn mount_with(&self, options: &str, target: &Path) -> io::Result<()> {
        let flags = if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
        let options = CString::new(options)?;
        Ok(mount::mount("overlay", target, "overlay", flags, options.as_c_str())?)
    }

    /// Mounts with one handle per directory. The kernel then shows the full paths in mountinfo.
    fn mount_by_handles(&self, target: &Path) -> io::Result<Supported> {
        let fs = match mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fs) => fs,
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => return Ok(Supported::No),
            Err(e) => return Err(e.into()),
        };
        let set = |key: &str, path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(path, flags, Mode::empty())?;
            mount::fsconfig_set_fd(&fs, key, &dir)
        };
        for (n, lower) in self.lower.iter().enumerate() {
            match set("lowerdir+", lower) {
                // An older kernel knows no such option, or only as a string.
                Err(Errno::INVAL | Errno::OPNOTSUPP) if n == 0 => return Ok(Supported::No),
                other => other?,
            }
        }
        if let Some(Upper { upper, work }) = &self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
            for (key, value) in self.writable() {
                mount::fsconfig_set_string(&fs, key, value)?;
            }
        }
        if self.userxattr {
            mount::fsconfig_set_flag(&fs, "userxattr")?;
        }
        mount::fsconfig_create(&fs)?;
        let attributes = match self.upper {
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
            Some(_) => MountAttrFlags::empty(),
        };
        let mounted = mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        mount::move_mount(&mounted, "", rustix::fs::CWD, target, flags)?;
        Ok(Supported::Yes)
    }

    /// Mounts by paths relative to the directory of the links. mountinfo then shows the links,
    /// which are unique like the names of the layers' directories.
    fn mount_by_links(&self, target: &Path) -> io::Result<()> {
        let options = self.relative_options();
        if !fits_a_page(&options) {
            return Err(io::Error::new(
                io::ErrorKind::ArgumentListTooLong,
                "the paths of upper and work directory are too long for mount(2), and handles of \
                 directories in fsconfig(2) need Linux 6.13",
            ));
        }
        let target = std::path::absolute(target)?;
        in_directory(&self.links_dir, || self.mount_with(&options, &target))
    }
}

/// Whether the kernel supports a way to mount.
#[derive(Debug, PartialEq, Eq)]
enum Supported {
    Yes,
    No,
}

/// Runs `work` on a thread that has `dir` as its working directory; other threads keep theirs.
fn in_directory<T: Send>(dir: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let run = || {
            #[expect(
                deprecated,
                reason = "its replacement guards against FILES only, which is not used"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::FS)?;
            rustix::process::chdir(dir)?;
            work()
        };
        let thread = thread::Builder::new().name("mount".to_owned()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts panicked")))
    })
}

fn fits_a_page(options: &str) -> bool {
    options.len() < OPTION_PAGE
}

fn escape(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\");
    text.replace(':', "\\:").replace(',', "\\,")
}

/// Unmounts `target`.
///
/// # Errors
/// The error of umount(2): `EINVAL` if nothing is mounted there, `EBUSY` if it is in use.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Unmounts `target` in this mount namespace, also while it is in use.
///
/// # Errors
/// The error of umount(2).
pub fn detach(target: &Path) -> io::Result<()> {
    Ok(mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Quotes a word for a shell.
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+:=,@%".contains(b);
    let text = word.to_string_lossy();
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(dirs: &[&str]) -> Stack {
        Stack {
            lower: dirs.iter().map(PathBuf::from).collect(),
            links: (0..dirs.len()).map(|n| format!("l/{n}").into()).collect(),
            links_dir: "/root/overlay2".into(),
            upper: None,
            userxattr: false,
        }
    }

    #[test]
    fn printed_mount_command_matches_the_mount() {
        let mut stack = stack(&["/a", "/b,c:d"]);
        assert_eq!(
            stack.command(Path::new("/m t")).unwrap(),
            r"mount -t overlay overlay -o 'ro,lowerdir=/a:/b\,c\:d' '/m t'"
        );
        stack.upper = Some(Upper { upper: "/u".into(), work: "/w".into() });
        stack.lower.pop();
        assert_eq!(
            stack.command(Path::new("/m")).unwrap(),
            "mount -t overlay overlay \
             -o lowerdir=/a,upperdir=/u,workdir=/w,index=off,redirect_dir=off,metacopy=off /m"
        );
        stack.upper = None;
        assert_eq!(stack.command(Path::new("/m")).unwrap(), "mount --bind -o ro /a /m");
    }

    #[test]
    fn entry_of_a_mount_describes_the_same_mount() {
        let options = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let one = stack(&["/a"]);
        assert_eq!(one.entry(), ("bind", Path::new("/a"), options(&["bind", "ro"])));
        let two = Stack { userxattr: true, ..stack(&["/a", "/b,c"]) };
        let expected = options(&["ro", r"lowerdir=/a:/b\,c", "userxattr"]);
        assert_eq!(two.entry(), ("overlay", Path::new("overlay"), expected));
        let upper = Some(Upper { upper: "/u".into(), work: "/w".into() });
        let written = Stack { upper, ..one };
        let off = ["index=off", "redirect_dir=off", "metacopy=off"];
        let dirs = ["lowerdir=/a", "upperdir=/u", "workdir=/w"];
        assert_eq!(written.entry().2, options(&[&dirs[..], &off].concat()));
        let user = Stack { userxattr: true, ..written };
        assert_eq!(user.entry().2, options(&[&dirs[..], &["index=off", "userxattr"]].concat()));
    }

    #[test]
    fn printed_command_of_long_paths_uses_mount2_and_short_links() {
        let long = format!("/{}", "d".repeat(255));
        let line = stack(&[&long, "/b"]).command(Path::new("/m")).unwrap();
        assert!(line.starts_with("env LIBMOUNT_FORCE_MOUNT2=always mount -t overlay"), "{line}");

        let longer = "/d".repeat(2100);
        let mut stack = stack(&[&longer, "/b"]);
        stack.upper =
            Some(Upper { upper: "/root/rpull/m/upper".into(), work: "/root/rpull/m/work".into() });
        assert_eq!(
            stack.command(Path::new("/m")).unwrap(),
            "(cd /root/overlay2 && mount -t overlay overlay \
             -o lowerdir=l/0:l/1,upperdir=../rpull/m/upper,workdir=../rpull/m/work,\
             index=off,redirect_dir=off,metacopy=off /m)"
        );
        stack.upper = Some(Upper { upper: longer.into(), work: "/w".into() });
        assert_eq!(stack.command(Path::new("/m")), None);
    }

    #[test]
    fn work_in_a_directory_leaves_the_other_threads_where_they_are() {
        let before = std::env::current_dir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let inside = in_directory(dir.path(), std::env::current_dir).unwrap();
        assert_eq!(inside, dir.path().canonicalize().unwrap());
        assert_eq!(std::env::current_dir().unwrap(), before);
        in_directory(&dir.path().join("absent"), || Ok(())).unwrap_err();
    }
}
