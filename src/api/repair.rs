//! Repairs of a store: fetches what a check found damaged, and puts it in place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::check::{self, Check, CheckReport};
use super::client::Client;
use super::store::Store;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{ChainId, ImageId};
use crate::progress::{Event, Sender};
use crate::pull::{self, Options, RepairedLayers, Wanted};
use crate::reference::Reference;
use crate::store::{Damage, DamageClass, Mode};

/// The result of [`Client::repair`].
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// The damage that was repaired.
    pub repaired: Vec<Damage>,
    /// The damage that remains, with the reason.
    pub remaining: Vec<Unrepaired>,
}

/// Damage that could not be repaired.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Unrepaired {
    /// The damage.
    #[serde(flatten)]
    pub damage: Damage,
    /// The reason.
    pub reason: String,
}

impl Client {
    /// Repairs the damage in `report`, which `check` returned. Each damaged image is pulled again by
    /// the digest that it was pulled as; only what is damaged of it is fetched. Layers keep their
    /// links, so that containers and layers above them stay valid. Names do not change. Calls
    /// `events` with the events of the pulls.
    ///
    /// # Errors
    /// A running dockerd uses the store, or it cannot be read. Damage that cannot be repaired is in
    /// the result.
    pub async fn repair(
        &self,
        check: &Check,
        report: &CheckReport,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<RepairReport, Error> {
        let (store, events) = (check.store(), Sender::to(events));
        // Refuses the root of a live daemon.
        drop(store.begin().pending_lock(Mode::Shared)?);
        // Kept blobs of layers can be fetched again when a pull needs them.
        let unneeded = || report.damage.iter().filter(|it| it.images.is_empty());
        for digest in unneeded().filter_map(blob_of) {
            store.begin().content().remove_own_blob(&digest)?;
        }
        if unneeded().any(|it| it.class == DamageClass::ContentBlob && blob_of(it).is_none()) {
            store.begin().content().repair_index()?;
        }
        let mut reasons = self.repair_images(store, &report.damage, &events).await?;
        let replaced: HashSet<ChainId> = report.damage.iter().filter_map(|it| it.layer).collect();
        let mut after = check.run_on(Some(&replaced))?;
        // While the config of an image was damaged, it was unknown which layers the image needs.
        let is_revealed = |it: &Damage| {
            !it.images.is_empty()
                && unneeded().any(|old| (old.class, &old.path) == (it.class, &it.path))
        };
        let revealed: Vec<_> = after.damage.iter().filter(|it| is_revealed(it)).cloned().collect();
        if !revealed.is_empty() {
            reasons.extend(self.repair_images(store, &revealed, &events).await?);
            after = check.run_on(Some(&replaced))?;
        }
        let mut left: BTreeMap<_, _> =
            after.damage.into_iter().map(|it| ((it.class, it.path.clone()), it)).collect();
        let (mut repaired, mut remaining) = (Vec::new(), Vec::new());
        for damage in &report.damage {
            let is_left = match blob_of(damage) {
                Some(digest) => !check::blob_damage(&store.begin(), &digest)?.is_empty(),
                None => left.remove(&(damage.class, damage.path.clone())).is_some(),
            };
            match is_left {
                false => repaired.push(damage.clone()),
                true => remaining.push(damage.clone()),
            }
        }
        remaining.extend(left.into_values().filter(|it| blob_of(it).is_none()));
        let with_reason = |damage: Damage| {
            let reason = damage.images.iter().find_map(|id| reasons.get(id).cloned());
            let reason = reason.unwrap_or_else(|| without_image(&damage).to_owned());
            Unrepaired { damage, reason }
        };
        Ok(RepairReport { repaired, remaining: remaining.into_iter().map(with_reason).collect() })
    }

    /// Pulls all images with damage again. Returns why some of them could not be repaired.
    async fn repair_images(
        &self,
        store: &Store,
        damage: &[Damage],
        events: &Sender,
    ) -> Result<HashMap<ImageId, String>, Error> {
        let mut reasons = HashMap::new();
        let ids: BTreeSet<ImageId> =
            damage.iter().flat_map(|it| it.images.iter().copied()).collect();
        for id in ids {
            if let Err(reason) = self.repair_image(store, id, damage, events).await? {
                reasons.insert(id, reason);
            }
        }
        Ok(reasons)
    }

    /// Pulls an image again by one of its digests. The inner result has the reason if none of them
    /// leads to the image.
    async fn repair_image(
        &self,
        store: &Store,
        id: ImageId,
        damage: &[Damage],
        events: &Sender,
    ) -> Result<Result<(), String>, Error> {
        let layers_of = |classes: &[DamageClass]| {
            let of_image = damage.iter().filter(|it| it.images.contains(&id));
            let of_class = of_image.filter(|it| classes.contains(&it.class));
            of_class.filter_map(|it| it.layer).collect::<HashSet<ChainId>>()
        };
        // An unprivileged layer is not fetched, but unpacked again from its own files.
        let chains = layers_of(&[DamageClass::LayerContent, DamageClass::TarSplit]);
        let mut replaced = layers_of(&[DamageClass::UnprivilegedLayer]);
        replaced.extend(&chains);
        let known = store.begin();
        if let Some(at) = known.mounted_layer(&replaced)? {
            return Ok(Err(format!("it is mounted at {at}: unmount it first")));
        }
        let names = known.names().load()?.of(id);
        let names: Vec<Reference> = names.into_iter().filter(|it| it.digest().is_some()).collect();
        if names.is_empty() {
            let why = "no registry is known that has it: pull, build or load the image again";
            return Ok(Err(why.to_owned()));
        }
        let mut options = Options {
            platform: known.any_config(&id)?.map(|config| config.platform()),
            repair: Some(RepairedLayers::new(chains)),
            dry_run: true,
            ..Options::default()
        };
        drop(known);
        let mut reason = String::new();
        for name in names {
            // The digest of an index can lead to another image, and the name must not change.
            options.dry_run = true;
            let found = self.pull_one(store, &name, &options, &Sender::none()).await;
            match found {
                Ok(found) if found == id => {}
                Ok(found) => {
                    reason = format!("{name} is the image {} for this platform", found.short());
                    continue;
                }
                Err(e) => {
                    reason = e.to_string();
                    continue;
                }
            }
            options.dry_run = false;
            match self.pull_one(store, &name, &options, events).await {
                Ok(_) => return Ok(Ok(())),
                Err(e @ Error::Interrupted) => return Err(e),
                Err(e) => reason = e.to_string(),
            }
        }
        Ok(Err(reason))
    }

    async fn pull_one(
        &self,
        store: &Store,
        name: &Reference,
        options: &Options,
        events: &Sender,
    ) -> Result<ImageId, Error> {
        let store = Arc::new(store.begin());
        let pulled = pull::pull(
            &store,
            &self.registry,
            vec![Wanted::Registry(name.clone())],
            options,
            events,
        )
        .await;
        let pulled = pulled.into_iter().next();
        pulled
            .unwrap_or_else(|| Err(Error::Internal("nothing was pulled".to_owned())))
            .map(|it| it.id)
    }
}

/// Returns the digest of a damaged blob of the content store.
fn blob_of(damage: &Damage) -> Option<Digest> {
    let name = damage.path.file_name().filter(|_| damage.class == DamageClass::ContentBlob)?;
    Digest::from_hex(name.to_str()?).ok()
}

fn without_image(damage: &Damage) -> &'static str {
    match damage.class {
        DamageClass::Names => "only a backup has the names",
        DamageClass::ContentBlob if blob_of(damage).is_none() => "it cannot be written",
        DamageClass::ContentBlob => "it belongs to a shared cache or another tool",
        _ => "no image in the store needs it",
    }
}
