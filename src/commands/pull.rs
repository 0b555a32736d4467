//! `rpull IMAGE...`: pull images.

use std::sync::mpsc;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use rpull::{Client, Error, Limits, Platform, Policy, Reference};

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{PlatformFlag, Progress, RegistryFlags};
use crate::cli::{names, output, render};

const EXAMPLES: &str = "\
Examples:
  rpull nginx
  rpull --root /var/lib/docker nginx@sha256:...
  rpull --policy missing --platform linux/arm64 nginx debian:12
  rpull --content ~/.cache/rpull --keep-blobs nginx   # cache layers in CI";

/// Pull images into the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    /// The images: [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Download and unpack up to N layers in parallel
    #[arg(long, short, env = "RPULL_JOBS", default_value_t = rpull::Pull::DEFAULT_JOBS, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    jobs: usize,
    /// Choose when to contact the registry
    #[arg(long, value_enum, default_value_t)]
    policy: When,
    /// Show what would be downloaded, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep compressed layers in the content store (for CI caches)
    #[arg(long)]
    keep_blobs: bool,
    /// Pull into the root of another image store too (see docs/docker-29.md)
    #[arg(long)]
    force: bool,
    /// Flush everything to disk before exiting
    #[arg(long)]
    sync: bool,
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
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    platform: PlatformFlag,
    /// Choose how to show the progress
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Output")]
    progress: Progress,
}

/// When the registry is contacted.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum When {
    /// For every tag, since tags can move; not for a digest that is in the store
    #[default]
    Always,
    /// Only if the image is not in the store, nor complete in the content store
    Missing,
    /// Offline: fail if the image is not in the store, nor complete in the content store
    Never,
}

impl Pull {
    /// Pulls all images; fails as the first that failed.
    ///
    /// # Errors
    /// Why the first image failed; the others are pulled all the same. Or the progress could not be
    /// written.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let names = self.images.iter().map(|name| names::reference(name));
        let images: Vec<Reference> = names.collect::<Result<_, _>>()?;
        let platform = self.platform.parsed()?;
        let (store, client) = (context.store()?, self.registry.client()?);
        let renderer = render::choose(self.progress, context.global.quiet, context.json(), &images);
        let (sender, events) = mpsc::channel();
        // The screen may be gone; the pull goes on.
        let receive = move |event| drop(sender.send(event));
        // The default root is rpull's own.
        let force = self.force || context.global.root.is_none();
        let pull = self.prepared(client, images.clone(), platform).force(force).events(receive);
        let screen = render::start(renderer, events)?;
        let runtime = runtime()?;
        let results = runtime.block_on(interruptible(async {
            match self.dry_run {
                true => pull.dry_run(&store).await,
                false => {
                    let results = pull.all_into(&store).await?;
                    Ok(results.into_iter().map(|result| result.map(drop)).collect())
                }
            }
        }));
        // Blocking work that was given up ends here, and removes what it had begun.
        drop(runtime);
        // The screen shows what is left to show.
        let shown = screen.join().unwrap_or(Ok(()));
        verdict(&images, results??)?;
        Ok(output::printed(shown)?)
    }

    fn prepared(
        &self,
        client: Client,
        images: Vec<Reference>,
        platform: Option<Platform>,
    ) -> rpull::Pull {
        let limits = Limits {
            bytes: self.max_layer_size,
            ratio: self.max_ratio,
            entries: self.max_entries,
            depth: self.max_path_depth,
            pax: self.max_pax_size,
            image_bytes: self.max_image_size,
            image_entries: self.max_image_entries,
        };
        let pull = client
            .pull_all(images)
            .jobs(self.jobs)
            .policy(match self.policy {
                When::Always => Policy::Always,
                When::Missing => Policy::Missing,
                When::Never => Policy::Never,
            })
            .keep_blobs(self.keep_blobs)
            .sync(self.sync)
            .limits(limits);
        match platform {
            Some(platform) => pull.platform(platform),
            None => pull,
        }
    }
}

fn verdict(images: &[Reference], results: Vec<Result<(), Error>>) -> Result<(), Failure> {
    let several = images.len() > 1;
    let failures = images.iter().zip(results).filter_map(|(image, result)| {
        result.err().map(|error| Failure::of_image(error, image, several))
    });
    Failure::any(failures)
}
