//! Resolves a reference to a manifest: what the store has, what the registry serves, and which
//! platform.

use bytes::Bytes;

use super::kept_blobs;
use super::options::Policy;
use super::session::Session;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::ImageUsage;
use crate::oci::{AnyManifest, Document, ImageConfig, ImageId, Manifest, ManifestError, Platform};
use crate::progress::{Event, Image};
use crate::reference::Reference;
use crate::registry::{RawManifest, Registry};
use crate::store::{Condition, Store, StoreError};

/// Bytes of a config at most; buildkit's have a few KiB.
const LARGEST_CONFIG: u64 = 8 << 20;

/// How deep an index may be nested in indexes.
const DEEPEST: usize = 3;

/// The result of resolving a reference.
pub enum Resolution {
    /// The store has the whole image.
    Present {
        /// The digest in the registry.
        digest: Digest,
        /// The image.
        id: ImageId,
    },
    /// The image must be pulled, or what is missing of it.
    Pull(Box<ResolvedImage>),
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

/// An image in a registry.
pub struct ResolvedImage {
    /// All indexes on the way to the manifest, if any, and the manifest.
    pub documents: Vec<Served>,
    /// The manifest for the platform.
    pub manifest: Document<Manifest>,
    /// The registry, which reports its retries for the image.
    pub registry: Registry,
    /// What its layers unpacked, for the limits on the image.
    pub usage: ImageUsage,
}

impl ResolvedImage {
    /// Returns what the tasks of its layers share.
    pub fn source(&self) -> (&Registry, &ImageUsage) {
        (&self.registry, &self.usage)
    }

    /// Returns what the reference stands for in the registry: the outermost index, or the
    /// manifest.
    pub fn top(&self) -> &Served {
        &self.documents[0]
    }
}

/// Resolves `image` as the policy says. A digest that is present costs no request; a tag
/// that is known costs one HEAD.
pub async fn resolve(session: &Session, image: &Image) -> Result<Resolution, Error> {
    let known = local(session, image).await?;
    let settled = image.digest().is_some() || session.options.policy != Policy::Always;
    let settled = settled && session.options.repair.is_none();
    if let Some((digest, id)) = known.whole.filter(|_| settled) {
        tracing::info!("{image} is in the store; no request is needed");
        return Ok(Resolution::Present { digest, id });
    }
    if session.options.policy == Policy::Never {
        return Err(match known.damaged {
            Some(why) => Error::Damaged { image: image.to_string(), why },
            None => Error::NotPresent(image.to_string()),
        });
    }
    if let Some(why) = known.damaged {
        let text = format!("the stored image is damaged ({why}); repairing it");
        session.warn(image, text);
    }
    let registry = session.registry.with_events(session.events.clone(), image.clone());
    session.events.send(Event::Resolving { image: image.clone() });
    registry.log_endpoint(image.repository());
    let mut digest = image.digest();
    if let (None, Some((_, id))) = (digest, known.whole) {
        let head = registry.head_manifest(image.repository(), tag(image)).await?.digest;
        if means(session, image.with_digest(head), id).await? {
            tracing::info!("{image} is in the store, and {head} is what its tag points to");
            return Ok(Resolution::Present { digest: head, id });
        }
        digest = Some(head);
    }
    let resolved = manifest(session, image, registry, digest).await?;
    Ok(Resolution::Pull(Box::new(resolved)))
}

/// Whether `name` means the image `id`, which was whole a moment ago. Names are written after
/// all that they stand for and removed before it, so it still is, if it is named.
async fn means(session: &Session, name: Reference, id: ImageId) -> Result<bool, Error> {
    let lock = session.lock_to_read().await?;
    let means = session.store(move |store| {
        let _lock = lock;
        Ok(store.names().load()?.lookup(&name) == Some(id))
    });
    means.await
}

/// What the store has of an image.
#[derive(Default)]
struct Local {
    /// A digest of the image that the name means, and its id, if all of it is there and it
    /// runs on the platform that was asked for.
    whole: Option<(Digest, ImageId)>,
    /// What is wrong with it otherwise, if it is there.
    damaged: Option<String>,
}

/// Looks at the store under its lock: no removal is half done.
async fn local(session: &Session, image: &Image) -> Result<Local, Error> {
    let lock = session.lock_to_read().await?;
    let (image, platform) = (image.clone(), session.options.platform.clone());
    let local = session.store(move |store| {
        let _lock = lock;
        look_up(store, &image, platform.as_ref())
    });
    local.await
}

fn look_up(
    store: &Store,
    image: &Reference,
    platform: Option<&Platform>,
) -> Result<Local, StoreError> {
    let names = store.names().load()?;
    let Some(id) = names.lookup(image) else { return Ok(Local::default()) };
    let damaged = |why: String| Ok(Local { whole: None, damaged: Some(why) });
    let config = match store.condition(&id)? {
        Condition::Absent => return damaged("its config is missing".to_owned()),
        Condition::Damaged(why) => return damaged(why),
        Condition::Whole(config) => config,
    };
    if platform.is_some_and(|platform| !config.runs_on(platform)) {
        return Ok(Local::default());
    }
    let of_repository = |name: &Reference| name.repository() == image.repository();
    let mut digests =
        names.of(id).into_iter().filter(of_repository).filter_map(|name| name.digest());
    let Some(digest) = image.digest().or_else(|| digests.next()) else {
        // The image was tagged by hand; only the registry knows its digest there.
        return Ok(Local::default());
    };
    if !store.sources_are_recorded(&config, image.repository())? {
        return damaged("the records of its layers' origin are wrong".to_owned());
    }
    Ok(Local { whole: Some((digest, id)), damaged: None })
}

fn tag(image: &Reference) -> &str {
    image.tag().unwrap_or("latest")
}

async fn manifest(
    session: &Session,
    image: &Image,
    registry: Registry,
    digest: Option<Digest>,
) -> Result<ResolvedImage, Error> {
    let wanted = session.options.platform.clone().unwrap_or_else(Platform::host);
    let mut documents: Vec<Served> = Vec::new();
    let mut next = digest;
    while documents.len() <= DEEPEST {
        let raw = fetch(session, image, &registry, next).await?;
        let parsed = AnyManifest::parse(raw.bytes.clone(), raw.digest, &raw.media_type)?;
        match parsed {
            AnyManifest::Image(manifest) => {
                documents.push(Served::new(raw, &manifest.media_type));
                let usage = ImageUsage::default();
                return Ok(ResolvedImage { documents, manifest, registry, usage });
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
    session: &Session,
    image: &Image,
    registry: &Registry,
    digest: Option<Digest>,
) -> Result<RawManifest, Error> {
    if let Some(digest) = digest {
        let stored = session.store(move |store| store.content().get(&digest));
        if let Some(bytes) = stored.await? {
            tracing::info!("manifest {} is in the content store", digest.short());
            return Ok(RawManifest { bytes, digest, media_type: String::new() });
        }
    }
    let by = digest.map_or_else(|| tag(image).to_owned(), |digest| digest.to_string());
    Ok(registry.manifest(image.repository(), &by).await?)
}

/// The image's config, byte for byte and parsed.
pub async fn config(
    session: &Session,
    image: &Image,
    resolved: &ResolvedImage,
) -> Result<Document<ImageConfig>, Error> {
    let descriptor = &resolved.manifest.parsed.config;
    let bytes = match stored_config(session, descriptor.digest).await? {
        Some(bytes) => {
            tracing::info!("config {} is in the store", descriptor.digest.short());
            bytes
        }
        None => {
            let registry = &resolved.registry;
            kept_blobs::config(session, image, registry, descriptor, LARGEST_CONFIG).await?
        }
    };
    let parsed = ImageConfig::parse(&bytes)?;
    parsed.check_layers(resolved.manifest.parsed.layers.len())?;
    if let Some(wanted) = session.options.platform.as_ref().filter(|wanted| !parsed.runs_on(wanted))
    {
        let text = format!(
            "image with reference {image} was found but its platform ({}) does not match the specified platform ({wanted})",
            parsed.platform()
        );
        session.warn(image, text);
    }
    Ok(Document {
        bytes,
        digest: descriptor.digest,
        media_type: descriptor.media_type.clone(),
        parsed,
    })
}

/// The config of an image that the store has. A damaged one is replaced when the image is
/// committed.
async fn stored_config(session: &Session, digest: Digest) -> Result<Option<Bytes>, Error> {
    let config = session.store(move |store| match store.images().get(&ImageId(digest)) {
        Ok(bytes) => Ok(bytes.map(Bytes::from)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(e) => Err(e),
    });
    config.await
}
