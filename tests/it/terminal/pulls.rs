//! What registries, token servers, manifests and archives say to a pull.

use std::process::Command;

use serde_json::{Value, json};

use super::{MODES, PAYLOAD, Pull, SHOWN, assert_clean, events, leaked, text};
use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pushed, sha256};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch;
use crate::support::tar::{Entry, Tar};

const JSON: &str = "Content-Type: application/json\r\n";

fn push(image: &Image) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository("terminal")))
}

/// A registry that answers every request with this.
fn answering(status: &'static str, headers: &'static str, body: impl Into<String>) -> Proxy {
    Proxy::every("/v2/", Fault::Instead(status, headers, leaked(body)))
}

#[track_caller]
fn fails(proxy: &Proxy, code: i32, shown: &str) {
    let name = format!("{}/some/image:tag", proxy.host);
    Pull { args: &["--retries", "1", &name], code, shown }.in_every_mode();
}

fn envelope(message: &str) -> String {
    json!({"errors": [{"code": "DENIED", "message": message}]}).to_string()
}

#[test]
fn refusal_of_every_status_is_escaped() {
    for (status, code) in [
        ("400 Bad Request", 5),
        ("401 Unauthorized", 4),
        ("403 Forbidden", 4),
        ("404 Not Found", 3),
        ("418 \u{9b}31m\u{202e}", 5),
        ("429 Too Many Requests", 9),
        ("503 Service Unavailable", 5),
    ] {
        let headers = "Content-Type: application/json\r\nRetry-After: 3600\r\n";
        fails(&answering(status, headers, envelope(PAYLOAD)), code, SHOWN);
    }
}

#[test]
fn refusal_in_every_form_is_escaped() {
    let code = json!({"errors": [{"code": PAYLOAD, "message": ""}]}).to_string();
    let lower = SHOWN.to_lowercase();
    for (body, shown) in [
        (PAYLOAD.to_owned(), r"\u{1b}]0;pwn"),
        (code, lower.as_str()),
        (json!({"details": PAYLOAD}).to_string(), SHOWN),
        (json!({"message": PAYLOAD}).to_string(), SHOWN),
        (json!({"error": PAYLOAD}).to_string(), SHOWN),
        (
            envelope(&format!("one\n{PAYLOAD}\nrpull: two\nhint: three")),
            "; rpull: two; hint: three",
        ),
        (format!("<html>\n{PAYLOAD}"), "not found"),
        ("x\u{0}\u{8}\u{b}\u{1f}".to_owned(), r"x\u{0}\u{8}\u{b}\u{1f}"),
    ] {
        fails(&answering("404 Not Found", JSON, body), 3, shown);
    }
}

#[test]
fn refusal_that_is_not_utf_8_is_shown_with_replacements() {
    // `Fault` holds text, so these bytes are served by hand.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n");
            let _ = client.write_all(b"Connection: close\r\n\r\nbad \x9b31m\xff");
        }
    });
    let name = format!("{host}/some/image:tag");
    Pull { args: &[&name], code: 3, shown: "bad \u{fffd}31m\u{fffd}" }.in_every_mode();
}

#[test]
fn refusal_of_sixty_kilobytes_is_cut() {
    let long = "a long story ".repeat(60 * 1024 / 13);
    for body in [long.clone(), envelope(&long), json!({"details": long}).to_string()] {
        fails(&answering("404 Not Found", JSON, body), 3, " more bytes) …");
    }
    let escapes = envelope(&"\x1b\u{e0041}".repeat(6 * 1024));
    fails(&answering("503 Service Unavailable", JSON, escapes), 5, " more bytes) …");
}

#[test]
fn retries_of_a_registry_that_floods_stay_short() {
    let flood = PAYLOAD.repeat(1000);
    let proxy = answering("503 Service Unavailable", JSON, envelope(&flood));
    let scratch = scratch::dir();
    let name = format!("{}/some/image:tag", proxy.host);
    let mut command = Rpull::on(scratch.path().join("root")).command([
        "--progress",
        "json",
        "--retries",
        "3",
        &name,
    ]);
    let output = command.output().unwrap();
    assert_clean(&output, "retries");
    // Retries within a second have one line.
    let lines = text(&output.stderr).matches("; attempt ").count();
    assert!((1..=3).contains(&lines), "{lines}: {}", text(&output.stderr));
    let events = events(&output.stdout);
    for (event, key) in [("retrying", "cause"), ("failed", "error")] {
        let event = events.iter().find(|line| line["event"] == event).expect(event);
        let prose = event[key].as_str().unwrap();
        assert!(prose.contains(PAYLOAD) && prose.len() < 2048, "{prose:?}");
    }
}

/// A registry that sends to the token server `realm`.
fn guarded_by(realm: &str) -> Proxy {
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n{JSON}");
    answering("401 Unauthorized", leaked(challenge), envelope("authentication required"))
}

#[test]
fn token_server_is_escaped() {
    for (status, body, code, shown) in [
        ("403 Forbidden", json!({"details": PAYLOAD}).to_string(), 4, SHOWN),
        ("401 Unauthorized", PAYLOAD.repeat(900), 4, r"\u{1b}]0;pwn"),
        ("503 Service Unavailable", envelope(PAYLOAD), 5, SHOWN),
        ("200 OK", json!({"token": "t", "expires_in": PAYLOAD}).to_string(), 4, "is not a token"),
        ("200 OK", PAYLOAD.to_owned(), 4, "is not a token"),
    ] {
        let server = Proxy::every("/token", Fault::Instead(status, JSON, leaked(body)));
        fails(&guarded_by(&format!("http://{}/token", server.host)), code, shown);
    }
    let realm = format!("{PAYLOAD}{}", "x".repeat(6000));
    for realm in [realm.replace(|c: char| c.is_control(), ""), "no url".repeat(1000)] {
        let proxy = guarded_by(&realm);
        let scratch = scratch::dir();
        let name = format!("{}/some/image:tag", proxy.host);
        let output = Rpull::on(scratch.path()).command(["--retries", "0", &name]).output();
        assert_clean(&output.unwrap(), "a realm");
    }
}

#[test]
fn redirects_are_escaped() {
    for to in
        ["ftp://\u{202e}x/", "http://[\u{9b}31m/", "http://127.0.0.1:1/%1b]0;pwn", "//\u{2066}/"]
    {
        let headers = leaked(format!("Location: {to}\r\n"));
        let proxy = answering("307 Temporary Redirect", headers, PAYLOAD);
        for mode in MODES {
            let scratch = scratch::dir();
            let name = format!("{}/some/image:tag", proxy.host);
            let args = ["pull", "--retries", "0", &name];
            let mut command = Rpull::on(scratch.path()).command(args.iter().chain(mode));
            let output = command.output().unwrap();
            assert_ne!(output.status.code(), Some(0));
            assert_clean(&output, to);
        }
    }
}

/// The manifest of an image, changed by `change`, from a registry that serves anything.
#[track_caller]
fn served(change: impl Fn(&mut Value), code: i32, shown: &str) {
    let image = Image::oci().layer(Tar::new().file("f", "f").end());
    let pushed = push(&image);
    let mut manifest = image.manifest();
    change(&mut manifest);
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let proxy =
        Proxy::every("/manifests/", Fault::Instead("200 OK", kind, leaked(manifest.to_string())));
    let args: &[&str] = &["--retries", "0", &proxy.name(&pushed.name())];
    Pull { args, code, shown }.in_every_mode();
}

#[test]
fn media_types_and_digests_of_a_manifest_are_escaped() {
    // The shape of a document tells what it is; its media type counts where the shape is odd.
    served(|manifest| manifest["mediaType"] = json!(PAYLOAD), 0, "");
    served(|manifest| *manifest = json!({"mediaType": PAYLOAD}), 6, r"\u{1b}]0");
    served(|manifest| manifest["config"]["mediaType"] = json!(PAYLOAD), 6, SHOWN);
    served(|manifest| manifest["layers"][0]["mediaType"] = json!(PAYLOAD), 6, SHOWN);
    served(|manifest| manifest["layers"][0]["digest"] = json!(PAYLOAD), 6, r"\u{1b}]0;pwn");
    served(|manifest| manifest["layers"][0]["size"] = json!(PAYLOAD), 6, r"\u{1b}]0;pwn");
    let long = "x".repeat(60 << 10);
    served(|manifest| manifest["layers"][0]["mediaType"] = json!(long), 6, " more bytes) …");
}

#[test]
fn platforms_of_an_index_are_escaped() {
    let hub = Hub::shared();
    let image = Image::new().layer(Tar::new().file("f", "f").end());
    let platform = json!({"os": PAYLOAD, "architecture": PAYLOAD, "variant": PAYLOAD});
    let many = (0..40).fold(Index::new(), |index, n| {
        let arch = format!("{n}{PAYLOAD}");
        index.add_as(image.clone(), json!({"os": "linux", "architecture": arch}))
    });
    for index in [Index::new().add_as(image, platform), many] {
        let pushed = index.push(&hub.host, &format!("{}:latest", hub.repository("terminal")));
        let name = pushed.name();
        Pull { args: &[&name], code: 3, shown: SHOWN }.in_every_mode();
    }
}

#[test]
fn platform_and_errors_of_a_config_are_escaped() {
    let layer = Tar::new().file("f", "f").end();
    let image = Image::new().layer(layer.clone()).platform(PAYLOAD, PAYLOAD, PAYLOAD);
    let name = push(&image).name();
    let args: &[&str] = &["--platform", "linux/s390x", &name];
    Pull { args, code: 3, shown: SHOWN }.in_every_mode();
    Pull { args: &[&name], code: 0, shown: SHOWN }.in_every_mode();
    for extra in
        [json!({"os": {PAYLOAD: 7}}), json!({"rootfs": PAYLOAD}), json!({"history": [PAYLOAD]})]
    {
        let name = push(&Image::new().layer(layer.clone()).extra(extra)).name();
        Pull { args: &[&name], code: 6, shown: "config" }.in_every_mode();
    }
    let odd = Image::new().layer(layer).claims_diff_ids(vec![PAYLOAD.to_owned()]);
    let name = push(&odd).name();
    Pull { args: &[&name], code: 6, shown: SHOWN }.in_every_mode();
}

#[test]
fn names_of_an_archive_are_escaped() {
    let climbing = Entry::file(format!("../{PAYLOAD}"), "x");
    let dangling = Entry::hardlink("link", PAYLOAD);
    let forging = Entry::file("f", "f").xattr(&format!("trusted.overlay.{PAYLOAD}"), "y");
    let not_utf8 = Entry::file(b"../\x9b31m\xff\x1b[2J", "x");
    let long = Entry::file(format!("../{}", "x".repeat(60 << 10)), "x");
    for (entry, shown) in [
        (climbing, SHOWN),
        (dangling, SHOWN),
        (forging, SHOWN),
        (not_utf8, "\u{fffd}31m\u{fffd}\\u{1b}[2J"),
        (long, " more bytes) …"),
    ] {
        let name = push(&Image::new().layer(Tar::of([entry]).end())).name();
        Pull { args: &[&name], code: 6, shown }.in_every_mode();
    }
}

#[test]
fn file_names_in_warnings_are_escaped() {
    let device = Entry::char_device(format!("d{PAYLOAD}"), 1, 3);
    let name = push(&Image::new().layer(Tar::of([device]).end())).name();
    let home = tempfile::tempdir().unwrap();
    std::fs::copy(BINARY, home.path().join("rpull")).unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    for mode in MODES {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "./rpull"]);
        command.args(mode).args(["--root", "r", &name]).env_clear().current_dir(home.path());
        let output = command.output().unwrap();
        assert_clean(&output, "a device's name");
        assert!(text(&output.stderr).contains(SHOWN), "{output:?}");
        std::fs::remove_dir_all(home.path().join("r")).unwrap();
    }
}

#[test]
fn credentials_and_certificates_are_escaped() {
    let challenge = "WWW-Authenticate: Basic realm=x\r\n";
    let proxy = answering("401 Unauthorized", challenge, envelope(PAYLOAD));
    let name = format!("{}/some/image:tag", proxy.host);
    Pull { args: &["--auth-file", PAYLOAD, &name], code: 4, shown: SHOWN }.in_every_mode();
    let scratch = scratch::dir();
    let helper = scratch.path().join("docker-credential-odd");
    std::fs::write(&helper, format!("#!/bin/sh\nprintf %s '{PAYLOAD}'\nexit 1\n")).unwrap();
    let status = Command::new("chmod").arg("+x").arg(&helper).status();
    assert!(status.unwrap().success());
    std::fs::write(scratch.path().join("config.json"), r#"{"credsStore":"odd"}"#).unwrap();
    let path = format!("{}:/usr/bin:/bin", scratch.path().display());
    let mut command = Rpull::on(scratch.path().join("root")).command(["pull", &name]);
    command.env("PATH", path).env("DOCKER_CONFIG", scratch.path());
    let output = command.output().unwrap();
    assert_clean(&output, "a credential helper");
    assert!(text(&output.stderr).contains(SHOWN), "{output:?}");
}

#[test]
fn events_keep_the_values() {
    let message = format!("{PAYLOAD} and {}", sha256(b"more"));
    let proxy = answering("404 Not Found", JSON, envelope(&message));
    let scratch = scratch::dir();
    let name = format!("{}/some/image:tag", proxy.host);
    let mut command = Rpull::on(scratch.path()).command(["--progress", "json", &name]);
    let events = events(&command.output().unwrap().stdout);
    let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
    assert!(failed["error"].as_str().unwrap().contains(&message), "{failed}");
}
