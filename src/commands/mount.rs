//! `rpull mount`: mounts the file system of an image.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use rpull::error::Error;
use rpull::overlay::{Stack, Upper};

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
    /// Mount writable; write changes below the root, or to --upper
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
        let store = context.store_to_read()?;
        let mut stack = store.mount_stack(&store.find(&self.image)?)?;
        let target = self.target.clone().unwrap_or_else(|| PathBuf::from("DIR"));
        // What cannot be printed is found before anything is made or mounted.
        let printed = self.print || context.json();
        if printed {
            all_text(&stack, &target)?;
        }
        stack.upper = match (&self.upper, &self.work) {
            (Some(upper), Some(work)) => {
                Some(Upper { upper: absolute(upper)?, work: absolute(work)? })
            }
            _ if self.rw && self.print => {
                Some(Upper { upper: "UPPER".into(), work: "WORK".into() })
            }
            _ if self.rw => {
                let dir = store.new_mount_dir()?;
                Some(Upper { upper: dir.join("upper"), work: dir.join("work") })
            }
            _ => None,
        };
        if printed {
            all_text(&stack, &target)?;
        }
        if self.print {
            return print(context, &stack, &target);
        }
        let failed = |source| Error::Mount { target: target.display().to_string(), source };
        stack.mount(&target).map_err(failed)?;
        match (context.json(), &stack.upper) {
            (true, upper) => output::json_line(
                &json!({"target": target, "lower": stack.lower, "upper": upper.as_ref().map(|u| &u.upper)}),
            ),
            (false, Some(upper)) if !context.global.quiet => {
                output::line(format_args!("changes are written to {}", upper.upper.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Prints the line of mount(8). A shell takes it literally, so nothing in it is escaped.
fn print(context: &Context, stack: &Stack, target: &Path) -> Result<(), Error> {
    let line = stack.command(target);
    if context.json() {
        return output::json_line(
            &json!({"command": line, "type": "overlay", "options": stack.options()}),
        );
    }
    output::exact("the mount command", &line)
}

/// Fails if a path could be printed only as another path.
fn all_text(stack: &Stack, target: &Path) -> Result<(), Error> {
    let upper = stack.upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
    let paths = stack.lower.iter().chain(upper).map(PathBuf::as_path);
    paths.chain([target]).try_for_each(|path| output::path_text(path).map(drop))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::Other(format!("{}: {e}", path.display())))
}
