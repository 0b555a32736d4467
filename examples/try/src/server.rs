//! The pulling half of the distribution protocol, for the files of one OCI image layout: as much
//! of HTTP/1.1 as that needs, so that the demo needs no HTTP server crate.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

/// More than a request line with headers has.
const MAX_HEAD: u64 = 64 * 1024;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Serves `layout` as the repository `hello` on a free loopback port, and returns its address.
///
/// The threads end with the process.
pub fn serve(layout: PathBuf) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let layout = layout.clone();
            // A client that disconnects early is not a problem of the server.
            thread::spawn(move || answer(&connection, &layout).ok());
        }
    });
    Ok(address)
}

/// Answers one request and closes the connection.
fn answer(mut connection: &TcpStream, layout: &Path) -> io::Result<()> {
    let mut head = BufReader::new(connection.take(MAX_HEAD)).lines();
    let request = head.next().transpose()?.unwrap_or_default();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, content_type, body) = match find(layout, path) {
        Some((content_type, body)) => ("200 OK", content_type, body),
        None => ("404 Not Found", "application/json".to_owned(), b"{}".to_vec()),
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        connection.write_all(&body)?;
    }
    Ok(())
}

/// Returns the media type and bytes at `path`.
fn find(layout: &Path, path: &str) -> Option<(String, Vec<u8>)> {
    let octets = "application/octet-stream";
    if path == "/v2/" {
        return Some(("application/json".to_owned(), b"{}".to_vec()));
    }
    if let Some(digest) = path.strip_prefix("/v2/hello/blobs/") {
        return Some((octets.to_owned(), blob(layout, digest)?));
    }
    let reference = path.strip_prefix("/v2/hello/manifests/")?;
    let bytes = match reference.contains(':') {
        true => blob(layout, reference)?,
        false => blob(layout, &tagged(layout)?)?,
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some((json["mediaType"].as_str().unwrap_or(INDEX).to_owned(), bytes))
}

/// Returns the digest of the only image of the layout, which every tag names.
fn tagged(layout: &Path) -> Option<String> {
    let index = std::fs::read(layout.join("index.json")).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&index).ok()?;
    Some(index["manifests"][0]["digest"].as_str()?.to_owned())
}

fn blob(layout: &Path, digest: &str) -> Option<Vec<u8>> {
    // Parsed, so that a path cannot leave the directory.
    let digest: rpull::Digest = digest.parse().ok()?;
    std::fs::read(layout.join("blobs/sha256").join(digest.hex())).ok()
}
