//! A bare container: a Debian tree of mmdebstrap, namespaces of its own, and the capabilities that docker
//! gives a container by default.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::debian;
use super::rpull::{BINARY, Done};
use super::scratch;

/// Docker's default capabilities (moby oci/caps/defaults.go).
pub const DOCKER: &str = "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,\
                          setpcap,net_bind_service,sys_chroot,kill,audit_write";

/// A container's tree with rpull in it.
pub struct Container {
    tree: TempDir,
}

impl Container {
    pub fn new() -> Self {
        let tree = scratch::dir();
        debian::unpack_base(tree.path());
        fs::copy(BINARY, tree.path().join("usr/local/bin/rpull")).expect("install rpull");
        Self { tree }
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.tree.path().join(inside.trim_start_matches('/'))
    }

    /// Runs a line of a shell as root of the container.
    pub fn run(&self, line: &str) -> Done {
        let tree = self.tree.path();
        let enter = format!(
            "mount --bind {0} {0} && mount -t proc proc {0}/proc && mount --rbind /dev {0}/dev && \
             exec chroot {0} setpriv --bounding-set={1} --inh-caps={1} sh -c \"$1\"",
            tree.display(),
            format!("-all,+{}", DOCKER.replace(',', ",+")),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--ipc", "--uts", "--pid", "--fork"]);
        command.args(["sh", "-c", &enter, "sh", line]);
        command.env_clear().env("HOME", "/root").current_dir(Path::new("/"));
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.output().expect("start a container").into()
    }
}
