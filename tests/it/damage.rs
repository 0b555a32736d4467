//! Roots that something damaged: a pull leaves a whole image, and what rpull calls whole dockerd
//! can mount.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::judge;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::snapshot::{
    assert_agreement, assert_consistent, chains, describe, layer_dir, names,
};
use crate::support::tar::Tar;
use crate::support::wait::until;

fn layer(mark: &str) -> Vec<u8> {
    Tar::new().file(mark, mark.repeat(900)).dir("d/").file(&format!("d/{mark}"), mark).end()
}

fn push(image: &Image, stem: &str) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// A root with an image of three layers and a sibling that shares the lower two.
pub struct Place {
    pub scratch: tempfile::TempDir,
    pub rpull: Rpull,
    pub image: Image,
    pub pushed: Pushed,
    pub sibling: Pushed,
    sibling_image: Image,
}

impl Place {
    fn pushed() -> (Image, Pushed, Image, Pushed) {
        static PUSHED: std::sync::OnceLock<(Image, Pushed, Image, Pushed)> =
            std::sync::OnceLock::new();
        let made = PUSHED.get_or_init(|| {
            let lower = Image::new().layer(layer("base")).layer(layer("middle"));
            let (image, sibling) =
                (lower.clone().layer(layer("top")), lower.layer(layer("sibling")));
            let (a, b) = (push(&image, "damage"), push(&sibling, "sibling"));
            (image, a, sibling, b)
        });
        made.clone()
    }

    pub fn new() -> Self {
        let (image, pushed, sibling_image, sibling) = Self::pushed();
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", "-q", &pushed.name(), &sibling.name()]);
        Self { scratch, rpull, image, pushed, sibling, sibling_image }
    }

    pub fn root(&self) -> &Path {
        self.rpull.root()
    }

    pub fn record(&self, n: usize) -> PathBuf {
        let chain = &chains(&self.image.diff_ids())[n];
        self.root().join("image/overlay2/layerdb/sha256").join(chain)
    }

    pub fn dir(&self, n: usize) -> PathBuf {
        layer_dir(self.root(), &chains(&self.image.diff_ids())[n])
    }

    fn sibling_dir(&self) -> PathBuf {
        layer_dir(self.root(), &chains(&self.sibling_image.diff_ids())[2])
    }

    /// The symlink in `l/` of a layer.
    pub fn short_link(&self, n: usize) -> PathBuf {
        let link = fs::read_to_string(self.dir(n).join("link")).unwrap();
        self.root().join("overlay2/l").join(link)
    }

    pub fn config(&self) -> PathBuf {
        let id = self.pushed.id.trim_start_matches("sha256:");
        self.root().join("image/overlay2/imagedb/content/sha256").join(id)
    }

    pub fn sources(&self, n: usize) -> (PathBuf, PathBuf) {
        let layer = &self.image.layers[n];
        let hex = |digest: String| digest.trim_start_matches("sha256:").to_owned();
        let base = self.root().join("image/overlay2/distribution");
        (
            base.join("diffid-by-digest/sha256").join(hex(layer.digest())),
            base.join("v2metadata-by-diffid/sha256").join(hex(layer.diff_id())),
        )
    }
}

pub type Damage = (&'static str, fn(&Place));

pub fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

pub fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

const OTHER_ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub const DAMAGES: &[Damage] = &[
    ("config empty", |p| fs::write(p.config(), "").unwrap()),
    ("config cut", |p| cut(&p.config())),
    ("config flipped", |p| flip(&p.config())),
    ("config gone", |p| remove(&p.config())),
    ("config in the cache flipped too", |p| {
        flip(&p.config());
        let id = p.pushed.id.trim_start_matches("sha256:");
        flip(&p.root().join("rpull/content/blobs/sha256").join(id));
    }),
    ("tar-split empty", |p| fs::write(p.record(1).join("tar-split.json.gz"), "").unwrap()),
    ("tar-split cut", |p| cut(&p.record(2).join("tar-split.json.gz"))),
    ("tar-split gone", |p| remove(&p.record(0).join("tar-split.json.gz"))),
    ("link of the top empty", |p| fs::write(p.dir(2).join("link"), "").unwrap()),
    ("link of the base gone", |p| remove(&p.dir(0).join("link"))),
    ("link of the middle garbage", |p| fs::write(p.dir(1).join("link"), b"\xff\xfe/..").unwrap()),
    ("link of the top is the base's", |p| {
        fs::copy(p.dir(0).join("link"), p.dir(2).join("link")).unwrap();
    }),
    ("short link of the base gone", |p| remove(&p.short_link(0))),
    ("short link of the top gone", |p| remove(&p.short_link(2))),
    ("short link of the middle leads to the base", |p| {
        let (path, base) = (p.short_link(1), p.dir(0));
        remove(&path);
        symlink(Path::new("..").join(base.file_name().unwrap()).join("diff"), path).unwrap();
    }),
    ("all short links gone", |p| {
        remove(&p.root().join("overlay2/l"));
    }),
    ("lower of the top empty", |p| fs::write(p.dir(2).join("lower"), "").unwrap()),
    ("lower of the top gone", |p| remove(&p.dir(2).join("lower"))),
    ("lower of the middle garbage", |p| fs::write(p.dir(1).join("lower"), "l/X:").unwrap()),
    ("lower of the base", |p| {
        let link = fs::read_to_string(p.dir(1).join("link")).unwrap();
        fs::write(p.dir(0).join("lower"), format!("l/{link}")).unwrap();
    }),
    ("cache id of nothing", |p| fs::write(p.record(1).join("cache-id"), OTHER_ID).unwrap()),
    ("cache id garbage", |p| fs::write(p.record(2).join("cache-id"), "../../etc").unwrap()),
    ("cache id of another layer of the image", |p| {
        fs::copy(p.record(0).join("cache-id"), p.record(2).join("cache-id")).unwrap();
    }),
    ("cache id of the sibling", |p| {
        let sibling = p.sibling_dir().file_name().unwrap().to_owned();
        fs::write(p.record(2).join("cache-id"), sibling.as_bytes()).unwrap();
    }),
    ("directory of the base gone", |p| remove(&p.dir(0))),
    ("directory of the middle gone", |p| remove(&p.dir(1))),
    ("files of the top gone", |p| remove(&p.dir(2).join("diff"))),
    ("directories of base and middle gone", |p| {
        remove(&p.dir(0));
        remove(&p.dir(1));
    }),
    ("record of the base gone", |p| remove(&p.record(0))),
    ("record of the middle gone", |p| remove(&p.record(1))),
    ("record of the top gone", |p| remove(&p.record(2))),
    ("size garbage", |p| fs::write(p.record(2).join("size"), "many").unwrap()),
    ("size with zeros before it", |p| fs::write(p.record(1).join("size"), "000007").unwrap()),
    ("diff of another layer", |p| {
        fs::copy(p.record(0).join("diff"), p.record(1).join("diff")).unwrap();
    }),
    ("parent gone", |p| remove(&p.record(1).join("parent"))),
    ("mark of the base gone", |p| remove(&p.dir(0).join("committed"))),
    ("work directory gone", |p| remove(&p.dir(2).join("work"))),
    ("diff id of a blob garbage", |p| fs::write(p.sources(1).0, b"\xff").unwrap()),
    ("diff id of a blob is another layer's", |p| {
        fs::copy(p.sources(0).0, p.sources(1).0).unwrap();
    }),
    ("sources of a layer empty", |p| fs::write(p.sources(0).1, "").unwrap()),
    ("sources of a layer gone", |p| remove(&p.sources(2).1)),
    ("distribution gone", |p| remove(&p.root().join("image/overlay2/distribution"))),
    ("layer db gone", |p| remove(&p.root().join("image/overlay2/layerdb"))),
    ("write sets gone", |p| remove(&p.root().join("image/overlay2/layerdb/tmp"))),
    ("image db gone", |p| remove(&p.root().join("image/overlay2/imagedb"))),
    ("overlay2 gone", |p| remove(&p.root().join("overlay2"))),
    ("locks gone", |p| remove(&p.root().join("rpull/locks"))),
    ("our directory gone", |p| remove(&p.root().join("rpull"))),
    ("journals with odd names and content", |p| {
        let journals = p.root().join("rpull/journal");
        fs::write(journals.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
        fs::write(journals.join("1-odd"), b"\xff\xff l/../.. write-set-../../..\n").unwrap();
        fs::create_dir(journals.join("a directory")).unwrap();
    }),
];

/// Cleared away by hand: what no command made, none removes.
pub fn tidy(place: &Place) {
    let odd = place.root().join("rpull/journal/a directory");
    if odd.exists() {
        fs::remove_dir(odd).unwrap();
        // The others are removed by the next command that writes.
        place.rpull.ok(["tag", &place.sibling.name(), "odd:name"]);
        place.rpull.ok(["rm", "odd:name"]);
    }
    // A directory that no record names any more is an orphan.
    let layerdb = place.root().join("image/overlay2/layerdb/sha256");
    let known: Vec<String> = names(&layerdb)
        .iter()
        .map(|chain| fs::read_to_string(layerdb.join(chain).join("cache-id")).unwrap())
        .collect();
    // An empty directory of dockerd's that a pull which has all it needs does not make.
    fs::create_dir_all(place.root().join("image/overlay2/layerdb/tmp")).unwrap();
    for name in names(&place.root().join("overlay2")) {
        if name != "l" && !known.contains(&name) {
            fs::remove_dir_all(place.root().join("overlay2").join(&name)).unwrap();
        }
    }
    for link in names(&place.root().join("overlay2/l")) {
        let path = place.root().join("overlay2/l").join(&link);
        if !path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn damaged_image_is_whole_after_a_pull() {
    let before = describe(Place::new().root());
    for (name, damage) in DAMAGES {
        for by in [Pushed::name, Pushed::by_digest] {
            let place = Place::new();
            damage(&place);
            let done = place.rpull.run(["pull", &by(&place.pushed)]);
            assert_eq!(done.code, Some(0), "{name}: {done}");
            let done = place.rpull.run(["pull", &by(&place.sibling)]);
            assert_eq!(done.code, Some(0), "{name}: {done}");
            // Both names that a pull by tag writes.
            for pushed in [&place.pushed, &place.sibling] {
                place.rpull.ok(["pull", "-q", &pushed.name()]);
                let again = place.rpull.ok(["pull", "--policy", "never", &pushed.name()]);
                assert!(again.contains("Image is up to date"), "{name}: {again}");
            }
            tidy(&place);
            assert_consistent(place.root());
            assert_agreement(place.root());
            assert_eq!(judge::judge_root(place.root()), 4, "{name}");
            let after = describe(place.root());
            // The order of a layer's sources is that of the last pulls.
            let same = |path: &str, line: &String| {
                path.contains("v2metadata-by-diffid/sha256/") || after.get(path) == Some(line)
            };
            let differ = before.iter().find(|(path, line)| !same(path, line));
            assert_eq!(differ, None, "after {name}");
        }
    }
}

#[test]
fn damaged_image_is_not_reported_as_present() {
    for (name, damage) in DAMAGES.iter().filter(|(name, _)| {
        !["locks gone", "write sets gone", "our directory gone"].contains(name)
            && !name.starts_with("journals")
    }) {
        let place = Place::new();
        damage(&place);
        let done = place.rpull.run(["pull", "--policy", "never", &place.pushed.name()]);
        assert!(matches!(done.code, Some(3 | 6)), "{name}: {done}");
        assert!(!done.stderr.contains("registry"), "{name}: {done}");
    }
}

#[test]
fn layer_that_another_record_took_for_its_own_stays_as_it_is() {
    let place = Place::new();
    let before = place.sibling_dir();
    let link = fs::read_to_string(before.join("link")).unwrap();
    let id = before.file_name().unwrap().to_owned();
    fs::write(place.record(2).join("cache-id"), id.as_bytes()).unwrap();
    place.rpull.ok(["pull", "-q", &place.pushed.name()]);
    assert_eq!(place.sibling_dir(), before);
    assert_eq!(fs::read_to_string(before.join("link")).unwrap(), link);
    tidy(&place);
    assert_consistent(place.root());
    assert_agreement(place.root());
}

#[test]
fn damaged_repositories_file_is_named() {
    let place = Place::new();
    let path = place.root().join("image/overlay2/repositories.json");
    cut(&path);
    let done = place.rpull.fails(6, ["pull", &place.pushed.name()]);
    assert!(done.stderr.contains("repositories.json is damaged"), "{done}");
    assert!(done.stderr.contains("hint: restore this file"), "{done}");
}

/// What dockerd would mount other files for is not mounted.
#[test]
fn mount_refuses_what_dockerd_cannot_mount() {
    for (name, damage) in DAMAGES.iter().filter(|(name, _)| {
        ["link of the top", "short link", "lower of the top", "all short links"]
            .iter()
            .any(|part| name.contains(part))
    }) {
        let place = Place::new();
        damage(&place);
        let done = place.rpull.run(["mount", "--print", &place.pushed.name(), "/mnt"]);
        assert_eq!(done.code, Some(6), "{name}: {done}");
        assert!(done.stderr.contains("hint: pull the image again"), "{name}: {done}");
    }
}

/// Starts a pull whose topmost layer never comes, and kills it when the others are committed.
fn killed_below_the_top(rpull: &Rpull, image: &Image, pushed: &Pushed) {
    let top = image.layers.last().unwrap().digest();
    let stalled = top.clone();
    let proxy = Proxy::new(move |_, path| match path.ends_with(&stalled) {
        true => Fault::Stall(10),
        false => Fault::None,
    });
    let mut command = rpull.command(["pull", "-q", &proxy.name(&pushed.name())]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let below = chains(&image.diff_ids()).len() - 1;
    let layerdb = rpull.root().join("image/overlay2/layerdb/sha256");
    let committed = |chain: &String| layerdb.join(chain).exists();
    let all = || chains(&image.diff_ids())[..below].iter().all(committed);
    until("the lower layers are committed", all);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn layers_that_a_killed_pull_left_keep_the_layers_below_them() {
    let base = Image::new().layer(layer("kept-1")).layer(layer("kept-2"));
    let a = base.clone().layer(layer("kept-3")).layer(layer("kept-4"));
    let b = base.layer(layer("kept-other"));
    let (pushed_a, pushed_b) = (push(&a, "kept-a"), push(&b, "kept-b"));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    killed_below_the_top(&rpull, &a, &pushed_a);
    rpull.ok(["pull", "-q", &pushed_b.name()]);
    let gone = rpull.ok(["rm", &pushed_b.name()]);
    assert_eq!(gone.matches("Deleted").count(), 2, "the image and its own layer: {gone}");
    assert_agreement(rpull.root());
    rpull.ok(["pull", "-q", &pushed_a.name()]);
    assert_agreement(rpull.root());
    assert_consistent(rpull.root());
    assert_eq!(judge::judge_root(rpull.root()), 4);
    let docker = Dockerd::start(rpull.root());
    docker.ok(&["create", "--name", "mounts-it", &pushed_a.name(), "/none"]);
    let out = scratch.path().join("export.tar");
    docker.ok(&["export", "-o", out.to_str().unwrap(), "mounts-it"]);
}

#[test]
fn container_of_dockerd_survives_the_repair_of_its_base() {
    let place = Place::new();
    let docker = Dockerd::start(place.root());
    docker.ok(&["create", "--name", "kept", &place.pushed.name(), "/none"]);
    docker.stop();
    remove(&place.dir(0));
    place.rpull.ok(["pull", "-q", &place.pushed.name()]);
    let docker = Dockerd::start(place.root());
    let out = place.scratch.path().join("export.tar");
    docker.ok(&["export", "-o", out.to_str().unwrap(), "kept"]);
    docker.ok(&["rm", "kept"]);
}
