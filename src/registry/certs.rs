//! Certificates per host: Docker's `certs.d` (moby registry/registry.go `ReadCertsDirectory`).
//! `*.crt` are additional CA certificates; `X.cert` and `X.key` are a client certificate.

use std::fs;
use std::path::{Path, PathBuf};

use super::RegistryError;

/// The certificates of one host.
#[derive(Default)]
pub struct HostCerts {
    /// PEM of additional CA certificates.
    pub roots: Vec<Vec<u8>>,
    /// PEM of a client key followed by its certificate.
    pub client: Option<Vec<u8>>,
}

/// Returns the directory for `host` (`name[:port]`) in the first of `dirs` that has one.
pub fn dir_of(dirs: &[PathBuf], host: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(host)).find(|dir| dir.is_dir())
}

/// Reads the certificates in a host's directory.
///
/// # Errors
/// [`RegistryError::Certificates`] if a file cannot be read or half of a pair is missing.
pub fn read(dir: &Path) -> Result<HostCerts, RegistryError> {
    let wrong = |cause: String| RegistryError::Certificates {
        dir: dir.display().to_string(),
        cause: cause.into(),
    };
    let entries = fs::read_dir(dir).map_err(|e| wrong(e.to_string()))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let load = |name: &str| fs::read(dir.join(name)).map_err(|e| wrong(format!("{name}: {e}")));
    let mut certs = HostCerts::default();
    for name in &names {
        if name.ends_with(".crt") {
            certs.roots.push(load(name)?);
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if !names.contains(&key) {
                return Err(wrong(format!(
                    "missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )));
            }
            let pair = [load(&key)?, b"\n".to_vec(), load(name)?].concat();
            certs.client.get_or_insert(pair);
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
        fs::write(host.join("ca.crt"), "ca").unwrap();
        fs::write(host.join("me.cert"), "cert").unwrap();
        let error = read(&host).err().unwrap().to_string();
        assert!(error.contains("missing key me.key for client certificate me.cert"), "{error}");
        fs::write(host.join("me.key"), "key").unwrap();
        let certs = read(&host).unwrap();
        assert_eq!(certs.roots, [b"ca".to_vec()]);
        assert_eq!(certs.client.unwrap(), b"key\ncert");
        fs::remove_file(host.join("me.cert")).unwrap();
        let error = read(&host).err().unwrap().to_string();
        assert!(error.contains("missing client certificate me.cert for key me.key"), "{error}");
    }
}
