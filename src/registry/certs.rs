//! Certificates per host: Docker's `certs.d` (moby registry/registry.go `ReadCertsDirectory`).
//! `*.crt` are additional CA certificates, or the certificate of the server itself; `X.cert` and
//! `X.key` are a client certificate.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::RegistryError;

/// The certificates of one host.
pub struct HostCerts {
    /// The certificates of `*.crt`.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The same as CAs.
    pub roots: RootCertStore,
    /// The client certificate, with its chain.
    pub client: Option<ClientCert>,
}

/// A client certificate.
pub struct ClientCert {
    /// The certificate, and those of its issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The name of its file, without the extension.
    pub stem: String,
}

impl Default for HostCerts {
    fn default() -> Self {
        Self { certificates: Vec::new(), roots: RootCertStore::empty(), client: None }
    }
}

/// Returns the directory for `host` (`name[:port]`) in the first of `dirs` that has one.
pub fn dir_of(dirs: &[PathBuf], host: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(host)).find(|dir| dir.is_dir())
}

/// Returns the error of a directory with certificates.
pub fn error(dir: &Path, cause: String) -> RegistryError {
    RegistryError::Certificates { dir: dir.display().to_string(), cause: cause.into() }
}

/// Reads the certificates in a host's directory.
///
/// # Errors
/// [`RegistryError::Certificates`] if a file cannot be used or half of a pair is missing.
pub fn read(dir: &Path) -> Result<HostCerts, RegistryError> {
    let wrong = |cause: String| error(dir, cause);
    let entries = fs::read_dir(dir).map_err(|e| wrong(e.to_string()))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let load = |name: &str| fs::read(dir.join(name)).map_err(|e| wrong(format!("{name}: {e}")));
    let chain = |name: &str| -> Result<Vec<CertificateDer<'static>>, RegistryError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&load(name)?).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(wrong(format!("{name} contains no certificate in PEM format"))),
            Err(e) => Err(wrong(format!("{name} is not in PEM format: {e}"))),
        }
    };
    let mut certs = HostCerts::default();
    for name in &names {
        if name.ends_with(".crt") {
            for certificate in chain(name)? {
                let added = certs.roots.add(certificate.clone());
                added.map_err(|e| wrong(format!("{name}: {e}")))?;
                certs.certificates.push(certificate);
            }
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if !names.contains(&key) {
                return Err(wrong(format!(
                    "missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )));
            }
            let chain = chain(name)?;
            let key = PrivateKeyDer::from_pem_slice(&load(&key)?).map_err(|_| {
                wrong(format!("{key} contains no private key in PEM format without a password"))
            })?;
            let stem = stem.to_owned();
            certs.client.get_or_insert(ClientCert { chain, key, stem });
        } else if let Some(stem) = name.strip_suffix(".key") {
            let cert = format!("{stem}.cert");
            if !names.contains(&cert) {
                return Err(wrong(format!("missing client certificate {cert} for key {name}")));
            }
        }
    }
    Ok(certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_without_its_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host:5000");
        fs::create_dir(&host).unwrap();
        assert_eq!(dir_of(&[dir.path().into()], "host:5000").unwrap(), host);
        assert_eq!(dir_of(&[dir.path().into()], "other"), None);
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["host".to_owned()]).unwrap();
        fs::write(host.join("ca.crt"), cert.pem() + &cert.pem()).unwrap();
        fs::write(host.join("me.cert"), cert.pem()).unwrap();
        let fails = || read(&host).err().unwrap().to_string();
        assert!(fails().contains("missing key me.key for client certificate me.cert"));
        fs::write(host.join("me.key"), "key").unwrap();
        assert!(fails().contains("me.key contains no private key in PEM format"));
        fs::write(host.join("me.key"), signing_key.serialize_pem()).unwrap();
        let certs = read(&host).unwrap();
        assert_eq!(certs.certificates, [cert.der().clone(), cert.der().clone()]);
        assert_eq!(certs.client.unwrap().chain, [cert.der().clone()]);
        fs::remove_file(host.join("me.cert")).unwrap();
        assert!(fails().contains("missing client certificate me.cert for key me.key"));
    }

    #[test]
    fn file_without_a_certificate_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b"ca"[..], b"", b"0\x82\x03\x01 DER"] {
            fs::write(dir.path().join("ca.crt"), content).unwrap();
            let error = read(dir.path()).err().unwrap().to_string();
            assert!(error.ends_with("ca.crt contains no certificate in PEM format"), "{error}");
        }
    }
}
