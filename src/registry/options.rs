//! How registries are contacted.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::{CustomSources, Explicit, Sources};
use super::proxy::Proxies;

/// How registries are contacted.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Plain HTTP for every host. Loopback hosts without certificates use it without this, if they
    /// do not speak TLS.
    pub plain_http: bool,
    /// Hosts, as `name` for all ports or as `name:port`, of which any certificate is accepted, and
    /// which may use plain HTTP.
    pub insecure: Vec<String>,
    /// Given by flags or environment; wins over all files.
    pub explicit: Explicit,
    /// The program's own sources of credentials, which come next.
    pub custom: CustomSources,
    /// Where else credentials are looked up.
    pub sources: Sources,
    /// Directories with `<host[:port]>/{*.crt,*.cert,*.key}`; the first that has the host
    /// is used.
    pub certs_dirs: Vec<PathBuf>,
    /// The proxies, which are not used for loopback hosts.
    pub proxies: Proxies,
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
    /// Failures in a row before giving up. 0 also ends the wait for a host that is lost.
    pub retries: u32,
    /// How long requests are repeated to a host that answered before and then sends nothing; 0:
    /// like those to any other host.
    pub outage_timeout: Duration,
    /// The wait after the first failure; it doubles.
    pub backoff: Duration,
}

impl Default for RegistryOptions {
    /// Options that depend neither on the environment nor on the user: no credentials, no
    /// proxy, and certificates from `/etc` only.
    fn default() -> Self {
        Self {
            plain_http: false,
            insecure: Vec::new(),
            explicit: Explicit::default(),
            custom: CustomSources::default(),
            sources: Sources::default(),
            certs_dirs: vec!["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into()],
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            min_speed: 1024,
            speed_window: Duration::from_secs(60),
            helper_timeout: Duration::from_secs(60),
            retries: 5,
            outage_timeout: Duration::from_secs(120),
            backoff: Duration::from_millis(500),
        }
    }
}

impl RegistryOptions {
    /// The default, with the credentials, certificates and proxies that the environment names.
    /// An empty variable counts as unset.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from);
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let own = [".config/docker/certs.d", ".config/containers/certs.d"];
        let defaults = Self::default();
        Self {
            sources: Sources::from_variables(&variable),
            certs_dirs: own.into_iter().filter_map(below_home).chain(defaults.certs_dirs).collect(),
            proxies: Proxies::from_variables(&variable),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_names_nothing_of_the_user() {
        let options = RegistryOptions::default();
        assert!(options.certs_dirs.iter().all(|dir| dir.starts_with("/etc")), "{options:?}");
        let Sources { docker_auth_config, auth_file, docker_config, default_auth_files, .. } =
            options.sources;
        assert_eq!((docker_auth_config, auth_file, docker_config), (None, None, None));
        assert!(default_auth_files.is_empty());
        assert_eq!(options.proxies.of("https://registry.example"), None);
    }

    #[test]
    fn environment_names_certificates_and_credentials_of_the_user() {
        let options = RegistryOptions::from_variables(|name| match name {
            "HOME" => Some("/home/me".into()),
            "XDG_RUNTIME_DIR" => Some("/run/me".into()),
            "REGISTRY_AUTH_FILE" => Some("auth.json".into()),
            "DOCKER_AUTH_CONFIG" => Some("{}".into()),
            "HTTPS_PROXY" => Some("http://proxy.example".into()),
            _ => None,
        });
        assert_eq!(options.certs_dirs[0], PathBuf::from("/home/me/.config/docker/certs.d"));
        assert_eq!(options.certs_dirs.len(), 4);
        let sources = options.sources;
        assert_eq!(sources.docker_config, Some("/home/me/.docker/config.json".into()));
        assert_eq!(sources.auth_file, Some("auth.json".into()));
        assert!(sources.docker_auth_config.is_some());
        assert!(options.proxies.of("https://registry.example").is_some());
        let auth_files =
            ["/run/me", "/home/me/.config"].map(|d| format!("{d}/containers/auth.json"));
        assert_eq!(sources.default_auth_files, auth_files.map(PathBuf::from));
    }

    #[test]
    fn empty_variable_counts_as_unset() {
        let empty = RegistryOptions::from_variables(|_| Some(OsString::new()));
        let unset = RegistryOptions::from_variables(|_| None);
        assert_eq!(format!("{empty:?}"), format!("{unset:?}"));
        assert!(empty.certs_dirs.iter().all(|dir| dir.is_absolute()), "{empty:?}");
    }
}
