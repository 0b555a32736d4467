//! A name to a manifest: what the store knows, what the registry says, which platform.

use bytes::Bytes;

use super::{Options, Policy, Session};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{AnyManifest, Document, ImageConfig, ImageId, Manifest, ManifestError, Platform};
use crate::progress::{Event, Image};
use crate::reference::Reference;
use crate::registry::{RawManifest, Registry};
use crate::store::Store;

/// No honest config has more; buildkit's are a few KiB.
const LARGEST_CONFIG: u64 = 8 << 20;

/// Indexes may name indexes; nobody nests them deeper.
const DEEPEST: usize = 3;

/// What a name came to.
pub enum Resolved {
    /// The store has it, whole.
    Present {
        /// By this digest.
        digest: Digest,
        /// As this image.
        id: ImageId,
    },
    /// It has to be looked at.
    Manifest(Box<Found>),
}

/// A document as it was served.
pub struct Served {
    /// Its type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Served {
    fn new(raw: RawManifest, media_type: &str) -> Self {
        Self { media_type: media_type.to_owned(), digest: raw.digest, bytes: raw.bytes }
    }
}

/// The manifest of one image.
pub struct Found {
    /// What the name stands for first, and what that led to: perhaps an index, then the
    /// manifest.
    pub documents: Vec<Served>,
    /// The manifest for the platform.
    pub manifest: Document<Manifest>,
    /// The registry, saying its retries on behalf of the image.
    pub registry: Registry,
}

impl Found {
    /// What the registry calls the name: an index's digest, if it is one.
    pub fn named(&self) -> &Served {
        &self.documents[0]
    }
}

/// Resolves `image` as the policy says. A digest that is present costs no request; a tag
/// that is known costs one HEAD.
pub async fn resolve(session: &Session<'_>, image: &Image) -> Result<Resolved, Error> {
    let store = session.store;
    let known = local(store, image, session.options)?;
    let settled = image.digest().is_some() || session.options.policy != Policy::Always;
    if let Some((digest, id)) = known.filter(|_| settled) {
        return Ok(Resolved::Present { digest, id });
    }
    if session.options.policy == Policy::Never {
        return Err(Error::NotPresent(image.to_string()));
    }
    let registry = session.registry.with_events(session.events.clone(), image.clone());
    session.events.send(Event::Resolving { image: image.clone() });
    let mut digest = image.digest();
    if let (None, Some((_, id))) = (digest, known) {
        let said = registry.head_manifest(image.repository(), tag(image)).await?.digest;
        let by_digest = local(store, &image.with_digest(said), session.options)?;
        if by_digest.is_some_and(|(_, other)| other == id) {
            return Ok(Resolved::Present { digest: said, id });
        }
        digest = Some(said);
    }
    let found = manifest(session, image, registry, digest).await?;
    Ok(Resolved::Manifest(Box::new(found)))
}

/// The whole image that the name means in the store, and a digest of it, unless another
/// platform is wanted.
fn local(
    store: &Store,
    image: &Reference,
    options: &Options,
) -> Result<Option<(Digest, ImageId)>, Error> {
    let names = store.names().load()?;
    let Some(id) = names.lookup(image) else { return Ok(None) };
    let Some(config) = store.whole_image(&id)? else { return Ok(None) };
    if options.platform.as_ref().is_some_and(|platform| !config.runs_on(platform)) {
        return Ok(None);
    }
    let of_repository = |name: &Reference| name.repository() == image.repository();
    let mut digests =
        names.of(id).into_iter().filter(of_repository).filter_map(|name| name.digest());
    let digest = image.digest().or_else(|| digests.next());
    Ok(digest.map(|digest| (digest, id)))
}

fn tag(image: &Reference) -> &str {
    image.tag().unwrap_or("latest")
}

async fn manifest(
    session: &Session<'_>,
    image: &Image,
    registry: Registry,
    digest: Option<Digest>,
) -> Result<Found, Error> {
    let wanted = session.options.platform.clone().unwrap_or_else(Platform::host);
    let mut documents: Vec<Served> = Vec::new();
    let mut next = digest;
    while documents.len() <= DEEPEST {
        let raw = fetch(session, image, &registry, next).await?;
        let parsed = AnyManifest::parse(raw.bytes.clone(), raw.digest, &raw.media_type)?;
        match parsed {
            AnyManifest::Image(manifest) => {
                documents.push(Served::new(raw, &manifest.media_type));
                return Ok(Found { documents, manifest, registry });
            }
            AnyManifest::Index(index) => {
                documents.push(Served::new(raw, &index.media_type));
                next = Some(index.parsed.select(&wanted)?[0].digest);
            }
        }
    }
    Err(ManifestError::Nested.into())
}

/// A manifest from our content if it is there, else from the registry.
async fn fetch(
    session: &Session<'_>,
    image: &Image,
    registry: &Registry,
    digest: Option<Digest>,
) -> Result<RawManifest, Error> {
    if let Some(digest) = digest
        && let Some(bytes) = session.store.content().get(&digest)?
    {
        return Ok(RawManifest { bytes, digest, media_type: String::new() });
    }
    let by = digest.map_or_else(|| tag(image).to_owned(), |digest| digest.to_string());
    Ok(registry.manifest(image.repository(), &by).await?)
}

/// The image's config, byte for byte and parsed.
pub async fn config(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
) -> Result<Document<ImageConfig>, Error> {
    let descriptor = &found.manifest.parsed.config;
    let kept =
        session.store.images().get(&ImageId(descriptor.digest)).ok().flatten().map(Bytes::from);
    let bytes = match kept {
        Some(bytes) => bytes,
        None => found.registry.blob_bytes(image.repository(), descriptor, LARGEST_CONFIG).await?,
    };
    let parsed = ImageConfig::parse(&bytes)?;
    parsed.check_layers(found.manifest.parsed.layers.len())?;
    if let Some(wanted) = session.options.platform.as_ref().filter(|wanted| !parsed.runs_on(wanted))
    {
        let text = format!(
            "image with reference {image} was found but its platform ({}) does not match the specified platform ({wanted})",
            parsed.platform()
        );
        session.events.send(Event::Warning { image: Some(image.clone()), text });
    }
    Ok(Document {
        bytes,
        digest: descriptor.digest,
        media_type: descriptor.media_type.clone(),
        parsed,
    })
}
