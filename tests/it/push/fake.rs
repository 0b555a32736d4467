//! A registry in memory that keeps the part of an upload that arrived, as the specification allows
//! and Debian's docker-registry does not; and that lies where a test says so.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::support::image::sha256;

/// What is wrong with the registry.
#[derive(Clone, Default)]
pub struct Wrong {
    /// The first PATCH request breaks after so many bytes of its body.
    pub breaks_after: Option<usize>,
    /// Each PATCH request breaks there.
    pub always: bool,
    /// The `Range` of an upload that continues.
    pub range: Option<&'static str>,
    /// The digest of a completed blob.
    pub digest: Option<String>,
    /// The host of the locations of uploads.
    pub location_host: Option<String>,
    /// Requests without this header get status 401.
    pub wants: Option<&'static str>,
    /// The registry has the API for referrers.
    pub referrers: bool,
    /// The connection breaks once after a blob is completed, instead of a response.
    pub loses_response: bool,
}

/// A request that was served.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub head: String,
    /// Bytes of the body that arrived.
    pub bytes: usize,
}

pub struct Fake {
    /// `127.0.0.1:PORT`.
    pub host: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, Vec<u8>>,
    uploads: Vec<Vec<u8>>,
    seen: Vec<Seen>,
    broken: bool,
    lost: bool,
}

impl Fake {
    pub fn new(wrong: Wrong) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), host.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (state, wrong, own) = (shared.clone(), wrong.clone(), own.clone());
                std::thread::spawn(move || {
                    let connection = client.try_clone().unwrap();
                    // A client that goes away in the middle is the client's business.
                    let _ = serve(client, &state, &wrong, &own);
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
        Self { host, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The requests whose first line holds `text`.
    pub fn seen(&self, text: &str) -> Vec<Seen> {
        let state = self.state();
        state.seen.iter().filter(|seen| seen.line.contains(text)).cloned().collect()
    }
}

/// The digest at the end of a path.
fn digest_in(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The subject of a manifest.
fn subject_of(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest["subject"]["digest"].as_str()?.to_owned())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Reads a part of the body; empty at its end.
fn part(
    from: &mut impl BufRead,
    left: &mut Option<usize>,
    chunked: bool,
) -> std::io::Result<Vec<u8>> {
    if chunked {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let mut bytes = vec![0; size + 2];
        from.read_exact(&mut bytes)?;
        bytes.truncate(size);
        return Ok(bytes);
    }
    let size = left.unwrap_or(0).min(4096);
    let mut bytes = vec![0; size];
    from.read_exact(&mut bytes)?;
    *left = left.map(|left| left - size);
    Ok(bytes)
}

fn serve(client: TcpStream, state: &Mutex<State>, wrong: &Wrong, own: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
        let upload = path.split("/uploads/").nth(1).and_then(|rest| {
            rest.split('?').next().and_then(|number| number.parse::<usize>().ok())
        });
        let is_refused = wrong.wants.is_some_and(|wants| !head.contains(wants));
        let chunked = header(&head, "transfer-encoding").is_some();
        let mut left = header(&head, "content-length").map(|length| length.parse().unwrap());
        let (mut body, mut breaks) = (Vec::new(), None);
        if method == "PATCH" && (wrong.always || !state.lock().unwrap().broken) {
            breaks = wrong.breaks_after;
        }
        loop {
            let mut bytes = part(&mut reader, &mut left, chunked)?;
            let is_broken = breaks.is_some_and(|at| body.len() + bytes.len() >= at);
            if let Some(at) = breaks.filter(|_| is_broken) {
                bytes.truncate(at - body.len());
            }
            let is_end = bytes.is_empty();
            body.extend_from_slice(&bytes);
            if method == "PATCH" && !is_refused {
                state.lock().unwrap().uploads[upload.unwrap()].extend(bytes);
            }
            if is_end || is_broken {
                let seen = Seen { line: line.clone(), head: head.clone(), bytes: body.len() };
                state.lock().unwrap().seen.push(seen);
            }
            if is_broken {
                state.lock().unwrap().broken = true;
                return Ok(());
            }
            if is_end {
                break;
            }
        }
        let mut state = state.lock().unwrap();
        let host = wrong.location_host.as_deref().unwrap_or(own);
        let base = path.split("/blobs/").next().unwrap_or_default();
        let at = |n: usize| format!("Location: http://{host}{base}/blobs/uploads/{n}\r\n");
        let range = |bytes: &[u8]| format!("Range: 0-{}\r\n", bytes.len().max(1) - 1);
        let digest = path.split("digest=").nth(1).map(|text| text.replace("%3A", ":"));
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (status, headers, content) = match (method, upload) {
            _ if is_refused => ("401 x", "WWW-Authenticate: Basic realm=x\r\n".to_owned(), vec![]),
            ("POST", _) => {
                state.uploads.push(Vec::new());
                ("202 x", at(state.uploads.len() - 1), vec![])
            }
            ("PATCH", Some(n)) => ("202 x", at(n) + &range(&state.uploads[n]), vec![]),
            ("GET", Some(n)) => {
                let range = match wrong.range {
                    Some(range) => format!("Range: {range}\r\n"),
                    None => range(&state.uploads[n]),
                };
                ("204 x", at(n) + &range, vec![])
            }
            ("PUT", Some(n)) => {
                let bytes = match body.is_empty() {
                    true => std::mem::take(&mut state.uploads[n]),
                    false => body,
                };
                let digest = digest.unwrap_or_default();
                if sha256(&bytes) == digest {
                    state.blobs.insert(digest.clone(), bytes);
                    if wrong.loses_response && !state.lost {
                        state.lost = true;
                        return Ok(());
                    }
                    let digest = wrong.digest.clone().unwrap_or(digest);
                    ("201 x", format!("Docker-Content-Digest: {digest}\r\n"), vec![])
                } else {
                    let error = br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
                    ("400 x", String::new(), error.to_vec())
                }
            }
            ("DELETE", Some(_)) => ("204 x", String::new(), vec![]),
            ("PUT", None) => {
                let digest = sha256(&body);
                let mut headers = format!("Docker-Content-Digest: {digest}\r\n");
                if let (true, Some(subject)) = (wrong.referrers, subject_of(&body)) {
                    headers += &format!("OCI-Subject: {subject}\r\n");
                }
                state.manifests.insert(name, body.clone());
                state.manifests.insert(digest, body);
                ("201 x", headers, vec![])
            }
            ("GET", None) if path.contains("/referrers/") && wrong.referrers => {
                let of = |(name, bytes): (&String, &Vec<u8>)| {
                    let is = name.starts_with("sha256:")
                        && subject_of(bytes).as_ref() == Some(&digest_in(&path));
                    is.then(|| json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": name, "size": bytes.len()}))
                };
                let listed: Vec<_> = state.manifests.iter().filter_map(of).collect();
                let index = json!({"schemaVersion": 2, "manifests": listed}).to_string();
                let kind = "Content-Type: application/vnd.oci.image.index.v1+json\r\n";
                ("200 x", kind.to_owned(), index.into_bytes())
            }
            ("GET" | "HEAD", None) if path.contains("/blobs/") => match state.blobs.get(&name) {
                Some(bytes) => ("200 x", String::new(), bytes.clone()),
                None => ("404 x", String::new(), vec![]),
            },
            _ => match state.manifests.get(&name) {
                Some(bytes) => {
                    let digest = sha256(bytes);
                    ("200 x", format!("Docker-Content-Digest: {digest}\r\n"), bytes.clone())
                }
                None => ("404 x", String::new(), vec![]),
            },
        };
        drop(state);
        let headers = match status {
            "201 x" => format!("{headers}Location: http://{own}{path}\r\n"),
            _ => headers,
        };
        let length = content.len();
        let length =
            if status == "204 x" { String::new() } else { format!("Content-Length: {length}\r\n") };
        client.write_all(format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").as_bytes())?;
        if method != "HEAD" {
            client.write_all(&content)?;
        }
    }
}
