//! A server that answers as a test says, over HTTP or HTTPS, and stops where it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::guard::Tls;

/// What the server does with one request. Texts are sent as they are.
#[derive(Clone)]
pub enum Act {
    /// Sends a whole answer.
    Answer(String),
    /// The same, as bytes.
    Bytes(Vec<u8>),
    /// Sends this, and nothing more while the client waits.
    Stop(String),
    /// Sends this, and then single bytes while the client waits.
    Trickle(String),
}

impl Act {
    /// A whole answer: status line without the version, more header lines, the body.
    pub fn answer(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Answer(format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
    }
}

/// A request.
pub struct Asked {
    pub path: String,
    pub head: String,
}

type Rule = dyn Fn(&Asked) -> Act + Send + Sync;

pub struct Server {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn plain(rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::start(None, rule)
    }

    /// The same over HTTPS, with a certificate of [`Tls::shared`]'s CA.
    pub fn tls(rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let tls = Tls::shared();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(tls.server_cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(tls.server_key.as_bytes()).unwrap();
        let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::start(Some(Arc::new(config)), rule)
    }

    fn start(
        tls: Option<Arc<ServerConfig>>,
        rule: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (heads, rule): (Arc<Mutex<Vec<_>>>, Arc<Rule>) = (Arc::default(), Arc::new(rule));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = heads.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (tls, log, rule) = (tls.clone(), log.clone(), rule.clone());
                std::thread::spawn(move || {
                    // A client that goes away in the middle is the client's business.
                    let _ = match tls {
                        None => serve(client, &log, &*rule),
                        Some(tls) => serve(
                            StreamOwned::new(ServerConnection::new(tls).unwrap(), client),
                            &log,
                            &*rule,
                        ),
                    };
                });
            }
        });
        Self { host, scheme, heads }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.host)
    }
}

/// A server that accepts connections and says nothing, not even in TLS. Its host.
pub fn mute() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let _open: Vec<TcpStream> = listener.incoming().flatten().collect();
    });
    host
}

/// One connection: requests one after the other.
fn serve(client: impl Read + Write, log: &Mutex<Vec<String>>, rule: &Rule) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if client.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        client.read_exact(&mut body)?;
        log.lock().unwrap().push(head.clone());
        let (text, trickle) = match rule(&Asked { path, head }) {
            Act::Answer(text) => {
                client.get_mut().write_all(text.as_bytes())?;
                client.get_mut().flush()?;
                continue;
            }
            Act::Bytes(bytes) => {
                // A real registry's answer, which ends with the connection.
                client.get_mut().write_all(&bytes)?;
                return client.get_mut().flush();
            }
            Act::Stop(text) => (text, false),
            Act::Trickle(text) => (text, true),
        };
        client.get_mut().write_all(text.as_bytes())?;
        client.get_mut().flush()?;
        if !trickle {
            // Open until the client gives it up.
            return std::io::copy(&mut client, &mut std::io::sink()).map(drop);
        }
        loop {
            client.get_mut().write_all(b"x")?;
            client.get_mut().flush()?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
