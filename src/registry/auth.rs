//! Authorisation: what a registry's challenge asks for (distribution spec, auth/token;
//! RFC 7617).
//!
//! Nothing is sent until a registry asks. A token is kept for its scope until nine tenths
//! of its life are over, and thrown away when a registry no longer takes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::BASE64;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use tokio::sync::{Mutex, MutexGuard};

use super::credentials::{self, Credential, CredentialSource, Found, Secret};
use super::error::RegistryError;
use super::host::{Clients, Endpoint};
use super::token::TokenRequest;
use crate::reference::Repository;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token.
    Bearer {
        /// Where tokens are had.
        realm: String,
        /// For whom they are.
        service: Option<String>,
        /// For what; the repository's pull scope if it does not say.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of an answer: a token if it takes one.
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
struct Granted {
    header: Secret,
    until: Option<Instant>,
}

#[derive(Default)]
struct Known {
    challenge: Option<Challenge>,
    credential: Option<Option<Found>>,
    granted: Option<Granted>,
    /// The last failure, and when it came: it counts for those who waited meanwhile.
    failed: Option<(Instant, RegistryError)>,
}

/// Where a repository lives: the host contacted and its path there.
type Key = (String, Repository);

/// Keeps what is known of each repository's authorisation.
pub struct Authenticator {
    chain: Arc<Vec<Box<dyn CredentialSource>>>,
    /// A lock a repository, so that parallel requests get one token together.
    known: std::sync::Mutex<HashMap<Key, Arc<Mutex<Known>>>>,
}

impl Authenticator {
    /// Asks `chain` for credentials when a registry asks for them.
    pub fn new(chain: Vec<Box<dyn CredentialSource>>) -> Self {
        Self { chain: Arc::new(chain), known: std::sync::Mutex::default() }
    }

    /// The `Authorization` for a request, if a challenge was met before.
    ///
    /// # Errors
    /// [`RegistryError::Token`], [`RegistryError::InsecureRealm`],
    /// [`RegistryError::Credentials`].
    pub async fn header(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        repository: &Repository,
    ) -> Result<Option<Secret>, RegistryError> {
        let known = self.known(&endpoint.host, repository);
        let mut known = lock(&known).await?;
        let fresh = |granted: &Granted| granted.until.is_none_or(|until| Instant::now() < until);
        if let Some(granted) = known.granted.as_ref().filter(|granted| fresh(granted)) {
            return Ok(Some(granted.header.clone()));
        }
        match known.challenge.clone() {
            Some(challenge) => {
                self.grant(clients, endpoint, repository, &mut known, challenge).await
            }
            None => Ok(None),
        }
    }

    /// Takes a refusal in: `sent` is the header that was refused. Whether it is worth to
    /// ask again, with what [`header`](Self::header) then gives.
    ///
    /// # Errors
    /// [`RegistryError::Token`], [`RegistryError::InsecureRealm`],
    /// [`RegistryError::Credentials`].
    pub async fn refused(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        repository: &Repository,
        sent: Option<&Secret>,
        headers: &HeaderMap,
    ) -> Result<bool, RegistryError> {
        let Some(challenge) = Challenge::of(headers) else { return Ok(false) };
        let known = self.known(&endpoint.host, repository);
        let mut known = lock(&known).await?;
        let current = known.granted.as_ref().map(|granted| &granted.header);
        if current.is_some() && current != sent {
            // Another request has got a new one meanwhile.
            return Ok(true);
        }
        known.challenge = Some(challenge.clone());
        known.granted = None;
        let granted = self.grant(clients, endpoint, repository, &mut known, challenge).await?;
        Ok(granted.is_some() && granted.as_ref() != sent)
    }

    /// Where the credentials for the repository came from.
    pub async fn source_of(&self, host: &str, repository: &Repository) -> Option<String> {
        let known = self.known(host, repository);
        let known = known.lock().await;
        known.credential.clone().flatten().map(|found| found.from)
    }

    fn known(&self, host: &str, repository: &Repository) -> Arc<Mutex<Known>> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.entry((host.to_owned(), repository.clone())).or_default().clone()
    }

    async fn grant(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        repository: &Repository,
        known: &mut Known,
        challenge: Challenge,
    ) -> Result<Option<Secret>, RegistryError> {
        let granted = self.try_grant(clients, endpoint, repository, known, challenge).await;
        match granted {
            Ok(granted) => {
                (known.granted, known.failed) = (granted, None);
                Ok(known.granted.as_ref().map(|granted| granted.header.clone()))
            }
            Err(e) => {
                known.failed = Some((Instant::now(), e.clone()));
                Err(e)
            }
        }
    }

    async fn try_grant(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        repository: &Repository,
        known: &mut Known,
        challenge: Challenge,
    ) -> Result<Option<Granted>, RegistryError> {
        let found = match &known.credential {
            Some(found) => found.clone(),
            None => known.credential.insert(self.look_up(repository).await?).clone(),
        };
        let credential = found.map(|found| found.credential);
        Ok(match (challenge, credential) {
            (_, Some(Credential::Bearer(token))) => {
                Some(Granted { header: bearer(token.reveal()), until: None })
            }
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                Some(Granted { header: basic(&username, &password), until: None })
            }
            (Challenge::Basic, _) => None,
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", repository.path()));
                let request = TokenRequest::new(endpoint, &realm, service, scope)?;
                let token = request.exchange(clients, endpoint, credential).await?;
                let until = Instant::now().checked_add(token.life.mul_f64(0.9));
                Some(Granted { header: bearer(&token.token), until })
            }
        })
    }

    async fn look_up(&self, repository: &Repository) -> Result<Option<Found>, RegistryError> {
        let (chain, repository) = (self.chain.clone(), repository.clone());
        // Files are read and helpers run, which blocks.
        let look = tokio::task::spawn_blocking(move || {
            credentials::find(&chain, repository.domain(), repository.path())
        });
        look.await.map_err(|e| RegistryError::Internal(e.to_string()))?
    }
}

/// Waits for the requests of others for the same repository. A failure that they met
/// meanwhile is ours too: each trying in turn would add up their waiting.
async fn lock(known: &Mutex<Known>) -> Result<MutexGuard<'_, Known>, RegistryError> {
    let began = Instant::now();
    let known = known.lock().await;
    match &known.failed {
        Some((at, error)) if *at >= began => Err(error.clone()),
        _ => Ok(known),
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
}
