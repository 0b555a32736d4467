//! What goes wrong: each a one-line cause, a hint, its exit code, and nothing left behind.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Index, Pack, Pushed, Pusher, sha256};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_consistent, assert_empty};
use crate::support::tar::{Tar, noise};

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file("mark", mark).file("zeros", vec![0; 300_000]).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// `rpull pull ARGS` fails with `code` and in good form, and leaves nothing.
#[track_caller]
fn fails(code: i32, args: &[&str], says: &[&str]) -> Done {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let done = Rpull::on(&root).fails(code, ["pull"].iter().chain(args).copied());
    well_formed(&done, says);
    assert_empty(&root);
    done
}

/// One line says what is wrong, and one what can be done about it.
#[track_caller]
fn well_formed(done: &Done, says: &[&str]) {
    let lines: Vec<_> = done.stderr.lines().collect();
    let errors = lines.iter().filter(|line| line.starts_with("rpull: ")).count();
    assert_eq!(errors, 1, "not one cause: {done}");
    assert!(lines.iter().any(|line| line.starts_with("hint: ")), "no hint: {done}");
    assert!(!done.stderr.contains("panicked"), "{done}");
    for text in says {
        assert!(done.stderr.contains(text), "'{text}' is not in: {done}");
    }
}

#[test]
fn invalid_reference_exits_2() {
    let bad = ["library/Upper", "a//b", "name:", "name@sha256:short", "-x/y", "a:b:c", ""];
    for name in bad {
        let scratch = scratch::dir();
        let root = scratch.path().join("root");
        let done = Rpull::on(&root).fails(2, ["pull", "--", name]);
        assert!(done.stderr.starts_with("rpull: "), "{done}");
        assert!(!root.exists(), "a bad name made {}", root.display());
    }
    fails_without_root(&["library/Upper"], 2, &["must be lowercase", "Upper"]);
}

#[track_caller]
fn fails_without_root(args: &[&str], code: i32, says: &[&str]) {
    let scratch = scratch::dir();
    let done =
        Rpull::on(scratch.path().join("root")).fails(code, ["pull"].iter().chain(args).copied());
    well_formed(&done, says);
}

#[test]
fn missing_image_exits_3() {
    let pushed = push(&Image::new().layer(layer("found")), "found");
    let host = &Hub::shared().host;
    fails(3, &[&format!("{}:nope", pushed.repository)], &["nope", "not found"]);
    fails(3, &[&format!("{host}/no/such:tag")], &["no/such"]);
    let digest = sha256(b"of nothing");
    fails(3, &[&format!("{}@{digest}", pushed.repository)], &[&digest]);
}

#[test]
fn image_that_is_not_in_the_store_exits_3() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let pushed = push(&Image::new().layer(layer("here")), "here");
    rpull.ok(["pull", "-q", &pushed.name()]);
    for command in ["inspect", "layers", "history", "ls", "export", "save", "rm"] {
        let done = rpull.fails(3, [command, "absent"]);
        assert!(done.stderr.contains("absent"), "{done}");
    }
    let done = rpull.fails(3, ["pull", "--policy", "never", "absent"]);
    assert!(done.stderr.contains("absent"), "{done}");
}

/// A layer's blob or a manifest answered by something else.
#[track_caller]
fn answered(code: i32, part: &'static str, fault: Fault, says: &[&str]) {
    let pushed = push(&Image::new().layer(layer("answered")), "answered");
    let proxy =
        Proxy::new(move |_, path| if path.contains(part) { fault.clone() } else { Fault::None });
    fails(code, &[&proxy.name(&pushed.name())], says);
}

const UNAUTHORIZED: Fault = Fault::Instead(
    "401 Unauthorized",
    "WWW-Authenticate: Basic realm=\"test\"\r\nContent-Type: application/json\r\n",
    r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
);

const DENIED: Fault = Fault::Instead(
    "403 Forbidden",
    "Content-Type: application/json\r\n",
    r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
);

const TOO_MANY: Fault = Fault::Instead(
    "429 Too Many Requests",
    "Retry-After: 3600\r\nContent-Type: application/json\r\n",
    r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
);

#[test]
fn unauthorized_request_exits_4() {
    answered(4, "/v2/", UNAUTHORIZED, &["unauthorized"]);
}

#[test]
fn denied_request_exits_4() {
    answered(4, "/manifests/", DENIED, &["denied"]);
    answered(4, "/blobs/", DENIED, &["denied"]);
}

#[test]
fn rate_limited_request_exits_9() {
    answered(9, "/manifests/", TOO_MANY, &["rate limit"]);
}

#[test]
fn index_without_the_platform_exits_3() {
    let hub = Hub::shared();
    let pushed = Index::new()
        .add(Image::new().layer(layer("s390x")).platform("linux", "s390x", ""))
        .add(Image::new().layer(layer("windows")).platform("windows", "amd64", ""))
        .attestation()
        .push(&hub.host, &format!("{}:latest", hub.repository("platform")));
    fails(3, &[&pushed.name()], &["no matching manifest for linux/"]);
    fails(3, &["--platform", "linux/arm/v7", &pushed.name()], &["linux/arm/v7"]);
}

/// The registry's own file of the top layer's blob is changed by `damage`.
#[track_caller]
fn damaged(code: i32, stem: &str, damage: impl Fn(&mut Vec<u8>), says: &[&str]) {
    let image = Image::new().layer(layer(stem));
    let pushed = push(&image, stem);
    change(&Hub::shared().blob_file(&image.layers[0].digest()), &damage);
    fails(code, &[&pushed.name()], says);
}

fn change(file: &Path, damage: &impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    damage(&mut bytes);
    fs::write(file, bytes).unwrap();
}

#[test]
fn blob_with_another_digest_exits_6() {
    // The gzip header's time: nothing but the digest can tell.
    damaged(6, "time-byte", |bytes| bytes[4] ^= 1, &["digest"]);
    damaged(6, "data-byte", |bytes| bytes[200] ^= 1, &[]);
    let other = Image::new().layer(layer("other-content"));
    let config = push(&other, "config-byte");
    change(&Hub::shared().blob_file(&config.id), &|bytes: &mut Vec<u8>| bytes[20] ^= 1);
    fails(6, &[&config.name()], &["config"]);
}

#[test]
fn blob_with_a_size_mismatch_exits_6() {
    damaged(6, "shorter", |bytes| bytes.truncate(bytes.len() - 5), &["size"]);
    damaged(6, "longer", |bytes| bytes.extend([0; 5]), &["size"]);
    damaged(6, "empty", Vec::clear, &["size"]);
}

#[test]
fn manifest_with_a_size_mismatch_exits_6() {
    for change in [-1, 1] {
        let hub = Hub::shared();
        let image = Image::new().layer(layer("size-lie"));
        let mut manifest = image.manifest();
        let size = manifest["layers"][0]["size"].as_i64().unwrap();
        manifest["layers"][0]["size"] = json!(size + change);
        let name = format!("{}:latest", hub.repository("size-lie"));
        fails(6, &[&image.push_as(&hub.host, &name, &manifest).name()], &["size"]);
    }
}

#[test]
fn layer_with_another_diff_id_exits_6() {
    let image = Image::new().layer(layer("diff")).claims_diff_ids(vec![sha256(b"something else")]);
    fails(6, &[&push(&image, "diff-id").name()], &[&sha256(b"something else")]);
}

#[test]
fn layers_that_do_not_match_the_config_exit_6() {
    let image = Image::new().layer(layer("count")).claims_diff_ids(vec![]);
    fails(6, &[&push(&image, "fewer").name()], &["layers"]);
    let image = Image::new()
        .layer(layer("count"))
        .claims_diff_ids(vec![sha256(&layer("count")), sha256(&layer("count"))]);
    fails(6, &[&push(&image, "more").name()], &["layers"]);
}

#[test]
fn response_that_is_always_cut_exits_5() {
    answered(5, "/blobs/", Fault::Cut(10), &[]);
}

#[test]
fn layer_that_is_not_an_archive_exits_6() {
    let junk = b"this is no archive of any kind, it is just a sentence".repeat(30);
    fails(6, &[&push(&Image::new().blob(junk.clone(), junk, Pack::Plain), "junk").name()], &[]);
    let tar = layer("cut-gzip");
    let mut half = crate::support::image::gzip(&tar);
    half.truncate(half.len() / 2);
    fails(6, &[&push(&Image::new().blob(tar, half, Pack::Gzip), "half").name()], &["gzip"]);
}

#[test]
fn artifact_that_is_not_an_image_is_named() {
    let hub = Hub::shared();
    let image = Image::oci().layer(layer("artifact"));
    for (media_type, says) in [
        ("application/vnd.cncf.helm.config.v1+json", "Helm"),
        ("application/vnd.example.thing.v1+json", "application/vnd.example.thing.v1+json"),
    ] {
        let mut manifest = image.manifest();
        manifest["config"]["mediaType"] = json!(media_type);
        let name = format!("{}:latest", hub.repository("artifact"));
        let done = fails_any(&image.push_as(&hub.host, &name, &manifest));
        assert!(done.stderr.to_lowercase().contains(&says.to_lowercase()), "{done}");
    }
}

#[test]
fn schema_1_is_refused_by_name() {
    let pushed = push(&Image::new().layer(layer("schema")), "schema");
    let body = r#"{"schemaVersion":1,"name":"x","tag":"latest","architecture":"amd64","fsLayers":[],"history":[]}"#;
    let proxy = Proxy::new(move |_, path| {
        let kind = "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n";
        if path.contains("/manifests/") {
            Fault::Instead("200 OK", kind, body)
        } else {
            Fault::None
        }
    });
    let scratch = scratch::dir();
    let done = Rpull::on(scratch.path().join("root")).run(["pull", &proxy.name(&pushed.name())]);
    assert!(done.code.is_some_and(|code| code > 0), "{done}");
    well_formed(&done, &["schema 1"]);
}

#[track_caller]
fn fails_any(pushed: &Pushed) -> Done {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let done = Rpull::on(&root).run(["pull", &pushed.name()]);
    assert!(done.code.is_some_and(|code| code > 0), "{done}");
    well_formed(&done, &[]);
    assert_empty(&root);
    done
}

#[test]
fn manifest_over_its_limit_is_refused() {
    let pushed = push(&Image::new().layer(layer("endless")), "endless");
    let big: &'static str = Box::leak(" ".repeat(5 << 20).into_boxed_str());
    let proxy = Proxy::new(move |_, path| {
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        if path.contains("/manifests/") { Fault::Instead("200 OK", kind, big) } else { Fault::None }
    });
    let scratch = scratch::dir();
    let done = Rpull::on(scratch.path().join("root")).run(["pull", &proxy.name(&pushed.name())]);
    assert!(done.code.is_some_and(|code| code > 0), "{done}");
    well_formed(&done, &["4194304 bytes"]);
}

#[test]
fn unreachable_registry_exits_5() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fails(5, &[&format!("127.0.0.1:{port}/x/y:z")], &[&format!("127.0.0.1:{port}")]);
    fails(5, &["registry.invalid/x/y:z"], &["registry.invalid"]);
}

#[test]
fn server_that_is_not_a_registry_exits_5() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    fails(5, &[&format!("{host}/x/y:z")], &[&host.to_string()]);
}

/// A small tmpfs that goes away with the value.
struct Tmpfs {
    // Before the directory: it is unmounted first.
    _mounted: Mounted,
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn new(options: &str) -> Self {
        let dir = scratch::dir();
        let tmpfs = Self { _mounted: Mounted(dir.path().to_owned()), dir };
        tmpfs.mount(&["-t", "tmpfs", "-o", options, "tmpfs"]);
        tmpfs
    }

    fn mount(&self, args: &[&str]) {
        let status = Command::new("mount").args(args).arg(self.dir.path()).status();
        assert!(status.expect("start mount").success(), "mount {args:?}");
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

#[test]
fn full_disk_is_reported_and_leaves_nothing() {
    let large = Tar::new().file("large", noise(6_000_000));
    // Written by another thread than the one that reads the archive.
    let small = (0..600).fold(Tar::new(), |tar, n| tar.file(&format!("small{n}"), noise(10_000)));
    for (files, name) in [(large, "full"), (small, "full-small")] {
        let pushed = push(&Image::new().layer(files.end()), name);
        let tmpfs = Tmpfs::new("size=2m");
        let done = Rpull::on(tmpfs.root()).fails(7, ["pull", &pushed.name()]);
        well_formed(&done, &["No space left on device"]);
        assert_empty(&tmpfs.root());
    }
}

#[test]
fn disk_without_inodes_is_reported_and_leaves_nothing() {
    let image = Image::new()
        .layer((0..500).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), "")).end());
    let pushed = push(&image, "inodes");
    let tmpfs = Tmpfs::new("nr_inodes=200");
    let done = Rpull::on(tmpfs.root()).fails(7, ["pull", &pushed.name()]);
    well_formed(&done, &["No space left on device"]);
    assert_empty(&tmpfs.root());
}

#[test]
fn read_only_disk_is_reported() {
    let pushed = push(&Image::new().layer(layer("read-only")), "read-only");
    let tmpfs = Tmpfs::new("size=1m");
    tmpfs.mount(&["-o", "remount,ro"]);
    let done = Rpull::on(tmpfs.root()).fails(7, ["pull", &pushed.name()]);
    well_formed(&done, &["Read-only file system", tmpfs.root().to_str().unwrap()]);
}

#[test]
fn root_of_another_user_is_refused() {
    let pushed = push(&Image::new().layer(layer("not-ours")), "not-ours");
    let tmpfs = Tmpfs::new("mode=0755");
    // Other users may not reach the build directory.
    let binary = tmpfs.dir.path().join("rpull");
    fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("setpriv");
    Rpull::on(tmpfs.root()).dress(&mut command);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let done = Done::from(command.arg(binary).args(["pull", &pushed.name()]).output().unwrap());
    assert_eq!(done.code, Some(7), "{done}");
    well_formed(&done, &["Permission denied", tmpfs.root().to_str().unwrap()]);
}

#[test]
fn root_of_a_live_daemon_is_refused() {
    let pushed = push(&Image::new().layer(layer("live")), "live");
    let docker = Dockerd::shared();
    let done = Rpull::on(&docker.root).fails(8, ["pull", &pushed.name()]);
    well_formed(&done, &["dockerd"]);
    let images = docker.ok(&["images", "-q", &pushed.repository]);
    assert_eq!(images, "");
}

#[test]
fn present_image_survives_a_failed_pull() {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let rpull = Rpull::on(&root);
    let good = push(&Image::new().layer(layer("survivor")), "survivor");
    rpull.ok(["pull", "-q", &good.name()]);
    let bad = Image::new().layer(layer("survivor")).layer(layer("victim"));
    let bad_pushed = push(&bad, "victim");
    change(&Hub::shared().blob_file(&bad.layers[1].digest()), &|bytes: &mut Vec<u8>| bytes[4] ^= 1);
    rpull.fails(6, ["pull", &bad_pushed.name()]);
    assert_consistent(&root);
    rpull.ok(["inspect", &good.name()]);
    rpull.fails(3, ["inspect", &bad_pushed.name()]);
}

#[test]
fn wrong_flags_are_usage_errors() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.fails(2, ["pull"]);
    for flags in [&["--no-such-flag"][..], &["--platform", "/"], &["--jobs", "0"]] {
        rpull.fails(2, [&["pull", "127.0.0.1:1/x"], flags].concat());
    }
}

/// Nothing but the pusher speaks to it: a manifest with no layers at all is an image.
#[test]
fn image_without_layers_is_pulled() {
    let hub = Hub::shared();
    let image = Image::new();
    let pusher = Pusher::new(&hub.host, &format!("{}:latest", hub.repository("bare")));
    pusher.blob(&image.config());
    let pushed = pusher.manifest(&image.manifest());
    let scratch = scratch::dir();
    let (rpull, name) = (Rpull::on(scratch.path().join("root")), pushed.name());
    rpull.ok(["pull", "-q", &name]);
    let (tar, dir) = (scratch.path().join("out.tar"), scratch.path().join("rootfs"));
    let (tar, dir) = (tar.to_str().unwrap(), dir.to_str().unwrap());
    assert_eq!(rpull.ok(["ls", &name]), "");
    rpull.fails(3, ["ls", &name, "/etc"]);
    rpull.ok(["export", "-o", tar, &name]);
    assert_eq!(std::fs::read(tar).unwrap(), [0; 1024]);
    rpull.ok(["export", "--rootfs", dir, &name]);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    let done = rpull.fails(2, ["mount", &name, dir]);
    assert!(done.stderr.contains("has no layers, so there is nothing to mount"), "{done}");
}
