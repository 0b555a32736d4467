//! `rpull copy SRC DST`: copy an image from registry to registry.

use std::sync::mpsc;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{Progress, RegistryFlags};
use crate::cli::{names, output, render};

const EXAMPLES: &str = "\
Examples:
  rpull copy debian:12 registry.example/mirror/debian:12
  rpull copy registry.example/app:1.4 registry.example/stable/app   # mounts, no transfer
  rpull copy --platform linux/arm64 nginx localhost:5000/nginx:arm64";

/// Copy an image from registry to registry, without unpacking it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Copy {
    /// The image to copy, with all platforms, signatures and other referrers
    #[arg(value_name = "SRC")]
    source: String,
    /// The reference of the copy (without TAG: that of SRC)
    #[arg(value_name = "DST")]
    target: String,
    /// Copy up to N blobs in parallel
    #[arg(long, short, env = "RPULL_PUSH_JOBS", default_value_t = rpull::Copy::DEFAULT_JOBS, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    jobs: usize,
    /// Copy only the image for this platform, such as linux/arm64 [default: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Choose how to show the progress
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Output")]
    progress: Progress,
}

impl Copy {
    /// Copies the image.
    ///
    /// # Errors
    /// The source does not exist or is damaged, or the target does not accept it; or the progress could
    /// not be written.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let (source, target) = (names::reference(&self.source)?, names::reference(&self.target)?);
        let platform = self.platform.as_deref().map(str::parse).transpose();
        let platform = platform.map_err(rpull::Error::from)?;
        let client = self.registry.client()?;
        let mut copy = client.copy(source.clone(), target).jobs(self.jobs);
        let images = [copy.target()?];
        let renderer = render::choose(self.progress, context.global.quiet, context.json(), &images);
        let (sender, events) = mpsc::channel();
        // The screen may be gone; the copy goes on.
        let receive = move |event| drop(sender.send(event));
        copy = copy.events(receive);
        if let Some(platform) = platform {
            copy = copy.platform(platform);
        }
        let screen = render::start(renderer, events)?;
        let runtime = runtime()?;
        let copied = runtime.block_on(interruptible(copy.run()));
        drop(runtime);
        // The screen shows what is left to show.
        let shown = screen.join().unwrap_or(Ok(()));
        copied?.map_err(|error| Failure::of_image(error, &source, false))?;
        Ok(output::printed(shown)?)
    }
}
