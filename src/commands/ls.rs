//! `rpull ls`: files of an image.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use data_encoding::BASE64;
use serde_json::{Value, json};

use rpull::{Error, FileInfo, FileKind};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull ls nginx                   # the root directory
  rpull ls -l nginx /etc
  rpull ls -R nginx /usr/share     # also all directories below, with full paths
  rpull ls -R --format json nginx";

/// List files of an image or a writable mount
///
/// Nothing is mounted. Symlinks are resolved inside the image.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Ls {
    /// The image, or the name of a writable mount
    #[arg(value_name = "IMAGE|NAME")]
    source: String,
    /// A directory or file of the image
    #[arg(value_name = "PATH", default_value = "/")]
    path: PathBuf,
    /// Show types, modes, owners, sizes and times (UTC) too
    #[arg(long, short)]
    long: bool,
    /// List directories with their content
    #[arg(long, short = 'R')]
    recursive: bool,
}

impl Ls {
    /// Prints one line per file, sorted by name.
    ///
    /// # Errors
    /// There is no such image or file.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let files = context.store()?.files(&self.source)?;
        files.list(&self.path, self.recursive, |file| {
            if context.json() {
                return output::json_line(&object(&file));
            }
            let name = if self.recursive { file.path.as_path() } else { name(&file.path) };
            let name = name.display();
            if !self.long || context.global.quiet {
                return output::line(name);
            }
            match &file.target {
                Some(target) => {
                    output::line(format_args!("{} {name} -> {}", details(&file), target.display()))
                }
                None => output::line(format_args!("{} {name}", details(&file))),
            }
        })
    }
}

fn name(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

/// Returns the columns of `ls -l` before the name.
fn details(file: &FileInfo) -> String {
    let size = match file.device {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => file.size.to_string(),
    };
    let time = DateTime::<Utc>::from_timestamp(file.modified, 0);
    let time =
        time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string());
    let FileInfo { links, uid, gid, .. } = file;
    format!("{} {links:>2} {uid:>5} {gid:>5} {size:>10} {time:>16}", mode(file))
}

/// Returns the type and the permissions as ls(1) shows them.
fn mode(file: &FileInfo) -> String {
    let mut text = String::from(match file.kind {
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharacterDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        _ => '-',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = file.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (file.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn object(file: &FileInfo) -> Value {
    let kind = match file.kind {
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharacterDevice => "character-device",
        FileKind::BlockDevice => "block-device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        _ => "file",
    };
    let time = DateTime::<Utc>::from_timestamp(file.modified, 0);
    // Text of JSON is UTF-8, and the names of files need not be.
    let bytes =
        file.path.to_str().is_none().then(|| BASE64.encode(file.path.as_os_str().as_bytes()));
    json!({
        "path": file.path.to_string_lossy(),
        "pathBytes": bytes,
        "type": kind,
        "mode": format!("{:04o}", file.mode),
        "uid": file.uid,
        "gid": file.gid,
        "size": file.size,
        "modified": time.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        "target": file.target.as_ref().map(|target| target.to_string_lossy()),
        "device": file.device.map(|(major, minor)| format!("{major}:{minor}")),
    })
}
