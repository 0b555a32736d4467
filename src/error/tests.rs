use std::path::PathBuf;

use super::*;

fn io_error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

/// Errors of the store, which is on this machine.
fn of_the_store() -> Vec<StoreError> {
    let fs = |kind| {
        StoreError::Fs(FsError { op: "write", path: "/root/f".into(), source: io_error(kind) })
    };
    let (path, why) = (PathBuf::from("/root/f"), "it is empty".to_owned());
    vec![
        fs(io::ErrorKind::StorageFull),
        fs(io::ErrorKind::PermissionDenied),
        fs(io::ErrorKind::ReadOnlyFilesystem),
        fs(io::ErrorKind::InvalidData),
        StoreError::NoStore(path.clone()),
        StoreError::NoSuchImage("x".to_owned()),
        StoreError::Damaged { path: path.clone(), why: why.clone() },
        StoreError::DamagedNames { path: path.clone(), why: why.clone() },
        StoreError::Ambiguous { prefix: "ab".to_owned(), matches: vec!["abc".to_owned()] },
        StoreError::Dockerd { root: path, who: "process 1".to_owned() },
        StoreError::InUse { image: "x".to_owned(), why },
    ]
}

#[test]
fn local_damage_never_blames_the_registry() {
    let damaged_layer = LayerError::Damaged { path: "etc/f".to_owned(), why: "short".to_owned() };
    let local = of_the_store().into_iter().map(Error::Store).chain([
        Error::Layer { layer: Digest::of(b"layer"), source: damaged_layer },
        Error::Damaged { image: "x".to_owned(), why: "a lost layer".to_owned() },
    ]);
    for error in local {
        let hint = error.hint().unwrap_or_default();
        for blamed in ["registry", "proxy", "network", "publisher"] {
            assert!(!hint.contains(blamed), "{error}: {hint}");
        }
    }
}

#[test]
fn content_with_the_right_digest_blames_the_image() {
    let broken = LayerError::Tar { offset: 512, what: "a header with a wrong checksum" };
    let other = LayerError::Digest { expected: Digest::of(b"a"), actual: Digest::of(b"b") };
    let hint = |source| {
        let error = Error::Layer { layer: Digest::of(b"layer"), source };
        assert_eq!(error.kind(), Kind::Integrity);
        error.hint().unwrap()
    };
    assert!(hint(broken).contains("publisher"));
    assert!(hint(other).contains("proxy"));
}

#[test]
fn full_disk_hint_is_the_same_for_a_layer_and_the_store() {
    let full = || io_error(io::ErrorKind::StorageFull);
    let store = FsError { op: "write", path: "/root/f".into(), source: full() };
    let layer = LayerError::Write { op: "write", path: "f".to_owned(), source: full() };
    let layer = Error::Layer { layer: Digest::of(b"layer"), source: layer };
    assert_eq!(Error::from(store).hint(), layer.hint());
    assert!(layer.hint().is_some_and(|hint| hint.contains("free some space")));
}

#[test]
fn layer_directory_that_cannot_be_opened_is_a_storage_error_with_its_path() {
    for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied] {
        let source = LayerError::open("/root/overlay2/a/diff".as_ref(), io_error(kind));
        let error = Error::Layer { layer: Digest::of(b"layer"), source };
        assert_eq!(error.kind(), Kind::Storage);
        assert!(error.to_string().contains("'/root/overlay2/a/diff'"), "{error}");
        assert_eq!(error.hint().is_some(), kind == io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn thread_that_cannot_start_is_not_a_storage_error() {
    let source =
        LayerError::Thread { name: "inflate", source: io_error(io::ErrorKind::WouldBlock) };
    let error = Error::Layer { layer: Digest::of(b"layer"), source };
    assert_eq!(error.kind(), Kind::Other);
    assert!(error.to_string().contains("cannot start the thread 'inflate'"), "{error}");
}
