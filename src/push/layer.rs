//! One layer of a push, by the cheapest way: the repository has it, or another repository of the
//! registry does, or it is uploaded.
//!
//! The blob with which the layer was pulled comes first, so that the manifest keeps its digest.

use std::sync::Arc;

use super::image::Layer;
use super::manifest::{ManifestFormat, Packing};
use super::session::Session;
use super::source::{Content, LayerSource};
use crate::digest::Digest;
use crate::error::{Error, RegistryError};
use crate::oci::Descriptor;
use crate::progress::{Image, PushState};
use crate::registry::{self, Mounted, Registry, Upload};

/// Blobs of one layer that are looked for in the target, and that are mounted, at most.
const MAX_LOOKUPS: usize = 3;
const MAX_MOUNTS: usize = 4;

struct Pusher<'a> {
    session: &'a Arc<Session>,
    registry: &'a Registry,
    image: &'a Image,
    layer: &'a Layer,
    /// An upload that the registry started instead of a mount.
    started: Option<registry::Session>,
}

/// Makes the repository of `image` have a layer. Returns its blob there.
///
/// # Errors
/// [`Error`] if the layer cannot be read, or the registry does not accept it.
pub async fn push(
    session: &Arc<Session>,
    registry: &Registry,
    image: &Image,
    layer: &Layer,
) -> Result<Descriptor, Error> {
    if let Some(known) = session.known(image, layer.diff_id) {
        session.report(image, layer.diff_id, PushState::AlreadyExists);
        return Ok(known);
    }
    let mut pusher = Pusher { session, registry, image, layer, started: None };
    let (descriptor, state) = pusher.push().await?;
    if let Some(unused) = pusher.started.take() {
        registry.abandon(image.repository(), unused).await;
    }
    session.record_layer(image, layer.diff_id, &descriptor).await;
    session.report(image, layer.diff_id, state);
    Ok(descriptor)
}

impl Pusher<'_> {
    async fn push(&mut self) -> Result<(Descriptor, PushState), Error> {
        let layer = self.layer;
        if let Some(pulled) = &layer.pulled
            && let Some(state) = self.push_pulled(pulled).await?
        {
            return Ok((pulled.clone(), state));
        }
        let pulled = layer.pulled.as_ref().map(|pulled| pulled.digest);
        let others = layer.in_target.iter().filter(|digest| Some(**digest) != pulled);
        for digest in others.take(MAX_LOOKUPS) {
            if let Some(size) = self.registry.blob_size(self.image.repository(), *digest).await? {
                return Ok((self.descriptor(*digest, size), PushState::AlreadyExists));
            }
        }
        let others = layer.elsewhere.iter().filter(|(digest, _)| Some(*digest) != pulled);
        for (digest, from) in others.take(MAX_MOUNTS) {
            if self.mount(*digest, from).await?
                && let Some(size) =
                    self.registry.blob_size(self.image.repository(), *digest).await?
            {
                return Ok((self.descriptor(*digest, size), mounted(from)));
            }
        }
        let (digest, size) = self.upload(Content::Gzip(layer.clone()), None).await?;
        Ok((self.descriptor(digest, size), PushState::Pushed))
    }

    /// Pushes the blob with which the layer was pulled. Returns how, if that is possible.
    async fn push_pulled(&mut self, pulled: &Descriptor) -> Result<Option<PushState>, Error> {
        let (layer, repository) = (self.layer, self.image.repository());
        let expected = (pulled.digest, pulled.size);
        if self.registry.blob_size(repository, pulled.digest).await? == Some(pulled.size) {
            return Ok(Some(PushState::AlreadyExists));
        }
        let same = layer.elsewhere.iter().filter(|(digest, _)| *digest == pulled.digest);
        for (digest, from) in same.take(MAX_MOUNTS) {
            if self.mount(*digest, from).await? {
                return Ok(Some(mounted(from)));
            }
        }
        let is_kept =
            self.session.gate.run(move |store| store.content().has(&expected.0, expected.1));
        if is_kept.await? {
            match self.upload(Content::Kept(pulled.digest), Some(expected)).await {
                Ok(_) => return Ok(Some(PushState::Pushed)),
                Err(e) if is_damage(&e, pulled.digest) => {
                    let digest = pulled.digest.short();
                    let text = format!("the kept blob {digest} is damaged; it is made again");
                    self.session.warn(self.image, text);
                }
                Err(e) => return Err(e),
            }
        }
        if pulled.digest != layer.diff_id.digest() {
            return Ok(None);
        }
        self.upload(Content::Tar(layer.clone()), Some(expected)).await?;
        Ok(Some(PushState::Pushed))
    }

    /// Tries to mount a blob of the repository `from`.
    async fn mount(&mut self, digest: Digest, from: &str) -> Result<bool, Error> {
        Ok(match self.registry.mount(self.image.repository(), digest, from).await? {
            Mounted::Yes => true,
            Mounted::No => false,
            Mounted::Started(session) => {
                if let Some(unused) = self.started.replace(session) {
                    self.registry.abandon(self.image.repository(), unused).await;
                }
                false
            }
        })
    }

    async fn upload(
        &mut self,
        content: Content,
        expected: Option<(Digest, u64)>,
    ) -> Result<(Digest, u64), Error> {
        self.session.report(self.image, self.layer.diff_id, PushState::Pushing);
        let source = LayerSource::new(self.session.gate.clone(), content);
        let total = expected.map_or(self.layer.size, |(_, size)| size);
        let upload = Upload {
            repository: self.image.repository(),
            source: &source,
            expected,
            session: self.started.take(),
            on_bytes: self.session.meter(self.image, self.layer.diff_id, total),
        };
        match self.registry.upload(upload).await {
            Ok(uploaded) => Ok((uploaded.digest, uploaded.size)),
            Err(RegistryError::Source) => {
                Err(source.error().unwrap_or(Error::Registry(RegistryError::Source)))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the descriptor of a blob that the manifest of the pull does not have.
    fn descriptor(&self, digest: Digest, size: u64) -> Descriptor {
        let is_tar = digest == self.layer.diff_id.digest();
        let packing = if is_tar { Packing::Tar } else { Packing::Gzip };
        Descriptor {
            media_type: packing.media_type(ManifestFormat::Docker).to_owned(),
            digest,
            size,
            platform: None,
            urls: Vec::new(),
            annotations: Default::default(),
        }
    }
}

fn mounted(from: &str) -> PushState {
    PushState::MountedFrom(from.into())
}

/// Whether a kept blob is not what its digest says, or cannot be read.
fn is_damage(error: &Error, blob: Digest) -> bool {
    match error {
        Error::Registry(RegistryError::Digest { expected, .. }) => *expected == blob,
        Error::Registry(RegistryError::Size { .. }) => true,
        Error::Layer { .. } | Error::Store(_) => true,
        _ => false,
    }
}
