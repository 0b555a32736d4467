//! Uploads of blobs (OCI distribution-spec, "Pushing blobs"): one PATCH request for the whole blob.
//! A dropped connection continues where the registry says that it stopped.
//!
//! ```text
//! Start -> Send -> Finish
//!   ^       | ^
//!   |       v |
//!   +-- Interrupted
//! ```

mod requests;

use reqwest::Url;

use super::Registry;
use super::attempts::Attempts;
use super::endpoint::authority;
use super::error::{Cause, RegistryError};
use super::flow::{BlobSource, Flow};
use crate::digest::Digest;
use crate::reference::Repository;

pub use requests::{Mounted, Session};

/// How often an upload is started at most. Some registries forget an upload whose connection broke.
const MAX_SESSIONS: usize = 6;

/// How often a rejected token is replaced during one upload at most. An expired one is not sent at all.
const MAX_RENEWALS: usize = 3;

/// A blob to upload.
pub struct Upload<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Its bytes.
    pub source: &'a dyn BlobSource,
    /// Its digest and its size in bytes, if they are known before.
    pub expected: Option<(Digest, u64)>,
    /// A session that was started already, instead of a mount.
    pub session: Option<Session>,
    /// Is called with the bytes that were sent.
    pub on_bytes: Box<dyn Fn(u64) + Send + Sync>,
}

/// A blob that a registry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

enum Step {
    /// A session must be started.
    Start,
    /// The bytes from an offset on are sent.
    Send(Url, u64),
    /// The registry is asked for the offset.
    Interrupted(Url),
    /// All bytes are sent; whether the request that completes the blob was sent before.
    Finish(Url, bool),
}

struct Uploader<'a> {
    registry: &'a Registry,
    repository: &'a Repository,
    source: &'a dyn BlobSource,
    expected: Option<(Digest, u64)>,
    flow: Flow,
    step: Step,
    sessions: usize,
    /// Tokens that were replaced during the upload.
    renewed: usize,
    /// Bytes that the registry had at an interruption, at most.
    kept: u64,
    attempts: Attempts,
}

impl Registry {
    /// Uploads a blob. It is verified before it is complete at the registry.
    ///
    /// # Errors
    /// [`RegistryError::Source`] if its bytes cannot be read, [`RegistryError::Digest`] or
    /// [`RegistryError::Size`] if they are not the expected ones; otherwise why the registry does
    /// not accept it.
    pub async fn upload(&self, upload: Upload<'_>) -> Result<Uploaded, RegistryError> {
        let Upload { repository, source, expected, session, on_bytes } = upload;
        let step = session.map_or(Step::Start, |session| Step::Send(session.0, 0));
        let mut uploader = Uploader {
            registry: self,
            repository,
            source,
            expected,
            flow: Flow::new(on_bytes),
            step,
            sessions: 0,
            renewed: 0,
            kept: 0,
            attempts: self.attempts(None),
        };
        loop {
            match uploader.advance().await {
                Ok(Some(uploaded)) => return Ok(uploaded),
                Ok(None) => {}
                Err(e) => uploader.attempts.back_off(e).await?,
            }
        }
    }
}

impl Uploader<'_> {
    /// Does one step. Returns the blob when it is complete.
    async fn advance(&mut self) -> Result<Option<Uploaded>, RegistryError> {
        match std::mem::replace(&mut self.step, Step::Start) {
            Step::Start => {
                self.sessions += 1;
                if self.sessions > MAX_SESSIONS {
                    let host = self.repository.domain().to_owned();
                    let what = format!("it lost the upload {MAX_SESSIONS} times");
                    return Err(RegistryError::Protocol { host, what });
                }
                let session = self.registry.start_upload(self.repository).await?;
                self.step = Step::Send(session.0, 0);
            }
            Step::Send(at, offset) => self.send(at, offset).await?,
            Step::Interrupted(at) => self.resume(at).await?,
            Step::Finish(at, repeated) => return self.finish(at, repeated).await.map(Some),
        }
        Ok(None)
    }

    async fn send(&mut self, at: Url, offset: u64) -> Result<(), RegistryError> {
        self.step = Step::Interrupted(at.clone());
        let size = self.expected.map(|(_, size)| size);
        let sent =
            self.registry.patch(self.repository, &at, (self.source, &self.flow), (offset, size));
        let (at, kept) = match sent.await {
            Ok(sent) => sent,
            // The next attempt begins with the new token.
            Err(RegistryError::Renewed) if self.renewed < MAX_RENEWALS => {
                self.renewed += 1;
                return Ok(());
            }
            Err(e) if is_lost(&e) => {
                self.step = Step::Start;
                // A registry that refuses every upload in this way gives its reason.
                return if self.sessions >= MAX_SESSIONS { Err(e) } else { Ok(()) };
            }
            Err(e) => return Err(e),
        };
        let sent = self.flow.sent();
        match kept {
            Some(kept) if kept < sent => {
                let host = authority(&at);
                self.step = Step::Interrupted(at);
                let cause = Cause::from(format!("the registry kept {kept} of {sent} bytes"));
                return Err(RegistryError::Network { host, cause, down: false, proxy: None });
            }
            // Another upload wrote there, or the number is wrong.
            Some(kept) if kept > sent => self.step = Step::Start,
            _ => self.step = Step::Finish(at, false),
        }
        Ok(())
    }

    /// Asks where the upload continues.
    async fn resume(&mut self, at: Url) -> Result<(), RegistryError> {
        self.step = Step::Interrupted(at.clone());
        let (at, kept) = match self.registry.upload_status(self.repository, &at).await {
            Ok(status) => status,
            Err(e) if is_lost(&e) => {
                self.step = Step::Start;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let sent = self.flow.sent();
        self.step = match kept {
            Some(kept) if kept == sent && self.flow.has_ended() => Step::Finish(at, false),
            Some(kept) if kept <= sent => {
                // A registry whose number falls and rises makes no progress.
                let progress = usize::try_from(kept.saturating_sub(self.kept));
                self.attempts.progress(progress.unwrap_or(usize::MAX));
                self.kept = self.kept.max(kept);
                tracing::info!("the upload continues at byte {kept}");
                Step::Send(at, kept)
            }
            // It has bytes that were not sent, or does not tell.
            _ => Step::Start,
        };
        Ok(())
    }

    async fn finish(&mut self, at: Url, repeated: bool) -> Result<Uploaded, RegistryError> {
        let uploaded = Uploaded { digest: self.flow.digest(), size: self.flow.sent() };
        if let Some((digest, size)) = self.expected
            && (digest, size) != (uploaded.digest, uploaded.size)
        {
            self.registry.cancel_upload(self.repository, &at).await;
            let what = format!("blob {digest} for {}", self.repository);
            return Err(if size == uploaded.size {
                RegistryError::Digest { what, expected: digest, actual: uploaded.digest }
            } else {
                RegistryError::Size { what, expected: size, actual: uploaded.size }
            });
        }
        // The response to the first request may have been lost.
        if repeated
            && self.registry.blob_size(self.repository, uploaded.digest).await?
                == Some(uploaded.size)
        {
            return Ok(uploaded);
        }
        self.step = Step::Finish(at.clone(), true);
        match self.registry.complete_upload(self.repository, &at, uploaded.digest).await {
            Ok(()) => Ok(uploaded),
            Err(e)
                if is_lost(&e) && (repeated || self.kept > 0) && self.sessions < MAX_SESSIONS =>
            {
                self.step = Step::Start;
                let host = authority(&at);
                let cause = Cause::from(e.to_string());
                Err(RegistryError::Network { host, cause, down: false, proxy: None })
            }
            Err(e) => Err(e),
        }
    }
}

/// Returns whether an error means that the upload must begin again: the registry does not know it,
/// or has other bytes of it.
fn is_lost(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::NotFound { .. } | RegistryError::PushRefused { status: 400 | 416, .. }
    )
}
