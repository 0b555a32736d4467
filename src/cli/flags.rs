//! All flags. Those of `Global` go with every command, before or after its name.

use std::path::PathBuf;

use clap::builder::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Pull container images into Docker's own on-disk layout, without a daemon.
#[derive(Debug, Parser)]
#[command(name = "rpull", version = env!("RPULL_VERSION"), max_term_width = 100, arg_required_else_help = true)]
// Output escapes control characters, and cannot tell the parser's colours from others.
#[command(styles = Styles::plain())]
#[command(override_usage = "rpull [OPTIONS] IMAGE...\n       rpull [OPTIONS] COMMAND")]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, a file each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull images (the default: `rpull IMAGE...`)
    Pull(commands::pull::Pull),
    /// Print the digest that a registry answers for a name
    Resolve(commands::resolve::Resolve),
    /// List the images of the store
    Images(commands::images::Images),
    /// Show all about images, as `docker inspect` does
    Inspect(commands::inspect::Inspect),
    /// List the layers of an image with all their ids
    Layers(commands::layers::Layers),
    /// Show how an image was built
    History(commands::history::History),
    /// Mount an image's file system
    Mount(commands::mount::Mount),
    /// Unmount what `mount` mounted
    #[command(alias = "unmount")]
    Umount(commands::umount::Umount),
    /// Remove images
    #[command(alias = "rmi")]
    Rm(commands::rm::Rm),
    /// Give an image another name
    Tag(commands::tag::Tag),
}

/// Flags of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The store: a Docker data root, like /var/lib/docker
    #[arg(long, global = true, env = "RPULL_ROOT", value_name = "DIR", help_heading = "Store")]
    pub root: Option<PathBuf>,
    /// Keep manifests, configs and kept blobs in DIR instead of the root
    #[arg(long, global = true, env = "RPULL_CONTENT", value_name = "DIR", help_heading = "Store")]
    pub content: Option<PathBuf>,
    /// Speak HTTP to registries (loopback ones are spoken to so anyway)
    #[arg(long, global = true, help_heading = "Registry")]
    pub plain_http: bool,
    /// The platform to pull, like linux/arm64 [default: this machine's]
    #[arg(
        long,
        global = true,
        env = "RPULL_PLATFORM",
        value_name = "OS/ARCH[/VARIANT]",
        help_heading = "Registry"
    )]
    pub platform: Option<String>,
    /// The user for all registries of this command
    #[arg(
        long,
        global = true,
        env = "RPULL_USERNAME",
        value_name = "NAME",
        help_heading = "Registry"
    )]
    pub username: Option<String>,
    /// Read the password from standard input (or set RPULL_PASSWORD)
    #[arg(long, global = true, requires = "username", help_heading = "Registry")]
    pub password_stdin: bool,
    /// Read credentials from this auth.json [env: REGISTRY_AUTH_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Registry")]
    pub auth_file: Option<PathBuf>,
    /// Look for <host>/*.crt, *.cert, *.key here first (may be repeated)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Registry")]
    pub certs_dir: Vec<PathBuf>,
    /// Failures in a row before giving up
    #[arg(
        long,
        global = true,
        env = "RPULL_RETRIES",
        default_value_t = 5,
        value_name = "N",
        help_heading = "Registry"
    )]
    pub retries: u32,
    /// Seconds without an answer or a byte after which a request is given up
    #[arg(
        long,
        global = true,
        env = "RPULL_STALL_TIMEOUT",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3600),
        value_name = "SECONDS",
        help_heading = "Registry"
    )]
    pub stall_timeout: u64,
    /// Print only what a script needs
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// How a pull shows what it does
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "HOW",
        help_heading = "Output"
    )]
    pub progress: Progress,
    /// How results are printed
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub format: Format,
}

/// How a pull shows what it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, else lines
    #[default]
    Auto,
    /// Bars, on standard error
    Tty,
    /// A line a change, in Docker's words, on standard output
    Plain,
    /// A JSON object a line, on standard output
    Json,
    /// Nothing
    None,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}
