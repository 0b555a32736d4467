//! Blobs that lie elsewhere.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::{Puller, at, pushed};
use crate::support::guard::{PASSWORD, USER};
use crate::support::hub::Hub;
use crate::support::proxy::{Fault, Proxy};

/// A server that answers each request by `answer(path, head)`; the heads it saw.
fn server(
    answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (mut head, mut reader) =
                (String::new(), BufReader::new(client.try_clone().unwrap()));
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            log.lock().unwrap().push(head.clone());
            let _ = client.write_all(&answer(&path, &head));
        }
    });
    (host, seen)
}

#[test]
fn redirect_to_another_host_gets_no_credentials() {
    let pushed = pushed("test/redirect");
    let hub = Hub::shared();
    // Blobs lie elsewhere, as with a content delivery network.
    let blob_host = hub.host.clone();
    let (cdn, at_cdn) = server(move |path, _| {
        format!("HTTP/1.1 307 x\r\nLocation: http://{blob_host}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
    });
    let front = Proxy::new(move |_, path| match path.contains("/blobs/") {
        true => {
            let headers = format!("Location: http://{cdn}{path}\r\n").leak();
            Fault::Instead("307 Temporary Redirect", headers, "")
        }
        false => Fault::None,
    });
    let (puller, asked) = (Puller::new(), Arc::new(Mutex::new(0)));
    let count = asked.clone();
    // A registry that wants a password, in front of the one that redirects.
    let behind = front.host.clone();
    let (guarded, at_registry) = server(move |path, head| {
        *count.lock().unwrap() += 1;
        if !head.to_ascii_lowercase().contains("authorization: basic") {
            return b"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
        }
        format!("HTTP/1.1 307 x\r\nLocation: http://{behind}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
    });
    puller.pulls(&["--username", USER, &at(&guarded, &pushed)], &[("RPULL_PASSWORD", PASSWORD)]);
    let leaked = |log: &Mutex<Vec<String>>| {
        log.lock().unwrap().iter().any(|head| head.to_ascii_lowercase().contains("authorization"))
    };
    assert!(leaked(&at_registry), "the registry itself must get the password");
    assert!(!at_cdn.lock().unwrap().is_empty(), "the blobs came by the other host");
    assert!(!leaked(&at_cdn), "the other host got credentials");
}

#[test]
fn invalid_redirect_is_refused() {
    let pushed = pushed("test/redirect-loop");
    let to = |location: &'static str| {
        Proxy::every("/blobs/", Fault::Instead("307 Temporary Redirect", location, ""))
    };
    let around = to("Location: /v2/test/redirect-loop/blobs/again\r\n");
    Puller::new().fails(5, &[&around.name(&pushed.name())], "more than 10 redirects");
    let file = to("Location: file:///etc/passwd\r\n");
    Puller::new().fails(5, &[&file.name(&pushed.name())], "scheme 'file'");
}
