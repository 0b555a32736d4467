//! Real registries behind TLS, passwords and tokens; redirects and lines that break.

mod continued;
mod log;
mod outage;
mod plain_http;
mod proxies;
mod redirects;
mod refused;
mod resume;
mod segments;
mod server;
mod stalls;
mod tls;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use self::server::{Act, Server};
use crate::support::guard::{IDENTITY, PASSWORD, Tls, Tokens, USER, htpasswd};
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch;
use crate::support::snapshot::assert_consistent;
use crate::support::tar::{Tar, noise};

/// Keeps a command that hangs from hanging all tests; it measures nothing.
const GUARD: Duration = Duration::from_secs(300);

/// An image in the storage that all registries share.
fn pushed(repository: &str) -> Pushed {
    let image =
        Image::new().layer(Tar::new().file("f", repository).file("zeros", vec![0; 500_000]).end());
    image.push(&Hub::shared().host, &format!("{repository}:latest"))
}

/// Its name at another registry.
fn at(host: &str, pushed: &Pushed) -> String {
    pushed.name().replace(&Hub::shared().host, host)
}

struct Puller {
    rpull: Rpull,
    home: TempDir,
}

impl Puller {
    fn new() -> Self {
        let home = scratch::dir();
        Self { rpull: Rpull::on(home.path().join("root")), home }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn docker_config(&self, json: serde_json::Value) {
        let dir = self.home().join(".docker");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), json.to_string()).unwrap();
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Done {
        let mut command = self.rpull.command(args.iter().copied());
        command.env("HOME", self.home()).env("RPULL_RETRIES", "1");
        command.envs(env.iter().copied());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (pid, (_ended, end)) = (Pid::from_child(&child), mpsc::channel::<()>());
        std::thread::spawn(move || {
            if end.recv_timeout(GUARD) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        child.wait_with_output().unwrap().into()
    }

    #[track_caller]
    fn pulls(&self, args: &[&str], env: &[(&str, &str)]) {
        let done = self.run(args, env);
        assert_eq!(done.code, Some(0), "{done}");
    }

    #[track_caller]
    fn fails(&self, code: i32, args: &[&str], says: &str) {
        let done = self.run(args, &[]);
        assert_eq!(done.code, Some(code), "{done}");
        assert!(done.stderr.contains(says), "no '{says}' in {done}");
        assert!(!done.to_string().contains(PASSWORD), "the password is shown: {done}");
    }
}

fn basic() -> String {
    BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes())
}

#[test]
fn registry_with_a_private_ca_is_trusted_by_certs_dir() {
    let (tls, pushed, puller) = (Tls::shared(), pushed("test/tls"), Puller::new());
    let image = at(&tls.host, &pushed);
    let certs = tls.certs_dir(&puller.home().join("certs"), &tls.host, false);
    puller.pulls(&["--certs-dir", certs.to_str().unwrap(), &image], &[]);
    // Where Docker looks for it without a flag.
    let second = Puller::new();
    tls.certs_dir(&second.home().join(".config/docker/certs.d"), &tls.host, false);
    second.pulls(&[&image], &[]);
}

#[test]
fn untrusted_certificate_exits_5() {
    let (tls, pushed, puller) = (Tls::shared(), pushed("test/tls-untrusted"), Puller::new());
    // An empty directory for the host makes it HTTPS, but trusts nothing new.
    fs::create_dir_all(puller.home().join("certs").join(&tls.host)).unwrap();
    let certs = puller.home().join("certs");
    puller.fails(
        5,
        &["--certs-dir", certs.to_str().unwrap(), &at(&tls.host, &pushed)],
        "CA that is not trusted",
    );
}

#[test]
fn registry_that_requires_a_client_certificate_gets_it() {
    let (tls, pushed, puller) = (Tls::shared(), pushed("test/mtls"), Puller::new());
    let image = at(&tls.mutual, &pushed);
    let certs = tls.certs_dir(&puller.home().join("certs"), &tls.mutual, false);
    let flag = certs.to_str().unwrap();
    puller.fails(5, &["--certs-dir", flag, &image], "requires a client certificate");
    fs::write(certs.join(&tls.mutual).join("me.cert"), &tls.client_cert).unwrap();
    puller.fails(2, &["--certs-dir", flag, &image], "missing key me.key");
    tls.certs_dir(&certs, &tls.mutual, true);
    puller.pulls(&["--certs-dir", flag, &image], &[]);
}

#[test]
fn password_from_each_source_is_used() {
    let pushed = pushed("test/htpasswd");
    let (host, image) = (htpasswd(), at(htpasswd(), &pushed));
    Puller::new().fails(4, &[&image], "unauthorized");
    Puller::new().pulls(&["--username", USER, &image], &[("RPULL_PASSWORD", PASSWORD)]);
    Puller::new().pulls(&[&image], &[("RPULL_USERNAME", USER), ("RPULL_PASSWORD", PASSWORD)]);
    let auths = json!({"auths": {host: {"auth": basic()}}});
    Puller::new().pulls(&[&image], &[("DOCKER_AUTH_CONFIG", &auths.to_string())]);
    let config = Puller::new();
    config.docker_config(auths.clone());
    config.pulls(&[&image], &[]);
    let file = Puller::new();
    let path = file.home().join("auth.json");
    fs::write(&path, auths.to_string()).unwrap();
    file.pulls(&["--auth-file", path.to_str().unwrap(), &image], &[]);
    file.fails(
        4,
        &["--auth-file", "/nonexistent/auth.json", "--policy=always", &format!("{image}2")],
        "no such file",
    );
    let podman = Puller::new();
    fs::create_dir_all(podman.home().join(".config/containers")).unwrap();
    let scoped = json!({"auths": {format!("{host}/test"): {"auth": basic()}}});
    fs::write(podman.home().join(".config/containers/auth.json"), scoped.to_string()).unwrap();
    podman.pulls(&[&image], &[]);
}

#[test]
fn password_from_standard_input_is_used() {
    let (image, puller) = (at(htpasswd(), &pushed("test/stdin")), Puller::new());
    let mut command = puller.rpull.command(["--username", USER, "--password-stdin", &image]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn wrong_password_names_its_source() {
    let (image, puller) = (at(htpasswd(), &pushed("test/wrong")), Puller::new());
    puller.docker_config(json!({"auths": {htpasswd(): {"auth": BASE64.encode(b"alice:wrong")}}}));
    puller.fails(4, &[&image], "config.json: correct them");
    puller.docker_config(json!({"auths": {htpasswd(): {"auth": "!"}}}));
    puller.fails(4, &[&image], "base64");
}

fn helper(puller: &Puller, name: &str, script: &str) -> String {
    let bin = puller.home().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let path = bin.join(format!("docker-credential-{name}"));
    // Another process writes it: one that a test starts meanwhile would inherit the open
    // file, and the kernel runs no program that is open for writing.
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    let mut stdin = install.stdin.take().unwrap();
    stdin.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    drop(stdin);
    assert!(install.wait().unwrap().success());
    format!("{}:/usr/bin:/bin", bin.display())
}

#[test]
fn credential_helper_is_called_by_its_protocol() {
    let (host, image) = (htpasswd(), at(htpasswd(), &pushed("test/helper")));
    let puller = Puller::new();
    let good = format!(
        r#"test "$1" = get && test "$(cat)" = "{host}" && echo '{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}'"#
    );
    let path = helper(&puller, "good", &good);
    puller.docker_config(json!({"credHelpers": {host: "good"}, "auths": {host: {}}}));
    puller.pulls(&[&image], &[("PATH", &path)]);
    let other = Puller::new();
    let path = helper(&other, "bad", "echo 'the keychain is locked'; exit 1");
    other.docker_config(json!({"credsStore": "bad"}));
    let done = other.run(&[&image], &[("PATH", &path)]);
    assert_eq!(done.code, Some(4), "{done}");
    assert!(done.stderr.contains("docker-credential-bad: the keychain is locked"), "{done}");
    let nothing = Puller::new();
    let path = helper(&nothing, "none", "echo 'credentials not found in native keychain'; exit 1");
    nothing.docker_config(json!({"credsStore": "none"}));
    let done = nothing.run(&[&image], &[("PATH", &path)]);
    assert!(done.code == Some(4) && done.stderr.contains("unauthorized"), "{done}");
}

#[test]
fn token_by_each_kind_of_credential_is_accepted() {
    let tokens = Tokens::shared();
    let (public, private) =
        (at(&tokens.host, &pushed("test/public")), at(&tokens.host, &pushed("test/private")));
    Puller::new().pulls(&[&public], &[]);
    let anonymous = Puller::new().run(&[&private], &[]);
    assert_eq!(anonymous.code, Some(4), "{anonymous}");
    Puller::new().pulls(&["--username", USER, &private], &[("RPULL_PASSWORD", PASSWORD)]);
    let puller = Puller::new();
    puller.docker_config(json!({"auths": {&tokens.host: {"identitytoken": IDENTITY}}}));
    puller.pulls(&[&private], &[]);
    let log = tokens.log.lock().unwrap().clone();
    assert!(
        log.iter().any(
            |line| line.starts_with("POST /token") && line.contains("grant_type=refresh_token")
        )
    );
    let for_private = log
        .iter()
        .filter(|line| line.contains("private%3Apull") && line.starts_with("GET"))
        .count();
    assert_eq!(for_private, 2, "one token serves a whole pull: {log:#?}");
}

#[test]
fn token_server_that_refuses_is_named() {
    let (tokens, puller) = (Tokens::shared(), Puller::new());
    let image = at(&tokens.host, &pushed("test/private-refused"));
    puller.docker_config(json!({"auths": {&tokens.host: {"auth": BASE64.encode(b"alice:wrong")}}}));
    puller.fails(4, &[&image], "/token: 401 Unauthorized: incorrect username or password");
}

#[test]
fn token_response_of_the_wrong_type_is_not_shown() {
    let server = Server::plain(|asked| match asked.path.starts_with("/token") {
        true => Act::answer("200 OK", "", r#""a-secret-token""#),
        false => {
            let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n");
            Act::answer("401 Unauthorized", &challenge, "")
        }
    });
    let done = Puller::new().run(&[&format!("{}/a/b", server.host)], &[]);
    assert!(done.stderr.contains("not a token: a value has the wrong type"), "{done}");
    assert!(!done.stderr.contains("a-secret-token"), "{done}");
}

#[test]
fn head_response_without_a_digest_is_followed_by_get() {
    let pushed = pushed("test/no-digest");
    let silent = Proxy::new(|method, _| match method {
        "HEAD" => Fault::Instead("200 OK", "", ""),
        _ => Fault::None,
    });
    let (puller, image) = (Puller::new(), silent.name(&pushed.name()));
    puller.pulls(&[&image], &[]);
    silent.forget();
    let done = puller.run(&[&image], &[]);
    assert!(done.stdout.contains("Image is up to date"), "{done}");
    assert!(silent.requests().iter().any(|r| r.starts_with("GET ")), "{:?}", silent.requests());
}

/// More kinds of interruption are in `resume`, in process.
#[test]
fn resume_after_disconnect_sends_range_header() {
    let image = Image::new().layer(Tar::new().file("noise", noise(10_000)).end());
    let pushed = image.push(&Hub::shared().host, "test/broken:latest");
    let layer = image.layers[0].digest();
    let proxy = Proxy::first(layer.clone(), std::iter::repeat_n(Fault::Cut(3000), 3));
    let puller = Puller::new();
    let done = puller.run(&["--retries", "3", &proxy.name(&pushed.name())], &[]);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("attempt 2 in"), "{done}");
    let ranges = ["", "bytes=3000-", "bytes=6000-", "bytes=9000-"];
    assert_eq!(
        proxy.ranges(&layer).into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>(),
        ranges
    );
    assert_consistent(puller.rpull.root());
}

#[test]
fn transient_error_is_retried_and_a_lasting_one_is_not() {
    let pushed = pushed("test/flaky");
    let busy = Fault::Instead("503 Service Unavailable", "", "busy");
    let proxy = Proxy::first("", [busy.clone(), busy]);
    Puller::new().pulls(&["--retries", "2", &proxy.name(&pushed.name())], &[]);
    let lasting = Proxy::new(|_, _| Fault::Instead("418 I'm a teapot", "", "short and stout"));
    Puller::new().fails(5, &[&lasting.name(&pushed.name())], "418: short and stout");
    assert_eq!(lasting.requests().len(), 1, "a lasting error is not tried again");
}

#[test]
fn rate_limit_with_retry_after_waits_that_long() {
    let pushed = pushed("test/limited");
    let limit = Fault::Instead("429 Too Many Requests", "Retry-After: 2\r\n", "slow down");
    let proxy = Proxy::first("", [limit]);
    let done = Puller::new().run(&["--progress", "json", &proxy.name(&pushed.name())], &[]);
    assert_eq!(done.code, Some(0), "{done}");
    let events = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let retries: Vec<serde_json::Value> =
        events.filter(|event: &serde_json::Value| event["event"] == "retrying").collect();
    assert_eq!(retries.len(), 1, "{done}");
    assert_eq!((&retries[0]["attempt"], &retries[0]["wait_ms"]), (&json!(2), &json!(2000)));
}

#[test]
fn resolve_sends_one_head_request() {
    let pushed = pushed("test/resolve");
    let proxy = Proxy::plain();
    let puller = Puller::new();
    let done = puller.run(&["resolve", &proxy.name(&pushed.name())], &[]);
    assert_eq!(done.stdout.trim(), pushed.digest, "{done}");
    assert_eq!(proxy.requests().len(), 1, "{:?}", proxy.requests());
    assert!(proxy.requests()[0].starts_with("HEAD "));
    assert!(!puller.rpull.root().exists(), "resolving needs no store");
    // A registry that knows no HEAD.
    let old = Proxy::new(|method, _| match method {
        "HEAD" => Fault::Instead("405 Method Not Allowed", "", ""),
        _ => Fault::None,
    });
    let done = puller.run(&["resolve", &old.name(&pushed.name())], &[]);
    assert_eq!(done.stdout.trim(), pushed.digest, "{done}");
}

#[test]
fn proxy_is_used_except_for_loopback() {
    let pushed = pushed("test/proxied");
    let proxy = Proxy::plain();
    let url = format!("http://{}", proxy.host);
    // Nobody knows this name but the proxy, which passes all to the shared registry.
    let far = at("registry.invalid:5000", &pushed);
    Puller::new().pulls(&["--plain-http", &far], &[("http_proxy", &url)]);
    assert!(proxy.count("http://registry.invalid:5000/v2/") >= 3, "{:?}", proxy.requests());
    proxy.forget();
    Puller::new().pulls(&[&pushed.name()], &[("http_proxy", &url), ("HTTP_PROXY", &url)]);
    assert_eq!(proxy.requests().len(), 0);
}
