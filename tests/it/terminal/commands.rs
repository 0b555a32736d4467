//! What arguments, environment, configs and files of the root say to the other commands.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{PAYLOAD, SHOWN, assert_clean, assert_text, on_a_terminal, text};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::tar::Tar;

/// The parts of a config that commands show, all hostile.
fn hostile() -> Value {
    json!({
        "author": PAYLOAD,
        "comment": PAYLOAD,
        "created": PAYLOAD,
        "docker_version": PAYLOAD,
        "variant": PAYLOAD,
        "os.version": PAYLOAD,
        "container": PAYLOAD,
        "config": {
            "Labels": {PAYLOAD: PAYLOAD, "title\u{7f}": "tab\tnewline\nreturn\r"},
            "Env": [format!("A={PAYLOAD}")],
            "Cmd": [PAYLOAD],
            "WorkingDir": PAYLOAD,
        },
        "history": [
            {"created": PAYLOAD, "created_by": PAYLOAD, "comment": PAYLOAD},
            {"created_by": PAYLOAD.repeat(20), "comment": PAYLOAD.repeat(100), "empty_layer": true},
        ],
    })
}

/// A root with a hostile image of two layers, and the image's name.
fn pulled(root: &Path) -> (Rpull, String) {
    let hub = Hub::shared();
    let image = Image::new().layer(Tar::new().file("a", "a").end());
    let image = image.layer(Tar::new().file("b", "b").end()).extra(hostile());
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("terminal")));
    let rpull = Rpull::on(root);
    rpull.ok(["pull", "-q", &pushed.name()]);
    (rpull, pushed.name())
}

#[track_caller]
fn ran(rpull: &Rpull, args: &[&str], code: i32) -> Output {
    let output = rpull.command(args).output().unwrap();
    assert_clean(&output, &format!("{args:?}"));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
    output
}

#[test]
fn config_is_escaped_in_every_command() {
    let scratch = scratch::dir();
    let (rpull, name) = pulled(&scratch.path().join("root"));
    for args in [
        &["history", &name][..],
        &["history", "--no-trunc", &name],
        &["history", "--format", "json", &name],
        &["images"],
        &["images", "--format", "json"],
        &["layers", &name],
        &["layers", "--format", "json", &name],
        &["inspect", &name],
        &["rm", "--format", "json", &name],
    ] {
        if args[0] != "rm" {
            assert_text(on_a_terminal(&rpull, args).as_bytes(), &format!("{args:?}"));
        }
        let output = ran(&rpull, args, 0);
        if args[0] == "history" && !args.contains(&"json") {
            assert!(text(&output.stdout).contains(SHOWN), "{output:?}");
        }
    }
}

#[test]
fn json_of_a_config_keeps_every_value() {
    let scratch = scratch::dir();
    let (rpull, name) = pulled(&scratch.path().join("root"));
    let inspected: Value =
        serde_json::from_slice(&ran(&rpull, &["inspect", &name], 0).stdout).unwrap();
    let (shown, config) = (&inspected[0], hostile());
    assert_eq!(shown["Config"], config["config"]);
    for (key, from) in [
        ("Author", "author"),
        ("Comment", "comment"),
        ("Created", "created"),
        ("DockerVersion", "docker_version"),
        ("Variant", "variant"),
        ("OsVersion", "os.version"),
        ("Container", "container"),
    ] {
        assert_eq!(shown[key], config[from], "{key}");
    }
    let history = ran(&rpull, &["history", "--no-trunc", "--format", "json", &name], 0).stdout;
    let history = String::from_utf8(history).unwrap();
    let history: Vec<Value> =
        history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, entry) in [(1, 0), (0, 1)] {
        for (key, from) in [("CreatedBy", "created_by"), ("Comment", "comment")] {
            assert_eq!(history[line][key], config["history"][entry][from], "{key}");
        }
    }
}

#[test]
fn paths_of_a_hostile_root_are_escaped_or_refused() {
    let scratch = scratch::dir();
    let root = scratch.path().join(format!("r'{PAYLOAD}\nx"));
    let (rpull, name) = pulled(&root);
    let table = text(&ran(&rpull, &["layers", &name], 0).stdout);
    assert!(table.contains(SHOWN) && table.lines().count() == 3, "{table}");
    let layers = ran(&rpull, &["layers", "--format", "json", &name], 0).stdout;
    let layers: Value = serde_json::from_slice(&layers).unwrap();
    assert!(Path::new(layers[0]["path"].as_str().unwrap()).join("a").exists());
    // A script would take an escaped path for another one.
    for args in [&["layers", "-q", &name][..], &["mount", "--print", &name, "/mnt"]] {
        let output = ran(&rpull, args, 2);
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains("--format json"), "{output:?}");
    }
    let at = scratch.path().join(format!("m'{PAYLOAD}\ny"));
    fs::create_dir(&at).unwrap();
    let target = at.to_str().unwrap();
    let printed = ran(&rpull, &["mount", "--print", "--format", "json", &name, target], 0).stdout;
    let printed: Value = serde_json::from_slice(&printed).unwrap();
    let _mounted = Mounted(at.clone());
    let mounted = Command::new("sh").arg("-c").arg(printed["command"].as_str().unwrap()).output();
    assert!(mounted.as_ref().is_ok_and(|done| done.status.success()), "{mounted:?}");
    assert_eq!(fs::read_to_string(at.join("b")).unwrap(), "b");
    ran(&rpull, &["umount", target], 0);
    let done = ran(&rpull, &["umount", target], 2);
    assert!(text(&done.stderr).contains(SHOWN), "{done:?}");
    let done = ran(&rpull, &["mount", "--rw", &name, target], 0);
    assert!(text(&done.stdout).contains(SHOWN), "{done:?}");
    ran(&rpull, &["mounts", "--format", "json"], 0);
    assert!(text(&ran(&rpull, &["mounts"], 0).stdout).contains(SHOWN));
    ran(&rpull, &["umount", target], 0);
    ran(&rpull, &["rm", &name], 0);
    let none = Rpull::on(root.join("none"));
    assert!(text(&ran(&none, &["images"], 3).stderr).contains(SHOWN));
}

#[test]
fn paths_that_are_not_utf_8_are_refused_for_scripts() {
    let scratch = scratch::dir();
    let (rpull, name) = pulled(&scratch.path().join("root"));
    let target = std::ffi::OsStr::from_bytes(b"/mnt/\x9b31m\xff");
    for args in [&["mount", "--print"][..], &["mount", "--print", "--format", "json"]] {
        let mut command = rpull.command(args.iter().chain(&[name.as_str()]));
        let output = command.arg(target).output().unwrap();
        assert_clean(&output, "a mount line");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("not UTF-8"), "{output:?}");
    }
}

#[test]
fn files_of_the_root_are_escaped() {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let (rpull, name) = pulled(&root);
    let file = root.join("image/overlay2/repositories.json");
    let whole: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let id = rpull.json(["images", "--no-trunc", "--format", "json"])["ID"].clone();
    let mut odd = whole.clone();
    odd["Repositories"][format!("x{PAYLOAD}")] = json!({ format!("x{PAYLOAD}:t{PAYLOAD}"): id });
    fs::write(&file, odd.to_string()).unwrap();
    for args in [&["images"][..], &["images", "--format", "json"], &["inspect", &name]] {
        ran(&rpull, args, 0);
    }
    odd["Repositories"]["y"] = json!({"y:z": PAYLOAD});
    for damaged in
        [odd.to_string(), format!("{{\"{PAYLOAD}"), json!({"Repositories": PAYLOAD}).to_string()]
    {
        fs::write(&file, damaged).unwrap();
        ran(&rpull, &["images"], 6);
    }
    fs::write(&file, whole.to_string()).unwrap();
    for entry in fs::read_dir(root.join("image/overlay2/layerdb/sha256")).unwrap() {
        fs::write(entry.unwrap().path().join("cache-id"), PAYLOAD).unwrap();
    }
    fs::write(root.join("rpull/content/index.json"), PAYLOAD).unwrap();
    fs::write(root.join("image/overlay2/layerdb/tmp").join(format!("write-set-{PAYLOAD}")), "")
        .unwrap();
    for args in [
        &["layers", &name][..],
        &["inspect", &name],
        &["history", &name],
        &["df"],
        &["df", "--format", "json"],
        &["check"],
        &["check", "--deep", "--format", "json"],
        &["-vv", "gc", "--dry-run"],
        &["gc", "--dry-run", "--format", "json"],
        &["prune", "--dangling", "--dry-run"],
        &["__complete", "inspect", ""],
    ] {
        assert_clean(&rpull.command(args).output().unwrap(), &format!("{args:?}"));
    }
    // The name of the staged record.
    assert!(text(&ran(&rpull, &["gc", "--dry-run"], 0).stdout).contains(SHOWN));
}

#[test]
fn registry_answers_to_resolve_are_escaped() {
    let body = super::leaked(json!({"errors": [{"code": "X", "message": PAYLOAD}]}).to_string());
    let proxy = Proxy::every("/v2/", Fault::Instead("404 Not Found", "", body));
    let scratch = scratch::dir();
    let name = format!("{}/some/image:tag", proxy.host);
    let in_json = r"\u001b]0;pwn\u0007";
    for (args, shown) in
        [(&["resolve", &name][..], SHOWN), (&["resolve", "--format", "json", &name], in_json)]
    {
        let output = ran(&Rpull::on(scratch.path()), args, 3);
        assert!(text(&output.stderr).contains(shown), "{output:?}");
    }
}

#[test]
fn arguments_in_errors_are_escaped_and_cut() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    for word in [PAYLOAD.to_owned(), format!("x{PAYLOAD}\nrpull: y"), PAYLOAD.repeat(1000)] {
        let flag = format!("--{word}");
        let assigned = format!("--progress={word}");
        let tagged = format!("127.0.0.1:1/x:{word}");
        for args in [
            &["pull", &word][..],
            &["pull", "--", &tagged],
            &["pull", &flag, "x"],
            &["pull", "--progress", &word, "x"],
            &["pull", &assigned, "x"],
            &["pull", "--jobs", &word, "x"],
            &["pull", "--platform", &word, "127.0.0.1:1/x"],
            &["images", &word, &word],
            &["help", &word],
            &["tag", "x", &word],
            &["resolve", "--name-only", &word],
        ] {
            let output = ran(&rpull, args, 2);
            let said = text(&output.stderr);
            assert!(said.contains(r"\u{1b}]0;pwn"), "{args:?}: {said}");
            assert!(!said.contains("\nrpull: y"), "{args:?}: {said}");
            assert_text(on_a_terminal(&rpull, &args[..args.len().min(3)]).as_bytes(), "a terminal");
        }
    }
}

#[test]
fn environment_in_help_and_errors_is_escaped() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let help = rpull.command(["pull", "--help"]).env("RPULL_PLATFORM", PAYLOAD).output().unwrap();
    assert_clean(&help, "--help");
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains(SHOWN), "{help:?}");
    for variable in ["RPULL_JOBS", "RPULL_RETRIES"] {
        let mut command = rpull.command(["pull", "x"]);
        let output = command.env(variable, PAYLOAD).output().unwrap();
        assert_clean(&output, variable);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(SHOWN), "{output:?}");
    }
}

#[test]
fn full_or_closed_standard_output_is_handled() {
    let scratch = scratch::dir();
    let (rpull, name) = pulled(&scratch.path().join("root"));
    for args in [
        &["images"][..],
        &["inspect", &name],
        &["history", &name],
        &["layers", "-q", &name],
        &["resolve", "--name-only", &name],
        &["mount", "--print", &name],
        &["--help"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = rpull.command(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("rpull: cannot write to standard output: No space left"), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = rpull.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr).as_str()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}
