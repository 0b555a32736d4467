//! `rpull mount`: mounts the file system of an image.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use rpull::{Error, MountPlan};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull mount nginx /mnt
  rpull mount --rw nginx /mnt
  rpull mount --print nginx /mnt   # only show the command, for another tool";

/// Mount the file system of an image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Mount {
    /// The image: a reference or an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The directory to mount at
    #[arg(value_name = "DIR", required_unless_present = "print")]
    target: Option<PathBuf>,
    /// Mount writable; write changes below the root, or to --upper; `rpull umount` keeps them
    #[arg(long)]
    rw: bool,
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
        let plan = context.store()?.image(&self.image)?.mount_plan()?;
        let target = self.target.clone().unwrap_or_else(|| PathBuf::from("DIR"));
        // What cannot be printed is found before anything is made or mounted.
        let printed = self.print || context.json();
        if printed {
            all_text(&plan, &target)?;
        }
        let plan = match (&self.upper, &self.work) {
            (Some(upper), Some(work)) => plan.writable_at(absolute(upper)?, absolute(work)?),
            _ if self.rw && self.print => plan.writable_at("UPPER", "WORK"),
            _ if self.rw => plan.writable()?,
            _ => plan,
        };
        if printed {
            all_text(&plan, &target)?;
        }
        if self.print {
            return print(context, &plan, &target);
        }
        plan.mount(&target)?;
        match (context.json(), plan.upper()) {
            (true, upper) => {
                output::json_line(&json!({"target": target, "lower": plan.lower(), "upper": upper}))
            }
            (false, Some(upper)) if !context.global.quiet => {
                output::line(format_args!("changes are written to {}", upper.display()))
            }
            _ => Ok(()),
        }
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
