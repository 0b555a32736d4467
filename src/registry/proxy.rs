//! Which proxy a request goes through, for the log: reqwest decides by the same rules and does not
//! tell.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;

/// The proxies that the environment names.
pub struct Proxies(Matcher);

/// A proxy, without its user and password.
#[derive(Debug, PartialEq, Eq)]
pub struct Proxy(String);

impl Proxies {
    /// Reads the variables as reqwest does.
    pub fn from_env() -> Self {
        Self(Matcher::from_system())
    }

    /// Returns the proxy for requests to `origin` (`scheme://host[:port]`), if there is one.
    pub fn of(&self, origin: &str) -> Option<Proxy> {
        let proxy = self.0.intercept(&origin.parse().ok()?)?;
        let uri = proxy.uri();
        let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Some(Proxy(format!("{scheme}://{host}{port}")))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_shown_without_user_and_password() {
        let matcher = Matcher::builder().all("http://me:hunter2@proxy.example:3128").no("direct");
        let proxies = Proxies(matcher.build());
        let of = |origin: &str| proxies.of(origin).map(|proxy| proxy.to_string());
        for origin in ["https://registry.example", "http://registry.example:5000"] {
            assert_eq!(of(origin).as_deref(), Some("http://proxy.example:3128"), "{origin}");
        }
        assert_eq!(of("https://direct"), None);
    }
}
