//! Detection of a live daemon: a dockerd that uses the root. It reads `repositories.json` once
//! and rewrites it from memory, so changes by others would be lost (moby#42336).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;
use crate::fsutil::{self, is_same};

const DEFAULT_ROOT: &str = "/var/lib/docker";
const DEFAULT_CONFIG: &str = "/etc/docker/daemon.json";
/// Bytes of the config at most.
const MAX_CONFIG_SIZE: u64 = 1 << 20;

const SOCKET: &str = "/var/run/docker.sock";

/// Refuses a root that a running dockerd uses.
///
/// # Errors
/// [`StoreError::Dockerd`] if there is one.
pub fn refuse_if_live(root: &Path) -> Result<(), StoreError> {
    let daemon = process_using(root).or_else(|| socket_using(root));
    match daemon {
        Some(who) => Err(StoreError::Dockerd { root: root.to_owned(), who }),
        None => Ok(()),
    }
}

fn process_using(root: &Path) -> Option<String> {
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        name.trim_end() == "dockerd" && is_same(&data_root(&dir), root)
    })?;
    Some(format!("process {pid}"))
}

/// Returns the data root of the dockerd at `/proc/<pid>`, as a path of this process.
fn data_root(process: &Path) -> PathBuf {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<String> =
        line.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let config =
        flag_value(&words, &["--config-file"]).unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
    let given = flag_value(&words, &["--data-root", "-g", "--graph"]);
    let inside = process.join("root");
    let configured = || {
        let path = inside.join(config.trim_start_matches('/'));
        let text = fsutil::read(&path, MAX_CONFIG_SIZE).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(json.get("data-root")?.as_str()?.to_owned())
    };
    let path = given.or_else(configured).unwrap_or_else(|| DEFAULT_ROOT.to_owned());
    match Path::new(&path).strip_prefix("/") {
        Ok(absolute) => inside.join(absolute),
        Err(_) => process.join("cwd").join(path),
    }
}

fn flag_value(words: &[String], names: &[&str]) -> Option<String> {
    words.iter().enumerate().find_map(|(i, word)| {
        let name = names.iter().find(|name| word.starts_with(**name))?;
        match &word[name.len()..] {
            "" => words.get(i + 1).cloned(),
            rest => rest.strip_prefix('=').map(str::to_owned),
        }
    })
}

/// Finds a dockerd by its socket, for one in another PID namespace.
fn socket_using(root: &Path) -> Option<String> {
    let info = docker_info(Path::new(SOCKET))?;
    let dir = info.get("DockerRootDir")?.as_str()?;
    is_same(Path::new(dir), root).then(|| format!("socket {SOCKET}"))
}

fn docker_info(socket: &Path) -> Option<serde_json::Value> {
    let limit = Some(Duration::from_millis(500));
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(limit).ok()?;
    stream.set_write_timeout(limit).ok()?;
    stream.write_all(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).ok()?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    serde_json::from_slice(&answer[body + 4..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_flags_in_both_forms_are_read() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let names = ["--data-root", "-g"];
        assert_eq!(flag_value(&words("dockerd --data-root /a"), &names).unwrap(), "/a");
        assert_eq!(flag_value(&words("dockerd --data-root=/a"), &names).unwrap(), "/a");
        assert_eq!(flag_value(&words("dockerd -g /a"), &names).unwrap(), "/a");
        assert_eq!(flag_value(&words("dockerd --data-rooted"), &names), None);
    }
}
