//! One request and its response: authorisation, redirects and error responses.

use std::time::{Duration, Instant};

use bytes::Bytes;
use oci_client::errors::OciEnvelope;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
    RETRY_AFTER,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::Registry;
use super::access::Access;
use super::body::{self, Body};
use super::credentials::Secret;
use super::endpoint::{self, Endpoint, authority};
use super::error::RegistryError;
use super::flow::Flow;
use super::html;
use super::tls_problem::TlsProblem;
use crate::printable;
use crate::reference::Repository;

const MAX_REDIRECTS: usize = 10;

/// Bytes of an error response's body that are read at most.
pub const MAX_ERROR_BODY_SIZE: u64 = 64 << 10;

/// Bytes of an error message that are kept at most, since it becomes one line.
const MAX_MESSAGE_SIZE: usize = 512;

/// A request below a repository.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The method. Those other than GET and HEAD need `push`.
    pub method: Method,
    /// The repository.
    pub repository: &'a Repository,
    /// The path below the repository: `manifests/latest`.
    pub path: String,
    /// The `Accept` header.
    pub accept: Option<String>,
    /// The first byte, and the end, exclusive.
    pub range: Option<(u64, Option<u64>)>,
    /// What makes it a part of a push.
    pub push: Option<Push<'a>>,
    /// The object in error messages: `manifest for nginx:nope`.
    pub what: String,
}

/// What a request of a push has in addition.
#[derive(Debug, Clone, Default)]
pub struct Push<'a> {
    /// The path of the repository from which a blob is mounted.
    pub from: Option<&'a str>,
    /// The location of an upload, which is used in place of the path.
    pub at: Option<Url>,
    /// The media type and the bytes of the body.
    pub body: Option<(&'a str, Bytes)>,
    /// The limit on the wait for the response, if it is longer than the stall limit.
    pub limit: Option<Duration>,
}

/// A body that is streamed.
pub struct Streamed<'a> {
    /// The body.
    pub body: reqwest::Body,
    /// Its progress.
    pub flow: &'a Flow,
    /// The place of its first byte in the blob.
    pub offset: u64,
    /// The size of the blob, if it is known.
    pub size: Option<u64>,
}

impl Request<'_> {
    fn access(&self) -> Access {
        match &self.push {
            None => Access::pull(self.repository),
            Some(Push { from: None, .. }) => Access::push(self.repository),
            Some(Push { from: Some(from), .. }) => Access::mount(self.repository, from),
        }
    }
}

impl Registry {
    /// Sends a request without retries and returns the response if its status is a success.
    ///
    /// # Errors
    /// [`RegistryError`] if there is no response, or its status is an error, or a file with
    /// credentials is not valid.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        self.shared.check_credentials().await?;
        let endpoint = self.shared.clients.endpoint(request.repository.domain()).await?;
        let mut reauthenticated = false;
        loop {
            let auth = &self.shared.auth;
            let access = request.access();
            let header = auth.header(&self.shared.clients, &endpoint, &access).await?;
            let response = self.follow(request, &endpoint, header.as_ref()).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            // Only the registry itself can ask for credentials, not the target of a redirect.
            let from_registry = response.url().origin() == endpoint.url("")?.origin();
            if status == StatusCode::UNAUTHORIZED && from_registry && !reauthenticated {
                reauthenticated = true;
                let (clients, headers) = (&self.shared.clients, response.headers());
                if auth
                    .handle_unauthorized(clients, &endpoint, &access, header.as_ref(), headers)
                    .await?
                {
                    continue;
                }
            }
            let source = auth.source_of(&endpoint.host, &access).await;
            return Err(self.error_of_response(request, response, source).await);
        }
    }

    async fn follow(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        header: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let start = endpoint.url(&format!("{}/{}", request.repository.path(), request.path))?;
        let mut url = request.push.as_ref().and_then(|push| push.at.clone());
        let mut url = url.take().unwrap_or_else(|| start.clone());
        for _ in 0..=MAX_REDIRECTS {
            let same_origin = url.origin() == start.origin();
            let header = header.filter(|_| same_origin);
            let response = self.send_to(request, &url, same_origin, header).await?;
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            match location {
                Some(to) if follows(&request.method, response.status()) => {
                    url = self.redirect_target(&url, to)?;
                }
                _ => return Ok(response),
            }
        }
        Err(protocol(&start, format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn send_to(
        &self,
        request: &Request<'_>,
        url: &Url,
        same_origin: bool,
        header: Option<&Secret>,
    ) -> Result<Response, RegistryError> {
        let mut builder = self.builder(request, url, header)?;
        let mut peer = self.shared.clients.peer(url);
        if let Some(push) = &request.push {
            peer.limits.stall = peer.limits.stall.max(push.limit.unwrap_or_default());
            if let Some((media_type, bytes)) = &push.body {
                builder = builder.header(CONTENT_TYPE, *media_type).body(bytes.clone());
            }
        }
        let began = Instant::now();
        let sent = body::send(builder, &peer).await;
        let sent = sent.map_err(|e| self.shared.clients.explain(e.into_request_error(&peer), url));
        self.log_sent(request, &sent, (url, same_origin), began);
        sent
    }

    /// Sends a request with a streamed body, without retries. A rejected token is replaced for the
    /// next attempt.
    ///
    /// # Errors
    /// As for [`send`](Self::send); [`RegistryError::Source`] if the body cannot be read, and
    /// [`RegistryError::Renewed`] after a new token.
    pub(super) async fn send_stream(
        &self,
        request: &Request<'_>,
        url: &Url,
        streamed: Streamed<'_>,
    ) -> Result<Response, RegistryError> {
        let endpoint = self.shared.clients.endpoint(request.repository.domain()).await?;
        let same_origin = endpoint.url("")?.origin() == url.origin();
        let (auth, access) = (&self.shared.auth, request.access());
        let header = match same_origin {
            true => auth.header(&self.shared.clients, &endpoint, &access).await?,
            false => None,
        };
        let mut builder = self.builder(request, url, header.as_ref())?;
        let Streamed { body, flow, offset, size } = streamed;
        builder = builder.header(CONTENT_TYPE, "application/octet-stream");
        if let Some(size) = size {
            builder = builder.header(CONTENT_LENGTH, size - offset);
            if size > offset {
                builder = builder.header("content-range", format!("{offset}-{}", size - 1));
            }
        }
        let (peer, began) = (self.shared.clients.peer(url), Instant::now());
        let sent = body::send_upload(builder.body(body), &peer, flow).await;
        let sent = sent.map_err(|e| self.shared.clients.explain(e.into_request_error(&peer), url));
        self.log_sent(request, &sent, (url, same_origin), began);
        let response = match sent {
            Err(_) if flow.has_failed() => return Err(RegistryError::Source),
            sent => sent?,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED && same_origin {
            let (clients, headers) = (&self.shared.clients, response.headers());
            let renewed =
                auth.handle_unauthorized(clients, &endpoint, &access, header.as_ref(), headers);
            if renewed.await? {
                return Err(RegistryError::Renewed);
            }
        }
        let source = auth.source_of(&endpoint.host, &access).await;
        Err(self.error_of_response(request, response, source).await)
    }

    /// Returns the request to `url`, without its body.
    fn builder(
        &self,
        request: &Request<'_>,
        url: &Url,
        header: Option<&Secret>,
    ) -> Result<RequestBuilder, RegistryError> {
        let client = self.shared.clients.client(url)?;
        let mut target = url.clone();
        if header.is_some() {
            endpoint::strip_user(&mut target);
        }
        let mut builder = client.request(request.method.clone(), target);
        if let Some(accept) = &request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        if let Some((start, end)) = request.range {
            let end = end.map(|end| (end - 1).to_string()).unwrap_or_default();
            builder = builder.header(RANGE, format!("bytes={start}-{end}"));
        }
        if let Some(header) = header {
            let mut value = HeaderValue::from_str(header.reveal()).map_err(|_| {
                protocol(url, "the credentials contain characters that a header cannot".to_owned())
            })?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        self.shared.count_request();
        Ok(builder)
    }

    fn log_sent(
        &self,
        request: &Request<'_>,
        sent: &Result<Response, RegistryError>,
        (url, same_origin): (&Url, bool),
        began: Instant,
    ) {
        match sent {
            Ok(response) => self.log_response(request, response, same_origin, began),
            Err(e) => tracing::debug!(
                "{} {}/... failed after {} ms: {e}",
                request.method,
                endpoint::origin(url),
                began.elapsed().as_millis()
            ),
        }
    }

    fn log_response(
        &self,
        request: &Request<'_>,
        response: &Response,
        same_origin: bool,
        began: Instant,
    ) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let url = response.url();
        let (method, status) = (&request.method, response.status().as_u16());
        // Queries contain signatures; so can the paths of a storage server.
        let path = if same_origin { url.path() } else { "/..." };
        let range = request.range.map_or(String::new(), |(start, end)| {
            let last = end.map(|end| (end - 1).to_string()).unwrap_or_default();
            format!(", range {start}-{last}")
        });
        let length = response.content_length();
        let length = length.map_or("unknown length".to_owned(), |length| format!("{length} bytes"));
        let peer = response.remote_addr().map_or(String::new(), |peer| format!(", from {peer}"));
        let proxy = self.shared.clients.proxy(url);
        let proxy = proxy.map_or(String::new(), |proxy| format!(", proxy {proxy}"));
        tracing::debug!(
            "{method} {}{path} {status}{range}, {length}, {} ms{peer}{proxy}",
            endpoint::origin(url),
            began.elapsed().as_millis()
        );
    }

    async fn error_of_response(
        &self,
        request: &Request<'_>,
        response: Response,
        source_of: Option<String>,
    ) -> RegistryError {
        let (status, url) = (response.status(), response.url().clone());
        let peer = self.shared.clients.peer(&url);
        let retry_after = retry_after(response.headers());
        let rate_limit = rate_limit(response.headers());
        let head = request.method == Method::HEAD;
        let content_type = html::content_type(&response).to_owned();
        // Without the body, the status is enough.
        let body = Body::new(response, &peer).read(MAX_ERROR_BODY_SIZE).await;
        let (body, host) = (body.unwrap_or_default(), peer.host);
        let text = message(&body);
        if status == StatusCode::BAD_REQUEST
            && let Some(problem) = TlsProblem::of_bad_request(url.scheme(), &body)
        {
            let cause = format!("status {status}").into();
            let error = RegistryError::Tls { host, problem, certs_dir: None, cause };
            return self.shared.clients.explain(error, &url);
        }
        let message = match (text.is_empty(), status.canonical_reason()) {
            (true, Some(reason)) => reason.to_ascii_lowercase(),
            _ => text,
        };
        let repository = request.repository.to_string();
        let is_push = request.push.is_some();
        match status.as_u16() {
            401 if is_push && !head && message.contains("denied") => {
                RegistryError::PushDenied { repository, message }
            }
            403 if is_push => RegistryError::PushDenied { repository, message },
            300..=499 if is_push && !matches!(status.as_u16(), 401 | 404 | 408 | 429) => {
                RegistryError::PushRefused { host, status: status.as_u16(), message }
            }
            401 if source_of.is_none() && !head && message.contains("denied") => {
                RegistryError::Denied { repository, message }
            }
            401 => RegistryError::Unauthorized { host, message, source_of },
            403 => RegistryError::Denied { repository, message },
            404 => {
                // A registry answers with JSON.
                let page = html::error_of(&host, &content_type, "JSON", &body);
                let message = page.map_or(message, |page| page.to_string());
                RegistryError::NotFound { what: request.what.clone(), message }
            }
            429 => RegistryError::RateLimited { host, message: message + &rate_limit, retry_after },
            status => RegistryError::Status { host, status, message, retry_after },
        }
    }

    /// Returns the target of a redirect from `url`.
    ///
    /// # Errors
    /// [`RegistryError::Protocol`] if it is not an HTTP URL, [`RegistryError::InsecureRedirect`] if
    /// it leaves HTTPS.
    pub(super) fn redirect_target(&self, url: &Url, location: &str) -> Result<Url, RegistryError> {
        let to = url
            .join(location)
            .map_err(|e| protocol(url, format!("it redirects to an invalid URL: {e}")))?;
        match (url.scheme(), to.scheme()) {
            // Content fetched by tag would not be verified, and all content would be visible.
            ("https", "http") if !self.may_leave_https(url, &to) => {
                let (host, target) = (authority(url), endpoint::origin(&to));
                Err(RegistryError::InsecureRedirect { host, target })
            }
            (_, "http" | "https") => Ok(to),
            (_, scheme) => Err(protocol(url, format!("it redirects to the scheme '{scheme}'"))),
        }
    }

    fn may_leave_https(&self, url: &Url, to: &Url) -> bool {
        self.shared.options.plain_http || self.shared.clients.may_continue_at(url, to)
    }
}

/// Returns whether a redirect is followed. Those that can change the method are not, if they would.
fn follows(method: &Method, status: StatusCode) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    status.is_redirection() && (reads || matches!(status.as_u16(), 307 | 308))
}

/// Returns the message of an error's body: the codes and messages of the OCI envelope, each once,
/// or the text itself; at most [`MAX_MESSAGE_SIZE`] bytes.
pub fn message(body: &[u8]) -> String {
    printable::shorten(&whole_message(body), MAX_MESSAGE_SIZE).into_owned()
}

fn whole_message(body: &[u8]) -> String {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) {
        let messages = envelope.errors.iter().map(|error| {
            let code = serde_json::to_value(&error.code).ok();
            let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
            let code = code.to_ascii_lowercase().replace('_', " ");
            match error.message.trim() {
                "" => code,
                text if text.trim_end_matches('.').eq_ignore_ascii_case(&code) => text.to_owned(),
                text => format!("{code}: {text}"),
            }
        });
        return messages.collect::<Vec<_>>().join("; ");
    }
    let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let first = &json["errors"][0];
    let candidates = [
        &first["message"],
        &json["details"],
        &json["message"],
        &json["error_description"],
        &json["error"],
    ];
    if let Some(text) = candidates.iter().find_map(|value| value.as_str()) {
        return text.to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    // The first line of an HTML error page contains no message.
    if line.starts_with('<') { String::new() } else { line.to_owned() }
}

/// Parses `Retry-After` in seconds. Registries do not use its date form.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Describes Docker Hub's `ratelimit-limit: 100;w=21600` in words.
fn rate_limit(headers: &HeaderMap) -> String {
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some((count, window)) = of("ratelimit-limit").and_then(|limit| limit.split_once(";w="))
    else {
        return String::new();
    };
    let left = of("ratelimit-remaining").and_then(|left| left.split(';').next()).unwrap_or("0");
    let hours = window.parse::<f64>().map_or(0.0, |seconds| seconds / 3600.0);
    format!(" ({left} of {count} pulls in {hours} hours left)")
}

fn protocol(url: &Url, what: String) -> RegistryError {
    RegistryError::Protocol { host: authority(url), what }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_body_in_every_form_gives_its_message() {
        let envelope = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(message(envelope), "manifest unknown");
        let unknown_code = br#"{"errors":[{"code":"X_ODD","message":"odd"}]}"#;
        assert_eq!(message(unknown_code), "x odd: odd");
        assert_eq!(
            message(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(message(b"Too Many Requests\nmore"), "Too Many Requests");
        assert_eq!(message(b"<html><body>502</body></html>"), "");
    }

    #[test]
    fn message_equal_to_its_code_is_shown_once() {
        let of = |code: &str, text: &str| {
            message(format!(r#"{{"errors":[{{"code":"{code}","message":"{text}"}}]}}"#).as_bytes())
        };
        assert_eq!(of("MANIFEST_UNKNOWN", "Manifest unknown."), "Manifest unknown.");
        assert_eq!(of("NAME_UNKNOWN", "  "), "name unknown");
        assert_eq!(
            of("MANIFEST_UNKNOWN", "manifest unknown to registry"),
            "manifest unknown: manifest unknown to registry"
        );
        assert_eq!(of("DENIED", "access to the resource"), "denied: access to the resource");
    }

    #[test]
    fn long_message_in_every_form_is_cut() {
        let long = "x".repeat(60 << 10);
        let bodies = [
            format!(r#"{{"errors":[{{"code":"DENIED","message":"{long}"}}]}}"#),
            format!(r#"{{"details":"{long}"}}"#),
            long.clone(),
        ];
        for body in bodies {
            let text = message(body.as_bytes());
            assert!(text.len() <= MAX_MESSAGE_SIZE && text.contains(" more bytes) …"), "{text}");
        }
    }

    #[test]
    fn rate_limit_of_docker_hub_is_reported() {
        let mut headers = HeaderMap::new();
        assert_eq!(rate_limit(&headers), "");
        headers.insert("ratelimit-limit", HeaderValue::from_static("100;w=21600"));
        headers.insert("ratelimit-remaining", HeaderValue::from_static("0;w=21600"));
        assert_eq!(rate_limit(&headers), " (0 of 100 pulls in 6 hours left)");
    }
}
