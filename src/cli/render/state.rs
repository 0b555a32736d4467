//! What a pull is doing: the states of its images and layers, folded from events.

use std::collections::HashMap;
use std::time::Duration;

use rpull::event::{Event, LayerState, Phase, PushState, Status};
use rpull::{Digest, Reference};

use super::rate::Rate;
use super::summary::{self, Sums};

/// The states of all images and layers of a command. Times are those since its start.
pub struct State {
    /// The images, in the order of the arguments.
    pub images: Vec<Image>,
    /// The layers of all images, each once, in the order of the manifests.
    pub layers: Vec<Layer>,
    /// Whether layers go to a registry, and do not come from one.
    pub pushes: bool,
    /// The rate at which bytes are transferred.
    pub rate: Rate,
    by_digest: HashMap<Digest, usize>,
}

/// One argument of the command.
pub struct Image {
    /// The reference, with its tag.
    pub name: Reference,
    /// What happens with it.
    pub step: ImageStep,
}

/// What happens with an image.
#[derive(Debug, PartialEq, Eq)]
pub enum ImageStep {
    /// Nothing yet.
    Open,
    /// A registry is asked for it.
    Resolving,
    /// Its layers are pulled.
    Pulling,
    /// It is complete: its digest at the registry, and whether this pull changed anything.
    Done(Digest, Status),
    /// The dry run is complete: its digest at the registry, and what a pull would fetch.
    Planned(Digest, String),
    /// The registry has it: the digest and the size of its manifest.
    Pushed(Digest, u64),
    /// It could not be pulled.
    Failed,
}

impl ImageStep {
    fn has_ended(&self) -> bool {
        matches!(self, Self::Done(..) | Self::Planned(..) | Self::Pushed(..) | Self::Failed)
    }
}

/// A layer of one or several images.
pub struct Layer {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The blob's bytes that are there.
    pub downloaded: u64,
    /// The blob's bytes that were unpacked.
    pub unpacked: u64,
    /// The images that need it, by their places in [`State::images`].
    pub images: Vec<usize>,
    state: Option<LayerState>,
    is_downloaded: bool,
    /// Bytes that this command received.
    fetched: u64,
    /// Bytes that an earlier command received.
    resumed: u64,
}

/// What happens with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is not known yet whether the store has the layer.
    Unplanned,
    /// It waits to be fetched.
    Waiting,
    /// It is copied within the store.
    Copying,
    /// It is being downloaded.
    Downloading,
    /// Its connection broke, and a request is repeated.
    Reconnecting,
    /// The rest of it is being unpacked.
    Extracting,
    /// It is in the store, or ready to be committed.
    Done,
}

impl Layer {
    fn new(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            size,
            downloaded: 0,
            unpacked: 0,
            images: Vec::new(),
            state: None,
            is_downloaded: false,
            fetched: 0,
            resumed: 0,
        }
    }

    /// Returns what happens with the layer.
    pub fn step(&self) -> Step {
        use LayerState::{
            AlreadyExists, Copying, DownloadComplete, Downloading, PullComplete, Reconnecting,
        };
        match self.state {
            None => Step::Unplanned,
            Some(AlreadyExists | DownloadComplete | PullComplete) => Step::Done,
            Some(Copying) => Step::Copying,
            Some(Downloading) if self.downloaded >= self.size => Step::Extracting,
            Some(Downloading) => Step::Downloading,
            Some(Reconnecting) => Step::Reconnecting,
            // From a blob that the content store keeps.
            Some(_) if self.unpacked > 0 => Step::Extracting,
            Some(_) => Step::Waiting,
        }
    }

    fn received(&mut self, done: u64) -> u64 {
        let new = match done.checked_sub(self.downloaded) {
            Some(new) => new,
            // The download began anew, without what an earlier command received.
            None => {
                (self.resumed, self.unpacked) = (0, 0);
                done
            }
        };
        self.downloaded = done;
        self.fetched += new;
        new
    }

    fn resume(&mut self, bytes: u64) {
        // What this command received itself counts as fetched.
        if self.fetched == 0 {
            self.resumed = bytes;
        }
        self.downloaded = bytes;
    }
}

/// The bytes of all layers that are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// Bytes that are there.
    pub done: u64,
    /// All bytes; `None` before they are known.
    pub size: Option<u64>,
}

impl State {
    /// Returns the state before the first event. `images` are the arguments, with their tags.
    pub fn new(images: &[Reference]) -> Self {
        let image = |name: &Reference| Image { name: name.clone(), step: ImageStep::Open };
        Self {
            images: images.iter().map(image).collect(),
            layers: Vec::new(),
            pushes: false,
            rate: Rate::default(),
            by_digest: HashMap::new(),
        }
    }

    /// Applies an event that arrived at `now`.
    pub fn apply(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Resolving { image } => {
                self.advance(image, |step| *step == ImageStep::Open, ImageStep::Resolving);
            }
            Event::Pulling { image, layers } => {
                let before = |step: &_| matches!(step, ImageStep::Open | ImageStep::Resolving);
                if let Some(image) = self.advance(image, before, ImageStep::Pulling) {
                    self.add(image, layers);
                }
            }
            Event::Layer { layer, state, .. } => self.change(layer, *state, now),
            Event::Bytes { layer, phase: Phase::Download, done, .. } => {
                let received = self.layer(layer).map_or(0, |layer| layer.received(*done));
                self.rate.add(received, now);
            }
            Event::Bytes { layer, phase: Phase::Unpack, done, .. } => {
                if let Some(layer) = self.layer(layer) {
                    layer.unpacked = *done;
                }
            }
            Event::PushingTo { .. } => self.pushes = true,
            Event::Push { image, layer, state } => {
                let begins = |step: &_| matches!(step, ImageStep::Open | ImageStep::Resolving);
                self.advance(image, begins, ImageStep::Pulling);
                let place = self.images.iter().position(|known| known.name == **image);
                if let Some(place) = place {
                    // The size is known when the layer is sent.
                    self.add(place, &[(*layer, 0)]);
                }
                self.change(layer, state_of_push(state), now);
            }
            Event::Bytes { layer, phase: Phase::Upload, done, total, .. } => {
                let sent = self.layer(layer).map_or(0, |layer| {
                    layer.size = *total.max(done);
                    layer.received(*done)
                });
                self.rate.add(sent, now);
            }
            Event::Pushed { image, digest, size } => {
                self.advance(image, |step| !step.has_ended(), ImageStep::Pushed(*digest, *size));
            }
            Event::Resumed { layer, bytes, .. } => {
                if let Some(layer) = self.layer(layer) {
                    layer.resume(*bytes);
                }
            }
            Event::Done { image, digest, status, .. } => {
                self.advance(image, |step| !step.has_ended(), ImageStep::Done(*digest, *status));
            }
            Event::Planned { image, digest, layers, requests, .. } => {
                let planned = summary::planned(image, layers, *requests);
                let planned = ImageStep::Planned(*digest, planned);
                self.advance(image, |step| !step.has_ended(), planned);
            }
            Event::Failed { image, .. } => {
                self.advance(image, |step| !step.has_ended(), ImageStep::Failed);
            }
            _ => {}
        }
    }

    /// Returns the layers that an image needs which has not failed.
    pub fn needed(&self) -> impl Iterator<Item = &Layer> {
        let fails = |image: &usize| self.images[*image].step == ImageStep::Failed;
        self.layers.iter().filter(move |layer| !layer.images.iter().all(fails))
    }

    /// Returns how far the downloads are; `None` if nothing is downloaded.
    pub fn total(&self) -> Option<Total> {
        let unknown = |image: &Image| matches!(image.step, ImageStep::Open | ImageStep::Resolving);
        let mut is_known = !self.images.iter().any(unknown);
        let (mut done, mut size, mut downloads) = (0, 0, false);
        for layer in self.needed() {
            match layer.step() {
                Step::Unplanned => is_known = false,
                Step::Waiting => size += layer.size,
                Step::Done if layer.is_downloaded => {
                    done += layer.size;
                    size += layer.size;
                }
                _ if layer.is_downloaded => {
                    done += layer.downloaded.min(layer.size);
                    size += layer.size;
                }
                _ => {}
            }
            downloads |= layer.is_downloaded;
        }
        downloads.then_some(Total { done, size: is_known.then_some(size) })
    }

    /// Returns what was fetched and reused.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for layer in &self.layers {
            sums.fetched += layer.fetched;
            sums.reused += layer.resumed;
            if layer.is_downloaded {
                sums.fetched_layers += 1;
            } else if layer.step() == Step::Done {
                sums.reused += layer.size;
                sums.reused_layers += 1;
            }
        }
        sums
    }

    /// Gives the first image of this name whose step is one of `from` the step `to`. An image that
    /// was named twice is pulled twice. Returns its place.
    fn advance(
        &mut self,
        name: &Reference,
        from: impl Fn(&ImageStep) -> bool,
        to: ImageStep,
    ) -> Option<usize> {
        let is = |image: &Image| from(&image.step) && image.name == *name;
        let place = self.images.iter().position(is)?;
        self.images[place].step = to;
        Some(place)
    }

    fn add(&mut self, image: usize, layers: &[(Digest, u64)]) {
        for (digest, size) in layers {
            let place = *self.by_digest.entry(*digest).or_insert_with(|| {
                self.layers.push(Layer::new(*digest, *size));
                self.layers.len() - 1
            });
            // A manifest can name one blob several times.
            if !self.layers[place].images.contains(&image) {
                self.layers[place].images.push(image);
            }
        }
    }

    fn change(&mut self, digest: &Digest, state: LayerState, now: Duration) {
        use LayerState::{Downloading, Reconnecting};
        let Some(layer) = self.layer(digest) else { return };
        // Another image that needs the layer can report an earlier state.
        let reconnects = (layer.state, state) == (Some(Reconnecting), Downloading);
        layer.state = if reconnects { Some(state) } else { layer.state.max(Some(state)) };
        if matches!(state, Downloading | Reconnecting) {
            layer.is_downloaded = true;
            self.rate.add(0, now);
        }
    }

    fn layer(&mut self, digest: &Digest) -> Option<&mut Layer> {
        self.by_digest.get(digest).map(|place| &mut self.layers[*place])
    }
}

/// The state of a pull that is shown in the same way.
fn state_of_push(state: &PushState) -> LayerState {
    match state {
        PushState::Pushing => LayerState::Downloading,
        PushState::Pushed => LayerState::DownloadComplete,
        PushState::AlreadyExists | PushState::MountedFrom(_) => LayerState::AlreadyExists,
        _ => LayerState::Waiting,
    }
}
