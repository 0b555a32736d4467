//! `rpull check`: it names every damaged file, repairs what a registry has, and finds nothing on
//! roots that a dockerd uses.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::damage::{DAMAGES, Place, cut, flip, remove, tidy};
use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::proxy::Proxy;
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_agreement, assert_consistent, names};
use crate::support::tar::Tar;
use crate::support::{fixture, judge};

/// Damage of records that only save downloads, or of rpull's own state: not damage of an image.
const HARMLESS: [&str; 9] = [
    "diff id of a blob garbage",
    "diff id of a blob is another layer's",
    "sources of a layer empty",
    "sources of a layer gone",
    "distribution gone",
    "write sets gone",
    "locks gone",
    "our directory gone",
    "journals with odd names and content",
];

/// The class that a check reports first for a damage of `DAMAGES`.
fn class_of(name: &str) -> &'static str {
    let table = [
        ("config in the cache", "config"),
        ("config", "config"),
        ("tar-split", "tar-split"),
        ("link of", "layer-link"),
        ("short link", "layer-link"),
        ("all short links", "layer-link"),
        ("lower of", "layer-lower"),
        ("cache id of nothing", "layer-directory"),
        ("cache id garbage", "layer-record"),
        ("cache id of", "shared-directory"),
        ("director", "layer-directory"),
        ("files of the top", "layer-directory"),
        ("record of", "layer-record"),
        ("size", "layer-record"),
        ("diff of", "layer-record"),
        ("parent gone", "layer-record"),
        ("mark of", "committed-mark"),
        ("work directory", "layer-work"),
        ("layer db", "layer-record"),
        ("image db", "config"),
        ("overlay2 gone", "layer-directory"),
    ];
    table.iter().find(|(part, _)| name.starts_with(part)).unwrap_or_else(|| panic!("{name}")).1
}

fn report(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
}

fn classes(report: &Value) -> Vec<&str> {
    let damage = report["damage"].as_array().unwrap();
    damage.iter().map(|damage| damage["class"].as_str().unwrap()).collect()
}

#[track_caller]
pub fn assert_whole(rpull: &Rpull) {
    let done = rpull.run(["check", "--deep", "--format", "json"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(report(&done)["damage"], serde_json::json!([]), "{done}");
}

#[test]
fn check_of_a_whole_root_finds_no_damage() {
    let place = Place::new();
    assert_whole(&place.rpull);
    let done = place.rpull.run(["check"]);
    assert_eq!(done.stdout, "", "{done}");
    assert!(done.stderr.contains("checked 2 images and 4 layers"), "{done}");
    let done = place.rpull.run(["check", "--deep"]);
    assert!(done.stderr.starts_with("verified "), "{done}");
    let one = place.rpull.json(["check", "--format", "json", &place.pushed.name()]);
    assert_eq!((&one["images"], &one["layers"]), (&1.into(), &3.into()));
}

#[test]
fn check_names_each_damage_by_its_class_and_repairs_it() {
    for (name, damage) in DAMAGES {
        let place = Place::new();
        damage(&place);
        let done = place.rpull.run(["check", "--format", "json"]);
        if HARMLESS.contains(name) {
            assert_eq!(done.code, Some(0), "{name}: {done}");
            continue;
        }
        assert_eq!(done.code, Some(6), "{name}: {done}");
        let found = report(&done);
        assert!(classes(&found).contains(&class_of(name)), "{name}: {done}");
        let damage = found["damage"].as_array().unwrap();
        assert!(
            damage.iter().all(|it| !it["images"].as_array().unwrap().is_empty()),
            "{name}: {done}"
        );
        let done = place.rpull.run(["check", "--repair"]);
        assert_eq!(done.code, Some(0), "{name}: {done}");
        assert!(done.stdout.starts_with("repaired: "), "{name}: {done}");
        assert_whole(&place.rpull);
        for pushed in [&place.pushed, &place.sibling] {
            place.rpull.ok(["pull", "--policy", "never", &pushed.name()]);
        }
        tidy(&place);
        assert_consistent(place.root());
        assert_agreement(place.root());
        assert_eq!(judge::judge_root(place.root()), 4, "{name}");
    }
}

#[test]
fn check_reports_damaged_names_that_no_repair_can_restore() {
    let place = Place::new();
    cut(&place.root().join("image/overlay2/repositories.json"));
    let done = place.rpull.fails(6, ["check", "--format", "json"]);
    assert_eq!(classes(&report(&done)), ["names"], "{done}");
    let done = place.rpull.fails(6, ["check", "--repair"]);
    assert!(done.stdout.contains("only a backup has the names"), "{done}");
}

#[test]
fn damaged_index_of_the_content_store_is_found_and_replaced_by_a_repair() {
    let place = Place::new();
    fs::write(place.root().join("rpull/content/index.json"), "[").unwrap();
    let done = place.rpull.fails(6, ["check"]);
    assert!(done.stdout.contains("it is not an OCI index"), "{done}");
    let repaired = place.rpull.ok(["check", "--repair"]);
    assert!(repaired.starts_with("repaired: content-blob "), "{repaired}");
    assert_whole(&place.rpull);
}

/// The unit of systemd runs a command that exists, and does not keep dockerd from starting.
#[test]
fn systemd_unit_runs_the_check() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = unit.join("contrib/systemd/docker.service.d/rpull-check.conf");
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStartPre=-")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..3], ["/usr/local/bin/rpull", "--root", "/var/lib/docker"]);
    let place = Place::new();
    place.rpull.ok(&words[3..]);
    let strict = text.lines().find_map(|line| line.strip_prefix("# ExecStartPre=/bin/sh -c '"));
    // "$$" is a dollar sign in a unit.
    let strict = strict.unwrap().trim_end_matches('\'').replace("$$", "$");
    let strict = strict.replace(words[0], BINARY);
    let root = |root: &Path| strict.replace(words[2], &root.display().to_string());
    let starts =
        |script: String| Command::new("sh").args(["-c", &script]).status().unwrap().success();
    assert!(starts(root(place.root())) && starts(root(Path::new("/nonexistent"))));
    flip(&place.config());
    assert!(!starts(root(place.root())));
}

#[test]
fn empty_record_of_no_image_is_found() {
    let place = Place::new();
    let record = place.record(0).with_file_name("ab".repeat(32));
    fs::create_dir(&record).unwrap();
    let done = place.rpull.fails(6, ["check", "--format", "json"]);
    assert_eq!(classes(&report(&done)), ["layer-record"], "{done}");
    let done = place.rpull.fails(6, ["check", "--repair"]);
    assert!(done.stdout.contains("no image in the store needs it"), "{done}");
    assert!(done.stderr.contains("rpull gc"), "{done}");
}

#[test]
fn deep_check_names_every_changed_file_and_repair_fetches_only_their_layer() {
    let place = Place::new();
    let (base, top) = (place.dir(0).join("diff"), place.dir(2).join("diff"));
    let link = fs::read_to_string(place.dir(0).join("link")).unwrap();
    flip(&base.join("base"));
    fs::write(base.join("d/base"), "").unwrap();
    place.rpull.ok(["check"]);
    let done = place.rpull.fails(6, ["check", "--deep", "--format", "json"]);
    let found = report(&done);
    assert_eq!(classes(&found), ["layer-content", "layer-content"], "{done}");
    let path = |n: usize| found["damage"][n]["path"].as_str().unwrap().to_owned();
    assert_eq!(
        [path(0), path(1)],
        [base.join("base"), base.join("d/base")].map(|p| p.display().to_string())
    );
    assert_eq!(found["damage"][0]["images"].as_array().unwrap().len(), 2, "{done}");
    // The base is fetched once; the layers above stay as they are.
    let done = place.rpull.run(["check", "--deep", "--repair"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_whole(&place.rpull);
    assert_eq!(place.dir(2).join("diff"), top);
    assert_eq!(fs::read_to_string(place.dir(0).join("link")).unwrap(), link);
    assert_ne!(place.dir(0).join("diff"), base);
    assert_consistent(place.root());
    assert_agreement(place.root());
    assert_eq!(judge::judge_root(place.root()), 4);
}

#[test]
fn repair_requests_only_the_damaged_layer() {
    let hub = Hub::shared();
    let layer = |mark: &str| Tar::new().file(mark, mark.repeat(500)).end();
    let image = Image::new().layer(layer("one")).layer(layer("two")).layer(layer("three"));
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("only")));
    let (scratch, proxy) = (scratch::dir(), Proxy::plain());
    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &proxy.name(&pushed.name())]);
    let layers = rpull.json(["layers", "--format", "json", &proxy.name(&pushed.name())]);
    flip(&Path::new(layers[1]["path"].as_str().unwrap()).join("two"));
    let before = proxy.requests().len();
    rpull.ok(["check", "--deep", "--repair"]);
    let requests = proxy.requests().split_off(before);
    let blobs = requests.iter().filter(|request| request.contains("/blobs/"));
    let blobs: Vec<_> = blobs.collect();
    assert!(blobs.len() == 1 && blobs[0].contains(&image.layers[1].digest()), "{requests:?}");
    assert!(!requests.iter().any(|request| request.contains("/manifests/")), "{requests:?}");
    assert_whole(&rpull);
}

/// Until the config is repaired, it is unknown which layers the image needs.
#[test]
fn repair_mends_the_layers_of_an_image_whose_config_was_damaged_too() {
    let place = Place::new();
    flip(&place.config());
    flip(&place.root().join("rpull/content/blobs/sha256").join(&place.pushed.id[7..]));
    flip(&place.dir(2).join("diff/top"));
    let done = place.rpull.run(["check", "--deep", "--repair"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_whole(&place.rpull);
}

#[test]
fn repair_replaces_layers_where_the_file_system_cannot_exchange_names() {
    let place = Place::new();
    let link = fs::read_to_string(place.dir(0).join("link")).unwrap();
    flip(&place.dir(0).join("diff/base"));
    let inject = ["-f", "-o", "/dev/null", "-e", "inject=renameat2:error=EINVAL", BINARY];
    let mut command = Command::new("strace");
    command.args(inject).args(["check", "--deep", "--repair"]).env("RPULL_ROOT", place.root());
    let done: Done = command.output().unwrap().into();
    assert_eq!(done.code, Some(0), "{done}");
    assert_whole(&place.rpull);
    assert_eq!(fs::read_to_string(place.dir(0).join("link")).unwrap(), link);
    assert_consistent(place.root());
    assert_agreement(place.root());
}

#[test]
fn deep_check_finds_changed_metadata_and_damaged_documents() {
    let place = Place::new();
    let tar_split = place.record(1).join("tar-split.json.gz");
    flip(&tar_split);
    let manifest = place.pushed.digest.trim_start_matches("sha256:").to_owned();
    let manifest = place.root().join("rpull/content/blobs/sha256").join(manifest);
    flip(&manifest);
    let done = place.rpull.fails(6, ["check", "--format", "json"]);
    assert_eq!(classes(&report(&done)), ["content-blob"], "{done}");
    let done = place.rpull.fails(6, ["check", "--deep"]);
    assert!(done.stdout.contains("tar-split /"), "{done}");
    place.rpull.ok(["check", "--deep", "--repair"]);
    assert_whole(&place.rpull);
}

#[test]
fn repair_of_an_image_without_a_digest_or_registry_is_refused_with_the_reason() {
    let scratch = scratch::dir();
    let hub = Hub::shared();
    let image = Image::new().layer(Tar::new().file("f", "content").end());
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("unrepaired")));
    let rpull = Rpull::on(scratch.path().join("root"));
    let name = pushed.name();
    rpull.ok(["pull", "-q", &name]);
    rpull.ok(["tag", &name, "local:only"]);
    let file = fs::read_dir(rpull.root().join("overlay2")).unwrap();
    let dir = file.map(|e| e.unwrap().path()).find(|p| p.join("diff").exists()).unwrap();
    flip(&dir.join("diff/f"));
    fs::remove_file(hub.blob_file(&image.layers[0].digest())).unwrap();
    let done = rpull.fails(6, ["check", "--deep", "--repair"]);
    assert!(done.stdout.contains("not repaired: layer-content"), "{done}");
    rpull.ok(["rm", &name]);
    let done = rpull.fails(6, ["check", "--deep", "--repair"]);
    assert!(done.stdout.contains("no registry is known"), "{done}");
    assert_eq!(rpull.json(["images", "--format", "json"])["Repository"], "local");
}

#[test]
fn check_during_pulls_and_removals_finds_no_damage() {
    let place = Place::new();
    let (one, other) = (place.pushed.name(), place.sibling.name());
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for _ in 0..6 {
                place.rpull.ok(["rm", &one]);
                place.rpull.ok(["rm", &other]);
                place.rpull.ok(["pull", "-q", &one, &other]);
            }
        });
        while !changes.is_finished() {
            let done = place.rpull.run(["check", "--deep", "--format", "json"]);
            assert_eq!(done.code, Some(0), "{done}");
        }
    });
}

pub fn build(docker: &Dockerd, context: &Path, kit: &str, args: &[&str]) {
    let all = [&["build"], args, &[context.to_str().unwrap()]].concat();
    let done = docker.command(&all).env("DOCKER_BUILDKIT", kit).output().unwrap();
    assert!(done.status.success(), "{all:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A root with an image of ours and all that [`used_root`] leaves, and its dockerd.
pub struct UsedRoot {
    pub scratch: tempfile::TempDir,
    pub rpull: Rpull,
    pub docker: Dockerd,
}

impl UsedRoot {
    pub fn new(stem: &str) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let name = format!("{}:v1", Hub::shared().repository(&format!("{stem}-hello")));
        let hello = fixture::push_hello(&name);
        rpull.ok(["pull", "-q", &hello.name()]);
        let docker = Dockerd::start(rpull.root());
        used_root(&docker, scratch.path(), &hello);
        Self { scratch, rpull, docker }
    }
}

/// Pulls, builds with both builders, runs, commits, keeps containers, and untags.
fn used_root(docker: &Dockerd, scratch: &Path, hello: &Pushed) {
    let hub = Hub::shared();
    let image = Image::new()
        .layer(Tar::new().file("f", "content").dir("d/").end())
        .layer(Tar::new().file("g", "more").file("d/.wh..wh..opq", "").end());
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("used")));
    docker.ok(&["pull", "-q", &pushed.name()]);
    docker.ok(&["run", "--name", "ended", "--network", "none", &hello.name()]);
    docker.ok(&["create", "--name", "created", &pushed.name(), "/none"]);
    docker.ok(&["commit", "ended", "committed:one"]);
    docker.ok(&["run", "--rm", "--network", "none", "committed:one"]);
    let context = scratch.join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("one"), "one").unwrap();
    fs::write(context.join("two"), "two").unwrap();
    let file = |name: &str, text: &str| fs::write(context.join(name), text).unwrap();
    let from = format!("FROM {}\nCOPY one /one\n", hello.name());
    file("Dockerfile", &format!("{from}ENV A=b\nCOPY two /two\n"));
    file("other", &format!("{from}COPY two /three\n"));
    file("empty", "FROM scratch\nENV A=b\n");
    for kit in ["0", "1"] {
        build(docker, &context, kit, &["-t", &format!("built:{kit}")]);
        build(
            docker,
            &context,
            kit,
            &["-t", &format!("empty:{kit}"), "-f", context.join("empty").to_str().unwrap()],
        );
        // The same layers again, and others above them.
        build(docker, &context, kit, &["--no-cache", "-t", &format!("again:{kit}")]);
        let other = context.join("other");
        build(
            docker,
            &context,
            kit,
            &["--no-cache", "-t", &format!("other:{kit}"), "-f", other.to_str().unwrap()],
        );
    }
    // BuildKit builds on its own copy of a layer that has a record already.
    for (kit, name) in [("0", "first"), ("1", "second")] {
        file(name, &format!("FROM scratch\nCOPY one /one\nCOPY two /{name}\n"));
        let path = context.join(name);
        let args = ["--no-cache", "-t", name, "-f", path.to_str().unwrap()];
        build(docker, &context, kit, &args);
    }
    file("above", "FROM second\nCOPY two /above\n");
    build(docker, &context, "0", &["-t", "above", "-f", context.join("above").to_str().unwrap()]);
    docker.ok(&["run", "--rm", "--network", "none", "other:1"]);
    docker.ok(&["rmi", "-f", "again:0"]);
}

#[test]
fn check_of_a_root_that_dockerd_uses_finds_no_damage() {
    let UsedRoot { scratch, rpull, docker } = UsedRoot::new("used");
    let root = rpull.root().to_owned();
    assert_whole(&rpull);
    docker.stop();
    assert_whole(&rpull);
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    for (name, files) in [("second", "one second"), ("above", "above one second")] {
        let _mounted = Mounted(at.clone());
        rpull.ok(["mount", name, at.to_str().unwrap()]);
        assert_eq!(names(&at).join(" "), files);
    }
    // Damage is found there while a dockerd runs, and repaired only when it does not.
    let layer = rpull.json(["layers", "--format", "json", "committed:one"]);
    let base = layer[0]["path"].as_str().unwrap().to_owned();
    let docker = Dockerd::start(&root);
    remove(Path::new(&base));
    let done = rpull.fails(6, ["check", "--format", "json"]);
    assert!(classes(&report(&done)).iter().all(|class| *class == "layer-directory"), "{done}");
    let done = rpull.fails(8, ["check", "--repair"]);
    assert!(done.stderr.contains("running dockerd"), "{done}");
    docker.stop();
    let done = rpull.run(["check", "--repair"]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_whole(&rpull);
    let docker = Dockerd::start(&root);
    docker.ok(&["start", "--attach", "ended"]);
    docker.ok(&["run", "--rm", "--network", "none", "built:1"]);
    docker.stop();
}
