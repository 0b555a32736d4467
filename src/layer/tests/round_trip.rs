//! The central claim: the files and the metadata of an unpacked layer give its tar back, byte for
//! byte, and the files are those of a model.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::Layer;
use super::archives::{Archive, End, Item, archives, tar};
use super::model::{Model, Refused};
use super::tree::tree_of;
use crate::digest::Digest;
use crate::layer::{BlobSpec, LayerError, Limits};

/// The items that the model accepts, their tree, and the first item that it refuses with the number
/// of those accepted before it.
fn played(items: &[Item]) -> (Vec<Item>, Model, Option<(usize, Item)>) {
    let (mut accepted, mut model, mut refused) = (Vec::new(), Model::new(), None);
    for item in items {
        let mut next = model.clone();
        match next.apply(&item.op) {
            Ok(()) => {
                accepted.push(item.clone());
                model = next;
            }
            Err(Refused) => refused = refused.or(Some((accepted.len(), item.clone()))),
        }
    }
    model.finish();
    (accepted, model, refused)
}

fn unpack(archive: &Archive, tar: &[u8]) -> Result<Layer, LayerError> {
    let blob = archive.packing.pack(tar);
    let spec = BlobSpec { digest: Digest::of(&blob), size: blob.len() as u64 };
    Layer::read(&blob, Some(spec), archive.buffer, Limits::default())
}

fn check(archive: &Archive) -> Result<(), TestCaseError> {
    let (accepted, model, refused) = played(&archive.items);
    let tar_accepted = tar(&accepted, archive.end);
    let layer = match unpack(archive, &tar_accepted) {
        Ok(layer) => layer,
        Err(e) => return Err(TestCaseError::fail(format!("{accepted:#?}\nunpack: {e}"))),
    };
    prop_assert_eq!(tree_of(&layer.diff()), model.tree(), "{:#?}", accepted);
    prop_assert_eq!(layer.unpacked.size, model.size(), "{:#?}", accepted);
    let assembled = layer.assembled();
    prop_assert!(
        assembled.as_ref() == Ok(&tar_accepted),
        "{:#?}\nassembled: {:?}",
        accepted,
        assembled.err()
    );
    if let Some((at, item)) = refused {
        let tar = tar(accepted[..at].iter().chain([&item]), End::ZeroBlocks(2));
        prop_assert!(Layer::of(&tar).is_err(), "{:#?}\nnot refused: {item:?}", &accepted[..at]);
    }
    Ok(())
}

#[test]
fn generated_archive_is_reassembled_and_matches_the_model() {
    // Shrinking a failure takes more stack than a test's thread has.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The seed is fixed: a failure on one machine is a failure on all.
fn run() {
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(e) = runner.run(&archives(), |archive| check(&archive)) {
        panic!("{e}");
    }
}
