//! `rpull mount`: mounts the file system of an image.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use rpull::error::StoreError;
use rpull::{Error, LayerSelector, MountPlan, Source, Store};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull mount nginx /mnt
  rpull mount --rw --name web nginx /mnt    # `rpull umount web` keeps the changes
  rpull mount web /mnt                      # mount them again
  rpull mount --at-layer 2 nginx /mnt       # only the two layers at the base
  rpull mount --print nginx /mnt            # only show the command, for another tool";

/// Mount the file system of an image
///
/// With --rw, changes go to a new writable mount, which has a name. Any number of writable mounts share
/// the layers of an image, and none sees the changes of another. `rpull mounts` lists them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Mount {
    /// The image: a reference or an ID; or the name of a writable mount, to mount it again with its changes
    /// (add a tag to an image of the same name)
    #[arg(value_name = "IMAGE|NAME")]
    image: String,
    /// The directory to mount at
    #[arg(value_name = "DIR", required_unless_present = "print")]
    target: Option<PathBuf>,
    /// Mount the image writable; write changes below the root, or to --upper; `rpull umount` keeps them
    #[arg(long)]
    rw: bool,
    /// Call the new writable mount NAME (needs --rw) [default: two random words]
    #[arg(long, value_name = "NAME", requires = "rw", conflicts_with_all = ["upper", "print"])]
    name: Option<String>,
    /// Mount only the N layers at the base; 1 is the base layer alone
    #[arg(long, value_name = "N", conflicts_with = "at")]
    at_layer: Option<usize>,
    /// Mount only the layers up to ID: a diff ID, a chain ID or the digest of a blob, as `rpull layers` shows
    /// them, or the first 12 or more digits of one
    #[arg(long, value_name = "ID")]
    at: Option<String>,
    /// Write changes to DIR (needs --work)
    #[arg(long, value_name = "DIR", requires = "work")]
    upper: Option<PathBuf>,
    /// Use DIR, an empty directory on the file system of --upper, as overlayfs's work directory
    #[arg(long, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,
    /// Print the mount(8) command and mount nothing
    #[arg(long)]
    print: bool,
}

impl Mount {
    /// Mounts, or prints how to.
    ///
    /// # Errors
    /// The image is not in the store, or the kernel refuses the mount.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store()?;
        let plan = self.plan(&store)?;
        let target = self.target.clone().unwrap_or_else(|| PathBuf::from("DIR"));
        // What cannot be printed is found before anything is made or mounted.
        let printed = self.print || context.json();
        if printed {
            all_text(&plan, &target)?;
        }
        let plan = match (&self.upper, &self.work) {
            (Some(upper), Some(work)) => plan.writable_at(absolute(upper)?, absolute(work)?),
            _ if self.rw && self.print => plan.writable_at("UPPER", "WORK"),
            _ => match &self.name {
                Some(name) => plan.writable_as(name)?,
                None if self.rw => plan.writable()?,
                None => plan,
            },
        };
        if printed {
            all_text(&plan, &target)?;
        }
        if self.print {
            return print(context, &plan, &target);
        }
        plan.mount(&target)?;
        let (name, upper) = (plan.name(), plan.upper());
        if context.json() {
            let lower = plan.lower();
            return output::json_line(
                &json!({"name": name, "target": target, "lower": lower, "upper": upper}),
            );
        }
        match (name, upper) {
            (Some(name), _) if context.global.quiet => output::line(name),
            (Some(name), Some(upper)) => {
                output::line(format_args!("changes of {name} are written to {}", upper.display()))
            }
            (None, Some(upper)) if !context.global.quiet => {
                output::line(format_args!("changes are written to {}", upper.display()))
            }
            _ => Ok(()),
        }
    }

    /// Finds what to mount.
    fn plan(&self, store: &Store) -> Result<MountPlan, Error> {
        let layer = match (self.at_layer, &self.at) {
            (Some(position), _) => Some(LayerSelector::Position(position)),
            (None, Some(id)) => Some(LayerSelector::Id(id.clone())),
            (None, None) => None,
        };
        let is_new = self.rw || self.upper.is_some() || layer.is_some();
        if is_new {
            let image = store.image(&self.image).map_err(|error| self.instead(store, error))?;
            return match layer {
                Some(layer) => image.mount_plan_at(&layer),
                None => image.mount_plan(),
            };
        }
        match store.mount_again(&self.image) {
            Err(Error::Store(StoreError::NoSuchMount(_))) => {}
            other => return other,
        }
        match store.find_source(&self.image)? {
            Source::Image(image) => image.mount_plan(),
            // Another process has created it meanwhile.
            _ => store.mount_again(&self.image),
        }
    }

    /// Returns the error for an image that is a writable mount.
    fn instead(&self, store: &Store, error: Error) -> Error {
        let missing = matches!(error, Error::Store(StoreError::NoSuchImage(_)));
        if !missing || store.writable_mount(&self.image).is_err() {
            return error;
        }
        let name = &self.image;
        Error::Usage(format!(
            "{name} is a writable mount, not an image: mount it again with `rpull mount {name} DIR`"
        ))
    }
}

/// Prints the line of mount(8), which a shell takes literally, so that nothing in it is escaped; or an
/// entry of `mounts` of an OCI runtime's config.
fn print(context: &Context, plan: &MountPlan, target: &Path) -> Result<(), Error> {
    if context.json() {
        let mut mount = plan.to_oci(target);
        // mount(8) cannot do all mounts; programs can.
        mount["command"] = plan.command(target).map_or(Value::Null, Value::from);
        return output::json_line(&mount);
    }
    output::exact("the mount command", &plan.command(target)?)
}

/// Fails if a path could be printed only as another path.
fn all_text(plan: &MountPlan, target: &Path) -> Result<(), Error> {
    let lower = plan.lower().iter().map(PathBuf::as_path);
    let paths = lower.chain(plan.upper()).chain(plan.work());
    paths.chain([target]).try_for_each(|path| output::path_text(path).map(drop))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::Other(format!("{}: {e}", path.display())))
}
