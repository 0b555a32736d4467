//! How registries are spoken to.

use std::path::PathBuf;
use std::time::Duration;

use super::credentials::{Explicit, Sources};

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// HTTP for every host. Loopback hosts are spoken to by HTTP anyway, unless there are
    /// certificates for them.
    pub plain_http: bool,
    /// Given by flags or environment; wins over all files.
    pub explicit: Explicit,
    /// Where else credentials are looked up.
    pub sources: Sources,
    /// Directories with `<host[:port]>/{*.crt,*.cert,*.key}`; the first that has the host
    /// is used.
    pub certs_dirs: Vec<PathBuf>,
    /// Limit on setting up a connection.
    pub connect_timeout: Duration,
    /// Limit on waiting for an answer (with the connection that it needs), and on each wait
    /// for the next bytes of its body.
    pub stall_timeout: Duration,
    /// Bytes per second that the body of an answer must reach, averaged over
    /// `speed_window`. Only time spent waiting for the network counts. 0 sets no limit.
    pub min_speed: u64,
    /// The waiting time over which `min_speed` is averaged; at least twice `stall_timeout`.
    pub speed_window: Duration,
    /// Limit on the answer of a credential helper. Helpers may ask the user something.
    pub helper_timeout: Duration,
    /// Failures in a row before giving up.
    pub retries: u32,
    /// The wait after the first failure; it doubles.
    pub backoff: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let certs = [
            below_home(".config/docker/certs.d"),
            below_home(".config/containers/certs.d"),
            Some("/etc/docker/certs.d".into()),
            Some("/etc/containers/certs.d".into()),
        ];
        Self {
            plain_http: false,
            explicit: Explicit::default(),
            sources: Sources::of_environment(),
            certs_dirs: certs.into_iter().flatten().collect(),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            min_speed: 1024,
            speed_window: Duration::from_secs(60),
            helper_timeout: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(500),
        }
    }
}
