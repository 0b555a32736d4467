//! `gc --trim-content`: the only command that removes from a shared cache.

use super::*;

fn gc(cache: &Cache, more: &[&str]) -> Done {
    let args = ["--content", cache.content(), "gc", "--format", "json"];
    cache.root("no-root").run(args.iter().chain(more))
}

fn removed(done: &Done) -> Vec<String> {
    assert_eq!(done.code, Some(0), "{done}");
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    let removed = json["removed"].as_array().unwrap().iter();
    let name = |orphan: &Value| {
        assert_eq!(orphan["kind"], "content-blob");
        let path = orphan["path"].as_str().unwrap();
        format!("sha256:{}", path.rsplit('/').next().unwrap())
    };
    let mut names: Vec<String> = removed.map(name).collect();
    names.sort();
    names
}

#[test]
fn shared_cache_is_trimmed_of_tags_that_moved_by_its_own_command_only() {
    let (old, new) = (image("trim-1"), image("trim-2"));
    let hub = Hub::shared();
    let name = format!("{}:one", hub.repository("trim"));
    let cache = Cache::new();
    let root = cache.root("root");
    let first = old.push(&hub.host, &name);
    root.ok(cache.keeping(&first.name()));
    let second = new.push(&hub.host, &name);
    root.ok(cache.keeping(&second.name()));
    let artifact = add_artifact(&cache.content);
    let before = names(&cache.content.join("blobs/sha256")).len();
    assert_eq!(before, 7 + artifact.len());
    for args in [&["gc"][..], &["prune", "--keep-bytes", "0"], &["gc"]] {
        root.ok(["--content", cache.content()].iter().chain(args));
        assert_eq!(names(&cache.content.join("blobs/sha256")).len(), before, "{args:?}");
    }
    let mut gone = vec![first.digest, first.id, old.layers[1].digest()];
    gone.sort();
    assert_eq!(removed(&gc(&cache, &["--trim-content", "--dry-run"])), gone);
    assert_eq!(names(&cache.content.join("blobs/sha256")).len(), before);
    assert_eq!(removed(&gc(&cache, &["--trim-content"])), gone);
    assert_eq!(removed(&gc(&cache, &["--trim-content"])), [""; 0]);
    for blob in artifact {
        assert!(cache.blob(&blob).exists(), "{blob}");
    }
    let offline = ["--content", cache.content(), "pull", "-q", "--policy", "never"];
    cache.root("offline").ok(offline.into_iter().chain([&*second.name()]));
}

/// An artifact that is not an image, listed as another tool would. Returns its blobs.
fn add_artifact(content: &Path) -> Vec<String> {
    let write = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(content.join("blobs/sha256").join(hex(&digest)), bytes).unwrap();
        digest
    };
    let (config, chart) = (write(b"chart config"), write(b"chart"));
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config, "size": 12},
        "layers": [{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": chart, "size": 5}],
    });
    let manifest = manifest.to_string();
    let digest = write(manifest.as_bytes());
    let mut listed = index(content);
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len()});
    listed["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(content.join("index.json"), listed.to_string()).unwrap();
    vec![config, chart, digest]
}

#[test]
fn trim_waits_for_the_pulls_of_all_roots() {
    let pushed = push(&image("trim-waits"), "trim-waits");
    let cache = Cache::new();
    cache.root("root").ok(cache.keeping(&pushed.name()));
    // As a pull of another root does while it keeps blobs that no entry names yet.
    let unnamed = cache.blob(&sha256(b"unnamed"));
    let lock = fs::File::open(cache.content.join("locks/use")).unwrap();
    lock.lock_shared().unwrap();
    fs::write(&unnamed, b"unnamed").unwrap();
    let args = ["--content", cache.content(), "gc", "--trim-content"];
    let mut command = cache.root("no-root").command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.starts_with("waiting for the content store, which "), "{said}");
    assert!(unnamed.exists());
    drop(lock);
    assert!(child.wait().unwrap().success());
    assert!(!unnamed.exists());
    assert_eq!(assert_layout(&cache.content), 4);
}

#[test]
fn trim_of_what_is_not_a_cache_removes_nothing() {
    let pushed = push(&image("trim-not"), "trim-not");
    let cache = Cache::new();
    let done = cache.root("no-root").run(["gc", "--trim-content"]);
    assert_eq!(done.code, Some(2), "{done}");
    assert_eq!(gc(&cache, &["--trim-content"]).code, Some(3));
    assert!(!cache.content.exists());
    cache.root("root").ok(cache.keeping(&pushed.name()));
    fs::write(cache.content.join("index.json"), "[]").unwrap();
    let done = gc(&cache, &["--trim-content"]);
    assert_eq!(done.code, Some(6), "{done}");
    assert_eq!(names(&cache.content.join("blobs/sha256")).len(), 4);
}
