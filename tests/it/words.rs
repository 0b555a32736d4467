//! Words on the command line that are not what a user means: mistyped commands, commands of other
//! tools, prefixes of other tools, empty variables. None of them sends a request.

use serde_json::Value;

use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::rpull::{Done, Rpull};
use crate::support::scratch;
use crate::support::tar::Tar;

fn push(stem: &str) -> Pushed {
    let hub = Hub::shared();
    let layer = Tar::new().file("mark", stem).end();
    Image::new().layer(layer).push(&hub.host, &format!("{}:latest", hub.repository(stem)))
}

/// Refused before anything is contacted or made.
#[track_caller]
fn refused(args: &[&str]) -> Done {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    // A request would fail with code 5.
    let mut command = Rpull::on(&root).command(args);
    let proxy = "http://127.0.0.1:1";
    let output = command.env("HTTPS_PROXY", proxy).env("RPULL_RETRIES", "0").output().unwrap();
    let done = Done::from(output);
    assert_eq!(done.code, Some(2), "{args:?}: {done}");
    assert!(!root.exists(), "{args:?}: {done}");
    assert_eq!(done.stdout, "", "{args:?}");
    done
}

#[test]
fn mistyped_command_is_refused_with_the_command_that_was_meant() {
    for (args, meant) in [
        (&["pul", "x"][..], "pull"),
        (&["inspcet", "x"], "inspect"),
        (&["imagse", "-a"], "images"),
        (&["mout", "nginx", "/mnt", "--rw"], "mount"),
        (&["chekc", "--help"], "check"),
        (&["--root", "/nonexistent", "PRUNE"], "prune"),
    ] {
        let done = refused(args);
        assert!(done.stderr.starts_with("rpull: no such command: '"), "{done}");
        assert!(done.stderr.contains(&format!("did you mean '{meant}'")), "{done}");
        assert!(done.stderr.contains("\nhint: `rpull pull "), "{done}");
    }
}

#[test]
fn command_of_docker_that_rpull_lacks_is_refused() {
    for word in ["login", "ps", "attach", "exec", "search", "version", "scan"] {
        let done = refused(&[word, "x"]);
        assert!(done.stderr.starts_with(&format!("rpull: no such command: '{word}'")), "{done}");
        let hint = format!("\nhint: `rpull pull {word}` pulls an image of that name\n");
        assert!(done.stderr.contains(&hint), "{done}");
    }
    assert!(refused(&["login"]).stderr.contains("docker login"));
    assert!(refused(&["list"]).stderr.contains("did you mean 'images'?"));
}

#[test]
fn word_that_names_an_image_is_pulled() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    // Not in the store, and not a request either.
    for args in [
        &["--policy", "never", "pull", "login"][..],
        &["--policy", "never", "login:1"],
        &["--policy", "never", "library/login"],
        &["--policy", "never", "--", "login"],
        &["--policy", "never", "gcc"],
    ] {
        let done = rpull.fails(3, args);
        assert!(done.stderr.contains("is not in the store"), "{args:?}: {done}");
    }
    let present = push("words").name();
    rpull.ok(["pull", "-q", &present]);
    rpull.ok(["tag", &present, "login:7"]);
    let done = rpull.fails(3, ["--policy", "never", "login"]);
    assert!(done.stderr.contains("login:latest is not in the store"), "{done}");
    rpull.fails(2, ["--policy", "never", "logout"]);
}

#[test]
fn prefix_of_another_tool_is_refused_with_the_name_without_it() {
    for (name, says) in [
        ("docker://nginx:1", "leave out 'docker://': nginx:1"),
        ("https://quay.io/a/b", "leave out 'https://': quay.io/a/b"),
        ("https://hub.docker.com/_/nginx", "leave out 'https://': nginx"),
        ("https://hub.docker.com/r/org/app/", "leave out 'https://': org/app"),
        ("http://host:5000/a", "leave out 'http://': host:5000/a, and give --plain-http"),
        ("docker-daemon:nginx:latest", "leave out 'docker-daemon:' to pull nginx:latest"),
        ("dir:layout", "docker.io/library/dir:layout"),
    ] {
        for args in [&[name][..], &["pull", name], &["resolve", "--name-only", name]] {
            let done = refused(args);
            assert!(done.stderr.contains(&format!("rpull: '{name}' is not an image")), "{done}");
            assert!(done.stderr.contains(says), "{done}");
        }
    }
    let archive = refused(&["resolve", "--name-only", "oci:dir"]);
    assert!(archive.stderr.contains("only `rpull pull` reads oci:DIR"), "{archive}");
}

#[test]
fn empty_variables_are_unset_variables() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let help = ["pull", "resolve", "check"].map(|command| rpull.ok([command, "--help"])).concat();
    let named = help.split("[env: ").skip(1).filter_map(|text| text.split([']', '=']).next());
    let mut variables: Vec<&str> = named.collect();
    assert!(variables.len() > 10 && variables.contains(&"RPULL_STALL_TIMEOUT"), "{variables:?}");
    variables.extend(["RPULL_TOKEN", "RPULL_PASSWORD", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG"]);
    variables.extend(["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_RUNTIME_DIR"]);
    variables.extend(["XDG_CONFIG_HOME", "XDG_DATA_HOME"]);
    let name = push("empty").name();
    let mut command = rpull.command(["pull", "-q", &name]);
    command.envs(variables.iter().map(|variable| (variable, "")));
    command.env("HOME", scratch.path().join("home"));
    let done = Done::from(command.output().unwrap());
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(done.stderr, "");
    let own = scratch.path().join("home/.local/share/rpull");
    assert!(own.join("image/overlay2").is_dir(), "the store is not in the home directory");
    assert_eq!(Rpull::on(own).ok(["images", "-q"]).lines().count(), 1);
}

#[test]
fn no_argument_prints_the_short_help() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let done = rpull.fails(2, [""; 0]);
    assert_eq!(done.stderr, rpull.ok(["-h"]));
    assert_eq!(done.stdout, "");
}

/// The only line of `text`, as JSON.
#[track_caller]
fn object(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
}

#[test]
fn error_with_format_json_is_one_object_on_standard_error() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let json = |code: i32, args: &[&str]| {
        let done = rpull.fails(code, ["--format", "json"].iter().chain(args).copied());
        assert_eq!(done.stdout, "", "{args:?}");
        let error = object(&done.stderr);
        let keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["code", "hint", "image", "kind", "message"], "{args:?}");
        assert_eq!(error["code"], code, "{args:?}");
        error
    };
    let error = json(3, &["inspect", "nginx"]);
    assert_eq!(error["kind"], "not-found");
    let error = json(2, &["pul", "x"]);
    assert_eq!(error["message"], "no such command: 'pul'; did you mean 'pull'?");
    assert_eq!(error["hint"], "`rpull pull pul` pulls an image of that name");
    let error = json(2, &["images", "--policy", "never"]);
    assert_eq!(error["message"], "unexpected argument '--policy' found");
    assert_eq!(error["hint"], "'--policy' is a flag of: pull");
    let error = json(2, &["resolve", "--name-only", "Nginx"]);
    assert_eq!((&error["kind"], &error["image"]), (&"usage".into(), &"Nginx".into()));
    let name = format!("{}/no/such:tag", Hub::shared().host);
    let error = json(3, &["resolve", &name]);
    assert_eq!(error["image"], name.as_str());
    assert!(error["message"].as_str().unwrap().contains("no/such"), "{error}");
}

#[test]
fn errors_of_several_images_name_their_image_in_the_order_of_arguments() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let host = &Hub::shared().host;
    let missing = format!("{host}/no/such:tag");
    let refused = "127.0.0.1:1/refused:1".to_owned();
    let present = push("present").name();
    let args = ["pull", "--retries", "0", "--progress", "none", &missing, &present, &refused];
    let done = rpull.fails(3, args);
    let errors: Vec<&str> =
        done.stderr.lines().filter_map(|line| line.strip_prefix("rpull: ")).collect();
    assert_eq!(errors.len(), 2, "{done}");
    assert!(errors[0].contains(&missing) && errors[1].contains(&refused), "{done}");
    for error in &errors {
        let name = if error.contains(&missing) { &missing } else { &refused };
        assert!(error.matches(name.as_str()).count() <= 1, "{error}");
    }
    let done = rpull.fails(3, ["--format", "json"].iter().copied().chain(args));
    let images: Vec<Value> =
        done.stderr.lines().map(|line| object(line)["image"].clone()).collect();
    assert_eq!(images, [missing.as_str(), refused.as_str()]);
}

#[test]
fn progress_stream_ends_with_an_event_per_error() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let missing = format!("{}/no/such:tag", Hub::shared().host);
    let last = |args: &[&str], code: i32| {
        let done = rpull.fails(code, ["--progress", "json"].iter().chain(args).copied());
        assert!(done.stderr.starts_with("rpull: ") || done.stderr.starts_with("error: "), "{done}");
        object(done.stdout.lines().last().unwrap_or_else(|| panic!("{done}")))
    };
    let event = last(&["pull", &missing], 3);
    assert_eq!((&event["event"], &event["kind"]), (&"error".into(), &"not-found".into()));
    assert_eq!((&event["image"], &event["code"]), (&missing.as_str().into(), &3.into()));
    assert_eq!(event["hint"], "check the name and tag");
    let event = last(&["Upper"], 2);
    assert_eq!((&event["event"], &event["image"]), (&"error".into(), &"Upper".into()));
    let event = last(&["pull", "--no-such-flag", "x"], 2);
    assert_eq!((&event["event"], &event["kind"]), (&"error".into(), &"usage".into()));
}
