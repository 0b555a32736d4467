//! Adds to the store what this machine has: layers from tars, and images made of layers. Blocking.
//!
//! An [`Import`] holds the store lock as a command that adds, from before the caller looks up
//! anything until it is dropped, so what it finds in the store stays. A layer is staged, verified and
//! committed as in a pull, by the same code; an image is written with its layers committed, and its
//! names come last. A process that is killed leaves staged layers to the next command that writes,
//! and committed ones to `gc`, or to the same import again.

mod commit;
mod image;
mod pipe;
mod source;

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

pub use commit::{CommitRequest, EMPTY_TAR, Settings, expand, first_word, json_list, split_words};
pub use image::NewImage;
pub use source::Source;

use crate::error::Error;
use crate::fsutil::{self, Buffers};
use crate::layer::{BlobSpec, BufferPool, ImageUsage, LayerError, Limits};
use crate::oci::{ChainId, DiffId};
use crate::pull::{
    self, Content, MAX_ROUNDS, Omissions, Settled, UnpackedLayer, Unpacking, WorkError, settle,
};
use crate::store::{LayerRecord, Lock, Mode, Store};

/// The right to add layers and images to a store. Other programs that remove wait while it exists;
/// those that add or read do not. Several threads can use it.
#[derive(Debug)]
pub struct Import {
    store: Store,
    unpacking: Unpacking,
    usage: ImageUsage,
    omissions: Omissions,
    warnings: Mutex<Vec<String>>,
    /// Released last.
    _lock: Lock,
}

/// A layer that is unpacked and verified, but not committed. Its files are removed if it is dropped.
#[derive(Debug)]
pub struct Staged<'a> {
    layer: UnpackedLayer,
    /// It needs the lock of the import.
    import: PhantomData<&'a Import>,
}

impl Staged<'_> {
    /// Returns the SHA-256 of its tar.
    pub fn diff_id(&self) -> DiffId {
        self.layer.diff_id
    }
}

impl Import {
    /// Waits for the lock, removes what dead processes left, and checks what this process may do with
    /// the files of layers. `on_wait` gets what is waited for, `on_drop` a sentence for each image
    /// that a power failure damaged.
    ///
    /// # Errors
    /// [`Error::Store`] if the root cannot be prepared or locked, or cannot hold layers.
    pub fn begin(
        store: Store,
        limits: Limits,
        on_wait: &dyn Fn(&str),
        on_drop: &dyn Fn(&str),
    ) -> Result<Self, Error> {
        pull::recover(&store, on_wait, on_drop)?;
        let lock = store.lock(Mode::Shared, on_wait)?;
        let abilities = store.probe()?.into();
        let unpacking = Unpacking { abilities, limits, buffers: BufferPool::default() };
        let (usage, omissions) = (ImageUsage::default(), Omissions::default());
        Ok(Self { store, unpacking, usage, omissions, warnings: Mutex::default(), _lock: lock })
    }

    /// Returns the records of the store, which is locked.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Unpacks and verifies a layer. Its place in a stack need not be known yet, so several threads
    /// can stage the layers of an image at the same time.
    ///
    /// # Errors
    /// [`Error::Import`] if the tar cannot be read, is invalid or cannot be written, or if it has
    /// another digest, size or diff ID than expected; [`Error::Interrupted`] after
    /// [`stop_waiting`](crate::store::stop_waiting). Nothing of the layer is left then.
    pub fn stage(&self, source: Source<'_>) -> Result<Staged<'_>, Error> {
        let Source { name, tar, blob, plain, expected } = source;
        let blob = blob.map(|(digest, size)| BlobSpec { digest, size });
        let content = Content { blob, plain, ..self.content() };
        let tar = fsutil::buffers(tar);
        let layer = self.stage_buffers(&name, tar, content)?;
        if let Some(expected) = expected.filter(|expected| *expected != layer.diff_id) {
            return Err(Error::ImportedDiffId { name, expected, actual: layer.diff_id });
        }
        Ok(self.staged(layer))
    }

    /// What a tar is of which nothing is known.
    fn content(&self) -> Content {
        Content {
            blob: None,
            plain: false,
            holes: false,
            meter: None,
            // One layer waits for no other one here, so it gets the window that it asks for.
            window: Box::new(|_| true),
            image: self.usage.clone(),
        }
    }

    /// Unpacks the tar of a layer that errors call `name`.
    fn stage_buffers(
        &self,
        name: &str,
        tar: impl Buffers + Send,
        content: Content,
    ) -> Result<UnpackedLayer, Error> {
        let tar = source::interruptible(tar);
        self.unpacking.stage(&self.store, tar, content).map_err(|e| match e {
            WorkError::Layer(LayerError::Cancelled) => Error::Interrupted,
            WorkError::Layer(source) => Error::Import { name: name.to_owned(), source },
            WorkError::Store(e) => e.into(),
        })
    }

    /// Returns the staged layer, and keeps its warnings.
    fn staged(&self, mut layer: UnpackedLayer) -> Staged<'_> {
        let mut omissions = std::mem::take(&mut layer.omissions);
        std::mem::take(&mut omissions.warnings).into_iter().for_each(|text| self.warn(text));
        self.omissions.add(omissions);
        Staged { layer, import: PhantomData }
    }

    /// Commits a staged layer above `parent`. Returns its record, or that of the same layer if the store
    /// has it already.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be committed.
    pub fn commit(
        &self,
        parent: Option<&LayerRecord>,
        staged: Staged<'_>,
    ) -> Result<LayerRecord, Error> {
        let diff_id = staged.diff_id();
        self.settle(parent, diff_id, Some(staged))?.ok_or_else(|| {
            let diff_id = diff_id.short();
            Error::Other(format!(
                "cannot commit layer {diff_id}: it was removed repeatedly; check that no other \
                 program writes to this root"
            ))
        })
    }

    /// Returns the layer with the content `diff_id` above `parent`, if the store has it there, or can
    /// copy it from another place. A damaged one counts as absent, and [`commit`](Self::commit)
    /// replaces it.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read, [`Error::Import`] if a copy cannot be written.
    pub fn find(
        &self,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
    ) -> Result<Option<LayerRecord>, Error> {
        self.settle(parent, diff_id, None)
    }

    /// Commits a layer, of which `staged` is kept until that is done.
    fn settle<'a>(
        &'a self,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
        mut staged: Option<Staged<'a>>,
    ) -> Result<Option<LayerRecord>, Error> {
        let chain = ChainId::above(parent.map(|parent| parent.chain), diff_id);
        let is_shared = !self.store.layers().with_shared_directory(&[chain])?.is_empty();
        let mut suspect = is_shared.then(|| "another layer uses its directory".to_owned());
        let mut broken = None;
        for _ in 0..MAX_ROUNDS {
            let settled = settle(&self.store, parent, diff_id, broken.as_ref(), suspect.take())?;
            match settled {
                Settled::Committed(record) => return Ok(Some(record)),
                Settled::Damaged(record, why) => {
                    let text = format!("layer {} is damaged ({why})", diff_id.short());
                    self.warn(text);
                    broken = Some(record.cache_id);
                }
                // Another process has committed what this one staged, in another place.
                Settled::Missing => match self.copy(diff_id)? {
                    Some(copy) => staged = Some(copy),
                    None => return Ok(None),
                },
            }
        }
        drop(staged);
        Ok(None)
    }

    /// Stages a copy of a layer that the store has in another place, if there is an intact one.
    fn copy(&self, diff_id: DiffId) -> Result<Option<Staged<'_>>, Error> {
        self.store.layers().refresh();
        for record in self.store.layers().by_diff_id(&diff_id)? {
            match pull::stage_copy(&self.unpacking, &self.store, &record) {
                Ok(layer) if layer.diff_id == diff_id => return Ok(Some(self.staged(layer))),
                Ok(_) => {}
                Err(WorkError::Layer(
                    LayerError::Damaged { .. } | LayerError::Open { .. } | LayerError::TarSplit(_),
                )) => {}
                Err(WorkError::Layer(source)) => {
                    let name = format!("layer {}", diff_id.short());
                    return Err(Error::Import { name, source });
                }
                Err(WorkError::Store(e)) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// Returns the warnings so far: what layers lack because this process lacks a capability, and
    /// damage.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend(self.omissions.warnings(&self.unpacking.abilities));
        all
    }

    fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::digest::Digest;

    fn begin(root: &std::path::Path) -> Import {
        Import::begin(Store::at(root, None), Limits::default(), &|_| {}, &|_| {}).unwrap()
    }

    fn tar(name: &str, content: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    }

    fn diff_id(tar: &[u8]) -> DiffId {
        DiffId(Digest::of(tar))
    }

    fn config(layers: &[LayerRecord]) -> Vec<u8> {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
        format!(
            "{{\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
            diff_ids.join(",")
        )
        .into_bytes()
    }

    #[test]
    fn tar_becomes_a_layer_and_layers_become_an_image_with_names() {
        let dir = tempfile::tempdir().unwrap();
        let import = begin(dir.path());
        let (base, top) = (tar("etc/a", "a"), tar("etc/b", "bb"));
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(&top).unwrap();
        let zipped = zipped.finish().unwrap();
        let staged = import.stage(Source::new("base", Cursor::new(&base))).unwrap();
        let first = import.commit(None, staged).unwrap();
        let source = Source::new("top", Cursor::new(&zipped))
            .blob(Digest::of(&zipped), zipped.len() as u64)
            .diff_id(diff_id(&top));
        let second = import.commit(Some(&first), import.stage(source).unwrap()).unwrap();
        assert_eq!((first.diff_id, second.diff_id), (diff_id(&base), diff_id(&top)));
        assert_eq!((second.parent, second.size), (Some(first.chain), 2));

        let layers = [first.clone(), second.clone()];
        let config = config(&layers);
        let names = ["app:1".parse().unwrap(), "app".parse().unwrap()];
        let image = NewImage { config: &config, layers: &layers, names: &names, parent: None };
        let id = import.image(image).unwrap();
        assert_eq!(import.store.find("app:latest").unwrap(), id);
        assert_eq!(import.layers_of(&id).unwrap(), (layers.to_vec(), config.clone()));
        assert_eq!(import.find(Some(&first), diff_id(&top)).unwrap(), Some(second));
        // In another place, it is copied.
        let alone = import.find(None, diff_id(&top)).unwrap().unwrap();
        assert_eq!((alone.parent, alone.diff_id), (None, diff_id(&top)));
        assert_eq!(import.find(None, diff_id(b"unknown")).unwrap(), None);
        assert!(import.image(NewImage { layers: &layers[..1], ..image }).is_err());
    }

    #[test]
    fn invalid_layer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let import = begin(dir.path());
        let tar = tar("etc/a", "a");
        let sources = [
            Source::new("cut", Cursor::new(&tar[..512])),
            Source::new("other blob", Cursor::new(&tar)).blob(Digest::of(b"x"), tar.len() as u64),
            Source::new("other size", Cursor::new(&tar)).blob(Digest::of(&tar), 7),
            Source::new("other diff ID", Cursor::new(&tar)).diff_id(diff_id(b"x")),
        ];
        for source in sources {
            let name = source.name.clone();
            let error = import.stage(source).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
        }
        drop(import.stage(Source::new("dropped", Cursor::new(&tar))).unwrap());
        let left = |path: &str| std::fs::read_dir(dir.path().join(path)).unwrap().count();
        assert_eq!(left("overlay2"), 1, "only the directory of links");
        assert_eq!(left("image/overlay2/layerdb/tmp"), 0);
        assert_eq!(left("image/overlay2/layerdb/sha256"), 0);
    }

    #[test]
    fn layer_that_is_staged_twice_is_committed_once() {
        let dir = tempfile::tempdir().unwrap();
        let import = begin(dir.path());
        let tar = tar("etc/a", "a");
        let stage = || import.stage(Source::new("layer", Cursor::new(&tar))).unwrap();
        let (one, two) = (stage(), stage());
        let base = import.commit(None, one).unwrap();
        assert_eq!(import.commit(None, two).unwrap(), base);
        // The first commit of the second place takes what any process staged.
        let (one, two) = (stage(), stage());
        let above = import.commit(Some(&base), one).unwrap();
        let again = import.commit(Some(&above), two).unwrap();
        assert_eq!((above.parent, again.parent), (Some(base.chain), Some(above.chain)));
        assert_eq!(std::fs::read_dir(dir.path().join("overlay2")).unwrap().count(), 4);
    }
}
