//! `rpull IMAGE...`: pull images.

use std::sync::mpsc;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use rpull::{ArchivedImage, Client, Error, Platform, Policy, Reference, Store};

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{LimitFlags, PlatformFlag, Progress, RegistryFlags};
use crate::cli::names::{self, Named};
use crate::cli::{output, render};

const EXAMPLES: &str = "\
Examples:
  rpull nginx
  rpull --root /var/lib/docker nginx@sha256:...
  rpull --policy missing --platform linux/arm64 nginx debian:12
  rpull --content ~/.cache/rpull --keep-blobs nginx   # cache layers in CI
  rpull oci:layout:nginx:1.27                         # from an archive, as in skopeo";

/// Pull images into the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    /// The images: [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST], or oci:DIR[:NAME], oci-archive:FILE[:NAME],
    /// docker-archive:FILE[:NAME]
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
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    platform: PlatformFlag,
    /// Choose how to show the progress
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Output")]
    progress: Progress,
}

/// An image to pull.
enum Source {
    Registry(Reference),
    Archive(ArchivedImage),
}

impl Source {
    fn reference(&self) -> &Reference {
        match self {
            Self::Registry(reference) => reference,
            Self::Archive(image) => image.reference(),
        }
    }
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
        let names = self.images.iter().map(|name| names::source(name));
        let named: Vec<Named> = names.collect::<Result<_, _>>()?;
        let platform = self.platform.parsed()?;
        let (store, client) = (context.store()?, self.registry.client()?);
        let open = |named| self.open(&store, named, platform.as_ref());
        let sources = named.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let images: Vec<Reference> = sources.iter().map(|it| it.reference().clone()).collect();
        let renderer = render::choose(self.progress, context.global.quiet, context.json(), &images);
        let (sender, events) = mpsc::channel();
        // The screen may be gone; the pull goes on.
        let receive = move |event| drop(sender.send(event));
        // The default root is rpull's own.
        let force = self.force || context.global.root.is_none();
        let pull = self.prepared(client, sources, platform).force(force).events(receive);
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

    /// Opens the archive that was named.
    fn open(
        &self,
        store: &Store,
        named: Named,
        platform: Option<&Platform>,
    ) -> Result<Source, Error> {
        Ok(match named {
            Named::Reference(reference) => Source::Registry(reference),
            Named::Archive(location) => {
                let archive = store.open_archive(&location, &self.limits.parsed())?;
                Source::Archive(archive.image(location.name.as_deref(), platform)?)
            }
        })
    }

    fn prepared(
        &self,
        client: Client,
        sources: Vec<Source>,
        platform: Option<Platform>,
    ) -> rpull::Pull {
        let pull = sources.into_iter().fold(client.pull_all([]), |pull, source| match source {
            Source::Registry(reference) => pull.and(reference),
            Source::Archive(image) => pull.and_archived(image),
        });
        let pull = pull
            .jobs(self.jobs)
            .policy(match self.policy {
                When::Always => Policy::Always,
                When::Missing => Policy::Missing,
                When::Never => Policy::Never,
            })
            .keep_blobs(self.keep_blobs)
            .sync(self.sync)
            .limits(self.limits.parsed());
        match platform {
            Some(platform) => pull.platform(platform),
            None => pull,
        }
    }
}

/// Pulls an image that another command needs. Standard output belongs to that command, so only bars are
/// shown, on standard error.
///
/// # Errors
/// Why the pull failed.
pub fn needed(
    context: &Context,
    image: &str,
    policy: Policy,
    registry: &RegistryFlags,
    platform: &PlatformFlag,
) -> Result<(), Failure> {
    let images = [names::reference(image)?];
    let platform = platform.parsed()?;
    let (store, client) = (context.store()?, registry.client()?);
    let (sender, events) = mpsc::channel();
    let receive = move |event| drop(sender.send(event));
    // The default root is rpull's own.
    let force = context.global.root.is_none();
    let pull = client.pull_all(images.clone()).policy(policy).force(force).events(receive);
    let pull = match platform {
        Some(platform) => pull.platform(platform),
        None => pull,
    };
    let screen = render::start(render::beside_output(context.global.quiet, &images), events)?;
    let runtime = runtime()?;
    let results = runtime.block_on(interruptible(async { pull.all_into(&store).await }));
    drop(runtime);
    // A screen that is gone does not concern the command.
    let _ = screen.join();
    verdict(&images, results??.into_iter().map(|result| result.map(drop)).collect())
}

fn verdict(images: &[Reference], results: Vec<Result<(), Error>>) -> Result<(), Failure> {
    let several = images.len() > 1;
    let failures = images.iter().zip(results).filter_map(|(image, result)| {
        result.err().map(|error| Failure::of_image(error, image, several))
    });
    Failure::any(failures)
}
