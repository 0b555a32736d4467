//! `rpull run`: runs a command in a container of an image.

use std::process::ExitCode;

use clap::{Arg, ArgAction, Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use rpull::error::{StartFailure, StoreError};
use rpull::{Container, ContainerEnd, ContainerStdin, Error, Image, OciRuntime, Policy};

use super::container::ContainerFlags;
use super::{Context, pull};
use crate::cli::failure::Failure;
use crate::cli::flags::{PlatformFlag, RegistryFlags};
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull run --rm -it debian bash
  rpull run --rm -v ./src:/src -w /src --net host rust cargo build
  rpull run --name web nginx          # then: rpull diff web; rpull commit web new
  rpull run --rm --at-layer 2 nginx ls -l /

The first of crun, runc and youki in PATH runs the container. The exit code is that of COMMAND, or 128
and the number of the signal that killed it; 125 if rpull or the runtime failed, 126 if COMMAND cannot
be executed, and 127 if it does not exist.";

/// The exit code of a run that did not come to its command, as in docker.
const FAILED: u8 = 125;

/// Run a command in a new container of an image
///
/// Without COMMAND, the image's runs. An image that is not in the store is pulled. The changes are kept as a writable mount, like those of `rpull mount
/// --rw`; with --rm, they are removed. The container has no network; --net host gives it that of the
/// machine. -v means --volume here; use --verbose for a log.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
// Its short form is that of --volume here.
#[command(arg = Arg::new("verbose").long("verbose").action(ArgAction::Count)
    .help("Log to standard error what is used; twice: also each step").help_heading("Output"))]
pub struct Run {
    /// Remove the writable mount when the container has ended
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(long, short)]
    interactive: bool,
    /// Run the container with this OCI runtime: a program in PATH, or a path
    #[arg(long, value_name = "PROGRAM", env = "RPULL_RUNTIME")]
    runtime: Option<String>,
    /// Choose when to pull the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pull: Pull,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    platform: PlatformFlag,
    /// The image: a reference or an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// When an image is pulled before it runs.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Pull {
    /// Before each run, since tags can move
    Always,
    /// If the image is not in the store
    #[default]
    Missing,
    /// Not at all
    Never,
}

impl Run {
    /// Runs the container; returns the exit code of its command.
    ///
    /// # Errors
    /// The image is not in the store, or the container could not be started.
    pub fn run(&self, context: &Context) -> Result<ExitCode, Failure> {
        let image = self.image(context).map_err(|failure| failure.with_code(FAILED))?;
        let ended = self.ended(&image).map_err(|error| {
            let code = match &error {
                Error::Runtime { cause: StartFailure::NotFound, .. } => 127,
                Error::Runtime { cause: StartFailure::NotExecutable, .. } => 126,
                _ => FAILED,
            };
            Failure::from(error).with_code(code)
        })?;
        for message in &ended.messages {
            output::notice(message);
        }
        Ok(ExitCode::from(ended.code))
    }

    /// Finds the image, or pulls it.
    fn image(&self, context: &Context) -> Result<Image, Failure> {
        // Before a download.
        OciRuntime::find(self.runtime.as_deref())?;
        let policy = match self.pull {
            Pull::Always => Some(Policy::Always),
            Pull::Missing => Some(Policy::Missing),
            Pull::Never => None,
        };
        let found = context.store()?.image(&self.image);
        let absent =
            matches!(found, Err(Error::Store(StoreError::NoSuchImage(_) | StoreError::NoStore(_))));
        match policy {
            Some(policy) if absent || policy == Policy::Always => {
                pull::needed(context, &self.image, policy, &self.registry, &self.platform)?;
                Ok(context.store()?.image(&self.image)?)
            }
            _ => Ok(found?),
        }
    }

    fn ended(&self, image: &Image) -> Result<ContainerEnd, Error> {
        let mut options = self.container.options(&self.command)?;
        let runtime = OciRuntime::find(self.runtime.as_deref())?;
        options.remove = self.rm;
        let stdin = match (options.terminal, self.interactive, output::reads_terminal()) {
            (true, _, false) => {
                let text = "the input device is not a TTY, which -t needs".to_owned();
                return Err(Error::Usage(text));
            }
            (true, _, true) | (false, true, true) => ContainerStdin::Terminal,
            (false, true, false) => ContainerStdin::Inherit,
            (false, false, _) => ContainerStdin::Null,
        };
        supervise(stdin, || image.run(&options, &runtime, stdin))
    }
}

/// Signals that are passed on, besides those of keys.
const SIGNALS: [SignalKind; 4] = [
    SignalKind::hangup(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Signals that the keys of a terminal send, to the runtime as well if it reads the terminal.
const SIGNALS_OF_KEYS: [SignalKind; 2] = [SignalKind::interrupt(), SignalKind::quit()];

/// Starts a container, passes signals on to it, and waits for its end.
pub fn supervise(
    stdin: ContainerStdin,
    start: impl FnOnce() -> Result<Container, Error>,
) -> Result<ContainerEnd, Error> {
    let failed = |e: std::io::Error| Error::Other(format!("cannot wait for signals: {e}"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        // From here on, no signal ends this process before it has removed the container's files.
        let mut streams = Vec::new();
        for kind in SIGNALS.into_iter().chain(SIGNALS_OF_KEYS) {
            streams.push((kind, signal(kind).map_err(failed)?));
        }
        let container = start()?;
        for (kind, stream) in streams {
            let to_runtime = SIGNALS_OF_KEYS.contains(&kind) && stdin == ContainerStdin::Terminal;
            // Received, so that it has no other effect, and not sent a second time.
            let send = !to_runtime;
            tokio::spawn(pass_on(kind, stream, send.then(|| container.signals())));
        }
        let waited = tokio::task::spawn_blocking(move || container.wait()).await;
        waited.unwrap_or_else(|e| Err(Error::Internal(e.to_string())))
    })
}

async fn pass_on(kind: SignalKind, mut stream: Signal, to: Option<rpull::ContainerSignals>) {
    while stream.recv().await.is_some() {
        if let Some(to) = &to {
            to.send(kind.as_raw_value());
        }
    }
}
