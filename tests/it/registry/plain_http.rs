//! What never goes over plain HTTP: credentials of a registry that is contacted over HTTPS,
//! and requests that began over HTTPS.

use serde_json::json;

use super::server::{Act, Asked, Server};
use super::{Puller, basic};
use crate::support::guard::{IDENTITY, PASSWORD, Tls, USER};
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::Done;
use crate::support::tar::Tar;

/// A puller that trusts `server`, if that speaks HTTPS.
fn puller(server: &Server) -> (Puller, String) {
    let puller = Puller::new();
    let certs = puller.home().join("certs");
    if server.scheme == "https" {
        Tls::shared().certs_dir(&certs, &server.host, false);
    }
    (puller, certs.display().to_string())
}

/// A registry over HTTPS that wants a token of `realm`.
fn wants_token(realm: &str) -> Server {
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"tests\"\r\n");
    Server::tls(move |asked| match asked.head.contains("uthorization: Bearer") {
        true => Act::answer("404 Not Found", "", "the token was accepted"),
        false => Act::answer("401 Unauthorized", &challenge, ""),
    })
}

fn token_server() -> Server {
    Server::plain(|_| Act::answer("200 OK", "", r#"{"token":"t"}"#))
}

#[track_caller]
fn assert_refused(done: &Done, code: i32, says: &[&str]) {
    assert_eq!(done.code, Some(code), "{done}");
    for text in says {
        assert!(done.stderr.contains(text), "no '{text}' in {done}");
    }
    assert!(done.stderr.contains("\nhint: "), "no hint in {done}");
    assert!(!done.to_string().contains(PASSWORD), "the password is shown: {done}");
}

#[test]
fn https_registry_with_a_plain_http_realm_gets_no_credentials() {
    let tokens = token_server();
    let registry = wants_token(&tokens.url("/token"));
    let image = format!("{}/x/y:z", registry.host);
    let realm = tokens.url("/token");
    let says = [registry.host.as_str(), &realm, "plain HTTP", "https:// realm"];
    let auths = [json!({"auth": basic()}), json!({"identitytoken": IDENTITY})];
    for auth in auths {
        let (puller, certs) = puller(&registry);
        puller.docker_config(json!({"auths": {&registry.host: auth}}));
        assert_refused(&puller.run(&["--certs-dir", &certs, &image], &[]), 4, &says);
        let resolved = puller.run(&["--certs-dir", &certs, "resolve", &image], &[]);
        assert_refused(&resolved, 4, &says);
    }
    let (puller, certs) = puller(&registry);
    let flags = ["--certs-dir", &certs, "--username", USER, &image];
    assert_refused(&puller.run(&flags, &[("RPULL_PASSWORD", PASSWORD)]), 4, &says);
    assert_eq!(tokens.heads(), [""; 0], "something was sent to the token server");
}

#[test]
fn https_registry_with_a_plain_http_realm_gets_an_anonymous_token() {
    let tokens = token_server();
    let registry = wants_token(&tokens.url("/token"));
    let (puller, certs) = puller(&registry);
    let image = format!("{}/x/y:z", registry.host);
    puller.fails(3, &["--certs-dir", &certs, &image], "the token was accepted");
    let heads = tokens.heads();
    assert_eq!(heads.len(), 1);
    assert!(!heads[0].to_ascii_lowercase().contains("authorization"), "{heads:?}");
}

#[test]
fn loopback_registry_with_a_remote_plain_http_realm_gets_no_credentials() {
    let challenge = "WWW-Authenticate: Bearer realm=\"http://auth.invalid/token\"\r\n";
    let registry = Server::plain(move |_| Act::answer("401 Unauthorized", challenge, ""));
    let image = format!("{}/x/y:z", registry.host);
    let password = [("RPULL_PASSWORD", PASSWORD)];
    let done = Puller::new().run(&["--username", USER, &image], &password);
    assert_refused(&done, 4, &["http://auth.invalid/token", "--plain-http"]);
    // With the flag, it is tried: the name is unknown.
    let done = Puller::new().run(&["--plain-http", "--username", USER, &image], &password);
    assert_refused(&done, 5, &["cannot get a token from http://auth.invalid/token"]);
}

#[test]
fn realm_that_is_not_a_web_server_is_refused() {
    for (realm, says) in [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://user:hunter2@host/token", "scheme 'ftp'"),
        ("https://user:hunter2@host:port/token", "invalid token server"),
        ("/token", "invalid token server"),
    ] {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
        let registry = Server::plain(move |_| Act::answer("401 Unauthorized", &challenge, ""));
        let done = Puller::new().run(&[&format!("{}/x/y:z", registry.host)], &[]);
        assert_refused(&done, 5, &[&registry.host, says]);
        assert!(!done.stderr.contains("hunter2"), "{done}");
    }
}

#[test]
fn token_server_that_redirects_is_named_with_its_target() {
    let target = token_server();
    let location = format!("Location: {}\r\n", target.url("/other?signature=hunter2"));
    let tokens = Server::plain(move |_| Act::answer("302 Found", &location, ""));
    let realm = tokens.url("/token").replace("http://", "http://user:hunter2@");
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
    let registry = Server::plain(move |_| Act::answer("401 Unauthorized", &challenge, ""));
    let done = Puller::new().run(&[&format!("{}/x/y:z", registry.host)], &[]);
    let says = format!("{}: 302 Found: it redirects to {},", tokens.url("/token"), target.url(""));
    assert_refused(&done, 5, &[&says]);
    assert!(!done.stderr.contains("hunter2"), "{done}");
    assert_eq!(target.heads(), [""; 0]);
    let heads = tokens.heads();
    assert!(!heads[0].to_ascii_lowercase().contains("authorization"), "{heads:?}");
}

/// An image, and a registry over HTTPS that serves it but redirects what `redirects` says.
fn pushed(repository: &str) -> Pushed {
    let image = Image::new().layer(Tar::new().file("f", repository).end());
    image.push(&Hub::shared().host, &format!("{repository}:latest"))
}

/// A registry that passes on what a real one answers, and redirects some paths to `to`.
fn redirecting(to: &Server, path: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let to = to.url("");
    Server::tls(move |asked| match path(&asked.path) {
        true => redirect(&to, asked),
        false => from_hub(asked),
    })
}

fn redirect(to: &str, asked: &Asked) -> Act {
    let location = format!("Location: {to}{}\r\n", asked.path);
    Act::answer("307 Temporary Redirect", &location, "")
}

/// Redirects to the shared registry would be to plain HTTP, so its answer is passed on.
fn from_hub(asked: &Asked) -> Act {
    let host = &Hub::shared().host;
    let mut request = asked.head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    request = request.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut hub = std::net::TcpStream::connect(host).unwrap();
    std::io::Write::write_all(&mut hub, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut hub, &mut answer).unwrap();
    Act::Bytes(answer)
}

#[test]
fn redirect_from_https_to_plain_http_is_not_followed() {
    let pushed = pushed("test/downgrade");
    let plain = Server::plain(from_hub);
    let over_tls = pushed.name();
    let by_digest = format!("{}@{}", pushed.repository, pushed.digest);
    let config = pushed.id.clone();
    type Path = Box<dyn Fn(&str) -> bool + Send + Sync>;
    let cases: [(&str, Path); 4] = [
        (&over_tls, Box::new(|path| path.ends_with("/manifests/latest"))),
        (&by_digest, Box::new(|path| path.contains("/manifests/sha256:"))),
        (&over_tls, Box::new(move |path| path.ends_with(&config))),
        (&over_tls, Box::new(|path| path.contains("/blobs/"))),
    ];
    for (name, path) in cases {
        let registry = redirecting(&plain, path);
        let (puller, certs) = puller(&registry);
        let image = name.replace(&Hub::shared().host, &registry.host);
        let done = puller.run(&["--certs-dir", &certs, &image], &[]);
        let says = format!("{} redirects to {}, from HTTPS", registry.host, plain.url(""));
        assert_refused(&done, 5, &[&says, "--plain-http"]);
    }
    // A HEAD, as a tag that is known costs.
    let registry = redirecting(&plain, |_| true);
    let (puller, certs) = puller(&registry);
    let image = over_tls.replace(&Hub::shared().host, &registry.host);
    let done = puller.run(&["--certs-dir", &certs, "resolve", &image], &[]);
    assert_refused(&done, 5, &["from HTTPS to plain HTTP"]);
    assert_eq!(plain.heads(), [""; 0], "a redirect was followed");
}

#[test]
fn every_redirect_of_a_chain_is_checked() {
    let pushed = pushed("test/downgrade-chain");
    let end = Server::plain(from_hub);
    let last = redirecting(&end, |_| true);
    let middle = redirecting(&last, |_| true);
    // Begins over plain HTTP, which loopback registries may.
    let to = middle.url("");
    let front = Server::plain(move |asked| redirect(&to, asked));
    let image = pushed.name().replace(&Hub::shared().host, &front.host);
    let (puller, certs) = puller(&middle);
    Tls::shared().certs_dir(certs.as_ref(), &last.host, false);
    let done = puller.run(&["--certs-dir", &certs, &image], &[]);
    assert_refused(&done, 5, &[&format!("{} redirects to {}", last.host, end.url(""))]);
    assert_eq!((middle.heads().len(), last.heads().len(), end.heads().len()), (1, 1, 0));
    puller.pulls(&["--plain-http", "--certs-dir", &certs, &image], &[]);
}

#[test]
fn redirect_among_https_servers_is_followed() {
    let pushed = pushed("test/https-redirect");
    let target = Server::tls(from_hub);
    let registry = redirecting(&target, |path| path.contains("/blobs/"));
    let (puller, certs) = puller(&registry);
    Tls::shared().certs_dir(certs.as_ref(), &target.host, false);
    let image = pushed.name().replace(&Hub::shared().host, &registry.host);
    puller.pulls(&["--certs-dir", &certs, &image], &[]);
    assert_eq!(target.heads().len(), 2, "the config and the layer");
}

#[test]
fn redirect_with_a_password_in_its_url_does_not_show_it() {
    let location = "Location: http://user:hunter2@127.0.0.1:1/x?signature=hunter2\r\n";
    let registry = Server::plain(move |_| Act::answer("307 Temporary Redirect", location, ""));
    let done = Puller::new().run(&[&format!("{}/x/y:z", registry.host)], &[]);
    assert_refused(&done, 5, &["127.0.0.1:1"]);
    assert!(!done.to_string().contains("hunter2"), "{done}");
    let secure = Server::tls(move |_| Act::answer("307 Temporary Redirect", location, ""));
    let (puller, certs) = puller(&secure);
    let image = format!("{}/x/y:z", secure.host);
    let done = puller.run(&["--certs-dir", &certs, &image], &[]);
    assert_refused(&done, 5, &["redirects to http://127.0.0.1:1, from HTTPS"]);
    assert!(!done.to_string().contains("hunter2"), "{done}");
}
