//! The files of `/etc` that a container gets from outside of its image, as in docker.

use super::spec::Network;

/// The contents of three files, each of which is mounted over the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcFiles {
    /// `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// `/etc/hostname`.
    pub hostname: Vec<u8>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
}

/// The hosts of a container without a network (moby libnetwork etchosts).
const HOSTS: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

impl EtcFiles {
    /// Creates the files of a container. `hosts` and `resolv_conf` are those of the machine.
    pub fn new(network: Network, hostname: &str, hosts: Vec<u8>, resolv_conf: Vec<u8>) -> Self {
        let hosts = match network {
            Network::Host => hosts,
            Network::None => HOSTS.as_bytes().to_vec(),
        };
        Self { hosts, hostname: format!("{hostname}\n").into_bytes(), resolv_conf }
    }

    /// Returns each file's name in `/etc` with its content.
    pub fn all(&self) -> [(&'static str, &[u8]); 3] {
        [("resolv.conf", &self.resolv_conf), ("hostname", &self.hostname), ("hosts", &self.hosts)]
    }
}
