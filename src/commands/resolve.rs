//! `rpull resolve`: the digest or the normalized form of a reference.

use clap::Args;
use serde_json::json;

use rpull::{Error, Reference, Resolution};

use super::{Context, interruptible, runtime};
use crate::cli::failure::Failure;
use crate::cli::flags::{PlatformFlag, RegistryFlags};
use crate::cli::{names, output};

const EXAMPLES: &str = "\
Examples:
  rpull resolve nginx
  rpull resolve --platform linux/arm64 nginx    # the manifest for this platform
  rpull resolve --name-only nginx     # index.docker.io/library/nginx:latest";

/// Print the digest that a reference currently resolves to
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Resolve {
    /// The references
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
    /// Print the normalized reference only; make no request
    #[arg(long)]
    name_only: bool,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    platform: PlatformFlag,
}

impl Resolve {
    /// Prints one line per reference.
    ///
    /// # Errors
    /// The first reference that is invalid or unknown.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let names = self.names.iter().map(|name| names::reference(name));
        let names: Vec<Reference> =
            names.map(|name| Ok(name?.with_default_tag().0)).collect::<Result<_, Failure>>()?;
        if self.name_only {
            return Ok(names.iter().try_for_each(|name| print(context, name, None))?);
        }
        let platform = self.platform.parsed()?;
        let (client, runtime) = (self.registry.client()?, runtime()?);
        runtime.block_on(async {
            for name in &names {
                let resolved = match &platform {
                    Some(platform) => interruptible(client.resolve_for(name, platform)).await?,
                    None => interruptible(client.resolve(name)).await?,
                };
                let of_name = |error| Failure::of_image(error, name, names.len() > 1);
                let resolved = resolved.map_err(of_name)?;
                print(context, name, Some(&resolved))?;
            }
            Ok(())
        })
    }
}

fn print(context: &Context, name: &Reference, resolved: Option<&Resolution>) -> Result<(), Error> {
    if context.json() {
        return output::json_line(&json!({
            "name": name.index_form(),
            "familiar": name.to_string(),
            "digest": resolved.map(|resolved| resolved.digest),
            "mediaType": resolved.map(|resolved| &resolved.media_type),
        }));
    }
    match resolved {
        Some(resolved) => output::line(resolved.digest),
        None => output::line(name.index_form()),
    }
}
