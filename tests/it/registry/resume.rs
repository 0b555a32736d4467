//! Resumed blobs: scripted answers of a server, and the `Range` headers that it sees.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures::TryStreamExt;
use rpull::internal::digest::Digest;
use rpull::internal::oci::Descriptor;
use rpull::internal::reference::Reference;
use rpull::internal::registry::{Credential, Explicit, Found, Registry, RegistryOptions, Secret};

use super::server::{Act, Server};

/// Keeps a test that hangs from hanging all; it measures nothing.
const GUARD: Duration = Duration::from_secs(120);

const SIZE: usize = 1000;

/// A transfer: what the server sends, and what it must see.
struct Case {
    name: &'static str,
    /// Where the client starts.
    start: u64,
    answers: Vec<Act>,
    /// The `Range` headers of all requests; empty without one.
    ranges: &'static [&'static str],
    /// `None` if the content must arrive, or a part of the error.
    error: Option<&'static str>,
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n % 251) as u8).collect()
}

/// An answer with the bytes `from..to` of a blob, after which the connection closes.
fn bytes(head: &str, from: usize, to: usize) -> Act {
    Act::Bytes([format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), &content()[from..to]].concat())
}

/// The whole blob, cut at `to`.
fn whole(to: usize) -> Act {
    bytes(&format!("200 OK\r\nContent-Length: {SIZE}"), 0, to)
}

/// The bytes from `from` to the blob's end, cut at `to`.
fn rest(from: usize, to: usize) -> Act {
    let (last, left) = (SIZE - 1, SIZE - from);
    let range = format!("Content-Range: bytes {from}-{last}/{SIZE}");
    bytes(&format!("206 Partial Content\r\n{range}\r\nContent-Length: {left}"), from, to)
}

fn partial(headers: &str) -> Act {
    bytes(&format!("206 Partial Content\r\n{headers}"), 300, SIZE)
}

fn cases() -> Vec<Case> {
    let case = |name, answers, ranges, error| Case { name, start: 0, answers, ranges, error };
    let busy = Act::answer("503 Service Unavailable", "", "busy");
    let login = Act::answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", "");
    let resumed: &[&str] = &["", "bytes=300-"];
    vec![
        case("whole blob", vec![whole(SIZE)], &[""], None),
        Case { start: 400, ..case("kept bytes", vec![rest(400, SIZE)], &["bytes=400-"], None) },
        case("disconnect", vec![whole(300), rest(300, SIZE)], resumed, None),
        case(
            "several disconnects",
            vec![whole(300), rest(300, 301), rest(301, 900), rest(900, 999), rest(999, SIZE)],
            &["", "bytes=300-", "bytes=301-", "bytes=900-", "bytes=999-"],
            None,
        ),
        case("server that ignores ranges", vec![whole(300), whole(SIZE)], resumed, None),
        case(
            "disconnect of a server that ignores ranges",
            vec![whole(300), whole(200), whole(SIZE)],
            &["", "bytes=300-", "bytes=300-"],
            None,
        ),
        case(
            "server error after a disconnect",
            vec![whole(300), busy, rest(300, SIZE)],
            &["", "bytes=300-", "bytes=300-"],
            None,
        ),
        case(
            "login after a disconnect",
            vec![whole(300), login, rest(300, SIZE)],
            &["", "bytes=300-", "bytes=300-"],
            None,
        ),
        case(
            "Content-Range without a total",
            vec![whole(300), partial("Content-Range: bytes 300-999/*\r\nContent-Length: 700")],
            resumed,
            None,
        ),
        case(
            "another range than requested",
            vec![whole(300), partial("Content-Range: bytes 200-999/1000\r\nContent-Length: 800")],
            resumed,
            Some("requested bytes 300-999, received 200-999"),
        ),
        case(
            "another total",
            vec![whole(300), partial("Content-Range: bytes 300-999/2000\r\nContent-Length: 700")],
            resumed,
            Some("size mismatch"),
        ),
        case(
            "no Content-Range",
            vec![whole(300), partial("Content-Length: 700")],
            resumed,
            Some("without a valid Content-Range"),
        ),
        case(
            "blob that is gone",
            vec![whole(300), Act::answer("404 Not Found", "", "")],
            resumed,
            Some("not found"),
        ),
    ]
}

async fn check(case: Case) {
    let name = case.name;
    let script = Mutex::new(VecDeque::from(case.answers));
    let server = Server::plain(move |_| match script.lock().unwrap().pop_front() {
        Some(answer) => answer,
        None => Act::answer("500 Internal Server Error", "", "the script is over"),
    });
    let credential =
        Credential::Basic { username: "alice".to_owned(), password: Secret::new("secret") };
    let registry = Registry::new(RegistryOptions {
        explicit: Explicit::new(Found::new(credential, "the test")),
        retries: 4,
        backoff: Duration::from_millis(1),
        ..RegistryOptions::default()
    });
    let reference: Reference = format!("{}/test/resume", server.host).parse().unwrap();
    let blob: Descriptor =
        serde_json::from_value(serde_json::json!({"digest": Digest::of(&content()), "size": SIZE}))
            .unwrap();
    let transfer = async {
        let stream = registry.blob(reference.repository(), &blob, case.start..blob.size).await?;
        stream.try_collect::<Vec<_>>().await
    };
    let received = tokio::time::timeout(GUARD, transfer).await.expect("it hangs");
    match (received, case.error) {
        (Ok(buffers), None) => {
            assert!(buffers.concat() == content()[case.start as usize..], "{name}: other bytes");
        }
        (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{name}: {error}"),
        (Ok(_), Some(part)) => panic!("{name}: no error '{part}'"),
        (Err(error), None) => panic!("{name}: {error}"),
    }
    let range = |head: String| {
        let lower = head.to_ascii_lowercase();
        let value = lower.lines().find_map(|line| line.strip_prefix("range: "));
        value.unwrap_or_default().to_owned()
    };
    let ranges: Vec<String> = server.heads().into_iter().map(range).collect();
    assert_eq!(ranges, case.ranges, "{name}");
}

#[tokio::test]
async fn interrupted_blob_continues_with_range_requests() {
    for case in cases() {
        check(case).await;
    }
}
