//! The states of a command's layers. Several tasks work on one layer, so an event could be sent
//! after a later one's; here a state never goes back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::progress::{Event, Image, LayerState, Sender};

/// The latest state of each layer that was told.
pub struct States {
    events: Sender,
    latest: Mutex<HashMap<(Image, Digest), LayerState>>,
}

impl States {
    /// No layer has a state yet.
    pub fn new(events: Sender) -> Self {
        Self { events, latest: Mutex::default() }
    }

    /// Tells that `layer` of `image` is in `state`, unless it was in that or a later one.
    pub fn advance(&self, image: &Image, layer: &Digest, state: LayerState) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = latest.insert((image.clone(), *layer), state);
        if let Some(before) = before.filter(|before| *before >= state) {
            latest.insert((image.clone(), *layer), before);
            return;
        }
        // Sent under the lock: the events come out in the order of the states.
        self.events.send(Event::Layer { image: image.clone(), layer: *layer, state });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn state_that_goes_back_is_not_told() {
        let (sender, events) = Sender::channel();
        let states = States::new(sender);
        let image: Image = Arc::new("nginx:latest".parse().unwrap());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        for (layer, state) in [
            (&one, LayerState::PullingFsLayer),
            (&one, LayerState::Downloading),
            (&two, LayerState::PullingFsLayer),
            (&one, LayerState::PullingFsLayer),
            (&one, LayerState::Waiting),
            (&one, LayerState::PullComplete),
            (&one, LayerState::DownloadComplete),
            (&two, LayerState::Copying),
            (&two, LayerState::Downloading),
        ] {
            states.advance(&image, layer, state);
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
                (one, LayerState::PullComplete),
                (two, LayerState::Copying),
                (two, LayerState::Downloading),
            ]
        );
    }
}
