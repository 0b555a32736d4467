//! The plain registry that most tests share: Debian's docker-registry on a free port,
//! whose storage tests may damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::scratch;

pub struct Hub {
    /// `127.0.0.1:PORT`.
    pub host: String,
    data: PathBuf,
}

/// An address with a port that the kernel chooses.
const ANY_PORT: &str = "127.0.0.1:0";

impl Hub {
    pub fn shared() -> &'static Hub {
        static SHARED: OnceLock<Hub> = OnceLock::new();
        SHARED.get_or_init(Hub::start)
    }

    fn start() -> Hub {
        let data = scratch::lasting().join("data");
        Hub { host: Self::launch(&data, ANY_PORT, "", ""), data }
    }

    /// Another docker-registry on the same storage: what was pushed to the shared one can
    /// be pulled from it, by other rules. `http` and `more` are YAML.
    pub fn guarded(&self, http: &str, more: &str) -> String {
        self.guarded_at(ANY_PORT, http, more)
    }

    /// The same at an address.
    pub fn guarded_at(&self, address: &str, http: &str, more: &str) -> String {
        Self::launch(&self.data, address, http, more)
    }

    fn launch(data: &Path, address: &str, http: &str, more: &str) -> String {
        let dir = scratch::lasting();
        let (log, config) = (dir.join("log"), dir.join("config.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'{http}}}\n{more}",
            data.display()
        );
        fs::write(&config, text).expect("a registry's config");
        let file = fs::File::create(&log).expect("a log");
        scratch::spawn_lasting("docker-registry", move |command| {
            command.arg("serve").arg(config).stdin(Stdio::null());
            command.stdout(file.try_clone().expect("a log")).stderr(file);
        });
        let since = Instant::now();
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("listening on ") {
                let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                return rest[..end.unwrap_or(rest.len())].to_owned();
            }
            assert!(since.elapsed() < Duration::from_secs(20), "docker-registry is mute: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A repository that no other test uses.
    pub fn repository(&self, stem: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("test/{stem}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The file in which the registry keeps a blob, for tests that damage it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = Path::new("docker/registry/v2/blobs/sha256");
        self.data.join(blobs).join(&hex[..2]).join(hex).join("data")
    }
}
