//! Resolves a reference to a manifest: what the store has, what the registry serves, and which
//! platform.

use bytes::Bytes;

use super::archived;
use super::cached;
use super::documents::{Documents, Next, Served};
use super::kept_blobs;
use super::options::Policy;
use super::session::Session;
use super::source::Source;
use crate::archive::ArchivedImage;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::ImageUsage;
use crate::oci::{Document, ImageConfig, ImageId, Manifest, ManifestError, Platform};
use crate::overlay::Abilities;
use crate::progress::{Event, Image};
use crate::reference::Reference;
use crate::registry::{RawManifest, Registry};
use crate::store::{Condition, Store, StoreError};

/// Bytes of a config at most; buildkit's have a few KiB.
pub const LARGEST_CONFIG: u64 = 8 << 20;

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

/// An image in a registry.
pub struct ResolvedImage {
    /// All indexes on the way to the manifest, if any, and the manifest.
    pub documents: Vec<Served>,
    /// The manifest for the platform.
    pub manifest: Document<Manifest>,
    /// Where its blobs come from.
    pub source: Source,
    /// What its layers unpacked, for the limits on the image.
    pub usage: ImageUsage,
    /// Whether an index lists the manifest for the platform.
    pub is_listed: bool,
    /// The requests for manifests that were sent to the registry.
    pub requests: usize,
}

impl ResolvedImage {
    /// Returns what the tasks of its layers share.
    pub fn source(&self) -> (&Source, &ImageUsage) {
        (&self.source, &self.usage)
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
    let policy = session.options.policy;
    let known = local(session, image).await?;
    let settled = image.digest().is_some() || policy != Policy::Always;
    let never = policy == Policy::Never;
    let unprivileged = known.unprivileged.filter(|_| !session.options.dry_run);
    if let Some(why) = &unprivileged {
        let then = if never { "" } else { "; unpacking them again" };
        let text =
            format!("layers of the stored image were unpacked without privileges ({why}){then}");
        session.warn(image, text);
    }
    let settled = settled && session.options.repair.is_none() && (unprivileged.is_none() || never);
    let mut platform = session.options.platform.clone();
    let mut digest = image.digest();
    if let Some((whole, id)) = known.whole.filter(|_| settled) {
        if let Some(actual) = &known.other_platform {
            warn_of_platform(session, image, actual);
            platform = Some(actual.clone());
        }
        if !must_keep(session, image, whole, platform.clone()).await? {
            tracing::info!("{image} is in the store; no request is needed");
            return Ok(Resolution::Present { digest: whole, id });
        }
        digest = Some(whole);
    } else if let (Some((whole, _)), Policy::Missing) = (known.whole, policy) {
        digest = Some(whole);
    } else if policy != Policy::Always {
        let cached = match (policy, known.damaged.clone()) {
            (Policy::Never, Some(why)) => {
                return Err(Error::Damaged { image: image.to_string(), why });
            }
            _ => cached::find(session, image).await?,
        };
        if let Some(cached) = cached {
            tracing::info!("{image} is {cached} in the content store, with all blobs");
            digest = Some(cached);
        } else if policy == Policy::Never {
            return Err(Error::NotPresent(image.to_string()));
        }
    }
    if let Some(why) = known.damaged {
        let text = format!("the stored image is damaged ({why}); repairing it");
        session.warn(image, text);
    }
    let registry = session.registry.with_events(session.events.clone(), image.clone());
    session.events.send(Event::Resolving { image: image.clone() });
    registry.log_endpoint(image.repository()).await;
    let mut heads = 0;
    if let (None, Some((_, id))) = (digest, known.whole) {
        let head = registry.head_manifest(image.repository(), tag(image)).await?.digest;
        heads = 1;
        // An index can have an image for the host's platform too.
        let is_other = known.other_platform.is_some() || unprivileged.is_some();
        if !is_other
            && means(session, image.with_digest(head), id).await?
            && !must_keep(session, image, head, platform.clone()).await?
        {
            tracing::info!("{image} is in the store, and {head} is what its tag points to");
            return Ok(Resolution::Present { digest: head, id });
        }
        digest = Some(head);
    }
    let mut resolved = manifest(session, image, registry, (digest, platform.as_ref())).await?;
    resolved.requests += heads;
    Ok(Resolution::Pull(Box::new(resolved)))
}

/// Resolves an image in an archive to its manifest for the platform.
///
/// # Errors
/// [`Error::Archive`] if a document is missing or invalid, [`Error::Manifest`] if it is not an image, or
/// not for the platform.
pub async fn in_archive(session: &Session, wanted: &ArchivedImage) -> Result<ResolvedImage, Error> {
    let (documents, manifest) = archived::manifest(session, wanted).await?;
    Ok(ResolvedImage {
        is_listed: documents.is_listed(),
        documents: documents.into_served(),
        manifest: *manifest,
        source: Source::Archive(wanted.archive.clone()),
        usage: ImageUsage::default(),
        requests: 0,
    })
}

/// Whether blobs of an image that is in the store must still be kept. If the policy forbids that, the
/// user is told.
async fn must_keep(
    session: &Session,
    image: &Image,
    digest: Digest,
    platform: Option<Platform>,
) -> Result<bool, Error> {
    if !session.options.keep_blobs || cached::is_kept(session, image, digest, platform).await? {
        return Ok(false);
    }
    if session.options.policy == Policy::Never {
        let text = "cannot keep all its blobs: the policy forbids fetching them".to_owned();
        session.warn(image, text);
        return Ok(false);
    }
    Ok(true)
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
    /// Its platform, if it is not the host's and none was asked for.
    other_platform: Option<Platform>,
    /// What is wrong with it otherwise, if it is there.
    damaged: Option<String>,
    /// What its layers lack that this process would not omit.
    unprivileged: Option<String>,
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
    let damaged = |why: String| Ok(Local { damaged: Some(why), ..Local::default() });
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
    let is_other = platform.is_none() && !config.runs_on(&Platform::host());
    let other_platform = is_other.then(|| config.platform());
    let layers = store.layers().stack(config.diff_ids())?.unwrap_or_default();
    let unprivileged = store.avoidable(&layers, &Abilities::expected())?;
    Ok(Local { whole: Some((digest, id)), other_platform, damaged: None, unprivileged })
}

fn tag(image: &Reference) -> &str {
    image.tag().unwrap_or("latest")
}

async fn manifest(
    session: &Session,
    image: &Image,
    registry: Registry,
    (digest, platform): (Option<Digest>, Option<&Platform>),
) -> Result<ResolvedImage, Error> {
    let mut documents = Documents::new(platform);
    let (mut next, mut requests) = (digest, 0);
    loop {
        let (raw, is_fetched) = fetch(session, image, &registry, next).await?;
        requests += usize::from(is_fetched);
        match documents.add(raw)? {
            Next::Document(digest) => next = Some(digest),
            Next::Manifest(manifest) => {
                let (is_listed, usage) = (documents.is_listed(), ImageUsage::default());
                let documents = documents.into_served();
                return Ok(ResolvedImage {
                    documents,
                    manifest: *manifest,
                    source: Source::Registry(registry),
                    usage,
                    is_listed,
                    requests,
                });
            }
        }
    }
}

/// Returns a manifest from the content store if it is there, else from the registry, and whether
/// it was fetched.
async fn fetch(
    session: &Session,
    image: &Image,
    registry: &Registry,
    digest: Option<Digest>,
) -> Result<(RawManifest, bool), Error> {
    if let Some(digest) = digest {
        let stored = session.store(move |store| store.content().get(&digest));
        if let Some(bytes) = stored.await? {
            tracing::info!("manifest {} is in the content store", digest.short());
            return Ok((RawManifest { bytes, digest, media_type: String::new() }, false));
        }
    }
    session.may_request(|| format!("the manifest of {image}"))?;
    let by = digest.map_or_else(|| tag(image).to_owned(), |digest| digest.to_string());
    Ok((registry.manifest(image.repository(), &by).await?, true))
}

/// Returns the image's config, byte for byte and parsed, and whether it was fetched.
pub async fn config(
    session: &Session,
    image: &Image,
    resolved: &ResolvedImage,
) -> Result<(Document<ImageConfig>, bool), Error> {
    let descriptor = &resolved.manifest.parsed.config;
    let (bytes, is_fetched) = match stored_config(session, descriptor.digest).await? {
        Some(bytes) => {
            tracing::info!("config {} is in the store", descriptor.digest.short());
            (bytes, false)
        }
        None => match &resolved.source {
            Source::Registry(registry) => {
                kept_blobs::config(session, image, registry, descriptor, LARGEST_CONFIG).await?
            }
            Source::Archive(archive) => {
                (archived::document(session, archive, descriptor.digest).await?, false)
            }
        },
    };
    let parsed = ImageConfig::parse(&bytes)?;
    parsed.check_layers(resolved.manifest.parsed.layers.len())?;
    check_platform(session, image, resolved, &parsed)?;
    let (digest, media_type) = (descriptor.digest, descriptor.media_type.clone());
    Ok((Document { bytes, digest, media_type, parsed }, is_fetched))
}

/// Checks that the image is for the platform that was requested. An image of which an index says
/// so is accepted with a warning, because the platforms in configs are often incomplete.
fn check_platform(
    session: &Session,
    image: &Image,
    resolved: &ResolvedImage,
    config: &ImageConfig,
) -> Result<(), Error> {
    let actual = config.platform();
    match &session.options.platform {
        Some(wanted) if config.runs_on(wanted) => {}
        Some(wanted) if resolved.is_listed => {
            let text = format!(
                "image with reference {image} was found but its platform ({actual}) does not match the specified platform ({wanted})"
            );
            session.warn(image, text);
        }
        Some(wanted) => {
            let (wanted, actual) = (wanted.clone(), actual.to_string());
            return Err(ManifestError::OtherPlatform { wanted, actual }.into());
        }
        None if config.runs_on(&Platform::host()) => {}
        None => warn_of_platform(session, image, &actual),
    }
    Ok(())
}

/// Warns about an image for another platform than the host's, in Docker's words.
fn warn_of_platform(session: &Session, image: &Image, actual: &Platform) {
    let host = Platform::host();
    let text = format!(
        "The requested image's platform ({actual}) does not match the detected host platform ({host}) and no specific platform was requested"
    );
    session.warn(image, text);
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
