//! `rpull check`: find damage of the store, and repair it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use rpull::{CheckProgress, CheckReport, Damage, Error, Event, RepairReport, Store};

use super::{Context, interruptible, runtime};
use crate::cli::flags::RegistryFlags;
use crate::cli::output;

/// The interval between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  rpull check
  rpull --root /var/lib/docker check --deep
  rpull check --deep --repair nginx
  rpull check --format json          # for monitors; exits with 6 if anything is damaged";

/// Find damage of images, layers and kept content, and repair it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// Check only these images: references or IDs [default: everything in the store]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Verify the contents of all files, too
    #[arg(long)]
    deep: bool,
    /// Fetch what is damaged again, and put it in place
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Check {
    /// Prints one line per damaged file.
    ///
    /// # Errors
    /// Something is damaged, and was not repaired; or the store cannot be read.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let quiet = context.global.quiet;
        let check = self.images.iter().fold(store.check(), |check, image| check.image(image));
        let check = check.deep(self.deep).progress(progress(quiet));
        let report = check.run()?;
        if !self.repair || report.is_whole() {
            show(context, &store, &report)?;
            return verdict(&store, report.damage.len());
        }
        let client = self.registry.client()?;
        let runtime = runtime()?;
        let repair = client.repair(&check, &report, warn);
        let repaired = runtime.block_on(interruptible(repair))??;
        drop(runtime);
        show_repair(context, &report, &repaired)?;
        verdict(&store, repaired.remaining.len())
    }
}

fn verdict(store: &Store, count: usize) -> Result<(), Error> {
    match count {
        0 => Ok(()),
        count => Err(Error::DamagedStore { root: store.root().to_owned(), count }),
    }
}

/// Returns a receiver that prints a line at most once per interval.
fn progress(quiet: bool) -> impl Fn(CheckProgress) + Send + Sync + 'static {
    let last = Mutex::new(Instant::now());
    move |progress| {
        let Ok(mut last) = last.lock() else { return };
        let is_last = progress.done == progress.total;
        if !quiet && (is_last || last.elapsed() >= INTERVAL) {
            *last = Instant::now();
            output::notice(&format!(
                "verified {} of {} layers and blobs",
                progress.done, progress.total
            ));
        }
    }
}

fn warn(event: Event) {
    if let Event::Warning { text, .. } = event {
        output::warning(&text);
    }
}

fn show(context: &Context, store: &Store, report: &CheckReport) -> Result<(), Error> {
    if context.json() {
        return output::json(report);
    }
    report.damage.iter().try_for_each(|damage| output::line(line(damage)))?;
    if !context.global.quiet {
        let (images, layers) = (report.images, report.layers);
        let found = if report.is_whole() { "no damage" } else { "damage" };
        output::notice(&format!(
            "checked {images} images and {layers} layers in {}: {found}",
            store.root().display()
        ));
    }
    Ok(())
}

fn show_repair(
    context: &Context,
    report: &CheckReport,
    repaired: &RepairReport,
) -> Result<(), Error> {
    if context.json() {
        return output::json(&json!({
            "images": report.images,
            "layers": report.layers,
            "deep": report.deep,
            "damage": repaired.remaining,
            "repaired": repaired.repaired,
        }));
    }
    for damage in &repaired.repaired {
        output::line(format_args!("repaired: {}", line(damage)))?;
    }
    for left in &repaired.remaining {
        output::line(format_args!("not repaired: {}; {}", line(&left.damage), left.reason))?;
    }
    Ok(())
}

/// Returns `CLASS PATH: WHY (image ID, ..)`.
fn line(damage: &Damage) -> String {
    let images: Vec<String> = damage.images.iter().map(|id| id.short()).collect();
    let of = match images.as_slice() {
        [] => String::new(),
        [one] => format!(" (image {one})"),
        many => format!(" (images {})", many.join(", ")),
    };
    format!("{} {}: {}{of}", damage.class.name(), damage.path.display(), damage.why)
}
