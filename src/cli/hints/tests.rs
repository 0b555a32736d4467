use std::path::PathBuf;

use rpull::Digest;
use rpull::error::FsError;

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
        fs(io::ErrorKind::NotFound),
        StoreError::NotADirectory(path.clone()),
        StoreError::NoStore(path.clone()),
        StoreError::NoSuchImage("x".to_owned()),
        StoreError::Damaged { path: path.clone(), why: why.clone() },
        StoreError::DamagedNames { path: path.clone(), why: why.clone() },
        StoreError::Ambiguous { prefix: "ab".to_owned(), matches: vec!["abc".to_owned()] },
        StoreError::OtherStore { root: path.clone(), why, setting: Some(path.clone()) },
        StoreError::Dockerd { root: path, who: "process 1".to_owned() },
        StoreError::InUse { image: "x".to_owned(), by: ImageUser::Mount("/mnt".to_owned()) },
        StoreError::SeveralNames { image: "x".to_owned(), names: Vec::new() },
    ]
}

#[test]
fn local_damage_never_blames_the_registry() {
    let damaged_layer = LayerError::Damaged { path: "etc/f".to_owned(), why: "short".to_owned() };
    let local = of_the_store().into_iter().map(Error::Store).chain([
        Error::Layer { layer: Digest::of(b"layer"), source: damaged_layer },
        Error::Layer {
            layer: Digest::of(b"layer"),
            source: LayerError::Source(io_error(io::ErrorKind::UnexpectedEof)),
        },
        Error::Damaged { image: "x".to_owned(), why: "a lost layer".to_owned() },
    ]);
    for error in local {
        let hint = hint(&error).unwrap_or_default();
        for blamed in ["registry", "proxy", "network", "publisher"] {
            assert!(!hint.contains(blamed), "{error}: {hint}");
        }
    }
}

#[test]
fn content_with_the_right_digest_blames_the_image() {
    let broken = LayerError::Tar { offset: 512, what: "a header with a wrong checksum" };
    let other = LayerError::Digest { expected: Digest::of(b"a"), actual: Digest::of(b"b") };
    let of_layer = |source| {
        let error = Error::Layer { layer: Digest::of(b"layer"), source };
        assert_eq!(error.kind(), ErrorKind::Integrity);
        hint(&error).unwrap()
    };
    assert!(of_layer(broken).contains("publisher"));
    assert!(of_layer(other).contains("proxy"));
}

#[test]
fn full_disk_hint_is_the_same_for_a_layer_and_the_store() {
    let full = || io_error(io::ErrorKind::StorageFull);
    let store = FsError { op: "write", path: "/root/f".into(), source: full() };
    let layer = LayerError::Write { op: "write", path: "f".to_owned(), source: full() };
    let layer = Error::Layer { layer: Digest::of(b"layer"), source: layer };
    assert_eq!(hint(&Error::from(store)), hint(&layer));
    assert!(hint(&layer).is_some_and(|hint| hint.contains("free some space")));
}

#[test]
fn storage_hint_of_a_layer_directory_needs_a_cause_that_the_user_can_remove() {
    for (kind, has_hint) in
        [(io::ErrorKind::NotFound, false), (io::ErrorKind::PermissionDenied, true)]
    {
        let source = LayerError::Open { path: "/root/diff".to_owned(), source: io_error(kind) };
        let error = Error::Layer { layer: Digest::of(b"layer"), source };
        assert_eq!(hint(&error).is_some(), has_hint, "{kind:?}");
    }
}

#[test]
fn internal_error_hint_asks_for_a_report() {
    let error = Error::Internal("no such variant".to_owned());
    assert!(hint(&error).is_some_and(|hint| hint.contains("report")));
    assert_eq!(exit_code(&error), 1);
}

#[test]
fn errors_of_settings_name_the_flags() {
    let limit = LayerError::Limit { what: LimitKind::Entries, limit: 3 };
    let limit = Error::Layer { layer: Digest::of(b"layer"), source: limit };
    assert!(hint(&limit).is_some_and(|hint| hint.ends_with("--max-entries")));
    for error in [
        Error::NotPresent("x".to_owned()),
        Error::Damaged { image: "x".to_owned(), why: "a lost layer".to_owned() },
        StoreError::SeveralNames { image: "x".to_owned(), names: vec!["a".to_owned()] }.into(),
    ] {
        assert!(!error.to_string().contains("--"), "{error}");
        assert!(text(&error).contains(" --"), "{}", text(&error));
    }
}

#[test]
fn hint_of_an_image_in_use_names_the_command_that_frees_it() {
    for (by, command) in [
        (ImageUser::Mount("/mnt".to_owned()), "`rpull umount /mnt`"),
        (ImageUser::Container("ab12".to_owned()), "`docker rm ab12`"),
        (ImageUser::Image("cd34".to_owned()), "`rpull rm cd34`"),
    ] {
        let error = StoreError::InUse { image: "x".to_owned(), by };
        assert!(hint(&error.into()).is_some_and(|hint| hint.contains(command)), "{command}");
    }
    let names = vec!["a:1".to_owned(), "b:1".to_owned()];
    let error = StoreError::SeveralNames { image: "x".to_owned(), names };
    assert!(hint(&error.into()).is_some_and(|hint| hint.contains("`rpull rm a:1`")));
}

#[test]
fn hint_of_an_artifact_names_the_tool_that_takes_it() {
    for (what, tool) in [("a Helm chart", "`helm pull "), ("a Docker plugin", "`docker plugin ")] {
        let error = ManifestError::NotAnImage { what, media_type: "x".to_owned() };
        assert!(hint(&error.into()).is_some_and(|hint| hint.contains(tool)), "{what}");
    }
}
