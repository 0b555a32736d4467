//! `rpull push NAME[:TAG]`: push an image of the store to a registry.

use std::sync::mpsc;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use rpull::{Error, ManifestFormat};

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{Progress, RegistryFlags};
use crate::cli::{names, output, render};

const EXAMPLES: &str = "\
Examples:
  rpull tag app registry.example/team/app:1.4 && rpull push registry.example/team/app:1.4
  rpull push --all-tags registry.example/team/app
  rpull --root /var/lib/docker push -q localhost:5000/app";

/// Push an image of the store to its registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Push {
    /// The reference, which names the registry (without TAG: latest)
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
    /// Push all tags of the repository NAME
    #[arg(long, short)]
    all_tags: bool,
    /// Push up to N layers in parallel
    #[arg(long, short, env = "RPULL_PUSH_JOBS", default_value_t = rpull::Push::DEFAULT_JOBS, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    jobs: usize,
    /// Write the manifest in this format [default: the format that the image was pulled with, or docker]
    #[arg(long, value_enum, value_name = "FORMAT")]
    manifest_format: Option<Kind>,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Choose how to show the progress
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Output")]
    progress: Progress,
}

/// The format of the manifest.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Docker's manifest version 2, schema 2
    Docker,
    /// The OCI image manifest
    Oci,
}

impl Push {
    /// Pushes the image.
    ///
    /// # Errors
    /// The image is not in the store, or the registry does not accept it; or the progress could not be
    /// written.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let image = names::reference(&self.image)?;
        let (store, client) = (context.store()?, self.registry.client()?);
        let images = match self.all_tags {
            // A reference of the store, so that the order of the results is known.
            true => {
                let of_repository = |name: &rpull::Reference| {
                    name.repository() == image.repository() && name.digest().is_none()
                };
                let mut tags = store.names()?;
                tags.retain(of_repository);
                tags.sort();
                tags
            }
            false => vec![image.clone()],
        };
        let renderer = render::choose(self.progress, context.global.quiet, context.json(), &images);
        let (sender, events) = mpsc::channel();
        // The screen may be gone; the push goes on.
        let receive = move |event| drop(sender.send(event));
        let mut push = client.push(image.clone()).jobs(self.jobs).events(receive);
        if let Some(format) = self.manifest_format {
            push = push.manifest_format(match format {
                Kind::Docker => ManifestFormat::Docker,
                Kind::Oci => ManifestFormat::Oci,
            });
        }
        let screen = render::start(renderer, events)?;
        let runtime = runtime()?;
        let results = runtime.block_on(interruptible(async {
            match self.all_tags {
                true => push.all_tags_from(&store).await,
                false => Ok(vec![push.from(&store).await]),
            }
        }));
        drop(runtime);
        // The screen shows what is left to show.
        let shown = screen.join().unwrap_or(Ok(()));
        let results: Vec<Result<_, Error>> = results??;
        let several = results.len() > 1;
        let failures = results.into_iter().zip(&images).filter_map(|(result, image)| {
            result.err().map(|error| Failure::of_image(error, image, several))
        });
        Failure::any(failures)?;
        Ok(output::printed(shown)?)
    }
}
