//! `rpull build`, compared with the classic builder of a real dockerd.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::support::dockerd::Dockerd;
use crate::support::hub::Hub;
use crate::support::rpull::{Done, Rpull};
use crate::support::tar::Tar;
use crate::support::{busybox, scratch, snapshot};

/// A root with busybox, and a directory of Dockerfiles.
struct Place {
    scratch: tempfile::TempDir,
    rpull: Rpull,
    base: String,
}

impl Place {
    fn new(stem: &str) -> Self {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        fs::create_dir(scratch.path().join("context")).unwrap();
        let hub = Hub::shared();
        let name = format!("{}:one", hub.repository(stem));
        let base = busybox::image().push(&hub.host, &name).name();
        rpull.ok(["pull", "-q", &base]);
        Self { scratch, rpull, base }
    }

    fn context(&self) -> PathBuf {
        self.scratch.path().join("context")
    }

    /// Writes the Dockerfile, in which BASE is the image.
    fn dockerfile(&self, text: &str) {
        fs::write(self.context().join("Dockerfile"), text.replace("BASE", &self.base)).unwrap();
    }

    fn build(&self, flags: &[&str]) -> Done {
        let context = self.context();
        let args = ["build"].iter().chain(flags).copied();
        self.rpull.run(args.chain([context.to_str().unwrap()]))
    }

    #[track_caller]
    fn built(&self, flags: &[&str]) -> String {
        let done = self.build(flags);
        assert_eq!(done.code, Some(0), "{done}");
        done.stdout
    }

    fn mounts(&self) -> usize {
        fs::read_dir(self.rpull.root().join("rpull/mounts")).map_or(0, Iterator::count)
    }
}

/// Dockerfiles that both build.
const DOCKERFILES: [&str; 4] = [
    "FROM BASE\nRUN echo hello > /hello && \\\n  # a comment\n  mkdir -p /a/b\nCMD [\"cat\", \"/hello\"]\n",
    "ARG TAG=x\nFROM BASE AS one\nMAINTAINER Ada <ada@example.com>\nENV A=1 B=\"x y\"\nARG TAG\nARG N=${A}2\n\
     RUN echo \"$A $B $TAG $N\" > /one\nWORKDIR /app\nWORKDIR deep/er\nUSER web\nRUN [\"/bin/id\"]\n\
     FROM one\nUSER root\nRUN rm /one; chown 5:6 /app; ln -s x /link\nSHELL [\"/bin/sh\", \"-ec\"]\n\
     RUN echo ${TAG:-none} > ${B:+/two}\n",
    "FROM BASE AS files\nCOPY a.txt dir/ /in/\nRUN echo new > /in/new\nFROM BASE\nENV TO=/to\nWORKDIR /w\n\
     COPY --from=files /in $TO/\nCOPY --chown=web:www a.txt b.txt ./\nCOPY dir .\nUSER 33:34\n\
     ADD archive.tar /unpacked/\nRUN [\"cat\", \"a.txt\"]\n",
    "FROM BASE\nENTRYPOINT [\"/bin/echo\", \"a\\\"b\"]\nCMD x $Y\nVOLUME /data /more\nVOLUME [\"/list\"]\n\
     LABEL a=b c=\"d e\"\nLABEL old style\nEXPOSE 90/udp 80\nSTOPSIGNAL SIGINT\n\
     HEALTHCHECK --interval=90s --retries=3 CMD [\"true\"]\nONBUILD RUN echo t > /t\nONBUILD LABEL t=1\n\
     RUN touch /data/lost /kept\nENTRYPOINT [\"/bin/sh\"]\n",
];

/// Drops what is empty, which Go does not distinguish, and what differs between builds.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = |key: &str, value: &Value| {
                let volatile =
                    ["created", "Hostname", "Image", "container", "docker_version", "diff_ids"];
                let is_empty = match value {
                    Value::Null | Value::Bool(false) => true,
                    Value::String(text) => text.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    Value::Object(fields) => key == "Labels" && fields.is_empty(),
                    _ => false,
                };
                !is_empty && !volatile.contains(&key)
            };
            let fields = fields.iter().map(|(key, value)| (key.clone(), plain(value)));
            fields.filter(|(key, value)| kept(key, value)).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().into(),
        Value::String(text) => without_checksums(text).into(),
        value => value.clone(),
    }
}

/// The config and the files of each layer above the base, of an archive that docker or rpull saved.
fn saved(path: &Path) -> (Value, Vec<Vec<String>>) {
    let mut files = BTreeMap::new();
    let mut archive = ::tar::Archive::new(fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let file = |name: &Value| &files[name.as_str().unwrap()];
    let config = serde_json::from_slice(file(&manifest[0]["Config"])).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    (plain(&config), layers[1..].iter().map(|layer| listed(file(layer))).collect())
}

fn listed(tar: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in ::tar::Archive::new(tar).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        lines.push(format!(
            "{path} {:?} {:o} {}:{} {} {:?}",
            header.entry_type(),
            header.mode().unwrap() & 0o7777,
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.size().unwrap(),
            entry.link_name().unwrap()
        ));
    }
    lines.sort();
    lines
}

/// Writes the files that are copied.
fn fill(context: &Path) {
    fs::create_dir_all(context.join("dir/sub")).unwrap();
    for (name, text) in
        [("a.txt", "a"), ("b.txt", "b"), ("dir/c", "c"), ("dir/sub/d", "d"), ("dir/no.log", "no")]
    {
        fs::write(context.join(name), text).unwrap();
    }
    fs::write(context.join(".dockerignore"), "**/*.log\n").unwrap();
    let tar = Tar::new().dir("d/").file("d/f", "f").end();
    fs::write(context.join("archive.tar"), tar).unwrap();
}

/// Drops the checksums of copies, which rpull computes in another way.
fn without_checksums(text: &str) -> String {
    let mut out = text.to_owned();
    for kind in ["file:", "dir:", "multi:"] {
        let mut parts = out.split(kind);
        let first = parts.next().unwrap_or_default().to_owned();
        out = parts.fold(first, |out, part| {
            let hex = part.len() >= 64 && part.as_bytes()[..64].iter().all(u8::is_ascii_hexdigit);
            format!("{out}{kind}{}", if hex { &part[64..] } else { part })
        });
    }
    out
}

/// The output without IDs, names and what only docker does.
fn without_ids(output: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in output.lines().map(|line| line.trim_end()) {
        let is_id = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let words: Vec<&str> = line.split(' ').map(|w| if is_id(w) { "ID" } else { w }).collect();
        let line = words.join(" ");
        let of_container = line.contains("Running in") || line.contains("intermediate container");
        if !of_container && !line.starts_with("Sending build context") && !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn images_equal_those_of_the_classic_builder() {
    let place = Place::new("build-docker");
    let docker = Dockerd::shared();
    docker.ok(&["pull", "-q", &place.base]);
    let context = place.context();
    fill(&context);
    for (at, text) in DOCKERFILES.iter().enumerate() {
        place.dockerfile(text);
        let name = format!("built-{at}:1");
        let ours = place.built(&["-t", &name]);
        let args = ["build", "--network", "none", "-t", &name, context.to_str().unwrap()];
        let done: Done = docker.command(&args).env("DOCKER_BUILDKIT", "0").output().unwrap().into();
        assert_eq!(done.code, Some(0), "{done}");
        assert_eq!(without_ids(&ours), without_ids(&done.stdout));
        let [our_file, their_file] =
            ["ours.tar", "theirs.tar"].map(|name| place.scratch.path().join(name));
        place.rpull.ok(["save", "-o", our_file.to_str().unwrap(), &name]);
        docker.ok(&["save", "-o", their_file.to_str().unwrap(), &name]);
        let (ours, theirs) = (saved(&our_file), saved(&their_file));
        assert_eq!(ours.0, theirs.0, "config of {text}");
        assert_eq!(ours.1, theirs.1, "layers of {text}");
    }
    // The triggers of the last one.
    fs::write(context.join("Dockerfile"), "FROM built-3:1\nRUN cat /t > /u\n").unwrap();
    let output = place.built(&["-t", "triggered"]);
    assert!(output.contains("# Executing 2 build triggers"), "{output}");
    assert_eq!(place.rpull.ok(["cat", "triggered", "/u"]), "t\n");
    snapshot::assert_consistent(place.rpull.root());
}

#[test]
fn unchanged_instructions_come_from_the_cache() {
    let place = Place::new("build-cache");
    let text = "FROM BASE\nARG A=1\nRUN date +%N > /a\nRUN echo $A > /b\n";
    place.dockerfile(text);
    let first = place.built(&["-q"]);
    let again = place.built(&[]);
    assert_eq!(again.matches(" ---> Using cache").count(), 3, "{again}");
    assert_eq!(place.built(&["-q"]), first);
    assert!(first.starts_with("sha256:"), "{first}");
    let other = place.built(&["--build-arg", "A=2"]);
    assert_eq!(other.matches(" ---> Using cache").count(), 1, "{other}");
    assert_eq!(place.built(&["--no-cache"]).matches(" ---> Using cache").count(), 0);
    place.dockerfile(&text.replace("/b", "/c"));
    let changed = place.built(&[]);
    assert_eq!(changed.matches(" ---> Using cache").count(), 2, "{changed}");
}

#[test]
fn copied_files_come_from_the_cache_until_they_change() {
    let place = Place::new("build-copy-cache");
    fill(&place.context());
    place.dockerfile("FROM BASE\nCOPY dir /dir\nRUN touch /x\n");
    place.built(&[]);
    assert_eq!(place.built(&[]).matches(" ---> Using cache").count(), 2);
    fs::write(place.context().join("dir/no.log"), "ignored").unwrap();
    assert_eq!(place.built(&[]).matches(" ---> Using cache").count(), 2);
    fs::write(place.context().join("dir/c"), "changed").unwrap();
    let changed = place.built(&["-t", "changed"]);
    assert_eq!(changed.matches(" ---> Using cache").count(), 0, "{changed}");
    assert_eq!(place.rpull.ok(["cat", "changed", "/dir/c"]), "changed");
}

#[test]
fn failing_command_ends_the_build_with_its_code_and_leaves_the_cache() {
    let place = Place::new("build-fails");
    place.dockerfile("FROM BASE\nRUN touch /a\nRUN echo out; exit 42\nRUN touch /b\n");
    let done = place.build(&["-t", "app"]);
    assert_eq!(done.code, Some(42), "{done}");
    let text = "The command '/bin/sh -c echo out; exit 42' returned a non-zero code: 42";
    assert!(done.stderr.contains(text), "{done}");
    assert!(done.stdout.contains("\nout\n"), "{done}");
    assert_eq!(place.mounts(), 0);
    assert_eq!(place.build(&[]).stdout.matches(" ---> Using cache").count(), 1);
    snapshot::assert_consistent(place.rpull.root());
}

#[test]
fn what_needs_buildkit_is_refused_before_the_first_step() {
    let place = Place::new("build-refuses");
    for (line, text) in [
        (3, "FROM BASE\nRUN touch /a\nRUN --mount=type=cache,target=/c true\n"),
        (2, "FROM BASE\nRUN <<EOF\ntrue\nEOF\n"),
        (1, "# syntax=docker/dockerfile:1\nFROM BASE\n"),
        (2, "FROM BASE\nCOPY --link a /b\n"),
        (2, "FROM BASE\nADD --checksum=x a /b\n"),
    ] {
        place.dockerfile(text);
        let done = place.build(&[]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{done}");
        assert!(done.stderr.contains(&format!("Dockerfile:{line}: ")), "{done}");
        assert!(done.stderr.contains("needs BuildKit"), "{done}");
    }
}

#[test]
fn removal_of_a_built_image_removes_its_steps() {
    let place = Place::new("build-rm");
    place.dockerfile("FROM BASE\nRUN touch /a\nENV A=1\n");
    let first = place.rpull.ok(["images", "-a", "-q"]);
    place.built(&["-t", "one"]);
    place.dockerfile("FROM BASE\nRUN touch /a\nENV A=2\n");
    place.built(&["-t", "two"]);
    let step = place.rpull.ok(["images", "-a", "-q"]);
    assert_eq!(step.lines().count(), 4, "{step}");
    place.rpull.ok(["prune", "--dangling"]);
    assert_eq!(place.rpull.ok(["images", "-a", "-q"]), step, "the common step is needed");
    place.rpull.ok(["rm", "one"]);
    assert_eq!(place.rpull.ok(["images", "-a", "-q"]).lines().count(), 3);
    place.rpull.ok(["rm", "two"]);
    assert_eq!(place.rpull.ok(["images", "-a", "-q"]), first);
    snapshot::assert_consistent(place.rpull.root());
}
