//! The only place that awaits a server: sends requests and reads bodies within the limits of
//! [`wait`](super::wait).

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{RequestBuilder, Response};
use tokio::task::{JoinError, JoinHandle};

use super::error::{self, Cause, RegistryError};
use super::fact;
use super::flow::Flow;
use super::outage::HostState;
use super::proxy::Proxy;
use super::wait::{LimitExceeded, SpeedLimit, WaitLimits, within};

/// Consecutive HTTP/2 frames without data that are accepted. One ends a body; thousands
/// are an attack.
const MAX_EMPTY_FRAMES: usize = 1000;

/// The server of a request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The host and port.
    pub host: String,
    /// The limits on waiting for it.
    pub limits: WaitLimits,
    /// What is known of the host.
    pub state: Arc<HostState>,
    /// The proxy between.
    pub proxy: Option<Proxy>,
}

/// Why a response, or the rest of its body, did not arrive.
#[derive(Debug)]
pub enum TransferError {
    /// A limit on waiting was exceeded.
    LimitExceeded(LimitExceeded),
    /// The connection or the protocol failed.
    Http(reqwest::Error),
    /// The request was cancelled, or the server sends endless frames without data.
    Other(&'static str),
}

impl TransferError {
    /// Returns the cause in one line.
    pub fn cause(self) -> Cause {
        match self {
            Self::LimitExceeded(exceeded) => exceeded.to_string().into(),
            Self::Http(e) => {
                let fact = fact::of_http(&e);
                Cause::of_http(e).lead_with(fact)
            }
            Self::Other(cause) => cause.into(),
        }
    }

    /// Converts to the error of a request to `peer` without a response.
    pub fn into_request_error(self, peer: &Peer) -> RegistryError {
        let Self::Http(e) = self else { return self.into_body_error(peer) };
        let mut fact = fact::of_http(&e);
        if let Some(proxy) = &peer.proxy {
            fact = match fact.as_str() {
                "connection refused" => format!("proxy {proxy} refused the connection"),
                // hyper-util's error of a SOCKS proxy drops its cause.
                fact if fact.ends_with("failed to create underlying connection") => {
                    format!("proxy {proxy} cannot be reached")
                }
                _ => format!("proxy {proxy}: {fact}"),
            };
        }
        match error::of_request(&peer.host, e) {
            RegistryError::Network { host, cause, down, .. } => {
                tracing::info!("{host}: {cause}");
                let proxy = peer.proxy.as_ref().map(|proxy| proxy.variable.to_owned());
                RegistryError::Network { host, cause: cause.lead_with(fact), down, proxy }
            }
            other => other,
        }
    }

    /// Converts to the error of an incomplete response from `peer`.
    pub fn into_body_error(self, peer: &Peer) -> RegistryError {
        let (host, proxy) = (peer.host.clone(), peer.proxy.as_ref());
        let proxy = proxy.map(|proxy| proxy.variable.to_owned());
        RegistryError::Network { host, cause: self.cause(), down: false, proxy }
    }
}

/// Why a whole body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// It did not arrive completely.
    Transfer(TransferError),
    /// It is larger than the limit.
    TooLarge,
}

/// Sends a request and awaits the headers of the response.
///
/// # Errors
/// [`TransferError`] if they do not arrive within the stall limit.
pub async fn send(request: RequestBuilder, peer: &Peer) -> Result<Response, TransferError> {
    // As a task of its own, the connection is set up even while the caller is not polled, for
    // example a segment out of order. The connect timeout would otherwise count that time.
    let mut task = AbortOnDrop(tokio::spawn(request.send()));
    let stall = peer.limits.stall;
    match within(stall, &mut task.0).await.1 {
        Some(Ok(sent)) => {
            sent.inspect(|_| peer.state.count_received()).map_err(TransferError::Http)
        }
        Some(Err(e)) => Err(TransferError::Other(join_error_text(&e))),
        None => Err(TransferError::LimitExceeded(LimitExceeded::Stall(stall))),
    }
}

/// Sends a request with a streamed body, and awaits the headers of the response. The stall limit
/// applies while the server neither accepts bytes nor responds, not while the body is being made.
///
/// # Errors
/// [`TransferError`] if the server does neither for one to two stall limits.
pub async fn send_upload(
    request: RequestBuilder,
    peer: &Peer,
    flow: &Flow,
) -> Result<Response, TransferError> {
    let mut task = AbortOnDrop(tokio::spawn(request.send()));
    let stall = peer.limits.stall;
    let mut accepted = flow.accepted();
    loop {
        match within(flow.limit(stall), &mut task.0).await.1 {
            Some(Ok(sent)) => {
                return sent.inspect(|_| peer.state.count_received()).map_err(TransferError::Http);
            }
            Some(Err(e)) => return Err(TransferError::Other(join_error_text(&e))),
            None if flow.accepted() != accepted || flow.awaits_source() => {
                accepted = flow.accepted();
            }
            None => return Err(TransferError::LimitExceeded(LimitExceeded::Stall(stall))),
        }
    }
}

fn join_error_text(error: &JoinError) -> &'static str {
    if error.is_panic() { "internal error in the request" } else { "the request was cancelled" }
}

/// A task that is aborted when its handle is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a response.
#[derive(Debug)]
pub struct Body {
    response: Response,
    speed: SpeedLimit,
    host: Arc<HostState>,
    empty_frames: usize,
}

impl Body {
    /// Wraps the body of `response` from `peer`.
    pub fn new(response: Response, peer: &Peer) -> Self {
        let (speed, host) = (SpeedLimit::new(peer.limits), peer.state.clone());
        Self { response, speed, host, empty_frames: 0 }
    }

    /// Returns the next bytes, never empty; `None` at the end.
    ///
    /// # Errors
    /// [`TransferError`] if they do not arrive within the limits.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransferError> {
        loop {
            let chunk = self.speed.wait(self.response.chunk()).await;
            match chunk.map_err(TransferError::LimitExceeded)?.map_err(TransferError::Http)? {
                Some(bytes) if bytes.is_empty() => self.empty_frames += 1,
                Some(bytes) => {
                    self.empty_frames = 0;
                    self.speed.received(bytes.len());
                    self.host.count_received();
                    return Ok(Some(bytes));
                }
                None => return Ok(None),
            }
            if self.empty_frames > MAX_EMPTY_FRAMES {
                return Err(TransferError::Other("endless frames without data"));
            }
        }
    }

    /// Reads the whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BodyError`] if it is larger, or does not arrive completely.
    pub async fn read(mut self, limit: u64) -> Result<Bytes, BodyError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await.map_err(BodyError::Transfer)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(BodyError::TooLarge);
            }
        }
        Ok(body.into())
    }
}
