//! `rpull load`: images from an archive.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc;

use clap::{Args, ValueHint};
use serde_json::json;

use rpull::event::Event;
use rpull::{
    Archive, ArchiveLocation, ArchivedImage, Client, Error, LoadedImage, Platform, Reference, Store,
};

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{LimitFlags, PlatformFlag, Progress};
use crate::cli::{output, render};

const EXAMPLES: &str = "\
Examples:
  rpull load -i images.tar.gz
  rpull load < images.tar                             # or from a pipe: docker save nginx | rpull load
  rpull load --platform linux/arm64 -i layout/        # an OCI image layout in a directory";

/// Load images from an archive of docker, podman or skopeo
///
/// The archive is a docker-archive or an OCI image layout, as a tar, which gzip or zstd may have
/// compressed, or as a directory. Layers that the store has are not unpacked again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Load {
    /// Read FILE, or the directory of an OCI image layout, instead of standard input
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    input: Option<PathBuf>,
    /// Keep compressed layers in the content store (for CI caches)
    #[arg(long)]
    keep_blobs: bool,
    /// Load into the root of another image store too (see docs/docker-29.md)
    #[arg(long)]
    force: bool,
    /// Flush everything to disk before exiting
    #[arg(long)]
    sync: bool,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    platform: PlatformFlag,
}

impl Load {
    /// Loads all images of the archive, and prints their names or IDs as docker does.
    ///
    /// # Errors
    /// The archive is invalid, or why the first image failed; the others are loaded all the same.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let platform = self.platform.parsed()?;
        let store = context.store()?;
        let images = self.open(&store)?.images(platform.as_ref())?;
        let results = self.load(context, &store, &images, platform)?;
        let several = images.len() > 1;
        let mut failures = Vec::new();
        for (image, result) in images.iter().zip(results) {
            match result {
                Ok(loaded) => show(context, image, &loaded)?,
                Err(error) => failures.push(Failure::of_image(error, image.reference(), several)),
            }
        }
        Failure::any(failures)
    }

    fn open(&self, store: &Store) -> Result<Archive, Error> {
        let limits = self.limits.parsed();
        match &self.input {
            Some(path) => store.open_archive(&ArchiveLocation::of_path(path), &limits),
            None if io::stdin().is_terminal() => Err(Error::Usage(TERMINAL.to_owned())),
            None => store.read_archive(io::stdin().lock(), &limits),
        }
    }

    fn load(
        &self,
        context: &Context,
        store: &Store,
        images: &[ArchivedImage],
        platform: Option<Platform>,
    ) -> Result<Vec<Result<LoadedImage, Error>>, Error> {
        let names: Vec<Reference> = images.iter().map(|image| image.reference().clone()).collect();
        let (sender, events) = mpsc::channel::<Event>();
        // Only warnings are shown.
        let screen = render::start(render::choose(Progress::None, false, false, &names), events)?;
        let pull = Client::default()
            .pull_all([])
            .keep_blobs(self.keep_blobs)
            // The default root is rpull's own.
            .force(self.force || context.global.root.is_none())
            .sync(self.sync)
            .limits(self.limits.parsed())
            .events(move |event| drop(sender.send(event)));
        let pull = images.iter().cloned().fold(pull, rpull::Pull::and_archived);
        let pull = match platform {
            Some(platform) => pull.platform(platform),
            None => pull,
        };
        let runtime = runtime()?;
        let results = runtime.block_on(interruptible(pull.load_into(store)));
        // Blocking work that was given up ends here, and removes what it had begun.
        drop(runtime);
        let _ = screen.join();
        results?
    }
}

/// docker's words.
const TERMINAL: &str = "requested load from stdin, but stdin is empty: use -i FILE, or a pipe";

fn show(context: &Context, image: &ArchivedImage, loaded: &LoadedImage) -> Result<(), Error> {
    if context.json() {
        return output::json_line(&json!({
            "id": loaded.id,
            "names": image.names().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "digest": image.digest(),
        }));
    }
    for (name, before) in &loaded.replaced {
        let text = format!(
            "The image {name} already exists, renaming the old one with ID {before} to empty string"
        );
        output::line(text)?;
    }
    match image.names() {
        [] => output::line(format_args!("Loaded image ID: {}", loaded.id)),
        names => {
            names.iter().try_for_each(|name| output::line(format_args!("Loaded image: {name}")))
        }
    }
}
