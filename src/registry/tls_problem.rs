//! Why there is no trusted TLS connection, as data and as a sentence.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// Names of a certificate that an error shows at most.
const MAX_NAMES: usize = 5;

/// The alerts of a server about the client certificate, or about its absence.
const REJECTIONS: [AlertDescription; 7] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
];

/// Why there is no trusted TLS connection to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The certificate expired.
    Expired {
        /// The last moment at which it was valid.
        not_after: SystemTime,
    },
    /// The certificate is not valid yet, or the clock of this machine is wrong.
    NotYetValid {
        /// The first moment at which it is valid.
        not_before: SystemTime,
        /// The time on this machine.
        now: SystemTime,
    },
    /// The certificate is for other names.
    WrongName {
        /// Its DNS names and IP addresses.
        names: Vec<String>,
    },
    /// The certificate has no DNS name and no IP address as subjectAltName.
    NoNames,
    /// The certificate is signed by itself, and the host's certificate directory does not have it.
    SelfSigned,
    /// The certificate is signed by a CA that is not trusted.
    UnknownIssuer,
    /// The certificate is that of a CA (CA:TRUE), and the host's certificate directory does not
    /// have it.
    CaCertificate,
    /// The system has no CA certificates.
    NoSystemRoots,
    /// The port does not speak TLS.
    NotTls,
    /// The port speaks TLS, and the request used plain HTTP.
    PlainHttp,
    /// The server offers no version of TLS from 1.2.
    OldVersion,
    /// The server requires a client certificate, and there is none for this host.
    NoClientCertificate,
    /// The server rejects the client certificate.
    ClientCertificateRejected,
    /// Any other problem, which the cause of the error describes.
    Other,
}

/// Why the verifier trusts no issuer of a certificate, where rustls does not tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untrusted {
    /// See [`TlsProblem::SelfSigned`].
    SelfSigned,
    /// See [`TlsProblem::CaCertificate`].
    CaCertificate,
    /// See [`TlsProblem::NoSystemRoots`].
    NoSystemRoots,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfSigned => "the certificate is self-signed",
            Self::CaCertificate => "the certificate is that of a CA",
            Self::NoSystemRoots => "the system has no CA certificates",
        })
    }
}

impl Error for Untrusted {}

impl TlsProblem {
    /// Returns the problem that `error` of a request has, if it is one of TLS. `connecting` tells
    /// whether the connection failed, or a request on it.
    pub(super) fn of(error: &(dyn Error + 'static), connecting: bool) -> Option<Self> {
        let Some(tls) = find::<rustls::Error>(error).next() else {
            return is_rejection_over_http2(error).then_some(Self::ClientCertificateRejected);
        };
        let problem = Self::of_tls(tls);
        // With TLS 1.3, a server rejects a client certificate after the handshake.
        let rejected = problem == Self::ClientCertificateRejected;
        (connecting || rejected).then_some(problem)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge,
            ) => Self::NotTls,
            rustls::Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::OldVersion,
            rustls::Error::AlertReceived(alert) if REJECTIONS.contains(alert) => {
                Self::ClientCertificateRejected
            }
            _ => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        let at = |time: &rustls::pki_types::UnixTime| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
        };
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::Expired { not_after: at(not_after) }
            }
            CertificateError::NotValidYetContext { not_before, time } => {
                Self::NotYetValid { not_before: at(not_before), now: at(time) }
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names: Vec<String> = presented.iter().filter_map(|name| plain(name)).collect();
                if names.is_empty() { Self::NoNames } else { Self::WrongName { names } }
            }
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Other(other) => match other.0.downcast_ref::<Untrusted>() {
                Some(Untrusted::SelfSigned) => Self::SelfSigned,
                Some(Untrusted::CaCertificate) => Self::CaCertificate,
                Some(Untrusted::NoSystemRoots) => Self::NoSystemRoots,
                // Version 1 has no extensions, and so no subjectAltName.
                None => match other.0.downcast_ref::<webpki::Error>() {
                    Some(webpki::Error::UnsupportedCertVersion) => Self::NoNames,
                    _ => Self::Other,
                },
            },
            _ => Self::Other,
        }
    }

    /// Returns the problem that a server describes by the body of a response with status 400 to a
    /// request over `scheme`.
    pub(super) fn of_bad_request(scheme: &str, body: &[u8]) -> Option<Self> {
        let body = String::from_utf8_lossy(body);
        let says = |texts: &[&str]| texts.iter().any(|text| body.contains(text));
        match scheme {
            // Go's net/http, nginx, Apache.
            "http"
                if says(&[
                    "sent an HTTP request to an HTTPS server",
                    "plain HTTP request was sent to HTTPS port",
                    "speaking plain HTTP to an SSL-enabled server port",
                ]) =>
            {
                Some(Self::PlainHttp)
            }
            // nginx.
            "https" if says(&["No required SSL certificate was sent"]) => {
                Some(Self::NoClientCertificate)
            }
            "https" if says(&["The SSL certificate error"]) => {
                Some(Self::ClientCertificateRejected)
            }
            _ => None,
        }
    }

    /// Returns the sentence about `host`.
    pub(super) fn sentence(&self, host: &str, cause: &impl fmt::Display) -> String {
        match self {
            Self::Expired { not_after } => {
                format!("the certificate of {host} expired on {}", date(*not_after))
            }
            Self::NotYetValid { not_before, now } => format!(
                "the certificate of {host} is not valid before {}, and this machine's clock says {}",
                date(*not_before),
                date(*now)
            ),
            Self::WrongName { names } => {
                format!("the certificate of {host} is for another name: {}", list(names))
            }
            Self::NoNames => format!("the certificate of {host} has no subjectAltName"),
            Self::SelfSigned => format!("the certificate of {host} is self-signed and not trusted"),
            Self::UnknownIssuer => {
                format!("the certificate of {host} is signed by a CA that is not trusted")
            }
            Self::CaCertificate => format!(
                "the certificate of {host} is that of a CA (CA:TRUE) and not in the host's certificate directory"
            ),
            Self::NoSystemRoots => format!(
                "the certificate of {host} cannot be verified, because this system has no CA certificates"
            ),
            Self::NotTls => format!("{host} does not speak TLS on this port"),
            Self::PlainHttp => {
                format!("{host} expects HTTPS on this port, and the request used plain HTTP")
            }
            Self::OldVersion => format!("{host} offers no version of TLS from 1.2"),
            Self::NoClientCertificate => format!("{host} requires a client certificate"),
            Self::ClientCertificateRejected => format!("{host} rejects the client certificate"),
            Self::Other => format!("no trusted TLS connection to {host}: {cause}"),
        }
    }
}

/// Returns the `T`s among an error and its causes.
pub fn find<'a, T: Error + 'static>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a T> {
    std::iter::successors(Some(error), |error| cause(*error))
        .filter_map(|error| error.downcast_ref())
}

/// Returns whether an HTTP/2 connection ended with one of [`REJECTIONS`]. h2 keeps only the text of
/// an I/O error.
fn is_rejection_over_http2(error: &(dyn Error + 'static)) -> bool {
    let texts = std::iter::successors(Some(error), |error| cause(*error)).map(|e| e.to_string());
    let rejections = REJECTIONS.map(|alert| rustls::Error::AlertReceived(alert).to_string());
    texts.into_iter().any(|text| rejections.iter().any(|rejection| text.ends_with(rejection)))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // An io::Error passes over the error that it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Returns the name in `DnsName("name")` or `IpAddress(address)`, the forms of webpki.
fn plain(presented: &str) -> Option<String> {
    let dns = presented.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")"));
    let ip = || presented.strip_prefix("IpAddress(").and_then(|rest| rest.strip_suffix(')'));
    dns.or_else(ip).map(str::to_owned)
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_failure_is_found_by_type_and_not_by_words() {
        let wrapped = |error| io::Error::other(io::Error::other(error));
        let old = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
        assert_eq!(TlsProblem::of(&wrapped(old), true), Some(TlsProblem::OldVersion));
        let unfinished = wrapped(rustls::Error::HandshakeNotComplete);
        assert_eq!(TlsProblem::of(&unfinished, true), Some(TlsProblem::Other));
        let words = "lookup of tls.example: a certificate of alert bay";
        assert_eq!(TlsProblem::of(&io::Error::other(words), true), None);
    }

    #[test]
    fn alert_after_the_handshake_is_a_problem_only_if_it_is_about_the_certificate() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        assert_eq!(TlsProblem::of(&alert(AlertDescription::InternalError), false), None);
        assert_eq!(
            TlsProblem::of(&alert(AlertDescription::CertificateRequired), false),
            Some(TlsProblem::ClientCertificateRejected)
        );
    }

    #[test]
    fn sentence_lists_at_most_five_names() {
        let names = (1..=7).map(|n| format!("{n}.example")).collect();
        let text = TlsProblem::WrongName { names }.sentence("host", &"");
        assert!(
            text.ends_with(
                "another name: 1.example, 2.example, 3.example, 4.example, 5.example and 2 more"
            ),
            "{text}"
        );
    }

    #[test]
    fn bad_request_is_a_problem_of_tls_only_with_the_words_of_known_servers() {
        let of = |scheme, body: &str| TlsProblem::of_bad_request(scheme, body.as_bytes());
        let go = "Client sent an HTTP request to an HTTPS server.\n";
        assert_eq!(of("http", go), Some(TlsProblem::PlainHttp));
        assert_eq!(of("https", go), None);
        assert_eq!(of("http", "bad request"), None);
    }
}
