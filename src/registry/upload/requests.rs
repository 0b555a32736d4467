//! The requests of a push: does the blob exist, mount it, start, continue and complete an upload,
//! and write a manifest.

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::super::Registry;
use super::super::endpoint::authority;
use super::super::error::RegistryError;
use super::super::flow::{BlobSource, FINISH_LIMIT, Flow};
use super::super::http::{Push, Request, Streamed};
use crate::digest::Digest;
use crate::oci::media_type;
use crate::reference::Repository;

/// An upload that a registry started: its location.
#[derive(Debug)]
pub struct Session(pub(super) Url);

/// The result of the request to mount a blob.
#[derive(Debug)]
pub enum Mounted {
    /// The repository has the blob now.
    Yes,
    /// The registry started an upload instead.
    Started(Session),
    /// The registry refused.
    No,
}

impl Registry {
    /// Returns the size of a blob that `repository` has, in bytes; `None` if it does not have the
    /// blob, or does not tell. Why a push is refused, its next request tells.
    ///
    /// # Errors
    /// [`RegistryError`] if there is no response.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let request = request(Method::HEAD, repository, format!("blobs/{digest}"));
        match self.retrying(|| self.send(&request)).await {
            Ok(response) => Ok(length_of(&response)),
            Err(e) if is_answer(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Mounts a blob of the repository with the path `from`, which is on the same registry.
    ///
    /// # Errors
    /// [`RegistryError`] if there is no response.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: Digest,
        from: &str,
    ) -> Result<Mounted, RegistryError> {
        let path = format!("blobs/uploads/?mount={digest}&from={from}");
        let mut request = request(Method::POST, repository, path);
        request.push = Some(Push { from: Some(from), body: empty(), ..Push::default() });
        match self.retrying(|| self.send(&request)).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Mounted::Yes),
            Ok(response) => Ok(match self.location(&response) {
                Ok(Some(at)) => Mounted::Started(Session(at)),
                _ => Mounted::No,
            }),
            Err(e) if is_answer(&e) => Ok(Mounted::No),
            Err(e) => Err(e),
        }
    }

    /// Ends an upload without a blob, if the registry supports it.
    pub async fn abandon(&self, repository: &Repository, session: Session) {
        self.cancel_upload(repository, &session.0).await;
    }

    /// Starts an upload.
    pub(super) async fn start_upload(
        &self,
        repository: &Repository,
    ) -> Result<Session, RegistryError> {
        let mut request = request(Method::POST, repository, "blobs/uploads/".to_owned());
        request.push = Some(Push { body: empty(), ..Push::default() });
        let response = self.retrying(|| self.send(&request)).await?;
        match self.location(&response)? {
            Some(at) => Ok(Session(at)),
            None => Err(without_location(&response)),
        }
    }

    /// Sends the bytes of a blob from an offset on, and its size if that is known. Returns the
    /// location for what follows, and the number of bytes that the registry has, if it tells.
    pub(super) async fn patch(
        &self,
        repository: &Repository,
        at: &Url,
        (source, flow): (&dyn BlobSource, &Flow),
        (offset, size): (u64, Option<u64>),
    ) -> Result<(Url, Option<u64>), RegistryError> {
        let request = at_location(Method::PATCH, repository, at);
        let body = reqwest::Body::wrap_stream(flow.stream(source, offset));
        let streamed = Streamed { body, flow, offset, size };
        let response = self.send_stream(&request, at, streamed).await?;
        let next = self.location(&response)?.unwrap_or_else(|| at.clone());
        Ok((next, kept(response.headers())))
    }

    /// Asks how much of an upload the registry has. Returns the same as [`patch`](Self::patch).
    pub(super) async fn upload_status(
        &self,
        repository: &Repository,
        at: &Url,
    ) -> Result<(Url, Option<u64>), RegistryError> {
        let request = at_location(Method::GET, repository, at);
        let response = self.retrying(|| self.send(&request)).await?;
        let next = self.location(&response)?.unwrap_or_else(|| at.clone());
        Ok((next, kept(response.headers())))
    }

    /// Completes an upload.
    pub(super) async fn complete_upload(
        &self,
        repository: &Repository,
        at: &Url,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let mut target = at.clone();
        target.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut request = at_location(Method::PUT, repository, &target);
        let limit = Some(FINISH_LIMIT);
        request.push = Some(Push { at: Some(target), body: empty(), limit, ..Push::default() });
        let response = self.send(&request).await?;
        check_digest(&response, digest, format!("blob {digest} of {repository}"))
    }

    /// Ends an upload without a blob. The registry would end it by itself later.
    pub(super) async fn cancel_upload(&self, repository: &Repository, at: &Url) {
        let _ = self.send(&at_location(Method::DELETE, repository, at)).await;
    }

    /// Uploads a small blob, such as a config, unless the repository has it.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not accept it.
    pub async fn push_bytes(
        &self,
        repository: &Repository,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        if self.blob_size(repository, digest).await? == Some(bytes.len() as u64) {
            return Ok(());
        }
        let upload = || async {
            let Session(mut at) = self.start_upload(repository).await?;
            at.query_pairs_mut().append_pair("digest", &digest.to_string());
            let mut request = at_location(Method::PUT, repository, &at);
            let body = Some(("application/octet-stream", bytes.clone()));
            request.push = Some(Push { at: Some(at), body, ..Push::default() });
            let response = self.send(&request).await?;
            check_digest(&response, digest, format!("blob {digest} of {repository}"))
        };
        self.retrying(upload).await
    }

    /// Writes a manifest or index under `name`, a tag or its digest.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not accept it.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        name: &str,
        document: (&str, &Bytes),
    ) -> Result<(), RegistryError> {
        self.put_manifest(repository, name, document).await.map(drop)
    }

    /// Writes a manifest that names a subject. Returns whether the registry lists it as a referrer of
    /// the subject.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not accept it.
    pub async fn push_referrer(
        &self,
        repository: &Repository,
        digest: Digest,
        document: (&str, &Bytes),
    ) -> Result<bool, RegistryError> {
        let response = self.put_manifest(repository, &digest.to_string(), document).await?;
        Ok(response.headers().contains_key("oci-subject"))
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        name: &str,
        (media_type, bytes): (&str, &Bytes),
    ) -> Result<Response, RegistryError> {
        let digest = Digest::of(bytes);
        let mut request = request(Method::PUT, repository, format!("manifests/{name}"));
        let body = Some((media_type, bytes.clone()));
        request.push = Some(Push { body, limit: Some(FINISH_LIMIT), ..Push::default() });
        let response = self.retrying(|| self.send(&request)).await?;
        check_digest(&response, digest, format!("manifest of {repository}"))?;
        Ok(response)
    }

    /// Returns the digest and the size in bytes (0 if it is unknown) of a manifest of `repository`;
    /// `None` if it does not exist or the registry does not tell.
    ///
    /// # Errors
    /// [`RegistryError`] if there is no response.
    pub async fn has_manifest(
        &self,
        repository: &Repository,
        name: &str,
    ) -> Result<Option<(Digest, u64)>, RegistryError> {
        let mut request = request(Method::HEAD, repository, format!("manifests/{name}"));
        request.accept = Some(media_type::ACCEPTED_MANIFESTS.join(", "));
        match self.retrying(|| self.send(&request)).await {
            Ok(response) => {
                let size = length_of(&response).unwrap_or_default();
                Ok(digest_of(&response).map(|digest| (digest, size)))
            }
            Err(e) if is_answer(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the location that a response names.
    fn location(&self, response: &Response) -> Result<Option<Url>, RegistryError> {
        let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        location.map(|to| self.redirect_target(response.url(), to)).transpose()
    }
}

/// Returns a request of a push. Its error names the repository.
fn request(method: Method, repository: &Repository, path: String) -> Request<'_> {
    let (push, what) = (Some(Push::default()), format!("repository {repository}"));
    Request { method, repository, path, accept: None, range: None, push, what }
}

fn at_location<'a>(method: Method, repository: &'a Repository, at: &Url) -> Request<'a> {
    let mut request = request(method, repository, String::new());
    request.push = Some(Push { at: Some(at.clone()), ..Push::default() });
    request.what = format!("upload to {repository}");
    request
}

/// An empty body, whose length is sent: some servers demand it.
fn empty() -> Option<(&'static str, Bytes)> {
    Some(("application/octet-stream", Bytes::new()))
}

/// Returns whether the registry answered, and the answer is no.
fn is_answer(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::NotFound { .. }
            | RegistryError::PushDenied { .. }
            | RegistryError::PushRefused { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Unauthorized { .. }
    )
}

/// Returns the number of bytes of `Range: 0-LAST`. `0-0` means none: no registry tells one byte from
/// none.
fn kept(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?;
    let last: u64 = last.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// Returns the length of the body that a response to HEAD tells.
fn length_of(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn digest_of(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Checks that the registry stored what was sent, if it tells the digest.
fn check_digest(response: &Response, expected: Digest, what: String) -> Result<(), RegistryError> {
    match digest_of(response) {
        Some(actual) if actual != expected => Err(RegistryError::Digest { what, expected, actual }),
        _ => Ok(()),
    }
}

fn without_location(response: &Response) -> RegistryError {
    let host = authority(response.url());
    RegistryError::Protocol { host, what: "it started an upload without a location".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_of_an_upload_gives_its_bytes() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            kept(&headers)
        };
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("0-99"), Some(100));
        assert_eq!(of("bytes=0-99"), Some(100));
        for wrong in ["", "5-9", "0-", "0--1", "99", "0-18446744073709551615"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(kept(&HeaderMap::new()), None);
    }
}
