//! Servers that stop answering or trickle: every kind of request ends by itself.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use rpull::internal::digest::Digest;
use rpull::internal::oci::Descriptor;
use rpull::internal::reference::{Reference, Repository};
use rpull::internal::registry::{
    Credential, Explicit, Found, Registry, RegistryError, RegistryOptions, Secret,
};
use rpull::{Error, ErrorKind};
use tempfile::TempDir;

use super::Puller;
use super::server::{Act, Asked, Server, mute};
use crate::support::guard::Tls;
use crate::support::scratch;

/// Keeps a test that hangs from hanging all; it measures nothing.
const GUARD: Duration = Duration::from_secs(120);

const SIZE: usize = 1_000_000;

/// What is asked of a registry.
#[derive(Debug, Clone, Copy)]
enum Call {
    Head,
    ByTag,
    ByDigest,
    Config,
    Layer,
    Segment,
}

/// Which server is the faulty one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Faulty {
    Registry,
    /// The one that the registry redirects to.
    Target,
    /// The token server, asked without credentials, by password, or by identity token.
    Token(Login),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Login {
    None,
    Password,
    Identity,
}

/// Where the answer stops.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Silent,
    InHeaders,
    TrickleOfHeaders,
    InBody,
    TrickleOfBody,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    call: Call,
    faulty: Faulty,
    /// Status of the answer that does not arrive whole.
    status: &'static str,
    /// How it ends when the body alone is missing, and after how many requests.
    without_body: (ErrorKind, usize),
}

fn scenarios() -> Vec<Scenario> {
    let case = |call, faulty, status, without_body| Scenario { call, faulty, status, without_body };
    let lost = (ErrorKind::Network, 2);
    let mut all = Vec::new();
    for call in [Call::Head, Call::ByTag, Call::ByDigest, Call::Config, Call::Layer] {
        all.push(case(call, Faulty::Registry, "200 OK", lost));
        all.push(case(call, Faulty::Target, "200 OK", lost));
    }
    all.push(case(Call::Segment, Faulty::Registry, "206 Partial Content", lost));
    all.push(case(Call::Segment, Faulty::Target, "206 Partial Content", lost));
    for call in [Call::ByTag, Call::Layer] {
        let refused =
            |status, kind, requests| case(call, Faulty::Registry, status, (kind, requests));
        all.push(refused("401 Unauthorized", ErrorKind::Auth, 1));
        all.push(refused("403 Forbidden", ErrorKind::Auth, 1));
        all.push(refused("404 Not Found", ErrorKind::NotFound, 1));
        all.push(refused("429 Too Many Requests", ErrorKind::RateLimited, 2));
        all.push(refused("500 Internal Server Error", ErrorKind::Network, 2));
    }
    for login in [Login::None, Login::Password, Login::Identity] {
        let token =
            |status, without_body| case(Call::ByTag, Faulty::Token(login), status, without_body);
        all.push(token("200 OK", lost));
        all.push(token("401 Unauthorized", (ErrorKind::Auth, 1)));
        all.push(token("503 Service Unavailable", lost));
    }
    all.push(case(Call::Head, Faulty::Token(Login::None), "200 OK", lost));
    all.push(case(Call::Layer, Faulty::Token(Login::None), "200 OK", lost));
    all
}

/// The faults that a scenario can meet.
fn faults(scenario: &Scenario) -> &'static [Fault] {
    use Fault::{InBody, InHeaders, Silent, TrickleOfBody, TrickleOfHeaders};
    match (scenario.call, scenario.faulty) {
        // The answer to a HEAD has no body.
        (Call::Head, Faulty::Registry | Faulty::Target) => &[Silent, InHeaders, TrickleOfHeaders],
        _ => &[Silent, InHeaders, TrickleOfHeaders, InBody, TrickleOfBody],
    }
}

fn act(scenario: &Scenario, fault: Fault) -> Act {
    let range = match scenario.call {
        Call::Segment => {
            format!("Content-Range: bytes 0-65535/{SIZE}\r\nContent-Length: 65536\r\n")
        }
        _ => format!("Content-Length: {SIZE}\r\n"),
    };
    let begin = format!("HTTP/1.1 {}\r\nX-Some-Header: ", scenario.status);
    let headers = format!("{begin}some\r\n{range}\r\n");
    match fault {
        Fault::Silent => Act::Stop(String::new()),
        Fault::InHeaders => Act::Stop(begin),
        Fault::TrickleOfHeaders => Act::Trickle(begin),
        Fault::InBody => Act::Stop(headers + "some of it"),
        Fault::TrickleOfBody => Act::Trickle(headers + "some of it"),
    }
}

fn options(home: &TempDir, servers: &[&Server]) -> RegistryOptions {
    for server in servers.iter().filter(|server| server.scheme == "https") {
        Tls::shared().certs_dir(home.path(), &server.host, false);
    }
    RegistryOptions {
        certs_dirs: vec![home.path().to_owned()],
        stall_timeout: Duration::from_secs(1),
        min_speed: 1024,
        speed_window: Duration::from_secs(2),
        retries: 1,
        backoff: Duration::from_millis(10),
        ..RegistryOptions::default()
    }
}

fn log_in(options: &mut RegistryOptions, host: &str, login: Login) {
    match login {
        Login::None => {}
        Login::Password => {
            let password = Secret::new("secret");
            let credential = Credential::Basic { username: "alice".into(), password };
            options.explicit = Explicit::new(Found::new(credential, "the test"));
        }
        Login::Identity => {
            let json = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"secret"}}}}}}"#);
            options.sources.docker_auth_config = Some(Secret::new(json));
        }
    }
}

fn blob() -> Descriptor {
    let digest = Digest::of(b"something");
    serde_json::from_value(serde_json::json!({"digest": digest, "size": SIZE})).unwrap()
}

async fn ask(
    call: Call,
    registry: &Registry,
    repository: &Repository,
) -> Result<(), RegistryError> {
    let blob = blob();
    let digest = blob.digest;
    match call {
        Call::Head => registry.head_manifest(repository, "latest").await.map(drop),
        Call::ByTag => registry.manifest(repository, "latest").await.map(drop),
        Call::ByDigest => registry.manifest(repository, &digest.to_string()).await.map(drop),
        Call::Config => registry.blob_bytes(repository, &blob, 8 << 20).await.map(drop),
        Call::Layer => registry
            .blob(repository, &blob, 0..blob.size)
            .await?
            .try_collect::<Vec<_>>()
            .await
            .map(drop),
        Call::Segment => {
            let segment = registry.blob_range(repository, &blob, 0..65536).await?;
            segment.expect("a segment").try_collect::<Vec<_>>().await.map(drop)
        }
    }
}

fn repository(server: &Server) -> Repository {
    let name = format!("{}/test/stalls", server.host);
    name.parse::<Reference>().unwrap().repository().clone()
}

async fn check(scenario: Scenario, fault: Fault, tls: bool) {
    let case = format!("{scenario:?}, {fault:?}, TLS: {tls}");
    let start = |rule: Box<dyn Fn(&Asked) -> Act + Send + Sync>| match tls {
        true => Server::tls(rule),
        false => Server::plain(rule),
    };
    let answer = act(&scenario, fault);
    let faulty = start(Box::new(move |_| answer.clone()));
    let url = faulty.url("/elsewhere");
    let front = match scenario.faulty {
        Faulty::Registry => None,
        Faulty::Target => {
            let location = format!("Location: {url}\r\n");
            let answer = Act::answer("307 Temporary Redirect", &location, "");
            Some(start(Box::new(move |_| answer.clone())))
        }
        Faulty::Token(_) => {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"{url}\",service=\"tests\"\r\n");
            let answer = Act::answer("401 Unauthorized", &challenge, "");
            Some(start(Box::new(move |_| answer.clone())))
        }
    };
    let front = front.as_ref().unwrap_or(&faulty);
    let home = scratch::dir();
    let mut options = options(&home, &[front, &faulty]);
    if let Faulty::Token(login) = scenario.faulty {
        log_in(&mut options, &front.host, login);
    }
    let registry = Registry::new(options);
    let asked =
        tokio::time::timeout(GUARD, ask(scenario.call, &registry, &repository(front))).await;
    let error = asked.unwrap_or_else(|_| panic!("{case}: it hangs")).expect_err(&case);
    let headers_only = matches!(fault, Fault::InBody | Fault::TrickleOfBody);
    let (kind, requests) =
        if headers_only { scenario.without_body } else { (ErrorKind::Network, 2) };
    let text = error.to_string();
    assert_eq!(Error::from(error).kind(), kind, "{case}: {text}");
    let named = matches!(kind, ErrorKind::NotFound) || text.contains("access denied");
    let name = if named { "test/stalls" } else { &faulty.host };
    assert!(text.contains(name), "{case}: no {name} in '{text}'");
    assert_eq!(faulty.heads().len(), requests, "{case}: {text}: {:?}", faulty.heads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_to_a_server_that_stalls_or_trickles_ends_by_itself() {
    let cases = scenarios()
        .into_iter()
        .flat_map(|scenario| faults(&scenario).iter().map(move |fault| (scenario, *fault, false)));
    stream::iter(cases)
        .for_each_concurrent(24, |(scenario, fault, tls)| check(scenario, fault, tls))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_over_tls_to_a_server_that_stalls_or_trickles_ends_by_itself() {
    let some = |scenario: &Scenario| {
        matches!(
            (scenario.call, scenario.faulty),
            (Call::ByTag, Faulty::Registry | Faulty::Token(Login::Password))
                | (Call::Layer, Faulty::Target)
        )
    };
    let cases = scenarios()
        .into_iter()
        .filter(some)
        .flat_map(|scenario| faults(&scenario).iter().map(move |fault| (scenario, *fault, true)));
    stream::iter(cases)
        .for_each_concurrent(12, |(scenario, fault, tls)| check(scenario, fault, tls))
        .await;
}

#[tokio::test]
async fn tls_handshake_that_is_not_answered_ends_by_itself() {
    let (home, host) = (scratch::dir(), mute());
    let options = options(&home, &[]);
    Tls::shared().certs_dir(home.path(), &host, false);
    let repository = format!("{host}/x/y").parse::<Reference>().unwrap().repository().clone();
    let registry = Registry::new(options);
    let asked = tokio::time::timeout(GUARD, registry.manifest(&repository, "latest")).await;
    let error = asked.expect("it hangs").unwrap_err();
    assert!(matches!(&error, RegistryError::Network { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("timed out while connecting: {host}"));
    assert_eq!(registry.requests(), 2);
}

/// Sends a few bytes of the blob per connection, from where the client asks on.
#[tokio::test]
async fn blob_that_comes_a_byte_per_connection_ends_by_itself() {
    let server = Server::plain(|asked| {
        let lower = asked.head.to_ascii_lowercase();
        let range = lower.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next());
        let from: usize = range.map_or(0, |from| from.parse().unwrap());
        let left = SIZE - from;
        let last = SIZE - 1;
        let headers = match from {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n"),
            _ => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{SIZE}\r\nContent-Length: {left}\r\n\r\n"
            ),
        };
        Act::Stop(headers + "x")
    });
    let home = scratch::dir();
    let registry = Registry::new(RegistryOptions { retries: 3, ..options(&home, &[&server]) });
    let repository = repository(&server);
    let asked = ask(Call::Layer, &registry, &repository);
    let error = tokio::time::timeout(GUARD, asked).await.expect("it hangs").unwrap_err();
    assert!(matches!(error, RegistryError::Network { .. }), "{error:?}");
    assert_eq!(server.heads().len(), 4);
}

#[tokio::test]
async fn reader_slower_than_all_limits_gets_the_whole_blob() {
    let body = "x".repeat(SIZE);
    let server = Server::plain(move |_| Act::answer("200 OK", "", &body));
    let home = scratch::dir();
    let limits = RegistryOptions {
        stall_timeout: Duration::from_millis(500),
        speed_window: Duration::from_secs(1),
        min_speed: 10 << 20,
        retries: 0,
        ..options(&home, &[&server])
    };
    let registry = Registry::new(limits);
    let repository = repository(&server);
    let mut stream = registry.blob(&repository, &blob(), 0..blob().size).await.unwrap();
    let (mut received, mut pauses) = (0, 0);
    while let Some(bytes) = stream.next().await {
        received += bytes.unwrap().len();
        if pauses < 3 {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
    }
    assert_eq!(received, SIZE);
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_one_token_fail_together() {
    let token = mute();
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{token}/token\"\r\n");
    let server = Server::plain(move |_| Act::answer("401 Unauthorized", &challenge, ""));
    let home = scratch::dir();
    let options = RegistryOptions {
        stall_timeout: Duration::from_secs(3),
        retries: 0,
        ..options(&home, &[&server])
    };
    let (registry, repository) = (Registry::new(options), repository(&server));
    let asked = (0..40).map(|_| ask(Call::ByTag, &registry, &repository));
    // One after the other, they would take as many stall limits: over two minutes.
    let all = tokio::time::timeout(GUARD * 3 / 4, futures::future::join_all(asked)).await;
    for asked in all.expect("they wait one after the other") {
        let error = asked.unwrap_err();
        assert!(matches!(error, RegistryError::Token { status: 0, .. }), "{error:?}");
        assert!(error.to_string().contains(&token), "{error}");
    }
}

#[test]
fn pull_from_a_silent_token_server_exits_5_and_names_it() {
    let token = mute();
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{token}/token\"\r\n");
    let registry = Server::plain(move |_| Act::answer("401 Unauthorized", &challenge, ""));
    let image = format!("{}/x/y:z", registry.host);
    let says =
        format!("cannot get a token from http://{token}/token: nothing received for 1 seconds");
    Puller::new().fails(5, &["--stall-timeout", "1", "--retries", "0", &image], &says);
}

#[test]
fn pull_refused_with_a_body_that_stops_exits_4() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n{\"errors\":";
    let registry = Server::plain(move |_| Act::Stop(refusal.to_owned()));
    let image = format!("{}/x/y:z", registry.host);
    Puller::new().fails(4, &["--stall-timeout", "1", "--retries", "0", &image], "access denied");
}
