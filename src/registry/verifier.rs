//! Verification of the certificate that a server presents.
//!
//! The rules are those of webpki, with two additions for one host. Its certificate directory can
//! contain the certificate of the server itself, even that of a CA, as `openssl req -x509` makes
//! it: Docker, podman and curl accept that. And the user can turn verification off for a host.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::tls_problem::Untrusted;

/// The CA certificates of the system, read when the first server needs them.
#[derive(Default)]
pub struct SystemRoots(OnceLock<RootCertStore>);

impl SystemRoots {
    fn get(&self) -> &RootCertStore {
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in found.errors {
                tracing::warn!("cannot read a CA certificate of the system: {error}");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            roots
        })
    }
}

/// What one host's server may present, besides a certificate that the system trusts.
pub struct HostTrust {
    /// The host. A proxy on the way to it is another one.
    pub host: Option<ServerName<'static>>,
    /// The CA certificates in the host's certificate directory.
    pub roots: RootCertStore,
    /// All certificates in it, byte for byte.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Whether any certificate of the host is accepted.
    pub unverified: bool,
}

/// Verifies the certificates of servers.
pub struct Verifier {
    trust: HostTrust,
    system: Arc<SystemRoots>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Creates a verifier that uses the signature algorithms of `provider`.
    pub fn new(trust: HostTrust, system: Arc<SystemRoots>, provider: &CryptoProvider) -> Self {
        Self { trust, system, algorithms: provider.signature_verification_algorithms }
    }

    /// Verifies the dates of a certificate, and that a trusted CA signed it.
    fn verify_issuer(
        &self,
        own: bool,
        cert: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.algorithms.all;
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(cert, roots, intermediates, now, algorithms)
        };
        if own && !self.trust.roots.is_empty() {
            match verify(&self.trust.roots) {
                Err(error) if is_unknown_issuer(&error) => {}
                // Reading the system's CA certificates takes longer than pulling a present image.
                verified => return verified,
            }
        }
        verify(self.system.get())
    }

    /// Replaces an error about the issuer of `leaf` by one that says more.
    fn describe(&self, error: Error, leaf: &CertificateDer<'_>, now: UnixTime) -> Error {
        let self_signed = || match is_ca_certificate(&error) {
            // webpki does not look at the signature.
            true => webpki::EndEntityCert::try_from(leaf)
                .is_ok_and(|cert| cert.issuer() == cert.subject()),
            false => self.signs_itself(leaf, now),
        };
        let reason = match (is_ca_certificate(&error), is_unknown_issuer(&error)) {
            (false, false) => return error,
            _ if self_signed() => Untrusted::SelfSigned,
            (true, _) => Untrusted::CaCertificate,
            _ if self.system.get().is_empty() => Untrusted::NoSystemRoots,
            _ => return CertificateError::UnknownIssuer.into(),
        };
        CertificateError::Other(OtherError(Arc::new(reason))).into()
    }

    fn signs_itself(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        let Ok(cert) = ParsedCertificate::try_from(leaf) else { return false };
        let mut roots = RootCertStore::empty();
        let algorithms = self.algorithms.all;
        roots.add(leaf.clone().into_owned()).is_ok()
            && verify_server_cert_signed_by_trust_anchor(&cert, &roots, &[], now, algorithms)
                .is_ok()
    }

    /// Returns whether the signature of a handshake is accepted because webpki cannot read the
    /// certificate, for example one of version 1. That of a proxy was read when it was verified.
    fn is_exempt(&self, cert: &CertificateDer<'_>) -> bool {
        self.trust.unverified && ParsedCertificate::try_from(cert).is_err()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = self.trust.host.as_ref() == Some(name);
        if own && self.trust.unverified {
            return Ok(ServerCertVerified::assertion());
        }
        let cert = ParsedCertificate::try_from(leaf)?;
        match self.verify_issuer(own, &cert, intermediates, now) {
            // webpki checks the dates before all of these.
            Err(error)
                if own && is_about_issuer(&error) && self.trust.certificates.contains(leaf) => {}
            verified => verified.map_err(|error| self.describe(error, leaf, now))?,
        }
        verify_server_name(&cert, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.is_exempt(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.is_exempt(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// Returns whether a certificate failed because it is that of a CA (CA:TRUE).
fn is_ca_certificate(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Returns whether a certificate is signed by no trusted CA, perhaps by one with the name of a
/// trusted CA.
fn is_unknown_issuer(error: &Error) -> bool {
    use CertificateError::{BadSignature, UnknownIssuer};
    matches!(error, Error::InvalidCertificate(UnknownIssuer | BadSignature))
}

/// Returns whether a certificate failed because of who signed it, which does not matter if the
/// user trusts the certificate itself.
fn is_about_issuer(error: &Error) -> bool {
    let Error::InvalidCertificate(certificate) = error else { return false };
    is_ca_certificate(error)
        || is_unknown_issuer(error)
        || matches!(
            certificate,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
}

#[cfg(test)]
mod tests;
