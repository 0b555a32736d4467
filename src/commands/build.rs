//! `rpull build`: builds an image from a Dockerfile.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use rpull::error::StoreError;
use rpull::{
    BaseImage, BuildHost, Container, ContainerEnd, ContainerStdin, Error, OciRuntime, Policy,
    PreparedBuild, Reference,
};

use super::run::supervise;
use super::signals::Interruption;
use super::{Context, pull};
use crate::cli::failure::Failure;
use crate::cli::flags::{PlatformFlag, RegistryFlags};
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull build -t app:1 .
  rpull build -t app -f docker/Dockerfile --build-arg VERSION=2 .
  rpull build --target test -q .      # prints the ID of the image

The first of crun, runc and youki in PATH runs the commands of RUN, as for `rpull run`. A command that
fails ends the build with its exit code.";

/// Build an image from a Dockerfile, as docker's classic builder does
///
/// Each instruction gives an image, and a later build uses it again if nothing changed. RUN has
/// the network of the machine. What needs BuildKit is refused before the first step.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Build {
    /// Name the image (without TAG: latest; can be repeated)
    #[arg(long, short, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Use this Dockerfile [default: DIR/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set an argument of the Dockerfile; without =VALUE, to what it is in this environment (can be
    /// repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// End with this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run all instructions again
    #[arg(long)]
    no_cache: bool,
    /// Pull the images of FROM, also those that are in the store
    #[arg(long)]
    pull: bool,
    /// Run the commands with this OCI runtime: a program in PATH, or a path
    #[arg(long, value_name = "PROGRAM", env = "RPULL_RUNTIME")]
    runtime: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    platform: PlatformFlag,
    /// The context: the directory with the files of the build
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

impl Build {
    /// Builds the image.
    ///
    /// # Errors
    /// The Dockerfile is invalid, a command failed, or an image cannot be pulled.
    pub fn run(&self, context: &Context) -> Result<ExitCode, Failure> {
        let runtime = OciRuntime::find(self.runtime.as_deref())?;
        let prepared = self.prepared(context)?;
        for image in prepared.images() {
            self.provide(context, image)?;
        }
        let mut host = Host {
            lines: !context.global.quiet && !context.json(),
            output: match (context.json(), context.global.quiet) {
                (_, true) => Some(Arc::new(output::nothing()?)),
                (true, false) => Some(Arc::new(output::error_file()?)),
                (false, false) => None,
            },
            interruption: Interruption::watch()?,
        };
        let built = prepared.run(&runtime, &mut host).map_err(|error| match error {
            Error::BuildCommand { code, .. } => Failure::from(error).with_code(code),
            error => error.into(),
        })?;
        let id = built.image.id();
        if context.json() {
            let names: Vec<String> = built.names.iter().map(ToString::to_string).collect();
            output::json_line(&json!({"id": id, "references": names}))?;
        } else if context.global.quiet {
            output::line(format_args!("{id}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn prepared(&self, context: &Context) -> Result<PreparedBuild, Failure> {
        let mut build = context.store()?.build(&self.dir).no_cache(self.no_cache);
        for tag in &self.tag {
            build = build.tag(tag.parse::<Reference>().map_err(Error::from)?);
        }
        for arg in &self.build_arg {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), std::env::var(arg).ok()),
            };
            if let Some(value) = value {
                build = build.arg(name, value);
            }
        }
        if let Some(file) = &self.file {
            build = build.file(file);
        }
        if let Some(target) = &self.target {
            build = build.target(target);
        }
        Ok(build.prepare()?)
    }

    /// Pulls an image, unless the store has it.
    fn provide(&self, context: &Context, image: &BaseImage) -> Result<(), Failure> {
        let found = context.store()?.image(&image.name);
        let policy = match found {
            Err(Error::Store(StoreError::NoSuchImage(_) | StoreError::NoStore(_))) => {
                Policy::Missing
            }
            Err(error) => return Err(error.into()),
            Ok(_) if self.pull => Policy::Always,
            Ok(_) => return Ok(()),
        };
        let platform = image.platform.as_ref().map(ToString::to_string);
        let platform =
            PlatformFlag { platform: platform.or_else(|| self.platform.platform.clone()) };
        pull::needed(context, &image.name, policy, &self.registry, &platform)
    }
}

/// Prints what docker prints.
struct Host {
    lines: bool,
    output: Option<Arc<File>>,
    interruption: Interruption,
}

impl BuildHost for Host {
    fn line(&mut self, text: &str) -> Result<(), Error> {
        if self.lines { output::line(text) } else { Ok(()) }
    }

    fn output(&self) -> Result<Option<Arc<File>>, Error> {
        Ok(self.output.clone())
    }

    fn run(
        &mut self,
        start: &mut dyn FnMut() -> Result<Container, Error>,
    ) -> Result<ContainerEnd, Error> {
        let ended = supervise(ContainerStdin::Null, start)?;
        ended.messages.iter().for_each(|message| output::notice(message));
        Ok(ended)
    }

    fn check(&self) -> Result<(), Error> {
        self.interruption.check()
    }
}
