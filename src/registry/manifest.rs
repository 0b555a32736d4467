//! Manifests by tag or digest, and small blobs.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response};

use super::Registry;
use super::body::{Body, BodyError};
use super::error::RegistryError;
use super::http::Request;
use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use crate::reference::Repository;

/// No honest manifest has more; the distribution registry's own bound.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// The digest and type of a manifest, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestInfo {
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
}

/// A manifest as served.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their sha256.
    pub digest: Digest,
    /// What the registry calls them.
    pub media_type: String,
}

impl Registry {
    /// The digest of a manifest, by HEAD, which Docker Hub does not count. A registry that
    /// knows no HEAD, or does not say the digest, is asked for the whole manifest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<ManifestInfo, RegistryError> {
        let request = manifest_request(Method::HEAD, repository, reference);
        match self.retrying(None, || self.send(&request)).await {
            Ok(response) => match digest_header(response.headers()) {
                Some(digest) => Ok(ManifestInfo { digest, media_type: media_type_of(&response) }),
                None => self.resolve_by_get(repository, reference).await,
            },
            // The body of a HEAD's refusal cannot be read; GET says what is wrong.
            Err(
                RegistryError::Status { .. }
                | RegistryError::NotFound { .. }
                | RegistryError::Denied { .. }
                | RegistryError::Unauthorized { .. },
            ) => self.resolve_by_get(repository, reference).await,
            Err(e) => Err(e),
        }
    }

    async fn resolve_by_get(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<ManifestInfo, RegistryError> {
        let raw = self.manifest(repository, reference).await?;
        Ok(ManifestInfo { digest: raw.digest, media_type: raw.media_type })
    }

    /// A manifest or index by tag or digest. Asked for by digest, it has that digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<RawManifest, RegistryError> {
        let request = manifest_request(Method::GET, repository, reference);
        let (bytes, response) = self
            .retrying(None, || async {
                let response = self.send(&request).await?;
                let about = (digest_header(response.headers()), media_type_of(&response));
                Ok((self.body(response, &request.what, LARGEST_MANIFEST).await?, about))
            })
            .await?;
        let (said, media_type) = response;
        let actual = Digest::of(&bytes);
        // By digest, what was asked for counts; by tag, the registry must not contradict itself.
        let expected = reference.parse().ok().or(said).unwrap_or(actual);
        if expected != actual {
            return Err(RegistryError::Digest { what: request.what, expected, actual });
        }
        Ok(RawManifest { bytes, digest: actual, media_type })
    }

    /// A small blob, like a config: verified for size and digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        most: u64,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("config {} of {repository}", descriptor.digest);
        if descriptor.size > most {
            return Err(RegistryError::TooLarge { what, limit: most });
        }
        let request = Request {
            method: Method::GET,
            repository,
            path: format!("blobs/{}", descriptor.digest),
            accept: None,
            range: None,
            what,
        };
        let bytes = self
            .retrying(None, || async {
                let response = self.send(&request).await?;
                self.body(response, &request.what, most).await
            })
            .await?;
        let (actual, what) = (bytes.len() as u64, request.what);
        if actual != descriptor.size {
            return Err(RegistryError::Size { what, expected: descriptor.size, actual });
        }
        let (actual, expected) = (Digest::of(&bytes), descriptor.digest);
        if actual != expected {
            return Err(RegistryError::Digest { what, expected, actual });
        }
        Ok(bytes)
    }

    async fn body(
        &self,
        response: Response,
        what: &str,
        most: u64,
    ) -> Result<Bytes, RegistryError> {
        let host = super::host::authority(response.url());
        Body::new(response, self.limits()).read(most).await.map_err(|e| match e {
            BodyError::Failure(failure) => failure.of_body(&host),
            BodyError::TooLarge => RegistryError::TooLarge { what: what.to_owned(), limit: most },
        })
    }
}

fn manifest_request<'a>(
    method: Method,
    repository: &'a Repository,
    reference: &str,
) -> Request<'a> {
    let separator = if reference.contains(':') { '@' } else { ':' };
    Request {
        method,
        repository,
        path: format!("manifests/{reference}"),
        accept: Some(media_type::ACCEPTED_MANIFESTS.join(", ")),
        range: None,
        what: format!("manifest for {repository}{separator}{reference}"),
    }
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn media_type_of(response: &Response) -> String {
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type::essence(header.unwrap_or_default()).to_owned()
}
