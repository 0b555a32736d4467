//! A real dockerd (Debian's docker.io) on a data root of the test's choice.
//!
//! It has its own containerd, socket, pid file and mount namespace, no network and no
//! firewall rules, so it neither meets a daemon that this machine runs nor leaves a
//! mount behind. `docker run` needs cgroups mounted and `--network none`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::image::sha256;
use super::rpull::Done;
use super::scratch;

/// Starts dockerd without the writable mounts of other tests: as long as its mount namespace had them, they
/// would be mounted.
const FORGET_MOUNTS: &str = r#"awk '/upperdir=[^ ]*\/rpull\/mounts\// { print $5 }' /proc/self/mountinfo |
  xargs -r -n 1 umount
exec dockerd "$@""#;

pub struct Dockerd {
    pub root: PathBuf,
    run: TempDir,
    child: Option<Child>,
}

impl Dockerd {
    /// Starts on `root` and returns when it answers.
    pub fn start(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref().to_owned();
        let run = scratch::dir();
        let at = run.path().to_owned();
        std::fs::write(at.join("daemon.json"), "{}").expect("daemon.json");
        let data = root.clone();
        let child = scratch::spawn_bound("unshare", move |command| {
            let log = File::create(at.join("log")).expect("a log");
            command
                .args(["--mount", "--propagation", "private", "sh", "-c", FORGET_MOUNTS, "dockerd"])
                .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
                .args(["--storage-driver", "overlay2"])
                .arg("--data-root")
                .arg(data)
                .arg("--exec-root")
                .arg(at.join("exec"))
                .arg("--pidfile")
                .arg(at.join("pid"))
                .arg("--config-file")
                .arg(at.join("daemon.json"))
                .arg("--host")
                .arg(format!("unix://{}", at.join("sock").display()))
                .env("HOME", &at)
                .stdin(std::process::Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log);
        });
        let mut dockerd = Self { root, run, child: Some(child) };
        dockerd.wait_until_ready();
        dockerd
    }

    /// One dockerd with a root of its own for the whole run: the judge that pulls the
    /// same images as rpull.
    pub fn shared() -> &'static Dockerd {
        static SHARED: OnceLock<Dockerd> = OnceLock::new();
        SHARED.get_or_init(|| Dockerd::start(scratch::lasting().join("docker")))
    }

    fn wait_until_ready(&mut self) {
        let since = Instant::now();
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "dockerd ended: {ended:?}\n{}", self.log());
            assert!(since.elapsed() < Duration::from_secs(60), "dockerd is mute\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let _ = stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
    }

    pub fn socket(&self) -> PathBuf {
        self.run.path().join("sock")
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.run.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        // Debian's client stands beside Debian's daemon; a newer one in /usr/local
        // would print other tables.
        let debian = Path::new("/usr/bin/docker");
        // A daemon that reads a fifo in place of a file would keep us for ever.
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "120"])
            .arg(if debian.exists() { debian } else { Path::new("docker") })
            .arg("--config")
            .arg(self.run.path().join("client"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(args)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_HOST");
        command
    }

    pub fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().expect("start docker").into()
    }

    /// `docker ARGS`, expects success, gives stdout without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "docker {args:?}: {done}\n{}", self.log());
        done.stdout.trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }

    /// The sha256 of each layer's tar as `docker save` puts it together again, base
    /// first, or what docker said against it.
    pub fn save(&self, image: &str) -> Result<Vec<String>, String> {
        let output = self.command(&["save", image]).output().expect("start docker");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut archive = ::tar::Archive::new(output.stdout.as_slice());
        for entry in archive.entries().expect("a saved image") {
            let mut entry = entry.expect("a saved image");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            if let Some(target) = entry.link_name().expect("a link") {
                // A layer that stands twice in an image is saved once and linked to.
                let target = target.to_string_lossy().trim_start_matches("../").to_owned();
                links.insert(name, target);
                continue;
            }
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("a saved file");
            files.insert(name, data);
        }
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("manifest");
        let layers = manifest[0]["Layers"].as_array().expect("layers");
        let digest = |layer: &Value| {
            let name = layer.as_str().expect("a name");
            sha256(&files[links.get(name).map_or(name, String::as_str)])
        };
        Ok(layers.iter().map(digest).collect())
    }

    /// Ends it the way a service manager would, and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(20) {
            if child.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.end();
    }
}
