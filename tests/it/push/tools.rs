//! Other tools read what was pushed.

use std::process::Command;

use super::*;
use crate::support::dockerd::Dockerd;
use crate::support::rpull::Done;

#[test]
fn pushed_image_has_the_same_id_for_dockerd_podman_and_skopeo() {
    let hub = Hub::shared();
    let repository = hub.repository("tools");
    let image = Image::oci()
        .layer(Tar::new().dir("a").file("a/b", noise(70_000)).end())
        .packed(Tar::new().file("zstd", "packed by zstd").end(), Pack::Zstd);
    let name = format!("{}/{repository}:v1", hub.host);
    let (scratch, rpull, pushed) = {
        // Through another host, so that nothing can be mounted.
        let way = Proxy::plain();
        let (scratch, pushed) = (scratch::dir(), put(&image, "tools-from"));
        let rpull = Rpull::on(scratch.path().join("root"));
        rpull.ok(["pull", &way.name(&pushed.name())]);
        rpull.ok(["tag", &way.name(&pushed.name()), &name]);
        (scratch, rpull, pushed)
    };
    for format in ["docker", "oci"] {
        let done = rpull.json(["push", "--manifest-format", format, "--format", "json", &name]);
        let docker = Dockerd::shared();
        docker.ok(&["pull", &name]);
        assert_eq!(docker.ok(&["inspect", "--format", "{{.Id}}", &name]), pushed.id);
        docker.ok(&["rmi", &name]);
        let run = |program: &str, args: &[&str]| {
            let done = Done::from(Command::new(program).args(args).output().unwrap());
            assert_eq!(done.code, Some(0), "{program} {args:?}: {done}");
            done.stdout
        };
        let source = format!("docker://{name}");
        let inspected = run("skopeo", &["inspect", "--tls-verify=false", &source]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], done["digest"]);
        let graph = format!("--root={}", scratch.path().join("graph").display());
        let state = format!("--runroot={}", scratch.path().join("run").display());
        let id = run(
            "podman",
            &[&graph, &state, "--storage-driver=vfs", "pull", "-q", "--tls-verify=false", &name],
        );
        assert_eq!(format!("sha256:{}", id.trim()), pushed.id);
    }
}
