//! `rpull mount`: an image's file system at a directory.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use rpull::error::Error;
use rpull::overlay::Upper;

use super::Context;
use crate::cli::output;

/// Mount an image's file system
#[derive(Debug, Args)]
pub struct Mount {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The directory to mount at
    #[arg(value_name = "DIR", required_unless_present = "print")]
    target: Option<PathBuf>,
    /// Mount writable; changes go to a directory below the root, or to --upper
    #[arg(long)]
    rw: bool,
    /// Where changes go (with --work)
    #[arg(long, value_name = "DIR", requires = "work")]
    upper: Option<PathBuf>,
    /// overlayfs's work directory, empty, on the same file system as --upper
    #[arg(long, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,
    /// Print the mount(8) line and mount nothing
    #[arg(long)]
    print: bool,
}

impl Mount {
    /// Mounts, or prints how to.
    ///
    /// # Errors
    /// The image is not there; the kernel refuses.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let store = context.store_to_read()?;
        let mut stack = store.mount_stack(&store.find(&self.image)?)?;
        let target = self.target.clone().unwrap_or_else(|| PathBuf::from("DIR"));
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
        if self.print {
            return self.print(context, &stack, &target);
        }
        let failed = |source| Error::Mount { target: target.display().to_string(), source };
        stack.mount(&target).map_err(failed)?;
        match (context.json(), &stack.upper) {
            (true, upper) => output::line(
                &json!({"target": target, "lower": stack.lower, "upper": upper.as_ref().map(|u| &u.upper)}).to_string(),
            ),
            (false, Some(upper)) if !context.global.quiet => {
                output::line(&format!("changes go to {}", upper.upper.display()))
            }
            _ => Ok(()),
        }
    }

    fn print(
        &self,
        context: &Context,
        stack: &rpull::overlay::Stack,
        target: &Path,
    ) -> Result<(), Error> {
        let line = stack.command(target);
        if context.json() {
            return output::line(
                &json!({"command": line, "type": "overlay", "options": stack.options()})
                    .to_string(),
            );
        }
        output::line(&line)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|e| Error::Other(format!("{}: {e}", path.display())))
}
