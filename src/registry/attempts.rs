//! The attempts of one request or transfer: waits between them, and reports them.

use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::Registry;
use super::endpoint::authority;
use super::error::RegistryError;
use super::retry::Budget;
use crate::digest::Digest;
use crate::progress::{Event, LayerState};

/// How long failures are gathered before they are reported: one that breaks all transfers of a
/// host breaks them within this time.
const GATHER_TIME: Duration = Duration::from_millis(100);

/// The attempts of one request or transfer.
pub struct Attempts {
    registry: Registry,
    /// The layer that is transferred; `None` for a manifest or config.
    layer: Option<Digest>,
    budget: Budget,
    /// Whether nothing has arrived since the last failure.
    reconnecting: bool,
}

impl Attempts {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// `error`, if it is not transient or the budget is spent; [`RegistryError::Outage`] if the
    /// host has been silent for too long.
    pub async fn back_off(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let cause = error.to_string();
        let host = self.registry.shared.clients.outages().of(&host_of(&error));
        let wait = self.budget.wait_after(error, &host)?;
        let attempt = self.budget.attempt();
        tracing::debug!("attempt {attempt} in {} ms, because: {cause}", wait.as_millis());
        self.reconnecting = true;
        self.report(LayerState::Reconnecting);
        let _waiting = host.wait();
        let gather = wait.min(GATHER_TIME);
        sleep(gather).await;
        if let Some((sender, image)) = &self.registry.events
            && let Some(transfers) = host.report(Instant::now())
        {
            let (image, layer) = (image.clone(), self.layer);
            sender.send(Event::Retrying {
                image,
                layer,
                host: host.name().to_owned(),
                transfers,
                attempt,
                wait,
                cause,
            });
        }
        sleep(wait - gather).await;
        Ok(())
    }

    /// Counts received bytes.
    pub fn progress(&mut self, bytes: usize) {
        self.budget.progress(bytes);
        if std::mem::take(&mut self.reconnecting) {
            self.report(LayerState::Downloading);
        }
    }

    fn report(&self, state: LayerState) {
        if let (Some((sender, image)), Some(layer)) = (&self.registry.events, self.layer) {
            sender.send(Event::Layer { image: image.clone(), layer, state });
        }
    }
}

/// Returns the host and port at which a request failed; empty if it was not sent.
fn host_of(error: &RegistryError) -> String {
    match error {
        RegistryError::Network { host, .. }
        | RegistryError::RateLimited { host, .. }
        | RegistryError::Status { host, .. } => host.clone(),
        RegistryError::Token { realm, .. } => {
            Url::parse(realm).map_or_else(|_| realm.clone(), |realm| authority(&realm))
        }
        _ => String::new(),
    }
}

impl Registry {
    /// Returns the attempts of a transfer of which none has failed.
    pub(super) fn attempts(&self, layer: Option<Digest>) -> Attempts {
        let budget = Budget::of(&self.shared.options);
        Attempts { registry: self.clone(), layer, budget, reconnecting: false }
    }

    /// Repeats `request` until it succeeds, fails permanently, or the budget is spent.
    pub(super) async fn retrying<T, F>(
        &self,
        mut request: impl FnMut() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut attempts = self.attempts(None);
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(e) => attempts.back_off(e).await?,
            }
        }
    }
}
