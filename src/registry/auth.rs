//! Authorisation by a registry's challenge (distribution spec, auth/token; RFC 7617).
//!
//! No credential is sent before a challenge. A token is kept for its scope until nine tenths
//! of its lifetime are over, and dropped when a registry rejects it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::BASE64;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use tokio::sync::{Mutex, MutexGuard};

use super::access::Access;
use super::credentials::{self, Credential, CredentialSource, Found, Secret};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::host::Clients;
use super::token::TokenRequest;

/// The authentication that a registry demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
        /// The scope; the repository's pull scope if absent.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Returns the preferred challenge of a response: Bearer before Basic.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut basic = None;
        for value in values {
            for challenge in http_auth::parse_challenges(value).unwrap_or_default() {
                let parameter = |name: &str| {
                    let found =
                        challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm")?;
                    return Some(Self::Bearer {
                        realm,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

#[derive(Clone)]
struct Grant {
    header: Secret,
    expires_at: Option<Instant>,
}

#[derive(Default)]
struct RepositoryAuth {
    challenge: Option<Challenge>,
    credential: Option<Option<Found>>,
    grant: Option<Grant>,
    /// The last failure and its time. Requests that waited meanwhile fail with it, too.
    failed: Option<(Instant, RegistryError)>,
}

/// The contacted host, and what requests to it do.
type RepositoryKey = (String, Access);

/// The state of the authorisation for each repository and kind of access.
pub struct Authenticator {
    chain: Arc<Vec<Box<dyn CredentialSource>>>,
    /// One lock per repository and kind of access, so that parallel requests share one token exchange.
    repositories: std::sync::Mutex<HashMap<RepositoryKey, Arc<Mutex<RepositoryAuth>>>>,
}

impl Authenticator {
    /// Creates an authenticator that looks credentials up in `chain` when challenged.
    pub fn new(chain: Vec<Box<dyn CredentialSource>>) -> Self {
        Self { chain: Arc::new(chain), repositories: std::sync::Mutex::default() }
    }

    /// Returns the `Authorization` header for a request, if a challenge came before.
    ///
    /// # Errors
    /// [`RegistryError::Token`], [`RegistryError::InsecureRealm`] or
    /// [`RegistryError::Credentials`] if an expired token cannot be renewed.
    pub async fn header(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        access: &Access,
    ) -> Result<Option<Secret>, RegistryError> {
        let auth = self.repository_auth(&endpoint.host, access);
        let mut auth = lock(&auth).await?;
        let fresh = |grant: &Grant| grant.expires_at.is_none_or(|time| Instant::now() < time);
        if let Some(grant) = auth.grant.as_ref().filter(|grant| fresh(grant)) {
            return Ok(Some(grant.header.clone()));
        }
        match auth.challenge.clone() {
            Some(challenge) => self.grant(clients, endpoint, access, &mut auth, challenge).await,
            None => Ok(None),
        }
    }

    /// Handles a response with status 401 to a request with the header `sent`. Returns whether
    /// to repeat the request with a new [`header`](Self::header).
    ///
    /// # Errors
    /// [`RegistryError::Token`], [`RegistryError::InsecureRealm`] or
    /// [`RegistryError::Credentials`] if the challenge cannot be answered.
    pub async fn handle_unauthorized(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        access: &Access,
        sent: Option<&Secret>,
        headers: &HeaderMap,
    ) -> Result<bool, RegistryError> {
        let Some(challenge) = Challenge::of(headers) else { return Ok(false) };
        let auth = self.repository_auth(&endpoint.host, access);
        let mut auth = lock(&auth).await?;
        let current = auth.grant.as_ref().map(|grant| &grant.header);
        if current.is_some() && current != sent {
            // Another request got a new token meanwhile.
            return Ok(true);
        }
        auth.challenge = Some(challenge.clone());
        auth.grant = None;
        let grant = self.grant(clients, endpoint, access, &mut auth, challenge).await?;
        Ok(grant.is_some() && grant.as_ref() != sent)
    }

    /// Returns the source of the credentials for the repository.
    pub async fn source_of(&self, host: &str, access: &Access) -> Option<String> {
        let auth = self.repository_auth(host, access);
        let auth = auth.lock().await;
        auth.credential.clone().flatten().map(|found| found.from)
    }

    fn repository_auth(&self, host: &str, access: &Access) -> Arc<Mutex<RepositoryAuth>> {
        let mut repositories =
            self.repositories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        repositories.entry((host.to_owned(), access.clone())).or_default().clone()
    }

    async fn grant(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        access: &Access,
        auth: &mut RepositoryAuth,
        challenge: Challenge,
    ) -> Result<Option<Secret>, RegistryError> {
        let grant = self.try_grant(clients, endpoint, access, auth, challenge).await;
        match grant {
            Ok(grant) => {
                (auth.grant, auth.failed) = (grant, None);
                Ok(auth.grant.as_ref().map(|grant| grant.header.clone()))
            }
            Err(e) => {
                auth.failed = Some((Instant::now(), e.clone()));
                Err(e)
            }
        }
    }

    async fn try_grant(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        access: &Access,
        auth: &mut RepositoryAuth,
        challenge: Challenge,
    ) -> Result<Option<Grant>, RegistryError> {
        let found = match &auth.credential {
            Some(found) => found.clone(),
            None => auth.credential.insert(self.look_up(endpoint, access).await?).clone(),
        };
        let credential = found.map(|found| found.credential);
        Ok(match (challenge, credential) {
            (_, Some(Credential::Bearer(token))) => {
                Some(Grant { header: bearer(token.reveal()), expires_at: None })
            }
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                Some(Grant { header: basic(&username, &password), expires_at: None })
            }
            (Challenge::Basic, _) => None,
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let scopes = access.scopes(scope.as_deref());
                let request = TokenRequest::new(endpoint, &realm, service, scopes)?;
                let token = request.exchange(clients, endpoint, credential).await?;
                let expires_at = Instant::now().checked_add(token.lifetime.mul_f64(0.9));
                Some(Grant { header: bearer(&token.token), expires_at })
            }
        })
    }

    /// Looks up the credential for the host that is contacted, which may be a mirror of the
    /// repository's own.
    async fn look_up(
        &self,
        endpoint: &Endpoint,
        access: &Access,
    ) -> Result<Option<Found>, RegistryError> {
        let (chain, host) = (self.chain.clone(), endpoint.credential_host());
        let path = access.repository.path().to_owned();
        // Reading files and running helpers blocks.
        let look = tokio::task::spawn_blocking(move || credentials::find(&chain, &host, &path));
        let found = look.await.map_err(|e| RegistryError::Internal(e.to_string()))??;
        let from = found.as_ref().map_or("no source has any", |found| &found.from);
        tracing::info!("credentials for {}: {from}", endpoint.host);
        Ok(found)
    }
}

/// Waits for other requests to the same repository, and fails if one of them failed
/// meanwhile: retrying one after the other would add up their timeouts.
async fn lock(
    auth: &Mutex<RepositoryAuth>,
) -> Result<MutexGuard<'_, RepositoryAuth>, RegistryError> {
    let began = Instant::now();
    let auth = auth.lock().await;
    match &auth.failed {
        Some((at, error)) if *at >= began => Err(error.clone()),
        _ => Ok(auth),
    }
}

fn bearer(token: &str) -> Secret {
    Secret::new(format!("Bearer {token}"))
}

fn basic(username: &str, password: &Secret) -> Secret {
    let pair = format!("{username}:{}", password.reveal());
    Secret::new(format!("Basic {}", BASE64.encode(pair.as_bytes())))
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn bearer_challenge_is_preferred_to_basic() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        let text = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(of(&[text]), Some(bearer.clone()));
        assert_eq!(of(&["Basic realm=x", text]), Some(bearer));
        assert_eq!(of(&["basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(of(&["Digest realm=\"x\""]), None);
        assert_eq!(of(&["???"]), None);
        assert_eq!(of(&[]), None);
    }

    /// Knows one host, and notes the hosts that it is asked for.
    #[derive(Clone)]
    struct OneHost(&'static str, Arc<std::sync::Mutex<Vec<String>>>);

    impl CredentialSource for OneHost {
        fn find(&self, host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
            self.1.lock().unwrap().push(host.to_owned());
            let password = Secret::new("hunter2");
            let credential = Credential::Basic { username: "user".to_owned(), password };
            Ok((host == self.0).then(|| Found::new(credential, "a test")))
        }
    }

    /// Answers a challenge of `endpoint` to a request for `name`. Returns whether a credential
    /// would be sent, and the hosts that the source was asked for.
    async fn challenged(
        endpoint: Endpoint,
        name: &str,
        known: &'static str,
    ) -> (bool, Vec<String>) {
        let source = OneHost(known, Arc::default());
        let auth = Authenticator::new(vec![Box::new(source.clone())]);
        let clients = Clients::new(crate::registry::RegistryOptions::default());
        let reference: crate::reference::Reference = name.parse().unwrap();
        let access = Access::pull(reference.repository());
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        let repeat = auth.handle_unauthorized(&clients, &endpoint, &access, None, &headers).await;
        let header = auth.header(&clients, &endpoint, &access).await.unwrap();
        assert_eq!(repeat.unwrap(), header.is_some());
        let asked = source.1.lock().unwrap().clone();
        (header.is_some(), asked)
    }

    #[tokio::test]
    async fn credential_of_the_upstream_is_not_sent_to_its_mirror() {
        let mirror = Endpoint { scheme: "https", host: "mirror.example:5000".to_owned() };
        let (sent, asked) =
            challenged(mirror.clone(), "upstream.example/a/b", "upstream.example").await;
        assert!(!sent && asked.iter().all(|host| host == "mirror.example:5000"), "{asked:?}");
        let (sent, asked) = challenged(mirror.clone(), "nginx", "docker.io").await;
        assert!(!sent && asked.iter().all(|host| host == "mirror.example:5000"), "{asked:?}");
        assert!(challenged(mirror, "upstream.example/a/b", "mirror.example:5000").await.0);
    }

    #[tokio::test]
    async fn credential_of_docker_hub_is_looked_up_as_docker_io() {
        let options = crate::registry::RegistryOptions::default();
        let hub = Clients::new(options).endpoint("docker.io").await.unwrap();
        assert_ne!(hub.host, "docker.io");
        let (sent, asked) = challenged(hub, "nginx", "docker.io").await;
        assert!(sent && asked == ["docker.io"], "{asked:?}");
    }
}
