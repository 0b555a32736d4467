//! `rpull commit`: the changes of a writable mount as a new image.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use clap::Args;
use serde_json::{Value, json};

use rpull::{Error, Reference};

use super::Context;
use super::signals::Interruption;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull commit web app:2
  rpull commit -m 'add the key' -c 'ENV MODE=test' -c 'CMD [\"serve\"]' web app:test
  rpull commit --timestamp 0 web app:2   # the same changes give the same image ID
  rpull commit --rm web app:2            # unmount and remove the writable mount afterwards";

/// Create an image from the changes of a writable mount
///
/// The changes become one layer, above the layers of the mount. The mount stays as it is, and need not be
/// mounted. rpull cannot pause the programs that use it: if a file changes while it is read, the command
/// fails with its name and leaves nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Commit {
    /// The writable mount
    #[arg(value_name = "NAME", id = "mount_name")]
    mount: String,
    /// The name of the image (without TAG: latest)
    #[arg(value_name = "NAME[:TAG]")]
    image: Option<String>,
    /// Author (such as 'Ada <ada@example.com>')
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    author: String,
    /// Change the config by an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
    /// LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Set the time of the image and the latest time of its files: seconds since 1970, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    timestamp: Option<SystemTime>,
    /// Unmount and remove the writable mount afterwards
    #[arg(long)]
    rm: bool,
}

impl Commit {
    /// Commits, and prints the ID of the image as docker does.
    ///
    /// # Errors
    /// There is no such mount, an instruction is invalid, or a file cannot be read or written.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let name = self.image.as_deref().map(str::parse::<Reference>).transpose()?;
        let name = name.map(|name| name.with_default_tag().0);
        let _interruption = Interruption::watch()?;
        let mut commit = context.store()?.commit(&self.mount);
        commit = commit.message(&self.message).author(&self.author).remove_mount(self.rm);
        for change in &self.change {
            commit = commit.change(change);
        }
        if let Some(time) = self.timestamp {
            commit = commit.timestamp(time);
        }
        let done = commit.run(name.as_slice())?;
        done.warnings.iter().for_each(|warning| output::warning(warning));
        let id = done.image.id();
        if !context.json() {
            return output::line(format_args!("{id}"));
        }
        let layer = done.layer.map_or(Value::Null, |layer| {
            json!({"diffId": layer.diff_id(), "chainId": layer.chain_id(), "size": layer.size()})
        });
        let name = name.map(|name| name.to_string());
        output::json_line(&json!({"id": id, "reference": name, "layer": layer}))
    }
}

/// Parses seconds since 1970 or a time of RFC 3339. A layer cannot have earlier times.
fn time(text: &str) -> Result<SystemTime, String> {
    let seconds = text.parse::<u32>().map(|seconds| Duration::from_secs(seconds.into()));
    let time = match seconds {
        Ok(seconds) => Some(SystemTime::UNIX_EPOCH + seconds),
        Err(_) => DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from),
    };
    time.filter(|time| *time >= SystemTime::UNIX_EPOCH)
        .ok_or_else(|| "give seconds since 1970, or a time such as 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_seconds_or_rfc_3339() {
        let seconds = |text| {
            let since = time(text).ok()?.duration_since(SystemTime::UNIX_EPOCH);
            Some(since.unwrap().as_millis())
        };
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("1700000000"), Some(1_700_000_000_000));
        assert_eq!(seconds("1970-01-01T01:00:00.5+01:00"), Some(500));
        for text in ["", "-1", "1969-12-31T23:59:59Z", "tomorrow", "99999999999999999999"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
