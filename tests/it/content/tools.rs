//! The cache is an image layout that skopeo and podman read, and that skopeo writes. They accept only
//! manifests of OCI's media types in a layout.

use super::*;

/// Runs a tool where it names the cache `cache`: podman makes the name of an image from the path.
#[track_caller]
fn run(cache: &Cache, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(cache.scratch.path());
    let done = Done::from(command.output().unwrap());
    assert_eq!(done.code, Some(0), "{program} {args:?}: {done}");
    done.stdout
}

#[test]
fn skopeo_and_podman_read_the_cache() {
    let image = Image::oci().layer(layer("base")).layer(layer("tools"));
    let pushed = push(&image, "tools");
    let cache = Cache::new();
    cache.root("root").ok(cache.keeping(&pushed.name()));
    let source = format!("oci:cache:{}", pushed.name());
    let inspected: Value =
        serde_json::from_str(&run(&cache, "skopeo", &["inspect", &source])).unwrap();
    assert_eq!(inspected["Digest"], pushed.digest);
    let layers = inspected["Layers"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    assert!(layers.eq(image.layers.iter().map(|layer| layer.digest())), "{inspected}");

    let graph = cache.scratch.path().join("graph");
    let storage = format!("--root={}", graph.display());
    let state = format!("--runroot={}", cache.scratch.path().join("run").display());
    let podman = [&*storage, &*state, "--storage-driver=vfs"];
    let id = run(&cache, "podman", &[&podman[..], &["pull", "-q", &source]].concat());
    assert_eq!(format!("sha256:{}", id.trim()), pushed.id);
}

#[test]
fn image_that_skopeo_wrote_is_pulled_from_the_cache() {
    let image = image("skopeo");
    let pushed = push(&image, "skopeo");
    let cache = Cache::new();
    let target = format!("oci:cache:{}", pushed.name());
    let source = format!("docker://{}", pushed.name());
    run(&cache, "skopeo", &["copy", "-q", "--src-tls-verify=false", &source, &target]);
    let root = cache.root("root");
    let pull = ["--content", cache.content(), "pull", "-q", "--policy", "never"];
    root.ok(pull.into_iter().chain([&*pushed.name()]));
    assert_eq!(judge::judge_root(root.root()), 2);
}
