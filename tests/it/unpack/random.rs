//! Random archives over a few names, against the model.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::direct::Layer;
use super::model::{Model, Op, Refused, tree_of};
use crate::support::tar::Tar;

/// Few names, so that they meet: as files, directories, symlinks and whiteouts in turn.
fn path() -> impl Strategy<Value = String> {
    let part = || select(vec!["a", "b", "d"]);
    let path = prop_oneof![
        3 => part().prop_map(str::to_owned),
        5 => (part(), part()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (part(), part(), part()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ];
    prop_oneof![
        12 => path.clone(),
        1 => path.clone().prop_map(|path| format!("./{path}")),
        1 => path.clone().prop_map(|path| format!("/{path}")),
        1 => path.prop_map(|path| format!("b/../{path}")),
    ]
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec!["a", "b", "d"]).prop_map(str::to_owned),
        1 => path(),
        1 => select(vec![".", "..", "/", "../..", "../d", "/a/b", "missing"]).prop_map(str::to_owned),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => path().prop_map(Op::Dir),
        4 => (path(), "[a-z]{0,3}").prop_map(|(path, data)| Op::File(path, data)),
        3 => (path(), target()).prop_map(|(path, target)| Op::Symlink(path, target)),
        2 => (path(), path()).prop_map(|(path, target)| Op::Hardlink(path, target)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

/// The entries that the model takes, what it makes of them, and the first that it refuses,
/// with how many it had taken then.
fn played(ops: &[Op]) -> (Vec<Op>, Model, Option<(usize, Op)>) {
    let (mut taken, mut model, mut refused) = (Vec::new(), Model::new(), None);
    for op in ops {
        let mut next = model.clone();
        match next.apply(op) {
            Ok(()) => {
                taken.push(op.clone());
                model = next;
            }
            Err(Refused) => refused = refused.or(Some((taken.len(), op.clone()))),
        }
    }
    model.finish();
    (taken, model, refused)
}

fn tar<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Vec<u8> {
    Tar::of(ops.into_iter().map(Op::entry)).end()
}

fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let (taken, model, refused) = played(ops);
    let tar_taken = tar(&taken);
    let layer = match Layer::unpack(&tar_taken) {
        Ok(layer) => layer,
        Err(e) => return Err(TestCaseError::fail(format!("{taken:#?}\nunpack: {e}"))),
    };
    prop_assert_eq!(tree_of(&layer.diff()), model.tree(), "{:#?}", taken);
    prop_assert_eq!(layer.unpacked.size, model.size(), "{:#?}", taken);
    let again = layer.reassembled();
    prop_assert!(again.as_ref() == Ok(&tar_taken), "{:#?}\nreassembled: {:?}", taken, again.err());
    if let Some((at, op)) = refused {
        let tar = tar(taken[..at].iter().chain([&op]));
        prop_assert!(Layer::unpack(&tar).is_err(), "{:#?}\nnot refused: {op:?}", &taken[..at]);
    }
    Ok(())
}

/// The seed is fixed: a failure here is a failure everywhere.
#[test]
fn random_archives_unpacked_match_the_model() {
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let archives = proptest::collection::vec(op(), 1..30);
    if let Err(e) = runner.run(&archives, |ops| check(&ops)) {
        panic!("{e}");
    }
}
