//! Manifests by tag or digest, and small blobs.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response};

use super::Registry;
use super::body::{Body, BodyError};
use super::endpoint::authority;
use super::error::RegistryError;
use super::html;
use super::http::Request;
use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use crate::reference::Repository;

/// Bytes of a manifest at most; the distribution registry has the same limit.
const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Pages of a list of referrers at most.
const MAX_PAGES: usize = 16;

/// The digest and media type of a manifest, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestInfo {
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
}

/// A manifest as the registry served it.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// Its bytes.
    pub bytes: Bytes,
    /// The SHA-256 of the bytes.
    pub digest: Digest,
    /// The media type that the registry sent.
    pub media_type: String,
}

impl Registry {
    /// Returns the digest of a manifest by a HEAD request, which Docker Hub does not count.
    /// Fetches the whole manifest if the registry does not support HEAD or sends no digest.
    ///
    /// # Errors
    /// [`RegistryError`] if the manifest does not exist or cannot be requested.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<ManifestInfo, RegistryError> {
        let request = manifest_request(Method::HEAD, repository, reference);
        match self.retrying(|| self.send(&request)).await {
            Ok(response) => match digest_header(response.headers()) {
                Some(digest) => Ok(ManifestInfo { digest, media_type: media_type_of(&response) }),
                None => self.resolve_by_get(repository, reference).await,
            },
            // A response to HEAD has no body; the one to GET contains the message.
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

    /// Fetches a manifest or index by tag or digest, and verifies a digest.
    ///
    /// # Errors
    /// [`RegistryError`], for example if it is too large or its digest does not match.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<RawManifest, RegistryError> {
        let request = manifest_request(Method::GET, repository, reference);
        let (bytes, headers) = self
            .retrying(|| async {
                let response = self.send(&request).await?;
                let headers = (digest_header(response.headers()), media_type_of(&response));
                let host = authority(response.url());
                let body = self.read_body(response, &request.what, MAX_MANIFEST_SIZE).await?;
                match html::error_of(&host, &headers.1, "a manifest", &body) {
                    Some(page) => Err(page),
                    None => Ok((body, headers)),
                }
            })
            .await?;
        let (header_digest, media_type) = headers;
        let actual = Digest::of(&bytes);
        // By tag, the content must match the digest that the registry sent.
        let expected = reference.parse().ok().or(header_digest).unwrap_or(actual);
        if expected != actual {
            return Err(RegistryError::Digest { what: request.what, expected, actual });
        }
        Ok(RawManifest { bytes, digest: actual, media_type })
    }

    /// Fetches the pages of the list of referrers of a manifest; `None` if the registry does not have
    /// this API.
    ///
    /// # Errors
    /// [`RegistryError`] if the list cannot be requested.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: Digest,
    ) -> Result<Option<Vec<Bytes>>, RegistryError> {
        let what = format!("referrers of {subject} in {repository}");
        let mut request = Request {
            method: Method::GET,
            repository,
            path: format!("referrers/{subject}"),
            accept: Some(media_type::OCI_INDEX.to_owned()),
            range: None,
            push: None,
            what,
        };
        let mut pages = Vec::new();
        while pages.len() < MAX_PAGES {
            let fetched = self
                .retrying(|| async {
                    let response = self.send(&request).await?;
                    let next = next_page(&response, &request.path);
                    let is_index = media_type_of(&response) == media_type::OCI_INDEX;
                    let body = self.read_body(response, &request.what, MAX_MANIFEST_SIZE).await?;
                    Ok((body, next, is_index))
                })
                .await;
            let (body, next) = match fetched {
                Ok((body, next, true)) => (body, next),
                // Something else answers all paths.
                Ok(_)
                | Err(
                    RegistryError::NotFound { .. }
                    | RegistryError::Denied { .. }
                    | RegistryError::Unauthorized { .. }
                    | RegistryError::Status { status: 400..=499 | 501, .. },
                ) => return Ok(None),
                Err(e) => return Err(e),
            };
            pages.push(body);
            match next {
                Some(path) => request.path = path,
                None => break,
            }
        }
        Ok(Some(pages))
    }

    /// Fetches a small blob, for example a config, and verifies its size and digest.
    ///
    /// # Errors
    /// [`RegistryError`], for example if it has more than `max_size` bytes.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        max_size: u64,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("config {} of {repository}", descriptor.digest);
        if descriptor.size > max_size {
            return Err(RegistryError::TooLarge { what, limit: max_size });
        }
        let request = Request {
            method: Method::GET,
            repository,
            path: format!("blobs/{}", descriptor.digest),
            accept: None,
            range: None,
            push: None,
            what,
        };
        let bytes = self
            .retrying(|| async {
                let response = self.send(&request).await?;
                let (host, media_type) = (authority(response.url()), media_type_of(&response));
                let body = self.read_body(response, &request.what, max_size).await?;
                let page = html::error_of(&host, &media_type, "a config", &body);
                match page.filter(|_| Digest::of(&body) != descriptor.digest) {
                    Some(page) => Err(page),
                    None => Ok(body),
                }
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

    async fn read_body(
        &self,
        response: Response,
        what: &str,
        max_size: u64,
    ) -> Result<Bytes, RegistryError> {
        let peer = self.shared.clients.peer(response.url());
        Body::new(response, &peer).read(max_size).await.map_err(|e| match e {
            BodyError::Transfer(e) => e.into_body_error(&peer),
            BodyError::TooLarge => {
                RegistryError::TooLarge { what: what.to_owned(), limit: max_size }
            }
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
        push: None,
        what: format!("manifest for {repository}{separator}{reference}"),
    }
}

/// Returns the path of the next page, which `Link: <...>; rel="next"` names by its query.
fn next_page(response: &Response, path: &str) -> Option<String> {
    let link = response.headers().get(reqwest::header::LINK)?.to_str().ok()?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let query = response.url().join(target).ok()?.query()?.to_owned();
    let path = path.split('?').next().unwrap_or(path);
    rest.contains("next").then(|| format!("{path}?{query}"))
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn media_type_of(response: &Response) -> String {
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type::essence(header.unwrap_or_default()).to_owned()
}
