//! Each renderer fed with one scripted pull.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{InMemoryTerm, ProgressDrawTarget};

use rpull::Digest;
use rpull::ImageId;
use rpull::event::{Event, ImageRef, LayerState, Phase, Status};

use super::{Lines, Renderer};

/// A pull of three layers: one present, one that is retried, one small.
fn script() -> Vec<Event> {
    let image: ImageRef = Arc::new("nginx:latest".parse().unwrap());
    let [base, big, small] = ["base", "big", "small"].map(|name| Digest::of(name.as_bytes()));
    let layer = |layer, state| Event::Layer { image: image.clone(), layer, state };
    let bytes = |layer, phase, done, total| Event::Bytes {
        image: image.clone(),
        layer,
        phase,
        done,
        total,
    };
    vec![
        Event::DefaultTag { image: image.clone() },
        Event::Resolving { image: image.clone() },
        Event::Pulling { image: image.clone(), layers: vec![(base, 10), (big, 2048), (small, 7)] },
        layer(base, LayerState::AlreadyExists),
        layer(big, LayerState::PullingFsLayer),
        layer(small, LayerState::PullingFsLayer),
        layer(small, LayerState::Waiting),
        layer(big, LayerState::Downloading),
        bytes(big, Phase::Download, 1024, 2048),
        Event::Retrying {
            image: image.clone(),
            layer: Some(big),
            host: "docker.io".to_owned(),
            transfers: 1,
            attempt: 2,
            wait: Duration::from_millis(1500),
            cause: "cannot reach docker.io: reset".into(),
        },
        bytes(big, Phase::Download, 2048, 2048),
        bytes(big, Phase::Unpack, 2048, 2048),
        layer(big, LayerState::DownloadComplete),
        layer(small, LayerState::Downloading),
        bytes(small, Phase::Download, 7, 7),
        layer(big, LayerState::PullComplete),
        layer(small, LayerState::DownloadComplete),
        layer(small, LayerState::PullComplete),
        Event::Done {
            image: image.clone(),
            digest: Digest::of(b"manifest"),
            id: ImageId(Digest::of(b"config")),
            status: Status::Downloaded,
        },
    ]
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn rendered<R: Renderer>(make: impl FnOnce(Lines<Page>) -> R) -> String {
    let page = Page::default();
    let mut renderer = make(Lines::to(page.clone()));
    for event in script() {
        renderer.event(&event).unwrap();
    }
    let bytes = page.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn plain_speaks_dockers_words() {
    insta::assert_snapshot!("plain", rendered(super::plain::Plain::new));
}

#[test]
fn quiet_prints_the_canonical_name_alone() {
    assert_eq!(rendered(super::quiet::Quiet::new), "docker.io/library/nginx:latest\n");
}

#[test]
fn the_json_stream_is_frozen() {
    insta::assert_snapshot!("json", rendered(super::json::Json::new));
}

fn screen(rows: u16, columns: u16, until: usize) -> String {
    let term = InMemoryTerm::new(rows, columns);
    let mut tty = super::tty::Tty::on(ProgressDrawTarget::term_like(Box::new(term.clone())));
    for event in script().iter().take(until) {
        tty.event(event).unwrap();
    }
    term.contents()
}

#[test]
fn a_terminal_shows_a_line_a_layer() {
    // The rate is the clock's.
    let page = screen(20, 80, 11);
    let (page, _) = page.rsplit_once(" at ").unwrap();
    insta::assert_snapshot!("terminal", page);
}

#[test]
fn a_narrow_terminal_is_not_overrun() {
    let page = screen(10, 30, 11);
    assert!(page.lines().all(|line| line.chars().count() <= 30), "{page}");
}
