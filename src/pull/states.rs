//! The states of a command's layers. Several tasks work on one layer, so an event could be sent
//! after a later one's; here a state never goes back, except to a download that was interrupted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::progress::{Event, Image, LayerState, Sender};

/// Returns a sender that passes events on to `events`, without states of layers that go back or are
/// repeated.
pub fn in_order(events: Sender) -> Sender {
    let latest: Mutex<HashMap<(Image, Digest), LayerState>> = Mutex::default();
    Sender::to(move |event| {
        let Event::Layer { image, layer, state } = &event else { return events.send(event) };
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = latest.get(&(image.clone(), *layer));
        if before.is_none_or(|before| may_follow(*before, *state)) {
            latest.insert((image.clone(), *layer), *state);
            // Sent under the lock: the events come out in the order of the states.
            events.send(event);
        }
    })
}

fn may_follow(before: LayerState, state: LayerState) -> bool {
    state > before || (before, state) == (LayerState::Reconnecting, LayerState::Downloading)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn state_that_goes_back_is_not_told() {
        let (sender, events) = Sender::channel();
        let states = in_order(sender);
        let image: Image = Arc::new("nginx:latest".parse().unwrap());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        for (layer, state) in [
            (&one, LayerState::PullingFsLayer),
            (&one, LayerState::Downloading),
            (&two, LayerState::PullingFsLayer),
            (&one, LayerState::PullingFsLayer),
            (&one, LayerState::Reconnecting),
            (&one, LayerState::Reconnecting),
            (&one, LayerState::Downloading),
            (&one, LayerState::Downloading),
            (&one, LayerState::Waiting),
            (&one, LayerState::PullComplete),
            (&one, LayerState::DownloadComplete),
            (&one, LayerState::Reconnecting),
            (&two, LayerState::Copying),
            (&two, LayerState::Downloading),
        ] {
            states.send(Event::Layer { image: image.clone(), layer: *layer, state });
        }
        drop(states);
        let told: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Layer { layer, state, .. } => (layer, state),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                (one, LayerState::PullingFsLayer),
                (one, LayerState::Downloading),
                (two, LayerState::PullingFsLayer),
                (one, LayerState::Reconnecting),
                (one, LayerState::Downloading),
                (one, LayerState::PullComplete),
                (two, LayerState::Copying),
                (two, LayerState::Downloading),
            ]
        );
    }
}
