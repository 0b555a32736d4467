//! What the user can do about a registry without a trusted TLS connection.

use std::path::Path;

use rpull::error::TlsProblem;

/// Returns the hint for `problem` of `host`, whose certificates belong into `certs_dir`.
pub fn hint(problem: &TlsProblem, host: &str, certs_dir: Option<&Path>) -> String {
    let dir = match certs_dir {
        Some(dir) => dir.display().to_string(),
        None => format!("a certificate directory as {host}"),
    };
    let insecure = format!("accept any certificate with --insecure {host}");
    match problem {
        TlsProblem::Expired { .. } => {
            format!("renew the certificate of the registry, or {insecure}")
        }
        TlsProblem::NotYetValid { .. } => {
            format!("set the clock of this machine if it is wrong, or {insecure}")
        }
        TlsProblem::WrongName { .. } => format!(
            "use a name of the certificate, make a certificate for this name, or {insecure}"
        ),
        TlsProblem::NoNames => format!(
            "make a certificate with the name, such as with openssl req -addext \
             subjectAltName={}, or {insecure}",
            subject_alt_name(host)
        ),
        TlsProblem::SelfSigned | TlsProblem::CaCertificate => {
            format!("if you trust it, copy the certificate of the registry to {dir}/ca.crt, or {insecure}")
        }
        TlsProblem::UnknownIssuer => {
            format!("copy the certificate of the CA to {dir}/ca.crt, or {insecure}")
        }
        TlsProblem::NoSystemRoots => {
            "install the package ca-certificates, or set SSL_CERT_FILE to a file with CA certificates"
                .to_owned()
        }
        TlsProblem::NotTls => format!(
            "check the port; if the registry uses plain HTTP, allow it with --insecure {host} or --plain-http"
        ),
        TlsProblem::PlainHttp => {
            format!("leave --plain-http out; to accept any certificate, give --insecure {host}")
        }
        TlsProblem::OldVersion => "enable TLS 1.2 or 1.3 in the registry's server".to_owned(),
        TlsProblem::NoClientCertificate => format!(
            "put the client certificate and its key into {dir}, as client.cert and client.key"
        ),
        TlsProblem::ClientCertificateRejected => format!(
            "check that the client certificate in {dir} is valid, and that the registry trusts its CA"
        ),
        _ => format!("check that the host is a registry and that no proxy interferes, or {insecure}"),
    }
}

/// Returns the entry of a certificate for `host[:port]`.
fn subject_alt_name(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    match name.parse::<std::net::IpAddr>() {
        Ok(ip) => format!("IP:{ip}"),
        Err(_) => format!("DNS:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_of_a_certificate_has_no_port_and_the_kind_of_its_name() {
        for (host, entry) in [
            ("registry.lan:5000", "DNS:registry.lan"),
            ("registry.lan", "DNS:registry.lan"),
            ("127.0.0.1:5000", "IP:127.0.0.1"),
            ("[::1]:5000", "IP:::1"),
        ] {
            assert_eq!(subject_alt_name(host), entry);
        }
    }
}
