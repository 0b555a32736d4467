//! The time of the last use of each image: a pull, also of an image that is there, or a mount.
//!
//! Each image has an empty file in `<root>/rpull/used/`, whose time of change is that of the last use.
//! An image without one, such as one of dockerd, was last used when its config was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::{Store, StoreError};
use crate::fsutil::{self, At};
use crate::oci::ImageId;

impl Store {
    /// Records that an image is used now. Does nothing if the root cannot be written, for example by
    /// another user: then nothing can be removed either.
    pub fn record_use(&self, id: &ImageId) {
        let dir = self.layout.uses();
        let path = dir.join(id.hex());
        let touch = || {
            let mut options = File::options();
            // A FIFO would block.
            let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
            let options = options.create(true).append(true).mode(0o600).custom_flags(flags);
            options.open(&path)?.set_modified(SystemTime::now())
        };
        let Err(e) = touch() else { return };
        let made = match e.kind() {
            io::ErrorKind::NotFound => fsutil::ensure_dir(&dir, 0o700),
            _ if fsutil::is_read_only(&e) => return,
            // Something else is in place of the file.
            _ => fsutil::remove(&path),
        };
        if made.is_ok() {
            let _ = touch();
        }
    }

    /// Returns when an image was used last.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if neither its record nor its config can be read.
    pub fn last_use(&self, id: &ImageId) -> Result<SystemTime, StoreError> {
        let modified = |path: &std::path::Path| path.metadata().and_then(|meta| meta.modified());
        let config = self.layout.image(id);
        match modified(&self.layout.uses().join(id.hex())) {
            Ok(used) => Ok(used),
            Err(_) => Ok(modified(&config).at("read", &config)?),
        }
    }
}
