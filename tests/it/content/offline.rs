//! Images that the cache has whole, and what fills it.

use super::*;

/// The digest of the image of `rpull` with this name.
fn id(rpull: &Rpull, name: &str) -> String {
    rpull.json(["inspect", name])[0]["Id"].as_str().unwrap().to_owned()
}

#[test]
fn cached_image_is_pulled_without_a_network() {
    let hub = Hub::shared();
    let mine = image("offline");
    let pushed = Index::new()
        .add(image("offline-other").platform("linux", "s390x", ""))
        .add(mine.clone())
        .attestation()
        .push(&hub.host, &format!("{}:one", hub.repository("offline")));
    let (cache, proxy) = (Cache::new(), Proxy::plain());
    let (name, by_digest) = (proxy.name(&pushed.name()), proxy.name(&pushed.by_digest()));
    cache.root("first").ok(cache.keeping(&name));
    proxy.forget();
    let table = [
        ("always", &by_digest),
        ("missing", &by_digest),
        ("missing", &name),
        ("never", &by_digest),
        ("never", &name),
    ];
    for (n, (policy, name)) in table.into_iter().enumerate() {
        for network in [true, false] {
            let root = cache.root(&format!("root-{n}-{network}"));
            let args = ["--content", cache.content(), "pull", "-q", "--policy", policy, name];
            let mut command = root.command(args);
            if !network {
                command = Command::new("unshare");
                root.dress(&mut command);
                command.args(["-n", BINARY]).args(args);
            }
            let done = Done::from(command.output().unwrap());
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{policy} {name}: {done}");
            assert_eq!(id(&root, name), sha256(&mine.config()));
            assert_eq!(judge::judge_root(root.root()), 2);
            assert_consistent(root.root());
        }
    }
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn tag_that_is_not_cached_whole_is_resolved_at_the_registry() {
    let (old, new) = (image("moved-1"), image("moved-2"));
    let hub = Hub::shared();
    let name = format!("{}:one", hub.repository("moved"));
    let cache = Cache::new();
    let pushed = old.push(&hub.host, &name);
    cache.root("first").ok(cache.keeping(&pushed.name()));
    let moved = new.push(&hub.host, &name);
    let pull = |root: &str, policy: &str| {
        let root = cache.root(root);
        let name = pushed.name();
        let done = root.run(["--content", cache.content(), "--policy", policy, &name]);
        (root, done)
    };
    let (whole, done) = pull("whole", "missing");
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(id(&whole, &pushed.name()), pushed.id, "the cache says what the tag means");

    fs::remove_file(cache.blob(&old.layers[1].digest())).unwrap();
    let (_, done) = pull("never", "never");
    assert_eq!(done.code, Some(3), "{done}");
    let (part, done) = pull("part", "missing");
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(id(&part, &pushed.name()), moved.id);
    // What the root has committed needs no blob.
    let (_, done) = pull("whole", "never");
    assert_eq!(done.code, Some(0), "{done}");
}

#[test]
fn damaged_blob_is_fetched_only_if_the_policy_allows_it() {
    let image = image("damaged");
    let pushed = push(&image, "offline-damaged");
    let cache = Cache::new();
    cache.root("first").ok(cache.keeping(&pushed.name()));
    let digest = image.layers[1].digest();
    fs::write(cache.blob(&digest), vec![0; image.layers[1].blob.len()]).unwrap();
    let (name, root) = (pushed.name(), cache.root("root"));
    let args = |policy| ["--content", cache.content(), "pull", "-q", "--policy", policy, &name];
    let done = root.fails(3, args("never"));
    let says = format!("layer {} of {name} is not in the store", &hex(&digest)[..12]);
    assert!(done.stderr.contains(&says), "{done}");
    root.ok(args("missing"));
    assert_consistent(root.root());
}

#[test]
fn present_image_is_added_to_the_cache() {
    let image = image("present").packed(layer("present-plain"), Pack::Plain);
    let pushed = push(&image, "present");
    let blobs = image.layers.len();
    let proxy = Proxy::plain();
    let (name, by_digest) = (proxy.name(&pushed.name()), proxy.name(&pushed.by_digest()));
    for (policy, name) in [("always", &name), ("missing", &name), ("always", &by_digest)] {
        let cache = Cache::new();
        let root = cache.root("root");
        root.ok(["pull", "-q", name]);
        let keeping =
            ["--content", cache.content(), "pull", "--keep-blobs", "--policy", policy, name];
        proxy.forget();
        let dry = root.ok(keeping.into_iter().chain(["--dry-run"]));
        assert!(dry.contains("Would fetch 2 layers"), "{dry}");
        let said = root.ok(keeping);
        assert!(said.contains(&format!("Kept {blobs} of {blobs} blobs; 2 fetched (")), "{said}");
        assert!(said.contains("Status: Image is up to date for "), "{said}");
        let plain = image.layers[2].digest();
        assert_eq!(proxy.count(&plain), 0, "an uncompressed blob is reassembled from the store");
        assert_eq!(assert_layout(&cache.content), blobs + 2);

        proxy.forget();
        let said = root.ok(keeping);
        assert!(!said.contains("Kept") && proxy.count("/blobs/") == 0, "{said}");
        let offline = ["--content", cache.content(), "pull", "-q", "--policy", "never", name];
        cache.root("other").ok(offline);
        assert_consistent(root.root());
    }
}

#[test]
fn blobs_of_layers_that_the_store_has_are_kept_too() {
    let (first, second) = (image("kept-1"), image("kept-2"));
    let (one, two) = (push(&first, "kept"), push(&second, "kept"));
    let cache = Cache::new();
    let root = cache.root("root");
    root.ok(["pull", "-q", &one.name()]);
    let json = ["--content", cache.content(), "pull", "--progress", "json", "--keep-blobs"];
    let events = root.ok(json.into_iter().chain([&*two.name()]));
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = events.iter().find(|event| event["event"] == "kept").unwrap();
    let of = |key: &str| kept[key].as_u64().unwrap();
    assert_eq!((of("blobs"), of("kept"), of("fetched")), (2, 2, 1));
    assert_eq!(of("bytes"), second.layers[0].blob.len() as u64);
    let base = second.layers[0].digest();
    let states = events.iter().filter(|event| event["layer"] == *base && event["event"] == "layer");
    let states: Vec<&str> = states.map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["pulling", "downloading", "download-complete", "already-exists"]);
    assert_eq!(assert_layout(&cache.content), 4);
}

#[test]
fn blobs_that_cannot_be_kept_are_reported() {
    let pushed = push(&image("refused"), "refused");
    let cache = Cache::new();
    let root = cache.root("root");
    let name = pushed.name();
    root.ok(["pull", "-q", &name]);
    let never = ["--content", cache.content(), "pull", "-q", "--keep-blobs", "--policy", "never"];
    let done = root.run(never.into_iter().chain([&*name]));
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.stderr.contains("cannot keep all its blobs"), "{done}");
    let read_only = scratch::Mounted(cache.scratch.path().join("read-only"));
    let at = read_only.0.to_str().unwrap();
    fs::create_dir_all(&cache.content).unwrap();
    fs::create_dir(at).unwrap();
    mount(["--bind", cache.content(), at]);
    mount(["-o", "remount,bind,ro", at]);
    let done = root.run(["--content", at, "pull", "-q", "--keep-blobs", &name]);
    assert_eq!(done.code, Some(0), "{done}");
    assert_eq!(done.stderr.matches("is read-only").count(), 1, "{done}");
}
