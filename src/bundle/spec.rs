//! The `config.json` of a container, as dockerd writes it (moby oci/defaults.go,
//! daemon/oci_linux.go).

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, Process, RootBuilder, Spec, User,
};

use super::user::ExecUser;
use super::{BundleError, EnvChange, RunConfig, env, security};

/// The version of the runtime-spec that the config follows; all runtimes of today know it.
const VERSION: &str = "1.0.2";

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// Only a loopback device.
    #[default]
    None,
    /// That of the machine.
    Host,
}

/// The control group of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// A new one at this path, which also limits the devices.
    Path {
        /// Below the mount of each hierarchy.
        path: String,
        /// Whether the machine has one hierarchy, cgroups v2.
        unified: bool,
    },
    /// None of its own: in a user namespace, which limits the devices.
    Inherited,
}

/// A container that is completely described.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// How it runs.
    pub config: RunConfig,
    /// Changes of the environment.
    pub env: Vec<EnvChange>,
    /// The IDs of its process.
    pub user: ExecUser,
    /// Its name in its UTS namespace.
    pub hostname: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Its network.
    pub network: Network,
    /// The directory of its root file system.
    pub rootfs: PathBuf,
    /// What is mounted besides the file systems of the kernel.
    pub binds: Vec<Bind>,
    /// Its control group.
    pub cgroup: Cgroup,
    /// Whether group 5, which owns terminals, exists in the user namespace.
    pub has_tty_group: bool,
    /// Whether processes may set their groups: not in every user namespace.
    pub can_set_groups: bool,
    /// Whether system calls are filtered.
    pub seccomp: bool,
}

/// A directory or file of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the machine.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Whether the container cannot write it.
    pub read_only: bool,
    /// The propagation of mounts below it.
    pub propagation: &'static str,
}

impl ContainerSpec {
    /// Returns `config.json`.
    ///
    /// # Errors
    /// [`BundleError`] if there is no command, or a value cannot be expressed.
    pub fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        let spec = self.spec()?;
        serde_json::to_vec_pretty(&spec).map_err(|e| BundleError::Spec(e.to_string()))
    }

    fn spec(&self) -> Result<Spec, BundleError> {
        let process = self.process()?;
        let build = || -> Result<Spec, OciSpecError> {
            let root = RootBuilder::default()
                .path(self.rootfs.clone())
                .readonly(self.read_only)
                .build()?;
            let mut spec = Spec::default();
            spec.set_version(VERSION.to_owned())
                .set_root(Some(root))
                .set_process(Some(process))
                .set_hostname(Some(self.hostname.clone()))
                .set_mounts(Some(self.mounts()?))
                .set_annotations(None)
                .set_linux(Some(self.linux()?));
            Ok(spec)
        };
        build().map_err(|e| BundleError::Spec(e.to_string()))
    }

    fn process(&self) -> Result<Process, BundleError> {
        let args = self.config.args()?;
        let mut env = env::environment(&self.config.env, &self.env, &self.hostname, self.terminal);
        if !env::has(&env, "HOME") {
            env.push(format!("HOME={}", self.user.home));
        }
        let cwd = match self.config.working_dir.as_str() {
            "" => "/",
            dir if dir.starts_with('/') => dir,
            dir => return Err(BundleError::WorkingDir(dir.to_owned())),
        };
        let has_nul = |all: &[String]| all.iter().any(|text| text.contains('\0'));
        for (what, all) in [
            ("command", &args),
            ("environment", &env),
            ("working directory", &vec![cwd.to_owned()]),
            ("host name", &vec![self.hostname.clone()]),
        ] {
            if has_nul(all) {
                return Err(BundleError::Nul(what));
            }
        }
        let mut user = User::default();
        user.set_uid(self.user.uid)
            .set_gid(self.user.gid)
            .set_additional_gids(self.can_set_groups.then(|| self.user.additional_gids.clone()));
        let capabilities = security::capabilities(self.user.uid == 0)
            .map_err(|e| BundleError::Spec(e.to_string()))?;
        let mut process = Process::default();
        process
            .set_terminal(Some(self.terminal))
            .set_user(user)
            .set_args(Some(args))
            .set_env(Some(env))
            .set_cwd(cwd.into())
            .set_capabilities(Some(capabilities))
            .set_rlimits(None)
            .set_apparmor_profile(None)
            .set_selinux_label(None)
            .set_no_new_privileges(Some(false));
        Ok(process)
    }

    fn mounts(&self) -> Result<Vec<Mount>, OciSpecError> {
        let own_network = self.network == Network::None;
        let in_user_namespace = self.cgroup == Cgroup::Inherited;
        let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.has_tty_group {
            pts.push("gid=5");
        }
        let plain = ["nosuid", "noexec", "nodev"];
        let read_only = ["nosuid", "noexec", "nodev", "ro"];
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &plain)?,
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
            mount("/dev/pts", "devpts", "devpts", &pts)?,
            // sysfs shows a network namespace, and belongs to its user namespace.
            match in_user_namespace && !own_network {
                true => {
                    mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])?
                }
                false => mount("/sys", "sysfs", "sysfs", &read_only)?,
            },
        ];
        if !in_user_namespace {
            mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &read_only)?);
        }
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &plain)?);
        let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"];
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &shm)?);
        let is_replaced =
            |mount: &Mount| self.binds.iter().any(|it| it.target == *mount.destination());
        mounts.retain(|mount| !is_replaced(mount));
        let mut binds: Vec<&Bind> = self.binds.iter().collect();
        binds.sort_by_key(|bind| bind.target.components().count());
        for bind in binds {
            let mut options = vec!["rbind", bind.propagation];
            if bind.read_only {
                options.push("ro");
            }
            let options: Vec<String> = options.into_iter().map(str::to_owned).collect();
            mounts.push(
                MountBuilder::default()
                    .destination(bind.target.clone())
                    .typ("bind")
                    .source(bind.source.clone())
                    .options(options)
                    .build()?,
            );
        }
        Ok(mounts)
    }

    fn linux(&self) -> Result<Linux, OciSpecError> {
        let paths = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
        let mut linux = Linux::default();
        linux
            .set_namespaces(Some(self.namespaces()?))
            .set_masked_paths(paths(&security::MASKED_PATHS))
            .set_readonly_paths(paths(&security::READ_ONLY_PATHS))
            .set_resources(None);
        if self.seccomp {
            linux.set_seccomp(Some(security::seccomp()?));
        }
        if let Cgroup::Path { path, .. } = &self.cgroup {
            let resources: LinuxResources =
                LinuxResourcesBuilder::default().devices(security::devices()?).build()?;
            linux.set_cgroups_path(Some(path.into())).set_resources(Some(resources));
            if self.network == Network::None {
                let sysctl = [
                    ("net.ipv4.ip_unprivileged_port_start", "0"),
                    ("net.ipv4.ping_group_range", "0 2147483647"),
                ];
                let sysctl = sysctl.map(|(key, value)| (key.to_owned(), value.to_owned()));
                linux.set_sysctl(Some(HashMap::from(sysctl)));
            }
        }
        Ok(linux)
    }

    fn namespaces(&self) -> Result<Vec<LinuxNamespace>, OciSpecError> {
        use LinuxNamespaceType::{Cgroup as CgroupNamespace, Ipc, Mount, Network as Net, Pid, Uts};
        let mut types = vec![Mount, Uts, Pid, Ipc];
        if self.network == Network::None {
            types.push(Net);
        }
        if matches!(self.cgroup, Cgroup::Path { unified: true, .. }) {
            types.push(CgroupNamespace);
        }
        types.into_iter().map(|typ| LinuxNamespaceBuilder::default().typ(typ).build()).collect()
    }
}

fn mount(target: &str, typ: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().destination(target).typ(typ).source(source).options(options).build()
}
