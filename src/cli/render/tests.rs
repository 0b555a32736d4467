//! Each renderer fed with one scripted pull.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpull::event::{Event, ImageRef, LayerState, Phase, Status};
use rpull::{Digest, ImageId, Reference};

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
        Event::Resumed { image: image.clone(), layer: big, bytes: 512 },
        bytes(big, Phase::Download, 1024, 2048),
        Event::Retrying {
            image: image.clone(),
            layer: Some(big),
            host: "docker.io".to_owned(),
            transfers: 1,
            attempt: 2,
            wait: Duration::from_millis(1500),
            cause: "connection reset: docker.io".into(),
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
    let images = ["nginx:latest".parse().unwrap()];
    let printed = rendered(|out| super::Results::new(out, super::Form::Name, &images));
    assert_eq!(printed, "docker.io/library/nginx:latest\n");
}

/// What `-q` prints for `images` after the ends of some, which are `name` or `!name` if it failed:
/// at once, and in the end.
fn quiet(images: &[&str], ends: &[&str]) -> (String, String) {
    let images: Vec<Reference> = images.iter().map(|name| name.parse().unwrap()).collect();
    let page = Page::default();
    let mut renderer = super::Results::new(Lines::to(page.clone()), super::Form::Name, &images);
    for end in ends {
        let image: ImageRef = Arc::new(end.trim_start_matches('!').parse().unwrap());
        let event = match end.starts_with('!') {
            true => Event::Failed { image, error: "refused".to_owned() },
            false => Event::Done {
                image,
                digest: Digest::of(b"manifest"),
                id: ImageId(Digest::of(b"config")),
                status: Status::Downloaded,
            },
        };
        renderer.event(&event).unwrap();
    }
    let shown = || {
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        text.replace("docker.io/library/", "").replace(":1\n", " ").trim_end().to_owned()
    };
    let at_once = shown();
    renderer.finish().unwrap();
    (at_once, shown())
}

#[test]
fn quiet_prints_names_in_the_order_of_the_arguments() {
    let printed = |images: &str, ends: &str| {
        let words =
            |text: &str| text.split(' ').map(|word| format!("{word}:1")).collect::<Vec<_>>();
        let (images, ends) = (words(images), words(ends));
        let (images, ends): (Vec<_>, Vec<_>) =
            (images.iter().map(|x| &**x).collect(), ends.iter().map(|x| &**x).collect());
        let (at_once, all) = quiet(&images, &ends);
        format!("{at_once}|{all}")
    };
    assert_eq!(printed("a b c", "c"), "|c");
    assert_eq!(printed("a b c", "c a"), "a|a c");
    assert_eq!(printed("a b c", "c b a"), "a b c|a b c");
    assert_eq!(printed("a b c", "c !b a"), "a c|a c");
    assert_eq!(printed("a b c", "!a c"), "|c");
    assert_eq!(printed("a b a", "a b"), "a b|a b");
    assert_eq!(printed("a b a", "a a b"), "a b a|a b a");
    assert_eq!(printed("a b a", "a !a b"), "a b|a b");
}

#[test]
fn the_json_stream_is_frozen() {
    insta::assert_snapshot!("json", rendered(super::json::Json::new));
}
