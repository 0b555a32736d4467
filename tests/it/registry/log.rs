//! The log of `-v` and `RPULL_LOG`: what it tells, and that it tells no secret.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::server::{Act, Server};
use super::{Puller, at, basic, pushed};
use crate::support::guard::{IDENTITY, PASSWORD, Tls, Tokens, USER, htpasswd};
use crate::support::hub::Hub;
use crate::support::image::{Image, Pack};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Done;
use crate::support::tar::{Tar, noise};

/// The lines of the log.
fn lines(done: &Done) -> Vec<&str> {
    let levels = ["TRACE ", "DEBUG ", "INFO ", "WARN ", "ERROR "];
    done.stderr.lines().filter(|line| levels.iter().any(|level| line.starts_with(level))).collect()
}

/// Checks that the log has a line with all of `parts`.
#[track_caller]
fn logs(done: &Done, parts: &[&str]) {
    let found = lines(done).into_iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert_eq!(done.code, Some(0), "{done}");
    assert!(found, "no line with {parts:?} in: {done}");
}

#[test]
fn verbose_pull_logs_decisions_and_twice_also_requests_and_times() {
    let (pushed, puller) = (pushed("test/log"), Puller::new());
    let (name, host) = (pushed.name(), &Hub::shared().host);
    let done = puller.run(&["-v", &name], &[]);
    let served = format!("is served by http://{host}");
    logs(&done, &["INFO registry: ", &served]);
    logs(&done, &["INFO registry: ", "no proxy, no TLS"]);
    assert!(lines(&done).iter().all(|line| line.starts_with("INFO ")), "{done}");

    let again = puller.run(&["-vv", &name], &[]);
    logs(&again, &["INFO pull: ", &name, "is in the store"]);
    let path = format!("DEBUG registry: HEAD http://{host}/v2/test/log/manifests/latest 200, ");
    logs(&again, &[&path, " bytes", " ms"]);

    let fresh = Puller::new().run(&["pull", &name, "--verbose", "-v"], &[]);
    for span in ["resolve", "plan", "fetch", "unpack", "commit"] {
        logs(&fresh, &[&format!("DEBUG pull: {span} "), " ms"]);
    }
    assert_eq!(fresh.stdout, Puller::new().run(&[&name], &[]).stdout, "the results are the same");
}

#[test]
fn filter_in_the_environment_selects_modules() {
    let (pushed, puller) = (pushed("test/log-filter"), Puller::new());
    let name = pushed.name();
    let done = puller.run(&[&name], &[("RPULL_LOG", "rpull::registry=debug")]);
    logs(&done, &["DEBUG registry: GET "]);
    assert!(lines(&done).iter().all(|line| line.contains(" registry: ")), "{done}");
    for quiet in ["", "off", "error"] {
        let done = puller.run(&[&name], &[("RPULL_LOG", quiet)]);
        assert!(done.code == Some(0) && done.stderr.is_empty(), "{quiet}: {done}");
    }
    let done = puller.run(&["images"], &[("RPULL_LOG", "loud")]);
    assert!(done.code == Some(2) && done.stderr.contains("RPULL_LOG: 'loud' is not"), "{done}");
}

#[test]
fn log_with_json_progress_goes_to_standard_error_as_text() {
    let done = Puller::new().run(&["-vv", "--progress=json", &pushed("test/log-json").name()], &[]);
    logs(&done, &["DEBUG registry: GET "]);
    for line in done.stdout.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap()["event"].is_string(), "{line}");
    }
}

#[test]
fn log_names_certificates_and_the_source_of_credentials() {
    let (tls, pushed_tls, puller) = (Tls::shared(), pushed("test/log-tls"), Puller::new());
    let certs = tls.certs_dir(&puller.home().join("certs"), &tls.host, false);
    let certs = certs.to_str().unwrap();
    let done = puller.run(&["-v", "--certs-dir", certs, &at(&tls.host, &pushed_tls)], &[]);
    logs(&done, &["INFO registry: https://", &format!("certificates in {certs}/{}", tls.host)]);
    let puller = Puller::new();
    puller.docker_config(json!({"auths": {htpasswd(): {"auth": basic()}}}));
    let done = puller.run(&["-v", &at(htpasswd(), &pushed("test/log-source"))], &[]);
    logs(&done, &[&format!("credentials for {}: ", htpasswd()), ".docker/config.json"]);
    let anonymous = Puller::new();
    let done = anonymous.run(&["-v", &at(&Tokens::shared().host, &pushed("test/log-anon"))], &[]);
    logs(&done, &["credentials for ", "no source has any"]);
}

#[test]
fn log_tells_retries_segments_and_what_is_continued() {
    let image = Image::new().packed(Tar::new().file("noise", noise(12 << 20)).end(), Pack::Plain);
    let pushed = image.push(&Hub::shared().host, "test/log-slow:latest");
    let flaky = Proxy::first("", [Fault::Instead("503 Service Unavailable", "", "busy")]);
    let done = Puller::new().run(&["-vv", &flaky.name(&pushed.name())], &[]);
    logs(&done, &["DEBUG registry: attempt 2 in ", "busy"]);
    let slow = Proxy::every("/blobs/", Fault::Slow(2 << 20));
    let puller = Puller::new();
    let done = puller.run(&["-v", "--keep-blobs", &slow.name(&pushed.name())], &[]);
    logs(&done, &["INFO registry: layer ", "is slow", "fetched in segments"]);
    // The root is gone, its content stays.
    let content = puller.rpull.root().join("rpull/content");
    let kept = content.to_str().unwrap();
    let done = Puller::new().run(&["-v", "--content", kept, &pushed.name()], &[]);
    logs(&done, &["INFO pull: layer ", "read from the kept blob"]);
}

#[test]
fn log_tells_how_much_of_a_partial_download_is_used() {
    let image = Image::new().packed(Tar::new().file("noise", noise(12 << 20)).end(), Pack::Plain);
    let pushed = image.push(&Hub::shared().host, "test/log-partial:latest");
    // The blob is slow, so it comes in segments, and one of them breaks.
    let faults = [Fault::Slow(2 << 20), Fault::None, Fault::None, Fault::None, Fault::Cut(30_000)];
    let broken = Proxy::first(image.layers[0].digest(), faults);
    let puller = Puller::new();
    let content = puller.home().join("content");
    let content = content.to_str().unwrap();
    let args = ["-v", "--content", content, "--retries", "0", &broken.name(&pushed.name())];
    assert_eq!(puller.run(&args, &[]).code, Some(5));
    let done = puller.run(&["-v", "--content", content, &pushed.name()], &[]);
    let layer = image.layers[0].digest();
    let layer = format!("INFO pull: layer {}: ", &layer["sha256:".len()..][..12]);
    logs(&done, &[&layer, " bytes are in a partial download"]);
}

/// Pulls with each level of the log, and checks that it shows none of `secrets`.
#[track_caller]
fn shows_none(secrets: &[&str], args: &[&str], env: &[(&str, &str)], prepare: impl Fn(&Puller)) {
    for (flags, filter) in [(&["-vv"][..], ""), (&["-vvvv"], ""), (&[], "trace,h2=trace")] {
        let puller = Puller::new();
        prepare(&puller);
        let args: Vec<&str> = flags.iter().chain(args).copied().collect();
        let env: Vec<_> = env.iter().copied().chain([("RPULL_LOG", filter)]).collect();
        let done = puller.run(&args, &env);
        logs(&done, &["DEBUG registry: GET "]);
        for secret in secrets {
            assert!(!done.to_string().contains(secret), "'{secret}' is shown: {done}");
        }
    }
}

#[test]
fn log_shows_no_password_and_no_token() {
    let encoded = basic();
    let secrets = [PASSWORD, &encoded, IDENTITY, "Basic ", "Bearer ", "eyJ", "refresh_token="];
    let config = |host: &str, auth: Value| {
        let json = json!({"auths": {host: auth}});
        move |puller: &Puller| puller.docker_config(json.clone())
    };
    let guarded = at(htpasswd(), &pushed("test/log-basic"));
    shows_none(&secrets, &[&guarded], &[], config(htpasswd(), json!({"auth": encoded})));
    let user = [("RPULL_USERNAME", USER), ("RPULL_PASSWORD", PASSWORD)];
    shows_none(&secrets, &[&guarded], &user, |_| {});

    let host = &Tokens::shared().host;
    let private = at(host, &pushed("test/private-log"));
    shows_none(&secrets, &[&private], &[], config(host, json!({"auth": encoded})));
    shows_none(&secrets, &[&private], &[], config(host, json!({"identitytoken": IDENTITY})));
}

#[test]
fn log_shows_no_signature_of_a_redirect_and_no_password_of_a_realm() {
    let pushed = pushed("test/log-signed");
    let storage = Proxy::plain();
    let (storage_host, image) = (storage.host.clone(), pushed.name());
    let path = |asked: &str| asked.split(['?', '#']).next().unwrap_or_default().to_owned();
    let registry = Server::plain(move |asked| {
        let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        if asked.path.starts_with("/token") {
            return Act::answer("200 OK", "", r#"{"token":"the-bearer-token"}"#);
        }
        if !asked.head.contains("the-bearer-token") {
            let realm = format!("http://me:realm-password@{host}/token?key=realm-query");
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
            return Act::answer("401 Unauthorized", &challenge, "");
        }
        let path = path(&asked.path);
        let target = format!("http://me:url-password@{storage_host}{path}?sig=url-signature#frag");
        Act::answer("307 Temporary Redirect", &format!("Location: {target}\r\n"), "")
    });
    let name = image.replace(&Hub::shared().host, &registry.host);
    let secrets = [
        "the-bearer-token",
        "realm-password",
        "realm-query",
        "url-password",
        "url-signature",
        "sig=",
        "frag",
    ];
    shows_none(&secrets, &[&name], &[], |_| {});
    shows_none(&secrets, &[&name], &[("RPULL_TOKEN", "the-bearer-token")], |_| {});
    assert!(storage.count("sig=url-signature") > 0, "{:?}", storage.requests());
    let done = Puller::new().run(&["-vv", &name], &[]);
    logs(&done, &["DEBUG registry: token for ", &format!("from http://{}/token", registry.host)]);
    logs(&done, &[&format!("DEBUG registry: GET http://{}/token 200, ", registry.host)]);
    logs(&done, &[&format!("GET http://{}/... 200", storage.host)]);
}

#[test]
fn log_names_the_proxy_without_its_password() {
    let (pushed, proxy) = (pushed("test/log-proxied"), Proxy::plain());
    let far = at("registry.invalid:5000", &pushed);
    let url = format!("http://me:proxy-password@{}", proxy.host);
    let encoded = BASE64.encode(b"me:proxy-password");
    let env = [("http_proxy", url.as_str())];
    let args = ["--plain-http", &far];
    shows_none(&["proxy-password", &encoded], &args, &env, |_| {});
    assert!(proxy.count("http://registry.invalid:5000/v2/") > 0, "{:?}", proxy.requests());
    let done = Puller::new().run(&["-v", "--plain-http", &far], &env);
    logs(&done, &["http://registry.invalid:5000: ", &format!("proxy http://{}", proxy.host)]);
    // One that cannot be reached is named as well.
    let gone = [("http_proxy", "http://me:proxy-password@127.0.0.1:1")];
    let done = Puller::new().run(&["-vv", "--plain-http", &far], &gone);
    assert!(done.code == Some(5) && done.stderr.contains("proxy http://127.0.0.1:1"), "{done}");
    assert!(!done.to_string().contains("proxy-password"), "{done}");
}

#[test]
fn text_of_a_registry_in_the_log_is_escaped() {
    let odd = Proxy::every("/v2/", Fault::Instead("503 x", "", "\u{1b}]0;title\u{7}\u{202e}"));
    let done = Puller::new().run(&["-vv", &format!("{}/a/b", odd.host)], &[]);
    let cause = lines(&done).into_iter().find(|line| line.contains("attempt 2")).unwrap();
    assert!(cause.contains(r"\u{1b}]0;title\u{7}\u{202e}"), "{done}");
    assert!(!done.stderr.contains('\u{1b}'), "{done}");
}

#[test]
fn wait_for_another_process_is_logged_with_its_time() {
    let (pushed, puller) = (pushed("test/log-wait"), Puller::new());
    puller.pulls(&[&pushed.name()], &[]);
    let lock = fs::File::open(puller.rpull.root().join("rpull/locks/store")).unwrap();
    lock.lock().unwrap();
    let mut command = puller.rpull.command(["-v", "images"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let notice = stderr.next().unwrap().unwrap();
    assert!(notice.starts_with("waiting for the store lock"), "{notice}");
    drop(lock);
    let logged = stderr.next().unwrap().unwrap();
    let parts = ["INFO store: wait for=the store lock, held by ", " ms"];
    assert!(parts.iter().all(|part| logged.contains(part)), "{logged}");
    assert!(child.wait().unwrap().success());
}
