use super::*;

fn io_error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

#[test]
fn layer_directory_that_cannot_be_opened_is_a_storage_error_with_its_path() {
    for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied] {
        let source = LayerError::open("/root/overlay2/a/diff".as_ref(), io_error(kind));
        let error = Error::Layer { layer: Digest::of(b"layer"), source };
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.to_string().contains("'/root/overlay2/a/diff'"), "{error}");
    }
}

#[test]
fn thread_that_cannot_start_is_not_a_storage_error() {
    let source =
        LayerError::Thread { name: "inflate", source: io_error(io::ErrorKind::WouldBlock) };
    let error = Error::Layer { layer: Digest::of(b"layer"), source };
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("cannot start the thread 'inflate'"), "{error}");
}

#[test]
fn file_that_vanished_is_busy_and_a_local_read_error_is_storage() {
    let fs =
        |kind| FsError { op: "read", path: "/root/overlay2/a/link".into(), source: io_error(kind) };
    for (error, kind) in [
        (Error::from(fs(io::ErrorKind::NotFound)), ErrorKind::Busy),
        (Error::from(fs(io::ErrorKind::ResourceBusy)), ErrorKind::Busy),
        (Error::from(fs(io::ErrorKind::NotADirectory)), ErrorKind::Storage),
        (Error::from(fs(io::ErrorKind::PermissionDenied)), ErrorKind::Storage),
        (StoreError::NotADirectory("/root".into()).into(), ErrorKind::Usage),
        (StoreError::NoStore("/root".into()).into(), ErrorKind::NotFound),
        (Error::Threads(io_error(io::ErrorKind::WouldBlock)), ErrorKind::Other),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
    }
    let source = LayerError::Source(io::Error::from_raw_os_error(5));
    let error = Error::Layer { layer: Digest::of(b"layer"), source };
    assert_eq!(error.kind(), ErrorKind::Storage);
}
