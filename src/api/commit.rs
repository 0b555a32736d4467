//! A commit of a writable mount, prepared step by step.

use std::time::SystemTime;

use super::image::Image;
use super::import::ImportedLayer;
use super::store::Store;
use crate::error::Error;
use crate::import::CommitRequest;
use crate::layer::Limits;
use crate::overlay::XattrSpace;
use crate::reference::Reference;
use crate::store::StoreError;

/// A commit that [`run`](Self::run) does: the changes of a writable mount become a layer, and a new image has
/// it above the layers of the mount.
///
/// ```no_run
/// # fn example(store: &rpull::Store) -> Result<(), rpull::Error> {
/// let done = store.commit("web").change("ENV MODE=test").message("for tests").run(&["web:2".parse()?])?;
/// println!("{}", done.image.id());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a commit is done by `run`"]
pub struct Commit {
    store: Store,
    mount: String,
    changes: Vec<String>,
    message: String,
    author: String,
    created_by: Option<String>,
    timestamp: Option<SystemTime>,
    remove: bool,
}

/// A committed image.
#[derive(Debug)]
#[non_exhaustive]
pub struct CommittedImage {
    /// The image.
    pub image: Image,
    /// Its new layer; `None` if the mount had no changes, so that only the config is new.
    pub layer: Option<ImportedLayer>,
    /// What the layer lacks, in one sentence each, such as sockets.
    pub warnings: Vec<String>,
}

impl Store {
    /// Prepares to commit the changes of the writable mount `mount`, which is given by its name. It can be
    /// mounted, or not.
    pub fn commit(&self, mount: impl Into<String>) -> Commit {
        Commit {
            store: self.clone(),
            mount: mount.into(),
            changes: Vec::new(),
            message: String::new(),
            author: String::new(),
            created_by: None,
            timestamp: None,
            remove: false,
        }
    }
}

impl Commit {
    /// Changes the config of the image by an instruction of a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`,
    /// `HEALTHCHECK`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME` or `WORKDIR`.
    pub fn change(mut self, instruction: impl Into<String>) -> Self {
        self.changes.push(instruction.into());
        self
    }

    /// Sets the message in the history of the image.
    pub fn message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Sets the author of the image.
    pub fn author(self, author: impl Into<String>) -> Self {
        Self { author: author.into(), ..self }
    }

    /// Sets the command in the history of the image. The default is the command of the image.
    pub fn created_by(self, command: impl Into<String>) -> Self {
        Self { created_by: Some(command.into()), ..self }
    }

    /// Sets the time of the image, which is also the latest time of its files, so that the same changes give
    /// the same image. The default is the current time.
    pub fn timestamp(self, time: SystemTime) -> Self {
        Self { timestamp: Some(time), ..self }
    }

    /// Unmounts and removes the writable mount after the commit.
    pub fn remove_mount(self, remove: bool) -> Self {
        Self { remove, ..self }
    }

    /// Commits, and gives the image `names`. Files are copied, so the mount can be used further. Nothing is
    /// left if a file changes while it is read, or if a change cannot be part of a layer.
    ///
    /// # Errors
    /// There is no such mount, an instruction is invalid, or a file cannot be read or written. If only the
    /// mount cannot be removed, the image is complete.
    pub fn run(&self, names: &[Reference]) -> Result<CommittedImage, Error> {
        let (committed, warnings) = {
            let import = self.store.begin_import(Limits::default())?;
            let mount = import.store().writable_mount(&self.mount)?;
            let base = mount.chains().last().copied();
            let request = CommitRequest {
                name: &self.mount,
                upper: &mount.upper(),
                space: if mount.userxattr() { XattrSpace::User } else { XattrSpace::Trusted },
                image: mount.image_id(),
                base,
                changes: &self.changes,
                message: &self.message,
                author: &self.author,
                created_by: self.created_by.as_deref(),
                timestamp: self.timestamp.map(Into::into),
                names,
            };
            let committed = import.commit_changes(&request).map_err(|error| match error {
                // Named as the user did.
                Error::Store(StoreError::NoSuchImage(_)) => {
                    StoreError::NoSuchImage(mount.image().to_owned()).into()
                }
                error => error,
            })?;
            (committed, import.warnings())
        };
        if self.remove {
            self.store.unmount_and_discard(&self.mount)?;
        }
        let id = committed.id;
        let name = names.first().map_or_else(|| id.to_string(), Reference::to_string);
        let image = Image::new(self.store.clone(), id, name);
        Ok(CommittedImage { image, layer: committed.layer.map(ImportedLayer::new), warnings })
    }
}
