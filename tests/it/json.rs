//! JSON and templates, against docs/json.md and a real docker.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::Rpull;
use crate::support::scratch;
use crate::support::tar::Tar;

/// Returns the examples of docs/json.md by their heading.
fn examples() -> BTreeMap<String, Value> {
    let page = include_str!("../../docs/json.md");
    let sections = page.split("\n## ").skip(1);
    let example = |section: &str| {
        let (heading, text) = section.split_once('\n').unwrap();
        let json = text.split_once("```json\n")?.1.split_once("```").unwrap().0;
        Some((heading.to_owned(), serde_json::from_str(json).unwrap()))
    };
    sections.filter_map(example).collect()
}

/// Fails unless `actual` has the keys and types of `documented`. Null fits any type, and an empty list
/// any other.
#[track_caller]
fn assert_fits(at: &str, actual: &Value, documented: &Value) {
    match (actual, documented) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(actual), Value::Object(documented)) => {
            let keys = |of: &serde_json::Map<_, _>| of.keys().cloned().collect::<Vec<String>>();
            assert_eq!(keys(actual), keys(documented), "{at}");
            for (key, value) in actual {
                assert_fits(&format!("{at}.{key}"), value, &documented[key]);
            }
        }
        (Value::Array(actual), Value::Array(documented)) => {
            let one = &documented[0];
            actual.iter().for_each(|it| assert_fits(&format!("{at}[]"), it, one));
        }
        (actual, documented) => {
            let same = std::mem::discriminant(actual) == std::mem::discriminant(documented);
            assert!(same, "{at}: {actual} instead of {documented}");
        }
    }
}

fn image(mark: &str) -> Image {
    let labels = serde_json::json!({ "mark": mark, "both": "" });
    let config = serde_json::json!({ "config": { "Cmd": ["/bin/sh"], "Labels": labels } });
    Image::new()
        .layer(Tar::new().file("base", "base").end())
        .layer(Tar::new().file("mark", mark).end())
        .extra(config)
}

fn push(stem: &str) -> Pushed {
    let hub = Hub::shared();
    image(stem).push(&hub.host, &format!("{}:one", hub.repository(stem)))
}

#[test]
fn json_of_every_command_fits_its_documentation() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let (one, two) = (push("json-one"), push("json-two"));
    let planned = rpull.ok(["pull", "--dry-run", "--format", "json", &one.name()]);
    let pulled = rpull.ok(["pull", "--format", "json", &one.name(), &two.name()]);
    let again: Value = serde_json::from_str(&rpull.ok(["--format", "json", &one.name()])).unwrap();
    assert_eq!((&again["status"], &again["id"]), (&"up-to-date".into(), &one.id.as_str().into()));
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let (name, dir) = (one.name(), at.to_str().unwrap());
    let damaged = || {
        let layers = rpull.json(["layers", "--format", "json", &two.name()]);
        let path = layers[1]["path"].as_str().unwrap().to_owned();
        fs::remove_file(path.replace("/diff", "/link")).unwrap();
        rpull.fails(6, ["check", "--format", "json"]).stdout
    };
    let bundle = scratch.path().join("bundle");
    let saved = scratch.path().join("saved.tar");
    let saved = saved.to_str().unwrap();
    let exported = scratch.path().join("exported.tar");
    let exported = exported.to_str().unwrap();
    let copied = scratch.path().join("copied");
    let copied = copied.to_str().unwrap();
    let ok = |args: &[&str]| rpull.ok(args.iter().chain(&["--format", "json"]));
    let mut printed: Vec<(&str, String)> = vec![
        ("pull", pulled),
        ("pull --dry-run", planned),
        ("images", ok(&["images"])),
        ("history", ok(&["history", &name])),
        ("layers", ok(&["layers", &name])),
        ("layers --tree", ok(&["layers", "--tree"])),
        ("resolve", ok(&["resolve", &name])),
        ("push", ok(&["push", &name])),
        ("copy", ok(&["copy", &name, &format!("{name}-copy")])),
        ("tag", ok(&["tag", &name, "other:tag"])),
        ("ls", ok(&["ls", &name, "/base"])),
        ("cp", ok(&["cp", &format!("{name}:/base"), copied])),
        ("export", ok(&["export", "-o", exported, &name])),
        ("save", ok(&["save", "-o", saved, &name])),
        ("load", ok(&["load", "-i", saved])),
        ("mount --print", ok(&["mount", "--print", &name, dir])),
        ("bundle", rpull.ok(["bundle", "--format", "json", &name, bundle.to_str().unwrap()])),
        ("mount", ok(&["mount", "--rw", &name, dir])),
    ];
    fs::write(at.join("new"), "x").unwrap();
    let mounts = rpull.json(["mounts", "--format", "json"]);
    printed.push(("commit", ok(&["commit", mounts[0]["name"].as_str().unwrap(), "app:2"])));
    let dockerfile = scratch.path().join("Dockerfile");
    fs::write(&dockerfile, format!("FROM {name}\nENV A=1\n")).unwrap();
    let context = scratch.path().to_str().unwrap();
    printed.push(("build", ok(&["build", "-t", "built:1", context])));
    printed.push(("mounts", ok(&["mounts"])));
    let mounts = rpull.json(["mounts", "--format", "json"]);
    let mount_name = mounts[0]["name"].as_str().unwrap();
    printed.push(("diff", ok(&["diff", mount_name])));
    printed.push(("diff --stat", ok(&["diff", "--stat", &name, &two.name()])));
    printed.push(("prune", ok(&["prune", "--unused-for", "0s", "--dry-run"])));
    printed.push(("umount", ok(&["umount", dir])));
    printed.push(("mounts rm", ok(&["mounts", "rm", mount_name])));
    let dead = rpull.root().join("overlay2/dead");
    fs::create_dir_all(dead.join("diff")).unwrap();
    printed.push(("df", ok(&["df"])));
    printed.push(("gc", ok(&["gc"])));
    printed.push(("check", damaged()));
    printed.push(("rm", ok(&["rm", "other:tag"])));

    let mut documented = examples();
    for (heading, text) in printed {
        let example = documented.remove(heading).unwrap_or_else(|| panic!("{heading}"));
        let stream = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let values: Vec<Value> = stream.collect::<Result<_, _>>().unwrap();
        assert!(!values.is_empty() && values[0] != serde_json::json!([]), "{heading}: {text}");
        values.iter().for_each(|value| assert_fits(heading, value, &example));
    }
    assert!(documented.is_empty(), "no command prints {:?}", documented.keys());
}

#[test]
fn templates_of_scripts_print_what_docker_prints() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let pushed = push("templates");
    rpull.ok(["pull", "-q", &pushed.name()]);
    let name = pushed.name();
    let short = &pushed.id["sha256:".len()..][..12];
    let digest = pushed.by_digest();
    let digest = digest.split_once('@').unwrap().1;
    let layers = image("templates").diff_ids();
    let images = |format: &str| rpull.ok(["images", "--format", format]);
    let inspect = |format: &str| rpull.ok(["inspect", "-f", format, &name]);

    assert_eq!(images("{{.ID}}"), format!("{short}\n"));
    let both = images(r"{{.Repository}}:{{.Tag}}\t{{.Digest}}");
    assert_eq!(both, format!("{name}\t{digest}\n"));
    let table = images(r"table {{.ID}}\t{{.Tag}}");
    assert_eq!(table, format!("IMAGE ID       TAG\n{short}   one\n"));
    let json: Value = serde_json::from_str(&images("{{json .}}")).unwrap();
    assert_eq!(json, rpull.json(["images", "--format", "json"]));

    assert_eq!(inspect("{{.Id}}"), format!("{}\n", pushed.id));
    assert_eq!(inspect("{{.RootFS.Layers}}"), format!("[{}]\n", layers.join(" ")));
    assert_eq!(inspect("{{len .RootFS.Layers}}"), "2\n");
    assert_eq!(inspect("{{join .Config.Cmd \",\"}}"), "/bin/sh\n");
    assert_eq!(inspect("{{json .RepoTags}}"), format!("[\"{name}\"]\n"));
    assert_eq!(inspect("{{index .Config.Labels \"mark\"}}"), "templates\n");
    let lines = inspect("{{range .RootFS.Layers}}{{println .}}{{end}}");
    assert_eq!(lines, layers.join("\n") + "\n\n");
    assert_eq!(rpull.ok(["inspect", "--format", "{{.Id}}", &name]), inspect("{{.Id}}"));
    assert_eq!(rpull.ok(["history", "--format", "{{.Size}}", &name]).lines().count(), 2);

    for args in [
        &["images", "--format", "{{.Nothing}}"][..],
        &["images", "--format", "yaml"],
        &["inspect", "-f", "{{printf \"%s\" .Id}}", &name],
        &["inspect", "-f", "table {{.Id}}", &name],
        &["layers", "--format", "{{.}}", &name],
    ] {
        let done = rpull.fails(2, args.iter());
        assert!(done.stdout.is_empty() && done.stderr.lines().count() <= 5, "{done}");
    }
}

#[test]
fn image_filters_have_the_meaning_of_docker() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let hub = Hub::shared();
    let (old, new) = (push("filter-old"), push("filter-new"));
    let later =
        image("filter-late").extra(serde_json::json!({ "created": "2031-01-01T00:00:00Z" }));
    let later = later.push(&hub.host, &format!("{}:one", hub.repository("filter-late")));
    rpull.ok(["pull", "-q", &old.name(), &new.name(), &later.by_digest()]);
    rpull.ok(["tag", &old.name(), "local/filter:1.2"]);
    let ids = |args: &[&str]| {
        let all = rpull.ok(["images", "-q", "--no-trunc"].iter().chain(args));
        let mut ids: Vec<String> = all.lines().map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let of = |all: &[&Pushed]| {
        let mut ids: Vec<String> = all.iter().map(|pushed| pushed.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), of(&[&old, &new, &later]));
    assert_eq!(ids(&["--filter", "dangling=true"]), of(&[&later]));
    assert_eq!(ids(&["--filter", "dangling=false"]), of(&[&old, &new]));
    assert_eq!(ids(&["--filter", "label=mark=filter-old"]), of(&[&old]));
    assert_eq!(ids(&["-f", "label=both", "-f", "label=mark"]), of(&[&old, &new]));
    assert_eq!(ids(&["-f", "label=mark=filter-old", "-f", "label=none"]), of(&[]));
    assert_eq!(ids(&["-f", "reference=local/*"]), of(&[&old]));
    assert_eq!(ids(&["-f", "reference=local/*:2.*"]), of(&[]));
    let repository = format!("reference={}", new.repository);
    assert_eq!(ids(&["-f", "reference=local/filter:1.*", "-f", &repository]), of(&[&old, &new]));
    assert_eq!(ids(&["docker.io/local/filter"]), of(&[&old]));
    assert_eq!(ids(&["-f", &format!("before={}", later.by_digest())]), of(&[&old, &new]));
    assert_eq!(ids(&["-f", &format!("since={}", old.name())]), of(&[&later]));
    rpull.fails(3, ["images", "-f", "before=nothing"]);
    let done = rpull.fails(2, ["images", "-f", "size=1"]);
    assert!(done.stderr.contains("there is no filter 'size'; use dangling"), "{done}");
    rpull.fails(2, ["images", "-f", "reference=["]);
}

#[test]
fn intermediate_images_are_listed_with_all_only() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let (step, built) = (push("step"), push("built"));
    rpull.ok(["pull", "-q", &step.by_digest(), &built.name()]);
    let file = rpull.root().join("image/overlay2/repositories.json");
    let mut names: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    names["Repositories"].as_object_mut().unwrap().remove(&step.repository);
    fs::write(&file, names.to_string()).unwrap();
    assert_eq!(rpull.ok(["images", "-q"]).lines().count(), 2, "it is the parent of no image");
    // As dockerd's builder records it.
    let hex = |id: &str| id["sha256:".len()..].to_owned();
    let dir = rpull.root().join("image/overlay2/imagedb/metadata/sha256").join(hex(&built.id));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("parent"), &step.id).unwrap();
    let ids = |args: &[&str]| rpull.ok(["images", "-q"].iter().chain(args));
    assert_eq!(ids(&[]).trim(), &hex(&built.id)[..12]);
    assert_eq!(ids(&["-a"]).lines().count(), 2);
    assert_eq!(ids(&["--all", "-f", "dangling=true"]).trim(), &hex(&step.id)[..12]);
}

#[test]
fn printed_mount_of_one_layer_is_a_bind_mount_in_json() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let hub = Hub::shared();
    let single = Image::new().layer(Tar::new().file("f", "f").end());
    let pushed = single.push(&hub.host, &format!("{}:one", hub.repository("bind")));
    rpull.ok(["pull", "-q", &pushed.name()]);
    let layers = rpull.json(["layers", "--format", "json", &pushed.name()]);
    let print = |more: &[&str]| {
        let args = ["mount", "--print", "--format", "json", &pushed.name(), "/mnt"];
        rpull.json(args.iter().chain(more))
    };
    let mount = print(&[]);
    assert_eq!(mount["type"], "bind");
    assert_eq!(mount["source"], layers[0]["path"]);
    assert_eq!(mount["options"], serde_json::json!(["bind", "ro"]));
    assert_eq!(mount["destination"], "/mnt");
    let mount = print(&["--rw", "--upper", "/u", "--work", "/w"]);
    let lower = format!("lowerdir={}", layers[0]["path"].as_str().unwrap());
    assert_eq!(mount["type"], "overlay");
    assert_eq!(
        mount["options"],
        serde_json::json!([
            lower,
            "upperdir=/u",
            "workdir=/w",
            "index=off",
            "redirect_dir=off",
            "metacopy=off"
        ])
    );
    let long = format!("/{}", "d/".repeat(1100));
    let mount = print(&["--rw", "--upper", &long, "--work", &long]);
    assert_eq!(mount["command"], Value::Null);
}
