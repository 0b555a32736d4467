//! Saving images to an archive.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::store::Store;
use crate::archive::{ArchiveError, ArchiveFormat, DirSink, SavePlan, SavedImage, Sink, TarSink};
use crate::error::Error;
use crate::fsutil::NewFile;

/// Images to save to an archive; see [`Store::save`].
#[derive(Debug, Clone)]
pub struct Save {
    store: Store,
    images: Vec<String>,
    format: ArchiveFormat,
}

impl Store {
    /// Begins to save images to an archive, in memory of less than 10 MiB. Each is given as for
    /// [`image`](Self::image); a name without a tag stands for all tags of its repository, as in
    /// `docker save`. The same images give the same bytes.
    pub fn save<I>(&self, images: I) -> Save
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let images = images.into_iter().map(Into::into).collect();
        Save { store: self.clone(), images, format: ArchiveFormat::default() }
    }
}

impl Save {
    /// Sets what the archive consists of. The default is [`ArchiveFormat::Both`].
    #[must_use]
    pub fn format(mut self, format: ArchiveFormat) -> Self {
        self.format = format;
        self
    }

    /// Writes a tar to `out`. While it is written, no image can be removed from the store.
    ///
    /// # Errors
    /// There is no such image, a layer of it is damaged, or `out` cannot be written.
    pub fn to(&self, out: impl Write) -> Result<Vec<SavedImage>, Error> {
        self.write(|| Ok(TarSink::new(out)), |_| Ok(()))
    }

    /// Writes a tar to the file `path`, which gets it whole or stays as it was, with the mode 0600.
    /// What is not a regular file, such as a FIFO, is written directly.
    ///
    /// # Errors
    /// As of [`to`](Self::to).
    pub fn to_file(&self, path: impl AsRef<Path>) -> Result<Vec<SavedImage>, Error> {
        let path = path.as_ref();
        if let Ok(meta) = fs::metadata(path)
            && !meta.is_file()
        {
            let open = || File::options().write(true).open(path).map_err(|e| refused(path, e));
            return self.write(|| Ok(TarSink::new(open()?)), |_| Ok(()));
        }
        // What a symbolic link leads to is replaced, as a shell does it.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let create = || NewFile::create(&target, 0o600).map_err(|e| refused(path, e.source));
        let create = || Ok(TarSink::new(create()?));
        self.write(create, |sink| Ok(sink.into_inner().commit()?))
    }

    /// Writes an OCI image layout to the directory `path`, which is created, or is empty. Without
    /// the file `index.json`, which is written last, it is incomplete.
    ///
    /// # Errors
    /// As of [`to`](Self::to), or the directory has other files, or the format is not a layout.
    pub fn to_dir(&self, path: impl AsRef<Path>) -> Result<Vec<SavedImage>, Error> {
        if self.format == ArchiveFormat::Docker {
            let text = "a docker-archive is a file: save to a file, or choose the format oci";
            return Err(Error::Usage(text.to_owned()));
        }
        let save = Self { format: ArchiveFormat::Oci, ..self.clone() };
        save.write(|| DirSink::new(path.as_ref()), |_| Ok(()))
    }

    fn write<S: Sink>(
        &self,
        create: impl FnOnce() -> Result<S, ArchiveError>,
        finish: impl FnOnce(S) -> Result<(), ArchiveError>,
    ) -> Result<Vec<SavedImage>, Error> {
        // The lock is kept: a removal waits until the archive is written.
        let (plan, _lock) = self.store.read_and_keep(|store| {
            Ok(SavePlan::new(store, &self.images, self.format).inspect(|plan| {
                plan.images().iter().for_each(|image| store.record_use(&image.id));
            }))
        })?;
        let plan = plan.map_err(of_store)?;
        let mut sink = create()?;
        plan.write(&self.store.begin(), &mut sink).map_err(of_store)?;
        finish(sink)?;
        Ok(plan.images())
    }
}

fn refused(path: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Create { path: path.to_owned(), source }
}

/// Returns an error of the store as such: its hints help here, too.
fn of_store(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Store(error) => error.into(),
        ArchiveError::Manifest(error) => error.into(),
        ArchiveError::Layer { layer, source } => Error::Layer { layer, source },
        error => error.into(),
    }
}
