//! What a user reads about an error: its text in terms of flags, a hint, and the exit code.

mod tls;

use std::io;

use rpull::error::{
    ArchiveError, ChangesError, ImageUser, LayerError, LimitKind, ManifestError, NamespaceError,
    RegistryError, StoreError,
};
use rpull::{Error, ErrorKind};

/// Returns the exit code of a command that ends with `error`.
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Usage => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Auth => 4,
        ErrorKind::Network => 5,
        ErrorKind::Integrity => 6,
        ErrorKind::Storage => 7,
        ErrorKind::Busy => 8,
        ErrorKind::RateLimited => 9,
        ErrorKind::Interrupted => 130,
        _ => 1,
    }
}

/// Returns the name of `kind` in JSON.
pub fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "usage",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Auth => "auth",
        ErrorKind::Network => "network",
        ErrorKind::Integrity => "integrity",
        ErrorKind::Storage => "storage",
        ErrorKind::Busy => "busy",
        ErrorKind::RateLimited => "rate-limited",
        ErrorKind::Interrupted => "interrupted",
        _ => "other",
    }
}

/// Returns the text of `error`, which names flags where the library names settings.
pub fn text(error: &Error) -> String {
    match error {
        Error::NotPresent(image) => {
            format!("{image} is not in the store, and --policy never forbids a pull")
        }
        Error::Damaged { image, why } => {
            format!("{image} is damaged in the store ({why}), and --policy never forbids a repair")
        }
        Error::Store(StoreError::SeveralNames { .. }) => {
            format!("{error}; name one, or use --force")
        }
        _ => error.to_string(),
    }
}

/// Returns what the user can do about `error`, in the imperative.
pub fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Internal(_) | Error::Registry(RegistryError::Internal(_)) => Some(REPORT.to_owned()),
        Error::Registry(error) => hint_registry(error),
        Error::Store(error) => hint_store(error),
        Error::Manifest(error) => Some(hint_manifest(error).to_owned()),
        Error::Layer { source, .. } => hint_layer(source, error.kind()),
        Error::Import { source: LayerError::Changes(error), .. } => hint_changes(error),
        Error::Import { source, .. } => hint_import(source),
        Error::Archive(ArchiveError::Several(_)) => {
            Some("name one after the path, such as oci:DIR:NAME; `rpull load` loads all".to_owned())
        }
        Error::Archive(ArchiveError::DamagedBlob { .. }) => Some(DAMAGED_STORE.to_owned()),
        Error::Archive(ArchiveError::NotEmpty { .. }) => {
            Some("choose an empty directory, or one that does not exist".to_owned())
        }
        Error::DiffId { .. } => Some(INVALID_IMAGE.to_owned()),
        Error::NotPresent(_) => Some("pull it without --policy never".to_owned()),
        Error::Damaged { .. } => {
            Some("pull it without --policy never, which repairs the store".to_owned())
        }
        Error::DamagedStore { .. } => Some(DAMAGED_STORE.to_owned()),
        Error::Reference(_) => Some(
            "use a name like nginx, nginx:1.27 or quay.io/org/image@sha256:<digest>".to_owned(),
        ),
        Error::Platform(_) => Some("use a platform like linux/arm64 or linux/arm/v7".to_owned()),
        Error::Mount { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some(CANNOT_MOUNT.to_owned())
        }
        Error::Namespace(error) => hint_namespace(error),
        Error::Marks { .. } => Some(MARKS.to_owned()),
        Error::NoRuntime(_) => {
            Some("install crun or runc, or name a runtime with --runtime".to_owned())
        }
        Error::Runtime { message, .. } if message.contains("seccomp") => {
            Some("if the runtime has no seccomp, give --security-opt seccomp=unconfined".to_owned())
        }
        Error::Runtime { message, .. } if message.contains("hybrid") => {
            Some("crun needs cgroups v2: give --runtime runc".to_owned())
        }
        Error::Threads(_) => Some(NO_THREADS.to_owned()),
        Error::Unmount { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            Some("end the programs that use it; fuser -vm DIR lists them".to_owned())
        }
        Error::Unmount { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("run as root, or in the namespace of the mount".to_owned())
        }
        _ => None,
    }
}

/// For a bug in rpull.
const REPORT: &str =
    "this is a bug in rpull: report it with this message, the command and `rpull --version`";

/// For damage that a check found.
const DAMAGED_STORE: &str = "repair images with `rpull check --repair`, remove layers of no image with \
     `rpull gc`; docs/damage.md describes each class";

/// For something else in place of a file.
const DAMAGED_FILE: &str = "run `rpull check --repair`; if the file is still named, move it away and pull the images again";

/// For a dockerd that keeps images elsewhere: with these settings it uses overlay2, in every version.
const DOCKER_SETTING: &str =
    r#""features": {"containerd-snapshotter": false}, "storage-driver": "overlay2""#;

/// For a user who may not mount.
const CANNOT_MOUNT: &str =
    "run as root or in `rpull unshare`, or let another tool mount what `rpull mount --print` shows";

/// For an image that cannot be mounted as it is.
const MARKS: &str = "pull it again as root with CAP_SYS_ADMIN, and use it as that user; or pull it into \
     another --root, without root";

/// For a limit of processes: RLIMIT_NPROC, or pids.max of the cgroup.
const NO_THREADS: &str =
    "raise the limit of processes (ulimit -u, pids.max), close other programs, or lower --jobs";

/// For content whose digest is right, so that neither the registry nor the network altered it.
const INVALID_IMAGE: &str =
    "the image itself is invalid; ask its publisher to build and push it again";

/// For content that is not what its digest or size promises.
const ALTERED: &str = "check that no proxy alters content, then retry; nothing was kept";

/// For changes that cannot be committed.
fn hint_changes(error: &ChangesError) -> Option<String> {
    Some(match error {
        ChangesError::Fs(error) => return hint_storage(&error.source),
        ChangesError::Changed { .. } => {
            "end the programs that write to the mount, or unmount it, and commit again".to_owned()
        }
        ChangesError::Marks { .. } => "run as root with CAP_SYS_ADMIN".to_owned(),
        _ => return None,
    })
}

/// For a layer that did not come from a registry.
fn hint_import(error: &LayerError) -> Option<String> {
    match error {
        LayerError::Write { source, .. } | LayerError::TarSplit(source) => hint_storage(source),
        LayerError::Thread { .. } => Some(NO_THREADS.to_owned()),
        _ => None,
    }
}

fn hint_store(error: &StoreError) -> Option<String> {
    Some(
        match error {
            StoreError::Fs(error) if error.source.kind() == io::ErrorKind::NotFound => {
                "another program removed it; run the command again"
            }
            StoreError::Fs(error)
                if matches!(
                    error.source.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory
                ) =>
            {
                DAMAGED_FILE
            }
            StoreError::Fs(error) => return hint_storage(&error.source),
            StoreError::Dockerd { .. } => {
                "stop dockerd, run the command, and start dockerd again; or choose another --root"
            }
            StoreError::OtherStore { setting: Some(file), .. } => {
                return Some(format!(
                    "set {DOCKER_SETTING} in {}, choose another --root, or go on with --force; see docs/docker-29.md",
                    file.display()
                ));
            }
            StoreError::OtherStore { setting: None, .. } => {
                "choose another --root, or go on with --force; see docs/docker-29.md"
            }
            StoreError::NotADirectory(_) => "choose a directory with --root or --content",
            StoreError::NoStore(_) => {
                "pull an image first, or choose a store with --root or RPULL_ROOT"
            }
            StoreError::NoContent(_) => "choose a directory that pulls used with --content",
            StoreError::NoSuchImage(_) => "run `rpull images` to list the images of the store",
            StoreError::NoSuchMount(_) => "run `rpull mounts` to list the writable mounts",
            StoreError::NoSuchSource(_) => {
                "run `rpull images` to list the images of the store, and `rpull mounts` the writable mounts"
            }
            StoreError::MountNameTaken { name, .. } => {
                return Some(format!(
                    "choose another name; or mount it again with `rpull mount {name} DIR`, or remove it with \
                     `rpull mounts rm {name}`"
                ));
            }
            StoreError::MountInUse { act: "remove", name, .. } => {
                return Some(format!(
                    "end what uses it; or unmount and remove it with `rpull mounts rm --force {name}`"
                ));
            }
            StoreError::MountInUse { name, .. } => {
                return Some(format!("unmount it first with `rpull umount {name}`, or end what uses it"));
            }
            StoreError::MountBase { image, .. } => {
                return Some(format!("pull {image} again; the changes are kept"));
            }
            StoreError::NoSuchLayer { image, .. } => {
                return Some(format!("run `rpull layers {image}` to list its layers"));
            }
            StoreError::AmbiguousLayer { .. } => {
                "give more digits of the id, the chain id, or the position with --at-layer"
            }
            StoreError::Ambiguous { .. } => "give more digits of the id",
            StoreError::InUse { by, .. } => return Some(hint_in_use(by)),
            StoreError::SeveralNames { names, .. } => {
                let name = names.first().map_or("NAME", String::as_str);
                return Some(format!(
                    "remove one name with `rpull rm {name}`, or all of them with --force"
                ));
            }
            StoreError::FileSystem { file_system, .. } if file_system == "overlayfs" => {
                "choose a --root on a volume or tmpfs: a container's own files, where the default root is, \
                 are on overlayfs; for example, docker run -v images:/images, and --root /images"
            }
            StoreError::FileSystem { .. } => {
                "choose a --root on ext4, xfs with ftype=1, btrfs or tmpfs"
            }
            StoreError::NotMounted(_) => "run `rpull mounts` to list what is mounted",
            StoreError::ForeignMount { .. } => {
                "use umount(8); or choose the store of the image with --root"
            }
            StoreError::DamagedNames { .. } => {
                "restore this file from a backup, or move it away and pull the images again"
            }
            StoreError::Damaged { .. } => "pull the image again, which repairs the store",
            StoreError::Reference(_) => {
                "use a name like nginx, nginx:1.27 or quay.io/org/image@sha256:<digest>"
            }
            _ => return None,
        }
        .to_owned(),
    )
}

fn hint_namespace(error: &NamespaceError) -> Option<String> {
    Some(match error {
        NamespaceError::NotNeeded => {
            "run the command without `rpull unshare`, which is for users without root".to_owned()
        }
        NamespaceError::Refused { setting: Some(setting), .. } => format!(
            "as root, permit it with `sysctl -w {}`; see docs/rootless.md",
            setting.permitted
        ),
        NamespaceError::Refused { .. } => {
            "in a container, permit it with --security-opt seccomp=unconfined, or run rpull outside of it; see \
             docs/rootless.md"
                .to_owned()
        }
        _ => return None,
    })
}

fn hint_in_use(by: &ImageUser) -> String {
    match by {
        ImageUser::Mount(at) => format!("unmount it with `rpull umount {at}`"),
        ImageUser::Writable(name) => {
            format!("remove the writable mount with its changes: `rpull umount --discard {name}`")
        }
        ImageUser::Container(id) => format!("remove the container with `docker rm {id}`"),
        ImageUser::Image(id) => format!("remove that image first: `rpull rm {id}`"),
        _ => "remove what uses it first".to_owned(),
    }
}

fn hint_manifest(error: &ManifestError) -> &'static str {
    match error {
        ManifestError::NoPlatform { .. } => "choose one of the offered platforms with --platform",
        ManifestError::OtherPlatform { .. } => {
            "the image exists for this platform only; leave out --platform to pull it"
        }
        ManifestError::Schema1 => "ask its publisher to push the image again with a current tool",
        ManifestError::NotAnImage { what: "a Helm chart", .. } => {
            "use `helm pull oci://REFERENCE`: rpull pulls container images only"
        }
        ManifestError::NotAnImage { what: "a Docker plugin", .. } => {
            "use `docker plugin install`: rpull pulls container images only"
        }
        ManifestError::NotAnImage { .. } | ManifestError::MediaType(_) => {
            "check the name and tag: rpull pulls container images only"
        }
        ManifestError::Layer { .. } => {
            "ask the publisher for an image whose layers are tar archives (plain, gzip or zstd)"
        }
        ManifestError::TooManyLayers(_) => "ask the publisher for an image with fewer layers",
        _ => INVALID_IMAGE,
    }
}

fn hint_layer(error: &LayerError, kind: ErrorKind) -> Option<String> {
    Some(match error {
        LayerError::Limit { what, .. } => {
            format!("if you trust the image, raise the limit with {}", limit_flag(*what))
        }
        LayerError::Digest { .. } | LayerError::Size { .. } => ALTERED.to_owned(),
        LayerError::Damaged { .. } => "pull the image again, which repairs the store".to_owned(),
        LayerError::Compression(_) => {
            "ask the publisher for an image with gzip or zstd layers".to_owned()
        }
        LayerError::Write { .. } if kind == ErrorKind::Integrity => INVALID_IMAGE.to_owned(),
        LayerError::Write { source, .. }
        | LayerError::Open { source, .. }
        | LayerError::Source(source)
        | LayerError::TarSplit(source) => return hint_storage(source),
        LayerError::Thread { .. } => NO_THREADS.to_owned(),
        LayerError::Cancelled | LayerError::WindowInUse(_) => return None,
        _ => INVALID_IMAGE.to_owned(),
    })
}

fn hint_storage(source: &io::Error) -> Option<String> {
    Some(
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space or choose another --root, then retry; complete layers are kept"
            }
            io::ErrorKind::PermissionDenied => {
                "run as the owner of the root, or choose another with --root"
            }
            io::ErrorKind::ReadOnlyFilesystem => "choose a writable directory with --root",
            _ => return None,
        }
        .to_owned(),
    )
}

fn hint_registry(error: &RegistryError) -> Option<String> {
    Some(
        match error {
            RegistryError::NotFound { what, .. } if what.starts_with("repository ") => {
                "create the repository at the registry, or check its name"
            }
            RegistryError::NotFound { .. } => "check the name and tag",
            RegistryError::PushDenied { .. } => {
                "log in with an account that may push there (docker login, podman login), or give the image another name with `rpull tag`"
            }
            RegistryError::PushRefused { status: 413, .. } => {
                "raise the limit on the size of requests at the registry or at the proxy before it"
            }
            RegistryError::PushRefused { status: 405, .. } => {
                "the registry accepts no pushes, because it is read-only or a mirror: push to another one"
            }
            RegistryError::PushRefused { .. } => {
                "check what the registry accepts; --manifest-format chooses another manifest"
            }
            RegistryError::Denied { .. } => {
                "check the name; for a private repository, log in (docker login, podman login) or give --username and --password-stdin"
            }
            RegistryError::Unauthorized { source_of: None, .. } => {
                "log in (docker login, podman login) or give --username and --password-stdin"
            }
            RegistryError::Unauthorized { source_of: Some(from), .. } => {
                return Some(format!(
                    "the registry rejected the credentials from {from}: correct them or log in again"
                ));
            }
            RegistryError::Token { status: 401 | 403, .. } => {
                "the token server rejected the credentials: log in again"
            }
            RegistryError::Token { status: 0 | 300..=399 | 500.., .. } => {
                "check that the token server is running and that no proxy interferes, then retry"
            }
            RegistryError::InsecureRealm { realm, .. } if realm.starts_with("https:") => {
                "put the token server's certificate into a certs.d directory, or name the token server with --insecure"
            }
            RegistryError::InsecureRealm { https: true, .. } => {
                "ask the registry's administrator for an https:// realm; pull public images without credentials"
            }
            RegistryError::InsecureRealm { https: false, .. } => {
                "if you trust the network, give --plain-http"
            }
            RegistryError::InsecureRedirect { .. } => {
                "ask the registry's administrator to redirect to https://; if you trust the network, --plain-http uses plain HTTP for everything"
            }
            RegistryError::Tls { host, problem, certs_dir, .. } => {
                return Some(tls::hint(problem, host, certs_dir.as_deref()));
            }
            RegistryError::Certificates { .. } => {
                "name CA certificates *.crt, a client certificate X.cert and its key X.key, all in PEM format"
            }
            RegistryError::Network { proxy: Some(variable), host, .. } => {
                let name = host.split(':').next().unwrap_or(host);
                return Some(format!(
                    "check the proxy that {variable} names, or add {name} to NO_PROXY"
                ));
            }
            RegistryError::Status { status: 407, .. } => {
                "put user and password into the proxy's URL: http://USER:PASSWORD@HOST:PORT"
            }
            RegistryError::Proxy { .. } => {
                "use a URL like http://proxy.example:3128 or socks5h://proxy.example:1080"
            }
            RegistryError::Html { .. } => {
                "check that the host is a registry; if the network has a login page, log in there, then retry"
            }
            RegistryError::NoHelper { program, file } => {
                return Some(format!(
                    "install {program}; or remove it from {file} and log in again (docker login, podman login)"
                ));
            }
            RegistryError::Credentials { .. } => {
                "correct or remove it, or log in again (docker login, podman login)"
            }
            RegistryError::Network { down: true, .. } => {
                "check the registry's name and port, and that it is running"
            }
            RegistryError::Outage { .. } => {
                "run the command again when the host answers: complete layers are kept; --outage-timeout waits longer"
            }
            RegistryError::RateLimited { .. } => {
                "log in for a higher limit, or retry later; complete layers are kept"
            }
            RegistryError::Size { .. } | RegistryError::Digest { .. } => ALTERED,
            RegistryError::TooLarge { .. } => "check that the host is a registry",
            RegistryError::Network { .. }
            | RegistryError::Status { .. }
            | RegistryError::Protocol { .. } => {
                "check that the host is a registry and that no proxy interferes, then retry"
            }
            _ => return None,
        }
        .to_owned(),
    )
}

/// Returns the flag that changes a limit.
fn limit_flag(what: LimitKind) -> &'static str {
    match what {
        LimitKind::Bytes => "--max-layer-size",
        LimitKind::Ratio => "--max-ratio",
        LimitKind::Entries => "--max-entries",
        LimitKind::Depth => "--max-path-depth",
        LimitKind::Pax => "--max-pax-size",
        LimitKind::ImageBytes => "--max-image-size",
        LimitKind::ImageEntries => "--max-image-entries",
        _ => "the limits of `rpull pull --help`",
    }
}

#[cfg(test)]
mod tests;
