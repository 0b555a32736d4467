//! Servers that cannot be reached, or that are not registries, and local files that are wrong: the
//! error leads with the fact, and the hint fits.

use std::fs;
use std::net::TcpListener;

use serde_json::json;

use super::server::{Act, Server};
use super::{Puller, at, pushed};
use crate::support::guard::Tokens;
use crate::support::proxy::{Fault, Proxy};

const PAGE: &str = "<!DOCTYPE html><html><head><title>Free\nWiFi &amp; more</title></head>\
                    <body>Accept the terms</body></html>";
const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n";

/// A port that refuses connections: it was free a moment ago.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn refused_connection_is_told_in_plain_words_and_its_chain_only_with_v() {
    let image = format!("{}/x/y", closed());
    let host = image.trim_end_matches("/x/y");
    let done = Puller::new().run(&[&image], &[]);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains(&format!("rpull: connection refused: {host}\n")), "{done}");
    assert!(!done.stderr.contains("os error"), "{done}");
    let verbose = Puller::new().run(&["-v", &image], &[]);
    assert!(verbose.stderr.contains("client error (Connect)"), "{verbose}");
    assert!(verbose.stderr.contains(&format!("rpull: connection refused: {host}\n")), "{verbose}");
}

#[test]
fn connection_that_closes_before_an_answer_is_told_without_the_layers_of_the_library() {
    let server = Server::plain(|_| Act::Bytes(Vec::new()));
    let done = Puller::new().run(&[&format!("{}/x/y", server.host)], &[]);
    assert_eq!(done.code, Some(5), "{done}");
    let says = format!("rpull: connection closed before message completed: {}\n", server.host);
    assert!(done.stderr.contains(&says), "{done}");
}

#[test]
fn token_server_that_refuses_connections_is_told_in_plain_words() {
    let host = closed();
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
    let server = Server::plain(move |_| Act::answer("401 Unauthorized", &challenge, ""));
    let says = format!("rpull: cannot get a token from http://{host}/token: connection refused\n");
    Puller::new().fails(5, &[&format!("{}/x/y", server.host)], &says);
}

#[test]
fn web_page_in_place_of_a_manifest_is_shown_by_its_title() {
    let server = Server::plain(|_| Act::answer("200 OK", HTML, PAGE));
    let host = &server.host;
    let done = Puller::new().run(&[&format!("{host}/x/y")], &[]);
    assert_eq!(done.code, Some(5), "{done}");
    let says =
        format!("rpull: {host} answered with text/html, not with a manifest: 'Free WiFi & more'\n");
    assert!(done.stderr.contains(&says), "{done}");
    assert!(done.stderr.contains("hint: check that the host is a registry"), "{done}");
    assert_eq!(server.heads().len(), 1, "it is not retried");
}

#[test]
fn web_page_with_status_404_is_shown_by_its_title() {
    let server = Server::plain(|_| Act::answer("404 Not Found", HTML, PAGE));
    let image = format!("{}/x/y", server.host);
    let says =
        format!("{} answered with text/html, not with JSON: 'Free WiFi & more'\n", server.host);
    Puller::new().fails(3, &[&image], &says);
}

#[test]
fn web_page_in_place_of_a_blob_is_told() {
    let pushed = pushed("test/page-for-blob");
    let proxy = Proxy::every("/blobs/", Fault::Instead("200 OK", HTML, PAGE));
    let done = Puller::new().run(&[&proxy.name(&pushed.name())], &[]);
    assert_eq!(done.code, Some(5), "{done}");
    assert!(done.stderr.contains("answered with text/html, not with a "), "{done}");
    assert!(done.stderr.contains("'Free WiFi & more'"), "{done}");
    // Only the layer, which has no length and another content type than a page's.
    let layer = Proxy::new(|_, path| match path.contains("/manifests/") {
        true => Fault::None,
        false => Fault::Instead("200 OK", "Content-Type: application/octet-stream\r\n", PAGE),
    });
    let done = Puller::new().run(&[&layer.name(&pushed.name())], &[]);
    assert_eq!(done.code, Some(6), "{done}");
    assert!(done.stderr.contains("mismatch"), "{done}");
}

#[test]
fn web_page_in_place_of_a_token_is_shown_by_its_title() {
    let server = Server::plain(|asked| match asked.path.starts_with("/token") {
        true => Act::answer("200 OK", HTML, PAGE),
        false => {
            let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
            Act::answer("401 Unauthorized", &challenge, "")
        }
    });
    let says = "answered with text/html, not with a token: 'Free WiFi & more'\n";
    Puller::new().fails(5, &[&format!("{}/a/b", server.host)], says);
}

#[test]
fn broken_file_with_credentials_is_an_error_for_public_registries_too() {
    let image = pushed("test/broken-config").name();
    let puller = Puller::new();
    let broken = "{\n  \"auths\": {\n    \"host\": {\"auth\": \"hunter2\"},\n  }\n}\n";
    for file in [".docker/config.json", ".config/containers/auth.json"] {
        let path = puller.home().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, broken).unwrap();
        let done = puller.run(&[&image], &[]);
        assert_eq!(done.code, Some(4), "{done}");
        let says = format!("cannot read credentials from {}: ", path.display());
        assert!(done.stderr.contains(&says) && done.stderr.contains("at line 4"), "{done}");
        assert!(done.stderr.contains("hint: ") && !done.stderr.contains("hunter2"), "{done}");
        fs::remove_file(&path).unwrap();
    }
    let done = puller.run(&[&image], &[("DOCKER_AUTH_CONFIG", "{")]);
    assert_eq!(done.code, Some(4), "{done}");
    assert!(done.stderr.contains("credentials from DOCKER_AUTH_CONFIG: "), "{done}");
    // Missing files are not errors, and a credential on the command line needs no file.
    puller.pulls(&[&image], &[]);
    fs::write(puller.home().join(".docker/config.json"), broken).unwrap();
    let other = pushed("test/broken-config-2").name();
    puller.pulls(&["--username", "me", &other], &[("RPULL_PASSWORD", "x")]);
}

#[test]
fn credential_helper_that_is_not_installed_is_named_with_the_file_that_asks_for_it() {
    let tokens = Tokens::shared();
    let puller = Puller::new();
    puller.docker_config(json!({"credsStore": "of-a-desktop"}));
    let done = puller.run(&[&at(&tokens.host, &pushed("test/public-no-helper"))], &[]);
    assert_eq!(done.code, Some(4), "{done}");
    let file = puller.home().join(".docker/config.json");
    let says = format!(
        "rpull: docker-credential-of-a-desktop is not in PATH, and {} asks for it\n",
        file.display()
    );
    assert!(done.stderr.contains(&says), "{done}");
    assert!(done.stderr.contains("hint: install docker-credential-of-a-desktop"), "{done}");
}

#[test]
fn certificate_directory_that_does_not_exist_exits_2() {
    let pushed = pushed("test/no-certs-dir");
    let says = "rpull: --certs-dir /nonexistent/certs: there is no such directory\n";
    Puller::new().fails(2, &["--certs-dir", "/nonexistent/certs", &pushed.name()], says);
}
