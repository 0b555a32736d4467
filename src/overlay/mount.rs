//! Overlay mounts of a stack of layers.
//!
//! mount(2) accepts at most one page of options. A larger stack is mounted with fsopen(2) and
//! one `lowerdir+` per layer (Linux 6.7).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
};

/// Bytes of options that mount(2) accepts, with the closing NUL.
const OPTION_PAGE: usize = 4096;

/// An overlay mount of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// The layers' `diff` directories, topmost first; at least one.
    pub lower: Vec<PathBuf>,
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
    /// Returns the options of mount(2) or mount(8).
    pub fn options(&self) -> String {
        let escape = |path: &PathBuf| {
            let text = path.to_string_lossy().replace('\\', "\\\\");
            text.replace(':', "\\:").replace(',', "\\,")
        };
        let lower: Vec<String> = self.lower.iter().map(escape).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some(upper) = &self.upper {
            options +=
                &format!(",upperdir={},workdir={}", escape(&upper.upper), escape(&upper.work));
        }
        if self.userxattr {
            options += ",userxattr";
        }
        options
    }

    /// Returns whether mount(2) accepts [`options`](Self::options).
    pub fn fits_a_page(&self) -> bool {
        self.options().len() < OPTION_PAGE
    }

    /// Returns the mount(8) command for what [`mount`](Self::mount) does at `target`.
    pub fn command(&self, target: &Path) -> String {
        let target = quote(target.as_os_str());
        if self.is_bind() {
            let source = quote(self.lower[0].as_os_str());
            return format!("mount --bind -o ro {source} {target}");
        }
        let read_only = if self.upper.is_none() { "ro," } else { "" };
        let options = format!("{read_only}{}", self.options());
        format!("mount -t overlay overlay -o {} {target}", quote(OsStr::new(&options)))
    }

    /// Mounts the stack at `target`.
    ///
    /// # Errors
    /// The error of mount(2), or of fsopen(2) and its related calls.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        let read_only = if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
        if self.is_bind() {
            mount::mount_bind(&self.lower[0], target)?;
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            return Ok(mount::mount_remount(target, flags, "")?);
        }
        if self.fits_a_page() {
            let options = std::ffi::CString::new(self.options())?;
            return Ok(mount::mount("overlay", target, "overlay", read_only, options.as_c_str())?);
        }
        Ok(self.mount_by_parts(target)?)
    }

    /// Returns whether to bind-mount: overlayfs requires two layers or an upper directory.
    fn is_bind(&self) -> bool {
        self.lower.len() == 1 && self.upper.is_none()
    }

    fn mount_by_parts(&self, target: &Path) -> rustix::io::Result<()> {
        let fs = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in &self.lower {
            mount::fsconfig_set_string(&fs, "lowerdir+", lower)?;
        }
        if let Some(upper) = &self.upper {
            mount::fsconfig_set_string(&fs, "upperdir", &upper.upper)?;
            mount::fsconfig_set_string(&fs, "workdir", &upper.work)?;
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
        mount::move_mount(&mounted, "", rustix::fs::CWD, target, flags)
    }
}

/// Unmounts `target`.
///
/// # Errors
/// The error of umount(2): `EINVAL` if nothing is mounted there, `EBUSY` if it is in use.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Returns the upper directory of the overlay mounted at `target`, from /proc/self/mountinfo
/// (proc_pid_mountinfo(5); spaces and some other characters are octal escapes there).
pub fn upper_of(target: &Path) -> Option<PathBuf> {
    let target = std::fs::canonicalize(target).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts
        .lines()
        .rev()
        .find(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(&unescape(at)) == target))?;
    let options = line.split(" - ").nth(1)?.split(' ').nth(2)?;
    let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    Some(PathBuf::from(unescape(upper)))
}

fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Quotes a word for a shell.
fn quote(word: &OsStr) -> String {
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

    #[test]
    fn printed_mount_command_matches_the_mount() {
        let mut stack =
            Stack { lower: vec!["/a".into(), "/b,c:d".into()], upper: None, userxattr: false };
        assert_eq!(
            stack.command(Path::new("/m t")),
            r"mount -t overlay overlay -o 'ro,lowerdir=/a:/b\,c\:d' '/m t'"
        );
        stack.upper = Some(Upper { upper: "/u".into(), work: "/w".into() });
        stack.lower.pop();
        assert_eq!(
            stack.command(Path::new("/m")),
            "mount -t overlay overlay -o lowerdir=/a,upperdir=/u,workdir=/w /m"
        );
        stack.upper = None;
        assert_eq!(stack.command(Path::new("/m")), "mount --bind -o ro /a /m");
    }
}
