//! What a container finds at the names of public registries: one registry of the tests, behind TLS on
//! port 443 of a loopback address of its own.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::container::Container;
use super::hub::Hub;
use super::scratch;

pub struct Internet {
    names: Vec<String>,
    address: String,
    ca: String,
}

impl Internet {
    /// Serves what is pushed to [`backend`](Self::backend) as each of these hosts.
    pub fn new(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("a CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = || KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a CA");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (params, key) = (CertificateParams::new(names.clone()).expect("names"), key());
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        let dir = scratch::lasting();
        let (cert_file, key_file) = (dir.join("cert"), dir.join("key"));
        fs::write(&cert_file, certificate.pem()).expect("a certificate");
        fs::write(&key_file, key.serialize_pem()).expect("a key");
        // Linux answers on all of 127.0.0.0/8.
        static COUNT: AtomicU8 = AtomicU8::new(77);
        let [a, b] = [8, 0].map(|shift| std::process::id() >> shift & 0xff);
        let address = format!("127.{}.{a}.{b}", COUNT.fetch_add(1, Ordering::Relaxed));
        let tls =
            format!(", tls: {{certificate: {}, key: {}}}", cert_file.display(), key_file.display());
        Hub::shared().guarded_at(&format!("{address}:443"), &tls, "");
        Self { names, address, ca: ca.pem() }
    }

    /// The registry to push to.
    pub fn backend(&self) -> &'static str {
        &Hub::shared().host
    }

    /// Lets a container find the hosts, and trust their certificate.
    pub fn install(&self, container: &Container) {
        fs::create_dir_all(container.path("/etc/ssl/certs")).expect("certs");
        let certificates = container.path("/etc/ssl/certs/ca-certificates.crt");
        self.write(&container.path("/etc/hosts"), &certificates);
    }

    /// Writes the names and the certificate that programs look up in files.
    pub fn write(&self, hosts: &Path, certificates: &Path) {
        let lines = self.names.iter().map(|name| format!("{} {name}\n", self.address));
        fs::write(hosts, lines.collect::<String>()).expect("hosts");
        fs::write(certificates, &self.ca).expect("the CA");
    }
}
