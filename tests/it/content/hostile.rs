//! Content directories that are damaged, or restored from an archive of an attacker's.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Cache, assert_layout, hex, image, index, push};
use crate::support::proxy::Proxy;
use crate::support::snapshot::names;

#[test]
fn symbolic_link_for_a_file_of_a_cache_is_replaced_and_its_target_untouched() {
    let image = image("links");
    let pushed = push(&image, "links");
    let blob = image.layers[0].digest();
    let places = [
        format!("ingest/{}", hex(&blob)),
        format!("blobs/sha256/{}", hex(&blob)),
        format!("blobs/sha256/{}", hex(&pushed.digest)),
        "index.json".to_owned(),
        "oci-layout".to_owned(),
        "shared".to_owned(),
    ];
    for place in places {
        let cache = Cache::new();
        let (link, target) = (cache.content.join(&place), cache.scratch.path().join("target"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::write(&target, "untouched").unwrap();
        symlink(&target, &link).unwrap();
        cache.root("root").ok(cache.keeping(&pushed.name()));
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched", "{place}");
        if place.starts_with("ingest") {
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(assert_layout(&cache.content), 4, "{place}");
    }
}

#[test]
fn symbolic_link_or_file_for_a_directory_of_a_cache_is_refused_by_name() {
    let image = image("dir-links");
    let pushed = push(&image, "dir-links");
    for place in ["ingest", "blobs", "blobs/sha256", "locks"] {
        for is_link in [true, false] {
            let cache = Cache::new();
            let (link, target) = (cache.content.join(place), cache.scratch.path().join("target"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            fs::create_dir(&target).unwrap();
            fs::write(target.join("file"), "untouched").unwrap();
            if is_link {
                symlink(&target, &link).unwrap();
            } else {
                fs::write(&link, "").unwrap();
            }
            let done = cache.root("root").fails(7, cache.keeping(&pushed.name()));
            let why = if is_link { "it is a symbolic link" } else { "it is not a directory" };
            assert!(done.stderr.contains(&format!("{}: {why}", link.display())), "{done}");
            assert_eq!(names(&target), ["file"], "{place}");
        }
    }
    for lock in ["index".to_owned(), format!("blob-{}", hex(&image.layers[1].digest()))] {
        let cache = Cache::new();
        let (link, target) =
            (cache.content.join("locks").join(lock), cache.scratch.path().join("t"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&target, &link).unwrap();
        let done = cache.root("root").fails(7, cache.keeping(&pushed.name()));
        let message = format!("{}: it is a symbolic link", link.display());
        assert!(done.stderr.contains(&message), "{done}");
        assert!(!target.exists());
    }
}

#[test]
fn content_that_is_not_a_directory_is_refused_by_name() {
    let pushed = push(&image("no-dir"), "no-dir");
    let cache = Cache::new();
    fs::write(&cache.content, "").unwrap();
    let done = cache.root("root").fails(2, cache.keeping(&pushed.by_digest()));
    assert!(done.stderr.contains(&format!("{} is not a directory", cache.content())), "{done}");
}

#[test]
fn kept_blob_that_is_damaged_is_replaced() {
    let image = image("damaged");
    let pushed = push(&image, "damaged");
    let cache = Cache::new();
    cache.root("first").ok(cache.keeping(&pushed.name()));
    let whole = image.layers[1].blob.clone();
    let digest = image.layers[1].digest();
    let mut flipped = whole.clone();
    flipped[50_000] ^= 1;
    let longer = [whole.as_slice(), b"x"].concat();
    // The last is of a compression that rpull recognizes and does not read.
    let damages: [&[u8]; 5] = [&flipped, &whole[..1000], b"", &longer, b"\xfd7zXZ\0 and more"];
    for (n, damage) in damages.into_iter().enumerate() {
        fs::write(cache.blob(&digest), damage).unwrap();
        let proxy = Proxy::plain();
        let name = proxy.name(&pushed.name());
        let done = cache.root(&format!("root-{n}")).run(cache.keeping(&name));
        assert_eq!(done.code, Some(0), "{n}: {done}");
        assert!(done.stderr.contains("is damaged; fetching it again"), "{n}: {done}");
        assert_eq!(proxy.count(&digest), 1, "{n}: {:?}", proxy.requests());
        assert_eq!(fs::read(cache.blob(&digest)).unwrap(), whole);
    }
    for (n, digest) in [&pushed.digest, &pushed.id].into_iter().enumerate() {
        fs::write(cache.blob(digest), "damaged").unwrap();
        cache.root(&format!("document-{n}")).ok(cache.keeping(&pushed.by_digest()));
    }
    fs::remove_file(cache.blob(&digest)).unwrap();
    fs::create_dir_all(cache.blob(&digest).join("sub")).unwrap();
    cache.root("dir").ok(cache.keeping(&pushed.name()));
    assert_eq!(assert_layout(&cache.content), 4);
}

#[test]
fn damaged_index_is_set_aside_and_replaced() {
    let pushed = push(&image("aside"), "aside");
    for damage in ["{\"manifests\":[", "[]", "\0\0\0\0"] {
        let cache = Cache::new();
        fs::create_dir(&cache.content).unwrap();
        fs::write(cache.content.join("index.json"), damage).unwrap();
        cache.root("root").ok(cache.keeping(&pushed.name()));
        assert_eq!(assert_layout(&cache.content), 4);
        assert_eq!(index(&cache.content)["manifests"].as_array().unwrap().len(), 1);
        let aside: Vec<_> = names(&cache.content)
            .into_iter()
            .filter(|name| name.starts_with("index.json.damaged-"))
            .map(|name| fs::read_to_string(cache.content.join(name)).unwrap())
            .collect();
        assert_eq!(aside, [damage]);
    }
    let cache = Cache::new();
    fs::create_dir(&cache.content).unwrap();
    fs::write(cache.content.join("index.json"), "\n").unwrap();
    cache.root("root").ok(cache.keeping(&pushed.name()));
    assert_eq!(assert_layout(&cache.content), 4);
    assert!(!names(&cache.content).iter().any(|name| name.contains("damaged")));
}
