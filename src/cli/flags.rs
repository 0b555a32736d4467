//! The commands, and the flags that several of them share.
//!
//! The flags of `Global` are flags of every command. Any flag may stand before the name of its
//! command: `words` moves it behind.
//!
//! The doc comments are the help texts: they speak to the user in the imperative.

use std::path::PathBuf;

use clap::builder::Styles;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use rpull::Limits;

use super::format::Format;
use crate::commands;

const EXAMPLES: &str = "\
Examples:
  rpull nginx
  rpull --root /var/lib/docker nginx:1.27 quay.io/org/image@sha256:...
  rpull images
  rpull mount nginx /mnt

Run `rpull COMMAND --help` for the options and examples of a command.";

/// The text after the name in `--version`. A packager can set `RPULL_VERSION` at build time to add a
/// commit. A build script that asks git would rebuild the library with every commit.
const VERSION: &str = match option_env!("RPULL_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Pull container images into Docker's own on-disk layout, without a daemon.
#[derive(Debug, Parser)]
#[command(name = "rpull", version = VERSION, max_term_width = 100)]
// Output escapes control characters, and cannot tell the parser's colours from others.
#[command(styles = Styles::plain())]
#[command(override_usage = "rpull [OPTIONS] IMAGE...\n       rpull [OPTIONS] COMMAND")]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// The first image, if no command was named.
    #[arg(skip)]
    pub first_image: Option<String>,
}

/// The commands, one file each in `commands`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull images into the store (the default: `rpull IMAGE...`)
    Pull(commands::pull::Pull),
    /// Push an image of the store to its registry
    Push(commands::push::Push),
    /// Copy an image from registry to registry, without unpacking it
    Copy(commands::copy::Copy),
    /// Print the digest that a reference currently resolves to
    Resolve(commands::resolve::Resolve),
    /// List the images in the store
    Images(commands::images::Images),
    /// Show details of images in the form of `docker inspect`
    Inspect(commands::inspect::Inspect),
    /// List the layers of an image with their IDs and directories
    Layers(commands::layers::Layers),
    /// Show the build history of an image
    History(commands::history::History),
    /// List files of an image or a writable mount
    Ls(commands::ls::Ls),
    /// Print files of an image or a writable mount
    Cat(commands::cat::Cat),
    /// Copy files of an image or a writable mount, as `docker cp` does
    Cp(commands::cp::Cp),
    /// Write the files of an image or a writable mount as a tar stream
    Export(commands::export::Export),
    /// Mount the file system of an image
    Mount(commands::mount::Mount),
    /// List the mounts of images, and the writable mounts that are not mounted
    Mounts(commands::mounts::Mounts),
    /// List what changed in a writable mount, or from one image to another
    Diff(commands::diff::Diff),
    /// Unmount images
    #[command(alias = "unmount")]
    Umount(commands::umount::Umount),
    /// Run a command in a new container of an image
    Run(commands::run::Run),
    /// Build an image from a Dockerfile, as docker's classic builder does
    Build(commands::build::Build),
    /// Write an OCI bundle of an image, for an OCI runtime
    Bundle(commands::bundle::Bundle),
    /// Create an image from the changes of a writable mount
    Commit(commands::commit::Commit),
    /// Run a command in a user namespace, where it may mount without root
    Unshare(commands::unshare::Unshare),
    /// Remove images from the store
    #[command(alias = "rmi")]
    Rm(commands::rm::Rm),
    /// Save images to an archive that docker, podman and skopeo read
    Save(commands::save::Save),
    /// Load images from an archive of docker, podman or skopeo
    Load(commands::load::Load),
    /// Add a tag to an image
    Tag(commands::tag::Tag),
    /// Find damage of the store, and repair it
    Check(commands::check::Check),
    /// Show the space that images, layers and orphans take
    Df(commands::df::Df),
    /// Remove what no image needs: orphaned layers, directories, downloads
    Gc(commands::gc::Gc),
    /// Remove images that were not used for long
    Prune(commands::prune::Prune),
    /// Print a script that completes commands, flags and images in a shell
    Completions(commands::completions::Completions),
    /// Write the manual pages to a directory
    #[cfg(feature = "man")]
    #[command(hide = true)]
    Man(commands::man::Man),
}

/// Flags of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Use the store in DIR: a Docker data root, such as /var/lib/docker [default: your data
    /// directory]
    #[arg(long, global = true, env = "RPULL_ROOT", value_name = "DIR", help_heading = "Store")]
    pub root: Option<PathBuf>,
    /// Store manifests, configs and blobs of --keep-blobs in DIR, which several roots can share
    #[arg(long, global = true, env = "RPULL_CONTENT", value_name = "DIR", help_heading = "Store")]
    pub content: Option<PathBuf>,
    /// Print only what a script needs: names, IDs or paths
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Log to standard error which hosts, sources of credentials and stored content are used; -vv:
    /// also each request and its time [env: RPULL_LOG=LEVEL or MODULE=LEVEL,...]
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Choose the format of results: text, json, a Go template such as '{{.ID}}' (images, history,
    /// inspect), or the archive to write: oci or docker (save)
    #[arg(
        long,
        global = true,
        value_parser = Format::parse,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub format: Format,
}

/// Flags of the commands that send requests to registries.
#[derive(Debug, Clone, Args)]
pub struct RegistryFlags {
    /// Use plain HTTP for all registries (not needed for loopback registries)
    #[arg(long, help_heading = "Registry")]
    pub plain_http: bool,
    /// Accept any certificate of HOST, and use plain HTTP if it does not speak TLS (can be repeated)
    #[arg(
        long,
        env = "RPULL_INSECURE",
        value_name = "HOST[:PORT]",
        value_delimiter = ',',
        value_parser = insecure_host,
        help_heading = "Registry"
    )]
    pub insecure: Vec<String>,
    /// Log in as NAME; needs --password-stdin or RPULL_PASSWORD
    #[arg(long, env = "RPULL_USERNAME", value_name = "NAME", help_heading = "Registry")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username", help_heading = "Registry")]
    pub password_stdin: bool,
    /// Read credentials from FILE, in the format of auth.json [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    pub auth_file: Option<PathBuf>,
    /// Search DIR first for HOST[:PORT]/*.crt, *.cert and *.key (can be repeated)
    #[arg(long, value_name = "DIR", help_heading = "Registry")]
    pub certs_dir: Vec<PathBuf>,
    /// Retry a failed request up to N times in a row
    #[arg(
        long,
        env = "RPULL_RETRIES",
        default_value_t = 5,
        value_name = "N",
        help_heading = "Registry"
    )]
    pub retries: u32,
    /// Wait this long for a host that answered before and then sends nothing
    #[arg(
        long,
        env = "RPULL_OUTAGE_TIMEOUT",
        default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(0..=86400),
        value_name = "SECONDS",
        help_heading = "Registry"
    )]
    pub outage_timeout: u64,
    /// Abandon a request that receives nothing for this long
    #[arg(
        long,
        env = "RPULL_STALL_TIMEOUT",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3600),
        value_name = "SECONDS",
        help_heading = "Registry"
    )]
    pub stall_timeout: u64,
}

/// Checks the form of a host, which is compared with those of references.
fn insecure_host(text: &str) -> Result<String, String> {
    let unusual = |c: char| c.is_whitespace() || matches!(c, '/' | '@' | '*' | '?' | '#');
    match text {
        "" => Err("the host is empty".to_owned()),
        text if text.contains(unusual) => {
            Err("give HOST or HOST:PORT alone, such as registry.lan:5000".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

/// The flag of the commands that choose an image of an index.
#[derive(Debug, Clone, Args)]
pub struct PlatformFlag {
    /// Select the platform of a multi-platform image, such as linux/arm64 [default: this machine's]
    #[arg(
        long,
        env = "RPULL_PLATFORM",
        value_name = "OS/ARCH[/VARIANT]",
        help_heading = "Registry"
    )]
    pub platform: Option<String>,
}

/// The limits that protect against archive bombs.
#[derive(Debug, Clone, Args)]
pub struct LimitFlags {
    /// Refuse layers that unpack to more than BYTES
    #[arg(long, default_value_t = Limits::default().bytes, value_name = "BYTES", help_heading = "Limits", hide_short_help = true)]
    max_layer_size: u64,
    /// Refuse layers over 1 GiB that unpack to more than N times their compressed size
    #[arg(long, default_value_t = Limits::default().ratio, value_name = "N", help_heading = "Limits", hide_short_help = true)]
    max_ratio: u64,
    /// Refuse layers with more than N entries
    #[arg(long, default_value_t = Limits::default().entries, value_name = "N", help_heading = "Limits", hide_short_help = true)]
    max_entries: u64,
    /// Refuse layers with paths of more than N components
    #[arg(long, default_value_t = Limits::default().depth, value_name = "N", help_heading = "Limits", hide_short_help = true)]
    max_path_depth: usize,
    /// Refuse layers with PAX headers of more than BYTES
    #[arg(long, default_value_t = Limits::default().pax, value_name = "BYTES", help_heading = "Limits", hide_short_help = true)]
    max_pax_size: u64,
    /// Refuse images whose new layers unpack to more than BYTES together
    #[arg(long, default_value_t = Limits::default().image_bytes, value_name = "BYTES", help_heading = "Limits", hide_short_help = true)]
    max_image_size: u64,
    /// Refuse images whose new layers have more than N entries together
    #[arg(long, default_value_t = Limits::default().image_entries, value_name = "N", help_heading = "Limits", hide_short_help = true)]
    max_image_entries: u64,
}

impl LimitFlags {
    /// Returns the limits.
    pub fn parsed(&self) -> Limits {
        Limits {
            bytes: self.max_layer_size,
            ratio: self.max_ratio,
            entries: self.max_entries,
            depth: self.max_path_depth,
            pax: self.max_pax_size,
            image_bytes: self.max_image_size,
            image_entries: self.max_image_entries,
        }
    }
}

/// The display of a pull's progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Progress bars on a terminal, otherwise plain
    #[default]
    Auto,
    /// Progress bars, on standard error
    Tty,
    /// One line per change, as `docker pull` prints them, on standard output
    Plain,
    /// One JSON object per line, on standard output
    Json,
    /// No progress
    None,
}
