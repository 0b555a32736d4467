//! Tokens from a token server (distribution spec, auth/token and auth/oauth).

use std::time::{Duration, Instant};

use reqwest::header::LOCATION;
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;

use super::body::{self, Body, BodyError, Peer};
use super::credentials::{Credential, Secret, without_values};
use super::endpoint::{self, Endpoint};
use super::error::{Cause, RegistryError};
use super::host::Clients;
use super::html;
use super::http::{MAX_ERROR_BODY_SIZE, message};

/// Seconds that a token is valid at least (distribution spec, auth/token).
const MIN_LIFETIME: u64 = 60;

/// Bytes of a token server's response at most.
const MAX_RESPONSE_SIZE: u64 = 1 << 20;

/// A token and its lifetime.
pub struct Token {
    /// The token.
    pub token: String,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// A request for a token.
pub struct TokenRequest {
    /// The token server's URL, without user and password.
    realm: Url,
    service: Option<String>,
    /// One element per repository.
    scopes: Vec<String>,
}

#[derive(Deserialize)]
struct TokenResponse {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl TokenRequest {
    /// Creates a request to the token server that the registry at `endpoint` names.
    ///
    /// # Errors
    /// [`RegistryError::Protocol`] if `realm` is not the URL of a web server.
    pub fn new(
        endpoint: &Endpoint,
        realm: &str,
        service: Option<String>,
        scopes: Vec<String>,
    ) -> Result<Self, RegistryError> {
        let wrong = |what: String| RegistryError::Protocol { host: endpoint.host.clone(), what };
        let mut realm = Url::parse(realm)
            .map_err(|e| wrong(format!("it names an invalid token server: {e}")))?;
        if !matches!(realm.scheme(), "http" | "https") {
            let scheme = realm.scheme();
            return Err(wrong(format!("it names a token server with the scheme '{scheme}'")));
        }
        // Only the user's credentials are sent there, and messages must not contain passwords.
        endpoint::strip_user(&mut realm);
        Ok(Self { realm, service, scopes })
    }

    /// Fetches a token for `credential`, or an anonymous token.
    ///
    /// # Errors
    /// [`RegistryError::InsecureRealm`] if credentials would be sent over plain HTTP;
    /// [`RegistryError::Token`] if the exchange fails.
    pub async fn exchange(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        credential: Option<Credential>,
    ) -> Result<Token, RegistryError> {
        if credential.is_some() && !clients.may_continue_at(&endpoint.url("")?, &self.realm) {
            return Err(RegistryError::InsecureRealm {
                host: endpoint.host.clone(),
                realm: self.shown_realm(),
                https: endpoint.scheme == "https",
            });
        }
        let (peer, client) = (clients.peer(&self.realm), clients.client(&self.realm)?);
        tracing::debug!(
            "token for {} from {}, {}",
            self.scopes.join(" "),
            self.shown_realm(),
            match &credential {
                None => "without credentials",
                Some(Credential::Basic { .. }) => "with user and password",
                Some(Credential::Identity(_)) => "with an identity token",
                Some(Credential::Bearer(_)) => "with a token",
            }
        );
        if let Some(Credential::Identity(token)) = &credential {
            let scopes = self.scopes.join(" ");
            let form = self.refresh_form(token, &scopes);
            let request = client.post(self.realm.clone()).form(&form);
            let response = self.send("POST", request, clients).await?;
            // Some servers do not support POST (distribution spec, auth/oauth).
            if !matches!(response.status().as_u16(), 404 | 405) {
                return self.read(response, &peer).await;
            }
        }
        let mut query: Vec<_> = self.scopes.iter().map(|scope| ("scope", scope.as_str())).collect();
        query.extend(self.service.as_deref().map(|service| ("service", service)));
        let mut request = client.get(self.realm.clone());
        if let Some(Credential::Basic { username, password }) = &credential {
            query.push(("account", username));
            request = request.basic_auth(username, Some(password.reveal()));
        }
        self.read(self.send("GET", request.query(&query), clients).await?, &peer).await
    }

    fn refresh_form<'a>(
        &'a self,
        token: &'a Secret,
        scopes: &'a str,
    ) -> Vec<(&'static str, &'a str)> {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", token.reveal()),
            ("client_id", "rpull"),
            ("scope", scopes),
        ];
        form.extend(self.service.as_deref().map(|service| ("service", service)));
        form
    }

    async fn send(
        &self,
        method: &str,
        request: RequestBuilder,
        clients: &Clients,
    ) -> Result<Response, RegistryError> {
        let began = Instant::now();
        let peer = clients.peer(&self.realm);
        let sent = body::send(request, &peer).await;
        let response = sent.map_err(|e| match e.into_request_error(&peer) {
            error @ RegistryError::Tls { .. } => clients.explain(error, &self.realm),
            RegistryError::Network { cause, .. } => self.failed(0, cause),
            error => self.failed(0, error.to_string()),
        })?;
        let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis());
        tracing::debug!("{method} {} {status}, {ms} ms", self.shown_realm());
        Ok(response)
    }

    async fn read(&self, response: Response, peer: &Peer) -> Result<Token, RegistryError> {
        let status = response.status();
        let failed = |message: String| self.failed(status.as_u16(), message);
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| self.realm.join(to).ok());
            let to = to.map(|to| endpoint::origin(&to));
            let to = to.unwrap_or_else(|| "nowhere".to_owned());
            return Err(failed(format!(
                "{status}: it redirects to {to}, and token requests do not follow redirects"
            )));
        }
        if !status.is_success() {
            // Without the body, the status is enough.
            let body =
                Body::new(response, peer).read(MAX_ERROR_BODY_SIZE).await.unwrap_or_default();
            let text = message(&body);
            return Err(failed(if text.is_empty() {
                status.to_string()
            } else {
                format!("{status}: {text}")
            }));
        }
        let content_type = html::content_type(&response).to_owned();
        let body = match Body::new(response, peer).read(MAX_RESPONSE_SIZE).await {
            Ok(body) => body,
            Err(BodyError::Transfer(e)) => return Err(self.failed(0, e.cause())),
            Err(BodyError::TooLarge) => {
                return Err(self
                    .failed(0, format!("its response is larger than {MAX_RESPONSE_SIZE} bytes")));
            }
        };
        if let Some(page) = html::error_of(&peer.host, &content_type, "a token", &body) {
            return Err(page);
        }
        let answer: TokenResponse = serde_json::from_slice(&body)
            .map_err(|e| failed(format!("its response is not a token: {}", without_values(&e))))?;
        let token = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
        if token.is_empty() {
            return Err(failed("its response contains no token".to_owned()));
        }
        let lifetime = answer.expires_in.unwrap_or(MIN_LIFETIME).max(MIN_LIFETIME);
        Ok(Token { token, lifetime: Duration::from_secs(lifetime) })
    }

    fn failed(&self, status: u16, message: impl Into<Cause>) -> RegistryError {
        RegistryError::Token { realm: self.shown_realm(), message: message.into(), status }
    }

    fn shown_realm(&self) -> String {
        endpoint::origin(&self.realm) + self.realm.path()
    }
}
