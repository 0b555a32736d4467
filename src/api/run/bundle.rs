//! Bundles: the directory with `config.json` that an OCI runtime takes (runtime-spec, bundle.md).

use std::fs;
use std::path::{Path, PathBuf};

use super::inside;
use super::options::RunOptions;
use super::runtime::is_unified;
use crate::api::image::Image;
use crate::api::mount::MountPlan;
use crate::bundle::{
    Bind, BundleError, Cgroup, ContainerSpec, EtcFiles, ExecUser, Network, RunConfig, Volume,
};
use crate::error::Error;
use crate::fsutil::{self, At};
use crate::overlay::{Upper, in_user_namespace};

/// The name of the root file system's directory in a bundle.
pub(super) const ROOTFS: &str = "rootfs";
const CONFIG: &str = "config.json";

/// Bytes of a file of the machine's `/etc` at most.
const MAX_ETC: u64 = 1 << 20;

/// Group that owns terminals.
const TTY_GROUP: u32 = 5;

/// A bundle that [`Image::write_bundle`] wrote.
#[derive(Debug)]
#[non_exhaustive]
pub struct Bundle {
    /// Its directory, an absolute path.
    pub path: PathBuf,
    /// The ID of the container.
    pub id: String,
    /// The mount of its root file system.
    pub mount: MountPlan,
}

impl Bundle {
    /// The directory at which the root file system must be mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }
}

/// How a container runs, as far as it is known before it has a directory.
pub(super) struct Draft {
    pub config: RunConfig,
    pub volumes: Vec<Volume>,
    user: ExecUser,
}

impl Draft {
    /// Combines the image and what the user chose. Creates nothing.
    pub fn new(image: &Image, options: &RunOptions, plan: &MountPlan) -> Result<Self, Error> {
        let config = options.config(&image.config()?)?;
        // Before anything is created.
        config.args()?;
        let user = inside::accounts(plan.stack())?.find(&config.user)?;
        let volumes = options.volumes(&config);
        Ok(Self { config, volumes, user })
    }

    /// Writes the files of a bundle to `dir`, an absolute path. `binds` are the volumes.
    pub fn write(
        &self,
        dir: &Path,
        id: &str,
        options: &RunOptions,
        mut binds: Vec<Bind>,
    ) -> Result<(), Error> {
        let hostname = self.hostname(id, options);
        let machine = |path| fsutil::read(Path::new(path), MAX_ETC).unwrap_or_default();
        let (hosts, resolv_conf) = (machine("/etc/hosts"), machine("/etc/resolv.conf"));
        let etc = EtcFiles::new(options.network, &hostname, hosts, resolv_conf);
        for (name, content) in etc.all() {
            let target = Path::new("/etc").join(name);
            if binds.iter().any(|bind| bind.target == target) {
                continue;
            }
            let source = dir.join(name);
            fsutil::write_new(&source, content, 0o644)?;
            let read_only = options.read_only;
            binds.push(Bind { source, target, read_only, propagation: "rprivate" });
        }
        let is_user = in_user_namespace();
        let spec = ContainerSpec {
            config: self.config.clone(),
            env: options.env.clone(),
            user: self.user.clone(),
            hostname,
            terminal: options.terminal,
            read_only: options.read_only,
            network: options.network,
            rootfs: ROOTFS.into(),
            binds,
            cgroup: match is_user {
                true => Cgroup::Inherited,
                false => Cgroup::Path { path: format!("/rpull-{id}"), unified: is_unified() },
            },
            has_tty_group: !is_user || is_mapped(TTY_GROUP),
            can_set_groups: !is_user || can_set_groups(),
            seccomp: !options.unconfined,
        };
        Ok(fsutil::write_new(&dir.join(CONFIG), &spec.to_json()?, 0o644)?)
    }

    fn hostname(&self, id: &str, options: &RunOptions) -> String {
        if let Some(name) = &options.hostname {
            return name.clone();
        }
        match options.network {
            Network::None => id.chars().take(12).collect(),
            Network::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }
}

/// Returns the directory or file of the machine that a volume shows. A missing directory is created, as
/// dockerd does.
pub(super) fn source_of(volume: &Volume, source: &Path) -> Result<Bind, Error> {
    let source = std::path::absolute(source).at("find the volume", source)?;
    if !source.exists() {
        fs::create_dir_all(&source).at("create the directory of a volume", &source)?;
    }
    if source.to_str().is_none() {
        let volume = source.display().to_string();
        return Err(BundleError::Volume { volume, why: "the path is not UTF-8".to_owned() }.into());
    }
    let Volume { target, read_only, propagation, .. } = volume.clone();
    Ok(Bind { source, target, read_only, propagation })
}

impl Image {
    /// Writes an OCI bundle to `dir`, which must not exist or be empty: `config.json`, the files that are
    /// mounted in `/etc`, and the directories of a writable mount of the image at `rootfs`. Nothing is
    /// mounted, and the store does not know the bundle, so the image must be kept as long as it is used.
    /// Volumes of the image are directories of the root file system.
    ///
    /// # Errors
    /// The image was removed or is damaged, has no such user or no command, or `dir` is not empty.
    pub fn write_bundle(
        &self,
        dir: impl AsRef<Path>,
        options: &RunOptions,
    ) -> Result<Bundle, Error> {
        let dir = std::path::absolute(dir.as_ref()).at("create", dir.as_ref())?;
        if dir.to_str().is_none() {
            return Err(Error::Usage(format!("the path {} is not UTF-8", dir.display())));
        }
        let plan = self.plan(options.top.as_ref())?;
        let draft = Draft::new(self, options, &plan)?;
        fs::create_dir_all(&dir).at("create", &dir)?;
        if fs::read_dir(&dir).at("read", &dir)?.next().is_some() {
            return Err(Error::Usage(format!("{} is not empty", dir.display())));
        }
        let mut binds = Vec::new();
        for volume in &draft.volumes {
            if let Some(source) = &volume.source {
                binds.push(source_of(volume, source)?);
            }
        }
        for name in [ROOTFS, "upper", "work"] {
            fsutil::ensure_dir(&dir.join(name), 0o755)?;
        }
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let id: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
        let id = options.name.clone().unwrap_or_else(|| format!("rpull-{id}"));
        draft.write(&dir, &id, options, binds)?;
        let Upper { upper, work } = Upper { upper: dir.join("upper"), work: dir.join("work") };
        Ok(Bundle { mount: plan.writable_at(upper, work), path: dir, id })
    }
}

/// Returns whether a group exists in this user namespace.
fn is_mapped(gid: u32) -> bool {
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (words.next(), words.next(), words.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        (first..first.saturating_add(count)).contains(&gid.into())
    })
}

/// Returns whether processes of this user namespace may set their groups.
fn can_set_groups() -> bool {
    let text = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
    text.trim() != "deny"
}
