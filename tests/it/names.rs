//! Names on the command line.

use crate::support::rpull::Rpull;
use crate::support::scratch;

#[test]
fn resolve_name_only_makes_no_request() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let digest = format!("sha256:{}", "0".repeat(64));
    for (name, normal) in [
        ("nginx", "index.docker.io/library/nginx:latest"),
        ("library/nginx:latest", "index.docker.io/library/nginx:latest"),
        ("docker.io/library/nginx", "index.docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:latest", "index.docker.io/library/nginx:latest"),
        (&format!("nginx@{digest}"), &format!("index.docker.io/library/nginx@{digest}")),
        ("host:5000/a/b:t", "host:5000/a/b:t"),
        (&format!("name:tag@{digest}"), &format!("index.docker.io/library/name:tag@{digest}")),
    ] {
        assert_eq!(rpull.ok(["resolve", "--name-only", name]).trim(), normal);
    }
    let json = rpull.json(["resolve", "--name-only", "--format", "json", "nginx"]);
    assert_eq!(json["name"], "index.docker.io/library/nginx:latest");
    assert_eq!(json["familiar"], "nginx:latest");
    for (bad, part) in [
        ("Nginx", "'Nginx' must be lowercase"),
        ("a:b:c", "tag 'b:c'"),
        ("a@sha256:12", "2 hex digits"),
    ] {
        let done = rpull.fails(2, ["resolve", "--name-only", bad]);
        assert!(done.stderr.contains(part), "{done}");
    }
    assert!(!scratch.path().join("root").exists());
}

#[test]
fn registry_flags_are_listed_only_by_commands_that_send_requests() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    for (command, listed) in [
        ("pull", true),
        ("resolve", true),
        ("check", true),
        ("images", false),
        ("umount", false),
        ("gc", false),
    ] {
        let help = rpull.ok([command, "--help"]);
        assert_eq!(help.contains("--plain-http"), listed, "{help}");
        assert_eq!(help.contains("--stall-timeout"), listed, "{help}");
    }
    assert!(!rpull.ok(["--help"]).contains("--plain-http"));
}

#[test]
fn flags_before_a_command_are_flags_of_that_command() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let normal = "index.docker.io/library/x:latest";
    for args in [
        &["--plain-http", "resolve", "--name-only", "x"][..],
        &["--name-only", "--retries", "1", "resolve", "x"],
        &["--certs-dir=/nonexistent", "-q", "resolve", "--name-only", "x"],
    ] {
        assert_eq!(rpull.ok(args).trim(), normal, "{args:?}");
    }
    let done = rpull.fails(3, ["--plain-http", "--policy", "never", "pull", "x"]);
    assert!(done.stderr.contains("x:latest is not in the store"), "{done}");
}

#[test]
fn flag_of_another_command_is_refused_and_its_commands_are_named() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let done = rpull.fails(2, ["--policy", "missing", "images"]);
    assert!(done.stderr.contains("'--policy' is a flag of: pull\n"), "{done}");
    assert!(done.stderr.contains("Usage: rpull images"), "{done}");
    let done = rpull.fails(2, ["rm", "--plain-http", "x"]);
    assert!(done.stderr.contains("'--plain-http' is a flag of: pull, push, copy,"), "{done}");
    assert!(!scratch.path().join("root").exists());
}
