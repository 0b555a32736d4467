//! Resumable blob streams: a dropped or stalled connection continues with a Range request.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::Stream;
use futures::stream;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};

use super::Registry;
use super::attempts::Attempts;
use super::body::{Body, Peer, TransferError};
use super::error::RegistryError;
use super::html;
use super::http::Request;
use crate::oci::Descriptor;
use crate::reference::Repository;

/// The bytes of a blob or of a range of it: exactly the requested number, or an error.
pub struct BlobStream(Pin<Box<dyn Stream<Item = Result<Bytes, RegistryError>> + Send>>);

impl Stream for BlobStream {
    type Item = Result<Bytes, RegistryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl Registry {
    /// Opens a range of a blob. A registry that does not serve ranges is read up to its end.
    ///
    /// # Errors
    /// [`RegistryError`] if the blob cannot be opened. Later errors are in the stream.
    pub async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<BlobStream, RegistryError> {
        Ok(ResumableBlob::open(self, repository, descriptor, range).await?.stream())
    }

    /// Opens a range of a blob; `None` if the registry does not serve ranges.
    ///
    /// # Errors
    /// [`RegistryError`] if the blob cannot be opened. Later errors are in the stream.
    pub async fn blob_range(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>, RegistryError> {
        let blob = ResumableBlob::open(self, repository, descriptor, range).await?;
        Ok(blob.partial.then(|| blob.stream()))
    }
}

struct ResumableBlob {
    registry: Registry,
    repository: Repository,
    descriptor: Descriptor,
    offset: u64,
    end: u64,
    /// Bytes before `offset` to discard, because the server ignored the range.
    skip: u64,
    body: Option<Body>,
    /// The server of the last response, perhaps after a redirect.
    peer: Option<Peer>,
    attempts: Attempts,
    /// Whether the response is the requested range and not the whole blob.
    partial: bool,
    /// The offset at which the last response ended without an error. When the retries are
    /// spent, this is reported as a size mismatch.
    ended_at: Option<u64>,
}

impl ResumableBlob {
    /// Opens a range of a blob, with the retries that the budget allows.
    async fn open(
        registry: &Registry,
        repository: &Repository,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<Self, RegistryError> {
        let mut blob = Self {
            registry: registry.clone(),
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            offset: range.start,
            end: range.end,
            skip: 0,
            partial: false,
            body: None,
            peer: None,
            attempts: registry.attempts(Some(descriptor.digest)),
            ended_at: None,
        };
        blob.connect().await?;
        Ok(blob)
    }

    fn stream(self) -> BlobStream {
        let next = |mut blob: Self| async move {
            match blob.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(blob))),
                Ok(None) => None,
                Err(e) => Some((Err(e), None)),
            }
        };
        // The stream ends after an error.
        let step = move |state: Option<Self>| async move {
            match state {
                Some(blob) => next(blob).await,
                None => None,
            }
        };
        BlobStream(Box::pin(stream::unfold(Some(self), step)))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.offset >= self.end {
                return self.at_end().await;
            }
            if self.body.is_none() {
                self.connect().await?;
            }
            match self.chunk().await {
                Ok(Some(bytes)) => {
                    if let Some(bytes) = self.accept(bytes)? {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => {
                    self.body = None;
                    self.ended_at = Some(self.offset);
                    let ended = TransferError::Other("the connection ended before the blob did");
                    if let Some(peer) = &self.peer {
                        let error = ended.into_body_error(peer);
                        self.back_off(error).await?;
                    }
                }
                Err(e) => {
                    self.body = None;
                    self.ended_at = None;
                    self.back_off(e).await?;
                }
            }
        }
    }

    /// Discards bytes before `offset`; fails if there are bytes after `end`.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, RegistryError> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        bytes.advance(skipped);
        self.skip -= skipped as u64;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.attempts.progress(bytes.len());
        self.ended_at = None;
        let next = self.offset + bytes.len() as u64;
        if next > self.end && !self.partial && self.end < self.descriptor.size {
            // The server sends the whole blob instead of the range; the rest is not needed.
            let requested = usize::try_from(self.end - self.offset).unwrap_or(bytes.len());
            self.offset = self.end;
            self.body = None;
            return Ok(Some(bytes.slice(..requested)));
        }
        if next > self.end {
            return Err(self.size_mismatch(next));
        }
        self.offset = next;
        Ok(Some(bytes))
    }

    /// Checks after the last byte that the server sends no more.
    async fn at_end(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let whole = self.end == self.descriptor.size;
        if self.body.is_some()
            && whole
            && let Ok(Some(more)) = self.chunk().await
            && !more.is_empty()
        {
            return Err(self.size_mismatch(self.offset + more.len() as u64));
        }
        self.body = None;
        Ok(None)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let (Some(body), Some(peer)) = (&mut self.body, &self.peer) else { return Ok(None) };
        body.chunk().await.map_err(|failure| failure.into_body_error(peer))
    }

    /// Opens the blob at `offset`, with the retries that the budget allows.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        loop {
            match self.request().await {
                Ok(response) => {
                    let peer = self.registry.shared.clients.peer(response.url());
                    self.body = Some(Body::new(response, &peer));
                    self.peer = Some(peer);
                    return Ok(());
                }
                Err(e) => self.back_off(e).await?,
            }
        }
    }

    async fn request(&mut self) -> Result<Response, RegistryError> {
        let partial = self.offset > 0 || self.end < self.descriptor.size;
        let end = (self.end < self.descriptor.size).then_some(self.end);
        let request = Request {
            method: Method::GET,
            repository: &self.repository,
            path: format!("blobs/{}", self.descriptor.digest),
            accept: None,
            range: partial.then_some((self.offset, end)),
            push: None,
            what: self.what(),
        };
        let response = self.registry.send(&request).await?;
        self.skip = 0;
        self.partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let length = response.content_length();
        if self.partial {
            self.check_range(&response)?;
        } else if html::is_html(html::content_type(&response))
            && length != Some(self.descriptor.size)
        {
            let peer = self.registry.shared.clients.peer(response.url());
            let actual = length.unwrap_or_default();
            let page = html::read(response, &peer, "a layer").await;
            return Err(page.unwrap_or_else(|| self.size_mismatch(actual)));
        } else {
            // The response is the whole blob, perhaps despite a range request.
            self.skip = self.offset;
            if let Some(length) = length.filter(|length| *length != self.descriptor.size) {
                return Err(self.size_mismatch(length));
            }
        }
        Ok(response)
    }

    /// Checks `Content-Range: bytes START-LAST/TOTAL`.
    fn check_range(&self, response: &Response) -> Result<(), RegistryError> {
        let host = super::endpoint::authority(response.url());
        let header = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let parts = header.strip_prefix("bytes ").and_then(|range| {
            let (range, total) = range.split_once('/')?;
            let (start, last) = range.split_once('-')?;
            Some((start.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
        });
        let Some((start, last, total)) = parts else {
            return Err(RegistryError::Protocol {
                host,
                what: format!("a partial response without a valid Content-Range ('{header}')"),
            });
        };
        match (total, total.parse::<u64>()) {
            ("*", _) => {}
            (_, Ok(total)) if total == self.descriptor.size => {}
            (_, Ok(total)) => return Err(self.size_mismatch(total)),
            (_, Err(_)) => {
                return Err(RegistryError::Protocol {
                    host,
                    what: format!("a Content-Range with the invalid total '{total}'"),
                });
            }
        }
        if start != self.offset || last >= self.end {
            let what = format!(
                "requested bytes {}-{}, received {start}-{last}",
                self.offset,
                self.end - 1
            );
            return Err(RegistryError::Protocol { host, what });
        }
        Ok(())
    }

    /// Waits before the next attempt. Fails if `error` is not transient or the retries are spent.
    async fn back_off(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match (self.attempts.back_off(error).await, self.ended_at) {
            // The server ended the blob at this size without an error, and retries did not help.
            (Err(RegistryError::Network { .. }), Some(actual)) => Err(self.size_mismatch(actual)),
            (result, _) => result,
        }
    }

    fn what(&self) -> String {
        format!("layer {} of {}", self.descriptor.digest, self.repository)
    }

    fn size_mismatch(&self, actual: u64) -> RegistryError {
        RegistryError::Size { what: self.what(), expected: self.descriptor.size, actual }
    }
}
