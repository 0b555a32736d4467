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
