//! What stands between a registry and who pulls: TLS with a private CA, passwords, and a
//! token server whose JWTs docker-registry verifies.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;

use super::hub::Hub;
use super::scratch;

pub const USER: &str = "alice";
pub const PASSWORD: &str = "pa:ss wörd";
pub const IDENTITY: &str = "the-identity-token";

/// A CA, a registry that shows its certificate, and one that wants a client's too.
pub struct Tls {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// Wants a client certificate.
    pub mutual: String,
    pub ca: String,
    /// The certificate of 127.0.0.1 and its key, for a server that a test makes.
    pub server_cert: String,
    pub server_key: String,
    pub client_cert: String,
    pub client_key: String,
}

impl Tls {
    pub fn shared() -> &'static Tls {
        static SHARED: OnceLock<Tls> = OnceLock::new();
        SHARED.get_or_init(Tls::start)
    }

    fn start() -> Tls {
        let ca = CertifiedIssuer::self_signed(ca_params(), KeyPair::generate().unwrap()).unwrap();
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
        };
        let ((cert, key), (client_cert, client_key)) = (leaf("127.0.0.1"), leaf("client"));
        let dir = scratch::lasting();
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (server_cert, server_key) = (cert.clone(), key.clone());
        let (cert, key, ca_file) = (put("cert", &cert), put("key", &key), put("ca", &ca.pem()));
        let tls = |more: &str| format!(", tls: {{certificate: {cert}, key: {key}{more}}}");
        let hub = Hub::shared();
        Tls {
            host: hub.guarded(&tls(""), ""),
            mutual: hub.guarded(&tls(&format!(", clientcas: [{ca_file}]")), ""),
            ca: ca.pem(),
            server_cert,
            server_key,
            client_cert,
            client_key,
        }
    }

    /// A certs.d with the CA for `host`, and the client's pair if `client` is set.
    pub fn certs_dir(&self, dir: &Path, host: &str, client: bool) -> PathBuf {
        let host = dir.join(host);
        fs::create_dir_all(&host).unwrap();
        fs::write(host.join("ca.crt"), &self.ca).unwrap();
        if client {
            fs::write(host.join("me.cert"), &self.client_cert).unwrap();
            fs::write(host.join("me.key"), &self.client_key).unwrap();
        }
        dir.to_owned()
    }
}

/// What a certificate must say to sign others.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// The host of a registry that wants [`USER`] and [`PASSWORD`].
pub fn htpasswd() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        let line = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output().unwrap();
        assert!(line.status.success(), "htpasswd failed");
        let file = scratch::lasting().join("htpasswd");
        fs::write(&file, line.stdout).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", file.display());
        Hub::shared().guarded("", &auth)
    })
}

/// A token server and the registry that trusts it.
pub struct Tokens {
    /// The registry.
    pub host: String,
    /// `METHOD path` and body of every request to the token server.
    pub log: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
}

impl Tokens {
    pub fn shared() -> &'static Tokens {
        static SHARED: OnceLock<Tokens> = OnceLock::new();
        SHARED.get_or_init(Tokens::start)
    }

    fn start() -> Tokens {
        let pair = KeyPair::generate().unwrap();
        let certificate = ca_params().self_signed(&pair).unwrap();
        let bundle = scratch::lasting().join("bundle.pem");
        fs::write(&bundle, certificate.pem()).unwrap();
        let pkcs8 = pair.serialize_der();
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap();
        let signer = Signer { key, certificate: certificate.der().to_vec() };

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that goes away is its own business.
                let _ = answer(client, &signer, &seen);
            }
        });
        let auth = format!(
            "auth: {{token: {{realm: '{realm}', service: tests, issuer: tests, rootcertbundle: {}}}}}\n",
            bundle.display()
        );
        Tokens { host: Hub::shared().guarded("", &auth), log }
    }
}

impl Signer {
    /// A JWT as docker-registry verifies it (distribution docs/spec/auth/jwt.md).
    fn token(&self, access: serde_json::Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header =
            json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64.encode(&self.certificate)]});
        let claims = json!({
            "iss": "tests", "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 10,
            "iat": now, "jti": now.to_string(), "access": access,
        });
        let encode =
            |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

/// Repositories below `test/private` are for who proves to be [`USER`].
fn answer(client: TcpStream, signer: &Signer, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    let length = header("content-length:").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    log.lock().unwrap().push(format!("{line} {body}"));

    let basic = format!("Basic {}", BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes()));
    let given = header("authorization:");
    let known =
        given.as_ref() == Some(&basic) || body.contains(&format!("refresh_token={IDENTITY}"));
    let wrong = (given.is_some() || line.starts_with("POST")) && !known;
    let asked =
        format!("{line}&{body}").replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let (status, answer) = if wrong {
        ("401 Unauthorized", json!({"details": "incorrect username or password"}))
    } else {
        // Everybody else may only read.
        let scopes = asked.split("repository:").skip(1).filter_map(|rest| {
            let (name, rest) = rest.split_once(':')?;
            let end = rest.find(|c: char| !c.is_alphabetic() && c != ',').unwrap_or(rest.len());
            let actions: Vec<&str> =
                rest[..end].split(',').filter(|action| known || *action == "pull").collect();
            let granted = known || !name.starts_with("test/private");
            granted.then(|| json!({"type": "repository", "name": name, "actions": actions}))
        });
        let token = signer.token(scopes.collect());
        ("200 OK", json!({"token": token, "expires_in": 300}))
    };
    let text = answer.to_string();
    let mut client = client;
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}
