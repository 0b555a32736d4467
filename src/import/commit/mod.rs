//! A commit: the changes of a mount become a layer, and with the image below a new image.

mod config;
mod go_format;
mod instruction;
mod values;
mod words;

use std::path::Path;
use std::thread;

use chrono::{DateTime, SecondsFormat, Utc};

use super::pipe::pipe;
use super::{Import, NewImage, Staged};
use crate::error::Error;
use crate::layer::{self, LayerError};
use crate::oci::{ChainId, ImageId};
use crate::overlay::{Abilities, Changes, XattrSpace};
use crate::pull::Content;
use crate::reference::Reference;
use crate::store::LayerRecord;

pub use instruction::Settings;
pub use values::{first_word, json_list};
pub use words::{expand, split as split_words};

use config::NewConfig;

/// The SHA-256 of a tar without entries. dockerd adds no layer for it either (moby layer/empty.go).
pub const EMPTY_TAR: &str =
    "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What is committed, and how.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// What errors call the changes.
    pub name: &'a str,
    /// The directory of changes.
    pub upper: &'a Path,
    /// The namespace of overlayfs's marks in it.
    pub space: XattrSpace,
    /// The image whose config is extended.
    pub image: ImageId,
    /// The topmost of the image's layers that is below the changes; `None` if none is.
    pub base: Option<ChainId>,
    /// The instructions that change the config, such as `ENV a=b`.
    pub changes: &'a [String],
    /// The message in the history.
    pub message: &'a str,
    /// The author.
    pub author: &'a str,
    /// The command in the history; that of the image for `None`.
    pub created_by: Option<&'a str>,
    /// The time of the image, and the latest time of its files; for `None` the current time, and no limit.
    pub timestamp: Option<DateTime<Utc>>,
    /// The names of the new image.
    pub names: &'a [Reference],
}

/// What was committed.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The new image.
    pub id: ImageId,
    /// Its new layer; `None` if there were no changes.
    pub layer: Option<LayerRecord>,
}

impl Import {
    /// Commits changes as a new image. Nothing is committed if a change cannot be read or the config
    /// cannot be changed.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid instruction, [`Error::Import`] if the changes cannot be read or
    /// written, [`Error::Store`] if the image below is missing or the new one cannot be written.
    pub fn commit_changes(&self, request: &CommitRequest<'_>) -> Result<Committed, Error> {
        // What can be refused is refused before anything is written.
        super::image::check_names(request.names)?;
        let (mut layers, below) = self.layers_of(&request.image)?;
        let whole = layers.len();
        let is_base = |layer: &LayerRecord| Some(layer.chain) == request.base;
        match (request.base, layers.iter().position(is_base)) {
            (_, Some(at)) => layers.truncate(at + 1),
            (None, None) => layers.clear(),
            (Some(base), None) => {
                let (image, base) = (request.image.short(), base.short());
                return Err(Error::Other(format!("layer {base} does not belong to image {image}")));
            }
        }
        let config = NewConfig::new(&below, layers.len(), request.changes)?;
        let created = request.timestamp.unwrap_or_else(Utc::now);
        let latest = request.timestamp.map(|time| time.timestamp());
        let staged = self.stage_changes(request.name, (request.upper, request.space), latest)?;
        let layer = if staged.diff_id().to_string() == EMPTY_TAR {
            None
        } else {
            Some(self.commit(layers.last(), staged)?)
        };
        let parent = (layers.len() == whole).then_some(request.image);
        layers.extend(layer.clone());
        let config = config.finish(&config::Step {
            diff_id: layer.as_ref().map(|layer| layer.diff_id),
            created: created.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            created_by: request.created_by,
            message: request.message,
            author: request.author,
        })?;
        let new = NewImage { config: &config, layers: &layers, names: request.names, parent };
        Ok(Committed { id: self.image(new)?, layer })
    }

    /// Stages the changes in an upper directory, whose marks are in the given namespace. Times after `latest`,
    /// in seconds, become `latest`. The files are copied: the mount can go on changing them.
    ///
    /// # Errors
    /// [`Error::Import`] if a change cannot be read, changes meanwhile, or cannot be expressed.
    pub fn stage_changes(
        &self,
        name: &str,
        (upper, space): (&Path, XattrSpace),
        latest: Option<i64>,
    ) -> Result<Staged<'_>, Error> {
        let failed = |source| Error::Import { name: name.to_owned(), source };
        // Those of this process, and not those that the file system has.
        let changes = Changes::open(upper, space, &Abilities::expected());
        let changes = changes.map_err(|e| failed(e.into()))?;
        let (changes, (mut writer, reader)) = (&changes, pipe());
        let content = Content { plain: true, holes: true, ..self.content() };
        let (layer, sockets) = thread::scope(|scope| {
            let write = move || match layer::write_changes(changes, latest, &mut writer) {
                Ok(sockets) => sockets,
                Err(error) => {
                    writer.fail(error);
                    0
                }
            };
            let thread = thread::Builder::new().name("changes".to_owned());
            let thread = thread.spawn_scoped(scope, write);
            let thread =
                thread.map_err(|source| failed(LayerError::Thread { name: "changes", source }))?;
            let layer = self.stage_buffers(name, reader.into_iter(), content);
            let sockets = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, Error>((layer?, sockets))
        })?;
        if sockets > 0 {
            let what = if sockets == 1 { "socket is" } else { "sockets are" };
            self.warn(format!("{sockets} {what} left out: a layer cannot have any"));
        }
        Ok(self.staged(layer))
    }
}
