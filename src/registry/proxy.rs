//! Proxies that the environment names, by curl's rules: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` for
//! both, and `NO_PROXY`. The names in upper case come first.

use std::ffi::OsString;
use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Url};

use super::error::RegistryError;

/// The schemes of proxies.
const SCHEMES: &[&str] = &["http", "https", "socks5", "socks5h", "socks4", "socks4a"];

/// The proxies for requests over HTTP and HTTPS. The default is none.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    no: String,
}

/// A variable of the environment, whose value can contain a password.
#[derive(Clone)]
struct Variable {
    name: &'static str,
    value: String,
}

/// A proxy that a request goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Scheme, host and port; without user and password.
    pub url: String,
    /// The variable that names it.
    pub variable: &'static str,
}

impl Proxies {
    /// Returns the proxies that variables name; `variable` returns the value of a variable that is
    /// not empty.
    pub(super) fn from_variables(variable: &impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name| Some(variable(name)?.to_string_lossy().into_owned());
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some(Variable { name, value: value(name)? }))
        };
        if value("REQUEST_METHOD").is_some() {
            // In a CGI program, HTTP_PROXY is what the client sent as the header Proxy.
            return Self::default();
        }
        let all = first(["ALL_PROXY", "all_proxy"]);
        Self {
            http: first(["HTTP_PROXY", "http_proxy"]).or_else(|| all.clone()),
            https: first(["HTTPS_PROXY", "https_proxy"]).or(all),
            no: value("NO_PROXY").or_else(|| value("no_proxy")).unwrap_or_default(),
        }
    }

    /// Returns the proxies in the form of the HTTP client.
    ///
    /// # Errors
    /// [`RegistryError::Proxy`] if the value of a variable is not the URL of a proxy.
    pub fn clients(&self) -> Result<Vec<reqwest::Proxy>, RegistryError> {
        let no = || NoProxy::from_string(&self.no);
        let mut proxies = Vec::new();
        if let Some(variable) = &self.http {
            let proxy = reqwest::Proxy::http(variable.url()?);
            proxies.push(proxy.map_err(|e| variable.invalid(e))?.no_proxy(no()));
        }
        if let Some(variable) = &self.https {
            let proxy = reqwest::Proxy::https(variable.url()?);
            proxies.push(proxy.map_err(|e| variable.invalid(e))?.no_proxy(no()));
        }
        Ok(proxies)
    }

    /// Returns the proxy of requests to `origin` (`scheme://host[:port]`), if there is one.
    pub fn of(&self, origin: &str) -> Option<Proxy> {
        let https = origin.starts_with("https:");
        let variable = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let url = variable.url().ok()?;
        // reqwest decides by the same type.
        let matcher = Matcher::builder().all(url.as_str().to_owned()).no(self.no.clone()).build();
        let proxy = matcher.intercept(&origin.parse().ok()?)?;
        let uri = proxy.uri();
        let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Some(Proxy { url: format!("{scheme}://{host}{port}"), variable: variable.name })
    }
}

impl Variable {
    /// Returns the proxy's URL; `http://` may be missing.
    fn url(&self) -> Result<Url, RegistryError> {
        let value = self.value.trim();
        let text = match value.contains("://") {
            true => value.to_owned(),
            false => format!("http://{value}"),
        };
        let url = Url::parse(&text).map_err(|e| self.invalid(e))?;
        if !SCHEMES.contains(&url.scheme()) {
            let scheme = url.scheme();
            return Err(self.invalid(format!("the scheme '{scheme}' is not that of a proxy")));
        }
        match url.host_str() {
            None | Some("") => Err(self.invalid("there is no host")),
            Some(_) => Ok(url),
        }
    }

    fn invalid(&self, cause: impl fmt::Display) -> RegistryError {
        RegistryError::Proxy { variable: self.name.to_owned(), cause: cause.to_string() }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.url, self.variable)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |variable: &Option<Variable>| variable.as_ref().map(|variable| variable.name);
        f.debug_struct("Proxies")
            .field("http", &name(&self.http))
            .field("https", &name(&self.https))
            .field("no", &self.no)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn proxy_is_shown_with_its_variable_and_without_user_and_password() {
        let url = "http://me:hunter2@proxy.example:3128";
        let proxies = proxies(&[("ALL_PROXY", url), ("no_proxy", "direct")]);
        let of = |origin: &str| proxies.of(origin).map(|proxy| proxy.to_string());
        for origin in ["https://registry.example", "http://registry.example:5000"] {
            let shown = "http://proxy.example:3128 (from ALL_PROXY)";
            assert_eq!(of(origin).as_deref(), Some(shown), "{origin}");
        }
        assert_eq!(of("https://direct"), None);
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }

    #[test]
    fn variable_of_the_scheme_comes_before_the_one_for_all() {
        let proxies = proxies(&[("all_proxy", "socks5://all"), ("https_proxy", "one:3128")]);
        let of = |origin: &str| proxies.of(origin).unwrap().to_string();
        assert_eq!(of("https://registry.example"), "http://one:3128 (from https_proxy)");
        assert_eq!(of("http://registry.example"), "socks5://all (from all_proxy)");
        assert_eq!(proxies.clients().unwrap().len(), 2);
    }

    #[test]
    fn value_that_is_not_the_url_of_a_proxy_is_an_error_that_names_the_variable() {
        for value in
            ["http://[::1", "http://proxy:99999", "ftp://proxy", "http://", "a proxy", ":1"]
        {
            let error = proxies(&[("HTTPS_PROXY", value)]).clients().unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("invalid proxy URL in HTTPS_PROXY: "), "{value}: {text}");
        }
    }

    #[test]
    fn cgi_program_uses_no_proxy() {
        let proxies = proxies(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(proxies.of("http://registry.example"), None);
    }
}
