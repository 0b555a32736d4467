//! `rpull bundle`: writes an OCI bundle of an image.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args};
use serde_json::json;

use rpull::{Error, OciRuntime};

use super::Context;
use super::container::ContainerFlags;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull bundle nginx /srv/web
  rpull bundle -t --user root debian ./shell bash
  rpull bundle --format json nginx ./web   # for a program: the commands as JSON

Edit config.json, run the first of the printed commands, which mounts the root file system, and then
the second, which runs the container. `umount DIR/rootfs` ends the mount.";

/// Write an OCI bundle of an image, for an OCI runtime
///
/// A bundle is a directory with config.json, which says how a runtime runs the container, and rootfs. The
/// layers stay in the store: DIR/rootfs is empty, and the first printed command mounts it. Changes are
/// written to DIR/upper. Keep the image as long as you use the bundle. -v means --volume here.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
// Its short form is that of --volume here.
#[command(arg = Arg::new("verbose").long("verbose").action(ArgAction::Count)
    .help("Log to standard error what is used; twice: also each step").help_heading("Output"))]
pub struct Bundle {
    #[command(flatten)]
    container: ContainerFlags,
    /// The image: a reference or an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The directory to write to: a new or an empty one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Bundle {
    /// Writes the bundle, and prints how to run it.
    ///
    /// # Errors
    /// The image is not in the store, or the directory is not empty.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let options = self.container.options(&self.command)?;
        output::path_text(&self.dir)?;
        let image = context.store()?.image(&self.image)?;
        let bundle = image.write_bundle(&self.dir, &options)?;
        let path = output::path_text(&bundle.path)?;
        let mount = bundle.mount.command(bundle.rootfs())?;
        let runtime = OciRuntime::find(None).map_or_else(|_| "runc".to_owned(), |it| it.name());
        let run = format!("{runtime} run --bundle {} {}", rpull::shell_quote(path), bundle.id);
        if context.json() {
            return output::json_line(&json!({
                "bundle": path,
                "id": bundle.id,
                "mount": mount,
                "run": run,
            }));
        }
        if context.global.quiet {
            return output::exact("the path", path);
        }
        output::exact("the mount command", &mount)?;
        output::exact("the command", &run)
    }
}
