//! Referrers: signatures, SBOMs and other artifacts about an image, which name it as their subject (OCI
//! distribution-spec, "Listing referrers"). Registries without the API have them in the index with the
//! tag `sha256-<hex>`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::Session;
use super::blobs::Blobs;
use super::collect::Collected;
use crate::digest::Digest;
use crate::error::{Error, ManifestError};
use crate::oci::media_type;
use crate::reference::Repository;

/// Referrers of referrers that are followed, such as the signature of an SBOM.
const DEEPEST: usize = 3;

/// Copies the referrers of the manifest `subject`, and theirs, that the target does not list.
///
/// # Errors
/// [`Error`] if they cannot be listed or copied.
pub async fn copy(session: &Session, blobs: &Blobs<'_>, subject: Digest) -> Result<(), Error> {
    let mut seen = HashSet::from([subject]);
    let mut open = vec![(subject, 0)];
    while let Some((subject, depth)) = open.pop() {
        let referrers = copy_of_one(session, blobs, subject).await?;
        let deeper = referrers.into_iter().filter(|digest| seen.insert(*digest));
        if depth < DEEPEST {
            open.extend(deeper.map(|digest| (digest, depth + 1)));
        }
    }
    Ok(())
}

/// Copies the referrers of one manifest. Returns all that it has.
async fn copy_of_one(
    session: &Session,
    blobs: &Blobs<'_>,
    subject: Digest,
) -> Result<Vec<Digest>, Error> {
    let (from, to) = (session.source.repository(), session.target.repository());
    let source = list(session, from, subject).await?;
    if source.is_empty() {
        return Ok(Vec::new());
    }
    let mut target = list(session, to, subject).await?;
    let known: HashSet<Digest> = target.iter().filter_map(digest_of).collect();
    let mut is_listed = true;
    for entry in &source {
        let Some(digest) = digest_of(entry).filter(|digest| !known.contains(digest)) else {
            continue;
        };
        let mut collected = Collected::default();
        collected.add(&session.registry, from, digest).await?;
        let root = session.copy_manifests(blobs, collected).await?;
        let document = (root.media_type.as_str(), &root.bytes);
        is_listed &= session.registry.push_referrer(to, digest, document).await?;
        target.push(entry.clone());
    }
    if !is_listed {
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": target,
        });
        let bytes = index.to_string().into_bytes().into();
        let tag = fallback_tag(subject);
        session.registry.push_manifest(to, &tag, (media_type::OCI_INDEX, &bytes)).await?;
    }
    Ok(source.iter().filter_map(digest_of).collect())
}

/// Returns the descriptors of the referrers that `repository` lists.
async fn list(
    session: &Session,
    repository: &Repository,
    subject: Digest,
) -> Result<Vec<Value>, Error> {
    if let Some(pages) = session.registry.referrers(repository, subject).await? {
        let entries: Vec<Vec<Value>> =
            pages.iter().map(|page| entries(page)).collect::<Result<_, _>>()?;
        return Ok(entries.concat());
    }
    let tag = fallback_tag(subject);
    if session.registry.has_manifest(repository, &tag).await?.is_none() {
        return Ok(Vec::new());
    }
    let raw = session.registry.manifest(repository, &tag).await?;
    Ok(entries(&raw.bytes)?)
}

fn entries(index: &[u8]) -> Result<Vec<Value>, ManifestError> {
    let malformed = |e: serde_json::Error| ManifestError::Malformed(e.to_string());
    let index: Value = serde_json::from_slice(index).map_err(malformed)?;
    Ok(index["manifests"].as_array().cloned().unwrap_or_default())
}

fn digest_of(entry: &Value) -> Option<Digest> {
    entry["digest"].as_str()?.parse().ok()
}

fn fallback_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}
