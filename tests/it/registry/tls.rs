//! TLS as people set it up: self-signed certificates, mistakes in certificates, hosts whose
//! certificates are not verified, and loopback registries over TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use super::server::{Act, Server};
use super::{Puller, at, basic, pushed};
use crate::support::guard::{Tls, USER, htpasswd};
use crate::support::hub::Hub;
use crate::support::proxy::Proxy;
use crate::support::rpull::Done;
use crate::support::{scratch, wait};

/// The command in registry-compose.yml that makes a certificate, as Docker's documentation does.
fn recipe() -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("registry-compose.yml"));
    let text = text.unwrap();
    let begin = text.find("openssl req").unwrap();
    let end = begin + text[begin..].find("-out tls.crt").unwrap() + "-out tls.crt".len();
    text[begin..end].replace("\\\n#", "")
}

/// Runs the recipe. Returns the directory with `tls.crt` and `tls.key`.
fn by_recipe() -> PathBuf {
    let dir = scratch::lasting();
    let made = Command::new("sh").args(["-c", &recipe()]).current_dir(&dir).output().unwrap();
    assert!(made.status.success(), "{}: {made:?}", recipe());
    dir
}

/// A docker-registry with the certificate of the recipe: `localhost:PORT`, and the certificate.
fn self_signed() -> &'static (String, String) {
    static SHARED: OnceLock<(String, String)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let dir = by_recipe();
        let (cert, key) = (dir.join("tls.crt"), dir.join("tls.key"));
        let tls = format!(", tls: {{certificate: {}, key: {}}}", cert.display(), key.display());
        let host = Hub::shared().guarded(&tls, "").replace("127.0.0.1", "localhost");
        (host, fs::read_to_string(cert).unwrap())
    })
}

/// A puller with a certificate directory that has nothing for `host`, so that it is verified.
fn strict(host: &str) -> (Puller, String) {
    let puller = Puller::new();
    let certs = puller.home().join("certs");
    fs::create_dir_all(certs.join(host)).unwrap();
    let certs = certs.to_str().unwrap().to_owned();
    (puller, certs)
}

#[track_caller]
fn assert_says(done: &Done, code: i32, says: &[&str]) {
    assert_eq!(done.code, Some(code), "{done}");
    for text in says {
        assert!(done.stderr.contains(text), "no '{text}' in {done}");
    }
}

#[test]
fn self_signed_certificate_in_the_directory_of_its_host_is_trusted() {
    let (host, cert) = self_signed();
    let image = at(host, &pushed("test/self-signed"));
    let (puller, certs) = strict(host);
    let done = puller.run(&["--certs-dir", &certs, &image], &[]);
    let file = format!("{certs}/{host}/ca.crt");
    assert_says(&done, 5, &[&format!("certificate of {host} is self-signed"), &file]);
    // As the hint says.
    fs::write(&file, cert).unwrap();
    puller.pulls(&["--certs-dir", &certs, &image], &[]);
    // Another certificate of the same recipe is another one.
    fs::copy(by_recipe().join("tls.crt"), &file).unwrap();
    assert_says(&puller.run(&["resolve", "--certs-dir", &certs, &image], &[]), 5, &["self-signed"]);
    // Its name is verified.
    fs::create_dir_all(format!("{certs}/{}", host.replace("localhost", "127.0.0.1"))).unwrap();
    let by_ip = image.replace("localhost", "127.0.0.1");
    fs::write(file.replace("localhost", "127.0.0.1"), cert).unwrap();
    let done = puller.run(&["resolve", "--certs-dir", &certs, &by_ip], &[]);
    assert_says(&done, 5, &["is for another name: localhost", "--insecure 127.0.0.1:"]);
}

/// An nginx with one server per certificate. Ends with the value.
struct Nginx {
    child: std::process::Child,
    _dir: TempDir,
    ports: Vec<u16>,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// Starts a server for each certificate, key and further settings.
    fn start(servers: &[(String, String, &str)]) -> Self {
        let dir = scratch::dir();
        let path = |name: String| dir.path().join(name).display().to_string();
        // All at once, so that they differ.
        let free: Vec<TcpListener> =
            servers.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let mut http = String::new();
        for ((cert, key, more), port) in servers.iter().zip(&ports) {
            let (crt, pem) = (path(format!("{port}.crt")), path(format!("{port}.key")));
            fs::write(&crt, cert).unwrap();
            fs::write(&pem, key).unwrap();
            http += &format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {crt}; \
                 ssl_certificate_key {pem}; {more} location / {{ return 404; }} }}\n"
            );
        }
        let config = format!(
            "daemon off; master_process off; pid {}; error_log {};\nevents {{}}\n\
             http {{ access_log off;\n{http}}}\n",
            path("pid".to_owned()),
            path("error.log".to_owned())
        );
        fs::write(path("nginx.conf".to_owned()), config).unwrap();
        let config = path("nginx.conf".to_owned());
        let child = scratch::spawn_bound("nginx", move |command| {
            command.args(["-c", &config]).stderr(Stdio::null());
        });
        for port in &ports {
            wait::until("nginx listens", || TcpStream::connect(("127.0.0.1", *port)).is_ok());
        }
        Self { child, _dir: dir, ports }
    }
}

/// A certificate for `names`, signed by `issuer`.
fn signed(
    issuer: &CertifiedIssuer<'_, KeyPair>,
    names: &[&str],
    change: impl Fn(&mut CertificateParams),
) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

#[test]
fn each_problem_of_tls_has_its_sentence_and_hint() {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "a private CA");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let years = |from, to| {
        move |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        }
    };
    let good = || signed(&ca, &["localhost"], |_| {});
    let is_ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let ca_file = scratch::lasting().join("ca.pem");
    fs::write(&ca_file, ca.pem()).unwrap();
    let mutual = format!("ssl_verify_client on; ssl_client_certificate {};", ca_file.display());
    let old = "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;";
    // The certificate, more settings of the server, whether the client knows the CA, the sentence
    // and the hint. HOST and DIR stand for the host and its certificate directory.
    let cases = [
        (
            signed(&ca, &["localhost"], years(2020, 2021)),
            "",
            true,
            "certificate of HOST expired on 2021-01-01 00:00:00 UTC",
            "renew the certificate",
        ),
        (
            signed(&ca, &["localhost"], years(2100, 2101)),
            "",
            true,
            "certificate of HOST is not valid before 2100-01-01 00:00:00 UTC, and this machine's clock says 20",
            "set the clock of this machine",
        ),
        (
            signed(&ca, &["registry.lan", "*.registry.lan", "10.0.0.1"], |_| {}),
            "",
            true,
            "certificate of HOST is for another name: registry.lan, *.registry.lan, 10.0.0.1",
            "use a name of the certificate",
        ),
        (
            signed(&ca, &[], |_| {}),
            "",
            true,
            "certificate of HOST has no subjectAltName",
            "-addext subjectAltName=DNS:localhost, or accept any certificate with --insecure HOST",
        ),
        (
            good(),
            "",
            false,
            "certificate of HOST is signed by a CA that is not trusted",
            "copy the certificate of the CA to DIR/ca.crt",
        ),
        (
            signed(&ca, &["localhost"], is_ca),
            "",
            true,
            "certificate of HOST is that of a CA (CA:TRUE) and not in",
            "copy the certificate of the registry to DIR/ca.crt",
        ),
        (good(), old, true, "HOST offers no version of TLS from 1.2", "enable TLS 1.2 or 1.3"),
        (
            good(),
            &mutual,
            true,
            "HOST requires a client certificate",
            "into DIR, as client.cert and client.key",
        ),
    ];
    let servers: Vec<_> =
        cases.iter().map(|((cert, key), more, ..)| (cert.clone(), key.clone(), *more)).collect();
    let nginx = Nginx::start(&servers);
    for ((_, _, known, sentence, hint), port) in cases.iter().zip(&nginx.ports) {
        let host = format!("localhost:{port}");
        let (puller, certs) = strict(&host);
        let dir = format!("{certs}/{host}");
        if *known {
            fs::write(format!("{dir}/ca.crt"), ca.pem()).unwrap();
        }
        let filled = |text: &str| text.replace("HOST", &host).replace("DIR", &dir);
        let done = puller.run(&["--certs-dir", &certs, &format!("{host}/a/b")], &[]);
        assert_says(
            &done,
            5,
            &[&filled(sentence), &format!("hint: {}", filled("")), &filled(hint)],
        );
        assert!(done.stderr.lines().count() <= 3, "{done}");
    }
    let host = format!("localhost:{}", nginx.ports[0]);
    let done = Puller::new().run(&["--plain-http", &format!("{host}/a/b")], &[]);
    let sentence = format!("{host} expects HTTPS on this port, and the request used plain HTTP");
    assert_says(&done, 5, &[&sentence, "hint: leave --plain-http out"]);
}

#[test]
fn plain_http_to_a_registry_over_tls_and_the_reverse_are_told_apart() {
    let (tls, pushed) = (Tls::shared(), pushed("test/wrong-scheme"));
    let puller = Puller::new();
    puller.fails(5, &["--plain-http", &at(&tls.host, &pushed)], "expects HTTPS on this port");
    let (puller, certs) = strict(&Hub::shared().host);
    let done = puller.run(&["--certs-dir", &certs, &pushed.name()], &[]);
    let sentence = format!("{} does not speak TLS on this port", Hub::shared().host);
    let hint = format!("--insecure {}", Hub::shared().host);
    assert_says(&done, 5, &[&sentence, &hint, "--plain-http"]);
    puller.pulls(&["--certs-dir", &certs, "--insecure", &Hub::shared().host, &pushed.name()], &[]);
}

#[test]
fn client_certificate_that_is_missing_rejected_or_without_its_key_is_told_apart() {
    let (tls, pushed) = (Tls::shared(), pushed("test/client-cert"));
    let image = at(&tls.mutual, &pushed);
    let (puller, certs) = strict(&tls.mutual);
    tls.certs_dir(Path::new(&certs), &tls.mutual, false);
    let run = || puller.run(&["--certs-dir", &certs, &image], &[]);
    let put = |name: &str, text: &str| {
        fs::write(format!("{certs}/{}/{name}", tls.mutual), text).unwrap();
    };
    let missing = format!("{} requires a client certificate", tls.mutual);
    assert_says(&run(), 5, &[&missing, "client.cert and client.key"]);
    let other = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    put("me.cert", &other.cert.pem());
    assert_says(&run(), 2, &["missing key me.key", "hint: name CA certificates *.crt"]);
    put("me.key", &other.signing_key.serialize_pem());
    assert_says(&run(), 5, &[&format!("{} rejects the client certificate", tls.mutual)]);
    put("me.key", &tls.client_key);
    assert_says(&run(), 2, &["me.key is not the key of me.cert"]);
    put("me.cert", &tls.client_cert);
    puller.pulls(&["--certs-dir", &certs, &image], &[]);
}

#[test]
fn insecure_host_is_not_verified_and_others_are() {
    let (host, _) = self_signed();
    let image = at(host, &pushed("test/insecure"));
    let (puller, certs) = strict(host);
    let run = |insecure: &[&str], env: &str| {
        let mut args = vec!["resolve", "--certs-dir", &certs];
        args.extend(insecure.iter().flat_map(|host| ["--insecure", host]));
        args.push(&image);
        puller.run(&args, &[("RPULL_INSECURE", env)])
    };
    assert_says(&run(&[], ""), 5, &["self-signed"]);
    assert_says(&run(&["localhost:1", "other.lan"], ""), 5, &["self-signed"]);
    assert_says(&run(&[host], ""), 0, &[]);
    assert_says(&run(&["other.lan", "localhost"], ""), 0, &[]);
    assert_says(&run(&[], &format!("other.lan,{host}")), 0, &[]);
    assert_says(&run(&[&format!("https://{host}/")], ""), 2, &["give HOST or HOST:PORT alone"]);
    puller.pulls(&["-v", "--certs-dir", &certs, "--insecure", host, &image], &[]);
}

#[test]
fn redirect_from_an_insecure_host_to_another_is_verified() {
    let target = Server::tls(|_| Act::answer("404 Not Found", "", ""));
    let location = format!("Location: {}\r\n", target.url("/v2/a/b"));
    let front = Server::tls(move |_| Act::answer("307 Temporary Redirect", &location, ""));
    let (puller, certs) = strict(&target.host);
    fs::create_dir_all(format!("{certs}/{}", front.host)).unwrap();
    let image = format!("{}/a/b", front.host);
    let done = puller.run(&["--certs-dir", &certs, "--insecure", &front.host, &image], &[]);
    assert_says(&done, 5, &[&format!("certificate of {} is signed by", target.host)]);
    assert_eq!(target.heads(), [""; 0]);
    assert!(!front.heads().is_empty());
}

#[test]
fn insecure_host_without_tls_is_contacted_over_plain_http() {
    let pushed = pushed("test/insecure-plain");
    let proxy = Proxy::plain();
    let url = format!("http://{}", proxy.host);
    // Only the proxy for plain HTTP knows this name.
    let far = at("registry.invalid:5000", &pushed);
    let env = [("http_proxy", url.as_str())];
    Puller::new().pulls(&["--insecure", "registry.invalid:5000", &far], &env);
    assert!(proxy.count("http://registry.invalid:5000/v2/") >= 3, "{:?}", proxy.requests());
    proxy.forget();
    let done = Puller::new().run(&["--insecure", "other.invalid", &far], &env);
    assert_eq!((done.code, proxy.requests().len()), (Some(5), 0), "{done}");
}

#[test]
fn insecure_host_without_tls_gets_the_credentials_that_it_asks_for() {
    let pushed = pushed("test/insecure-password");
    let (puller, certs) = strict(htpasswd());
    puller.docker_config(json!({"auths": {htpasswd(): {"auth": basic()}}}));
    let flags = ["--certs-dir", &certs, "--insecure", htpasswd(), &at(htpasswd(), &pushed)];
    puller.pulls(&flags, &[]);
    // A token server on another host is not part of that.
    let challenge = "WWW-Authenticate: Bearer realm=\"http://auth.invalid/token\"\r\n";
    let registry = Server::plain(move |_| Act::answer("401 Unauthorized", challenge, ""));
    let (puller, certs) = strict(&registry.host);
    let image = format!("{}/x/y:z", registry.host);
    let flags = ["--certs-dir", &certs, "--insecure", &registry.host, "--username", USER, &image];
    let done = puller.run(&flags, &[("RPULL_PASSWORD", "hunter2")]);
    assert_says(&done, 4, &["credentials are not sent there"]);
}

#[test]
fn loopback_registry_over_tls_needs_no_flag() {
    let (host, _) = self_signed();
    let image = at(host, &pushed("test/loopback-tls"));
    let done = Puller::new().run(&["-v", &image], &[]);
    assert_says(
        &done,
        0,
        &[
            &format!("is served by https://{host}"),
            &format!("INFO registry: https://{host}: no proxy, any certificate is accepted"),
        ],
    );
}

#[test]
fn loopback_registry_without_tls_gets_no_request_for_the_attempt() {
    let (pushed, proxy) = (pushed("test/loopback-plain"), Proxy::plain());
    let done = Puller::new().run(&["-v", &proxy.name(&pushed.name())], &[]);
    assert_says(&done, 0, &[&format!("{} does not speak TLS: plain HTTP is used", proxy.host)]);
    assert_eq!(done.stderr.matches("does not speak TLS").count(), 1, "it is tried once: {done}");
    assert_eq!(proxy.requests().len(), 3, "manifest, config, layer: {:?}", proxy.requests());
}

/// A way to the shared registry that says nothing to clients that speak TLS.
fn silent_to_tls() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut first = [0];
                client.read_exact(&mut first).unwrap();
                if first[0] == 0x16 {
                    // Open until the client gives it up.
                    return std::io::copy(&mut client, &mut std::io::sink()).map(drop);
                }
                let mut hub = TcpStream::connect(&Hub::shared().host)?;
                hub.write_all(&first)?;
                let (mut from, mut to) = (client.try_clone()?, hub.try_clone()?);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::io::copy(&mut hub, &mut client).map(drop)
            });
        }
    });
    host
}

#[test]
fn port_that_is_silent_to_tls_does_not_use_up_the_stall_limit() {
    let image = at(&silent_to_tls(), &pushed("test/silent"));
    Puller::new().pulls(&["--stall-timeout", "4", "--retries", "0", &image], &[]);
}

#[test]
fn slow_registry_over_tls_is_not_taken_for_plain_http() {
    let slow = AtomicBool::new(true);
    let server = Server::tls(move |_| {
        if slow.swap(false, Ordering::Relaxed) {
            // Longer than the limit on the handshake.
            std::thread::sleep(Duration::from_secs(6));
        }
        Act::answer("404 Not Found", "", "over TLS")
    });
    let done = Puller::new().run(&["-v", &format!("{}/a/b", server.host)], &[]);
    assert_says(&done, 3, &["over TLS", &format!("is served by https://{}", server.host)]);
}
