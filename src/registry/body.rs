//! The one place where rpull awaits a server: it sends requests and reads bodies, each
//! within the limits of [`wait`](super::wait).

use bytes::Bytes;
use reqwest::{RequestBuilder, Response};
use tokio::task::{JoinError, JoinHandle};

use super::error::{self, Cause, RegistryError};
use super::wait::{Exceeded, Limits, Speed, within};

/// HTTP/2 frames without data that a server may send in a row. One ends a body; thousands
/// are an attack.
const MAX_EMPTY_FRAMES: usize = 1000;

/// Why no answer, or no more of it, arrived.
#[derive(Debug)]
pub enum Failure {
    /// A limit on waiting was exceeded.
    Exceeded(Exceeded),
    /// The connection or the protocol failed.
    Http(reqwest::Error),
    /// The request was given up, or the server sends frames without data.
    Other(&'static str),
}

impl Failure {
    /// The cause in one line.
    pub fn cause(self) -> Cause {
        match self {
            Self::Exceeded(exceeded) => exceeded.to_string().into(),
            Self::Http(e) => Cause::of_http(e),
            Self::Other(cause) => cause.into(),
        }
    }

    /// The error of a request to `host` that was not answered.
    pub fn of_request(self, host: &str) -> RegistryError {
        match self {
            Self::Http(e) => error::of_request(host, e),
            other => other.of_body(host),
        }
    }

    /// The error of an answer from `host` that was not complete.
    pub fn of_body(self, host: &str) -> RegistryError {
        RegistryError::Network { host: host.to_owned(), cause: self.cause(), down: false }
    }
}

/// Why a whole body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// It did not arrive.
    Failure(Failure),
    /// It has more bytes than are read.
    TooLarge,
}

/// Sends a request and awaits the headers of its answer.
///
/// # Errors
/// [`Failure`].
pub async fn send(request: RequestBuilder, limits: Limits) -> Result<Response, Failure> {
    // As a task of its own, the connection is set up even while the caller is not polled,
    // like a segment that waits for its turn. The limit on connecting would count that time.
    let mut task = Task(tokio::spawn(request.send()));
    match within(limits.stall, &mut task.0).await.1 {
        Some(Ok(sent)) => sent.map_err(Failure::Http),
        Some(Err(e)) => Err(Failure::Other(given_up(&e))),
        None => Err(Failure::Exceeded(Exceeded::Stall(limits.stall))),
    }
}

fn given_up(error: &JoinError) -> &'static str {
    if error.is_panic() { "internal error in the request" } else { "the request was cancelled" }
}

/// A task that ends when its owner does.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    response: Response,
    speed: Speed,
    empty: usize,
}

impl Body {
    /// The body of `response`.
    pub fn new(response: Response, limits: Limits) -> Self {
        Self { response, speed: Speed::new(limits), empty: 0 }
    }

    /// The next bytes, never empty; `None` at the end.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let chunk = self.speed.wait(self.response.chunk()).await;
            match chunk.map_err(Failure::Exceeded)?.map_err(Failure::Http)? {
                Some(bytes) if bytes.is_empty() => self.empty += 1,
                Some(bytes) => {
                    self.empty = 0;
                    self.speed.received(bytes.len());
                    return Ok(Some(bytes));
                }
                None => return Ok(None),
            }
            if self.empty > MAX_EMPTY_FRAMES {
                return Err(Failure::Other("endless frames without data"));
            }
        }
    }

    /// The whole body of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn read(mut self, limit: u64) -> Result<Bytes, BodyError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await.map_err(BodyError::Failure)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(BodyError::TooLarge);
            }
        }
        Ok(body.into())
    }
}
