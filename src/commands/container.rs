//! The flags of the commands that describe a container.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use rpull::{EnvChange, Error, LayerSelector, Network, RunOptions, Volume, parse_env_file};

/// Bytes of a file of variables at most.
const MAX_ENV_FILE: u64 = 1 << 20;

/// How a container differs from what its image says. The names are docker's.
#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// Name the writable mount [default: two random words]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Use only the lowest N layers of the image
    #[arg(long, value_name = "N")]
    at_layer: Option<usize>,
    /// Give the container a terminal: that of this command
    #[arg(long, short)]
    tty: bool,
    /// Set a variable; without =VALUE, to what it is in this environment (can be repeated)
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from FILE, one per line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Show a directory or file of the machine in the container; TARGET alone is a new directory that
    /// belongs to the container (can be repeated)
    #[arg(long, short, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,
    /// Start in DIR, which is created if it is missing
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user, by name or ID
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Replace the entry point of the image; '' removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set the host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Choose the network
    #[arg(long, alias = "network", value_enum, default_value_t)]
    net: Net,
    /// Give seccomp=unconfined to allow all system calls that the capabilities allow
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
}

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Net {
    /// A loopback device only
    #[default]
    None,
    /// That of the machine, with its services
    Host,
}

impl ContainerFlags {
    /// Returns what the flags say.
    ///
    /// # Errors
    /// A value has another form, or a file cannot be read.
    pub fn options(&self, command: &[String]) -> Result<RunOptions, Error> {
        let outside = |name: &str| std::env::var(name).ok();
        let mut options = RunOptions::default();
        for path in &self.env_file {
            let failed = |why: String| Error::Usage(format!("{}: {why}", path.display()));
            let bytes = rpull::internal::fsutil::read(path, MAX_ENV_FILE);
            let bytes = bytes.map_err(|e| failed(e.to_string()))?;
            let text =
                String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
            let changes = parse_env_file(&text, &outside).map_err(|e| failed(e.to_string()))?;
            options.env.extend(changes);
        }
        for text in &self.env {
            options.env.push(EnvChange::parse(text, &outside)?);
        }
        for text in &self.volume {
            options.volumes.push(Volume::parse(text)?);
        }
        for option in &self.security_opt {
            match option.as_str() {
                "seccomp=unconfined" => options.unconfined = true,
                other => {
                    let text = format!("--security-opt {other}: only seccomp=unconfined is known");
                    return Err(Error::Usage(text));
                }
            }
        }
        options.name.clone_from(&self.name);
        options.top = self.at_layer.map(LayerSelector::Position);
        options.command = command.to_vec();
        options.entrypoint.clone_from(&self.entrypoint);
        options.working_dir.clone_from(&self.workdir);
        options.user.clone_from(&self.user);
        options.hostname.clone_from(&self.hostname);
        options.read_only = self.read_only;
        options.terminal = self.tty;
        options.network = match self.net {
            Net::None => Network::None,
            Net::Host => Network::Host,
        };
        Ok(options)
    }
}
