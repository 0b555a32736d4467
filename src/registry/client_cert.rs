//! The client certificate for one host, and whether its server requests one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use super::certs::ClientCert;

/// Presents the client certificate of a host, if there is one, and notes that it was requested.
#[derive(Debug)]
pub struct ClientCertResolver {
    key: Option<Arc<CertifiedKey>>,
    requested: AtomicBool,
}

impl ClientCertResolver {
    /// Creates a resolver for `client`.
    ///
    /// # Errors
    /// [`rustls::Error`] if the key cannot be used, or is that of another certificate.
    pub fn new(
        client: Option<ClientCert>,
        provider: &CryptoProvider,
    ) -> Result<Self, rustls::Error> {
        let certified =
            |client: ClientCert| CertifiedKey::from_der(client.chain, client.key, provider);
        let key = client.map(certified).transpose()?.map(Arc::new);
        Ok(Self { key, requested: AtomicBool::new(false) })
    }

    /// Returns whether the server requested a client certificate.
    pub fn was_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Returns whether there is a client certificate.
    pub fn has_certificate(&self) -> bool {
        self.key.is_some()
    }
}

impl ResolvesClientCert for ClientCertResolver {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.requested.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.has_certificate()
    }
}
