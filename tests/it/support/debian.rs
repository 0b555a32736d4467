//! A real image: Debian and nginx from packages, and two small layers on top.
//!
//! mmdebstrap builds two trees, without and with nginx; the second layer is what the
//! second tree has and the first has not. Both are kept in `target/tmp/cache`.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::image::{Image, Pack, sha256};
use super::scratch;
use super::tar::{Entry, Tar};

const SUITE: &str = "bookworm";

/// Counts up when what follows changes, so that a kept tree is not taken for the new.
const EDITION: u32 = 1;

/// base, packages, a page and a configuration, and a layer that takes things away.
pub fn nginx() -> Image {
    let (base, full) = std::thread::scope(|scope| {
        let full = scope.spawn(|| kept("nginx", &["--include=nginx-light"]));
        (kept("base", &[]), full.join().expect("mmdebstrap"))
    });
    let packages = kept_as("packages.tar", || difference(&base, &full));
    let page = Tar::new()
        .dir("srv/www/")
        .file("srv/www/index.html", "<h1>pulled by rpull</h1>\n")
        .add(Entry::file("etc/nginx/conf.d/www.conf", "server { listen 8080; root /srv/www; }\n"))
        .end();
    let less = Tar::new()
        .add(Entry::whiteout("etc/nginx/sites-enabled/default"))
        .add(Entry::opaque("var/www/html"))
        .end();
    Image::oci()
        .blob(base.clone(), packed("base.tar.gz", &base), Pack::Gzip)
        .blob(packages.clone(), packed("packages.tar.gz", &packages), Pack::Gzip)
        .layer(page)
        .layer(less)
        .cmd(&["nginx", "-g", "daemon off;"])
}

/// Unpacks the base tree without nginx into `dir`.
pub fn unpack_base(dir: &Path) {
    let tar = kept("base", &[]);
    let mut unpack = Command::new("tar");
    unpack.args(["-x", "--numeric-owner", "-C"]).arg(dir);
    let mut child = unpack.stdin(Stdio::piped()).spawn().expect("start tar");
    child.stdin.take().expect("a pipe").write_all(&tar).expect("feed tar");
    assert!(child.wait().expect("tar").success(), "tar failed");
}

fn kept(name: &'static str, options: &'static [&'static str]) -> Vec<u8> {
    kept_as(&format!("{name}.tar"), || {
        let target = scratch::dir();
        let tar = target.path().join("tree.tar");
        let output = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=essential"])
            .args(
                ["doc", "man", "info", "locale"]
                    .map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")),
            )
            .args(options)
            .arg(SUITE)
            .arg(&tar)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .expect("start mmdebstrap");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mmdebstrap: {said}");
        fs::read(&tar).expect("mmdebstrap's tar")
    })
}

fn kept_as(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = scratch::cache().join(format!("debian-{SUITE}-{EDITION}-{name}"));
    if let Ok(bytes) = fs::read(&path) {
        return bytes;
    }
    let bytes = make();
    let new = path.with_extension("new");
    fs::write(&new, &bytes).and_then(|()| fs::rename(&new, &path)).expect("keep a tree");
    bytes
}

fn packed(name: &str, tar: &[u8]) -> Vec<u8> {
    let mut at = sha256(tar);
    at.truncate(20);
    kept_as(&format!("{}-{name}", &at[7..]), || {
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(tar).expect("gzip");
        encoder.finish().expect("gzip")
    })
}

/// The entries of `full`, byte for byte, that `base` has not or has otherwise.
fn difference(base: &[u8], full: &[u8]) -> Vec<u8> {
    let known: HashMap<_, _> = entries(base).into_iter().collect();
    let mut layer = Tar::new();
    for (name, bytes) in entries(full) {
        if known.get(&name).is_none_or(|old| *old != bytes) {
            layer = layer.raw(bytes);
        }
    }
    layer.end()
}

/// Name and raw bytes, auxiliary headers included, of each entry.
fn entries(tar: &[u8]) -> Vec<(Vec<u8>, &[u8])> {
    let mut archive = ::tar::Archive::new(tar);
    let (mut found, mut start) = (Vec::new(), 0);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let data = usize::try_from(entry.raw_file_position()).expect("an offset");
        let size = std::io::copy(&mut entry.by_ref(), &mut std::io::sink()).expect("data");
        let end = data + usize::try_from(size).expect("a size").next_multiple_of(512);
        found.push((entry.path_bytes().into_owned(), &tar[start..end]));
        start = end;
    }
    found
}
