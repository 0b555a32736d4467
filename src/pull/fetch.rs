//! A layer's bytes, from the content store or the registry, to the unpacker.

use std::sync::Arc;

use futures::TryStreamExt;

use super::blocking::run;
use super::kept::{self, Keep, Kept};
use super::obtain::{Layers, Obtained, Want};
use super::{lanes, pipeline};
use crate::error::Error;
use crate::progress::{Meter, Phase};

/// Obtains a layer by its bytes. A blob that the content store kept is read from there.
pub async fn fetch(layers: &Layers, want: &Want) -> Result<Arc<Obtained>, Error> {
    let lock = match kept::obtain(layers, want).await? {
        Kept::Obtained(obtained) => return Ok(obtained),
        Kept::Fetch(lock) => lock,
    };
    let (feed, fed) = pipeline::channel();
    let (all, wanted) = (layers.clone(), want.clone());
    let unpacking = tokio::spawn(run(want.blob.digest, move || {
        let Some(mut keep) = Keep::new(&all, &wanted, lock)? else {
            return all.unpack(&wanted, fed);
        };
        let obtained = all.unpack(&wanted, fed.map(|read| keep.write(read?)))?;
        keep.finish()?;
        Ok(obtained)
    }));
    let (events, image) = (layers.events().clone(), want.image.clone());
    let mut meter = Meter::new(events, image, want.blob.digest, Phase::Download, want.blob.size);
    let stream = lanes::stream(want, layers.lanes());
    feed.run(stream.inspect_ok(|bytes| meter.add(bytes.len() as u64))).await;
    match unpacking.await {
        Ok(result) => result.map(Arc::new),
        Err(_) => Err(Error::Interrupted),
    }
}
