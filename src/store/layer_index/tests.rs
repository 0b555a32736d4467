use std::fs;

use super::*;
use crate::oci::DiffId;
use crate::overlay::CacheId;
use crate::store::layout::{CACHE_ID, DIFF, PARENT, SIZE, TAR_SPLIT};

/// A root with records that need no files.
struct Root {
    _dir: tempfile::TempDir,
    layout: Layout,
}

impl Root {
    fn new() -> Self {
        let (dir, layout) = Layout::scratch();
        Self { _dir: dir, layout }
    }

    /// The record of a new layer with content `mark` above `parent`, not written.
    fn planned(parent: Option<&LayerRecord>, mark: &str) -> LayerRecord {
        let (parent, diff_id) = (parent.map(|it| it.chain), DiffId(Digest::of(mark.as_bytes())));
        let chain = ChainId::above(parent, diff_id);
        LayerRecord { chain, parent, diff_id, cache_id: CacheId::generate().unwrap(), size: 1 }
    }

    /// Writes a record as dockerd does, which knows nothing of the index.
    fn write(&self, record: &LayerRecord) {
        let (set, dir) = (self.layout.write_sets().join("x"), self.layout.layer(&record.chain));
        fs::create_dir(&set).unwrap();
        fs::write(set.join(DIFF), record.diff_id.to_string()).unwrap();
        fs::write(set.join(SIZE), record.size.to_string()).unwrap();
        fs::write(set.join(CACHE_ID), record.cache_id.to_string()).unwrap();
        if let Some(parent) = record.parent {
            fs::write(set.join(PARENT), parent.to_string()).unwrap();
        }
        let mut tar_split = vec![0; 24];
        tar_split[20] = 9;
        fs::write(set.join(TAR_SPLIT), tar_split).unwrap();
        fs::create_dir_all(self.layout.overlay().diff(&record.cache_id)).unwrap();
        fs::rename(set, dir).unwrap();
    }

    fn foreign(&self, parent: Option<&LayerRecord>, mark: &str) -> LayerRecord {
        let record = Self::planned(parent, mark);
        self.write(&record);
        record
    }

    /// Commits a layer as rpull does.
    fn own(&self, parent: Option<&LayerRecord>, mark: &str) -> LayerRecord {
        let (index, record) = (self.index(), Self::planned(parent, mark));
        let mut view = index.open_locked().unwrap();
        index.add(&mut view, &record);
        self.write(&record);
        index.confirm(&mut view, &[&record], 0);
        record
    }

    /// Returns an image of `layers`, base first, and its config.
    fn image(layers: &[&LayerRecord]) -> (ImageId, String) {
        let ids: Vec<_> = layers.iter().map(|it| format!("\"{}\"", it.diff_id)).collect();
        let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, ids.join(","));
        let config = format!(r#"{{"rootfs":{rootfs}}}"#);
        (ImageId(Digest::of(config.as_bytes())), config)
    }

    /// Writes an image as dockerd does.
    fn foreign_image(&self, layers: &[&LayerRecord]) -> ImageId {
        let (id, config) = Self::image(layers);
        fs::write(self.layout.image(&id), config).unwrap();
        id
    }

    /// Commits an image as rpull does.
    fn own_image(&self, layers: &[&LayerRecord]) -> ImageId {
        let (index, (id, config)) = (self.index(), Self::image(layers));
        let mut view = index.open_locked().unwrap();
        let records: Vec<LayerRecord> = layers.iter().map(|it| (*it).clone()).collect();
        index.add_image(&mut view, id, &records);
        fs::write(self.layout.image(&id), config).unwrap();
        index.confirm(&mut view, &[], 0);
        id
    }

    fn users(&self, record: &LayerRecord) -> Vec<ImageId> {
        let index = self.index();
        index.users(&mut index.open().unwrap(), &record.chain).unwrap()
    }

    fn size(&self, id: &ImageId) -> Option<u64> {
        let index = self.index();
        index.size(&index.open().unwrap(), id)
    }

    /// The index as another process sees it.
    fn index(&self) -> LayerIndex {
        LayerIndex::new(self.layout.clone())
    }

    fn is_current(&self) -> bool {
        self.index().current().is_some()
    }

    /// Damages a record without a trace in its directory, so that a read of it is noticed.
    fn poison(&self, record: &LayerRecord) {
        for name in [DIFF, SIZE, CACHE_ID] {
            fs::write(self.layout.layer(&record.chain).join(name), "damaged").unwrap();
        }
    }

    #[track_caller]
    fn find(&self, key: Key) -> Vec<ChainId> {
        let index = self.index();
        index.find(&mut index.open().unwrap(), &key).unwrap()
    }

    #[track_caller]
    fn assert_found(&self, record: &LayerRecord) {
        assert_eq!(self.find(Key::Directory(record.cache_id.clone())), [record.chain]);
        assert!(self.find(Key::Diff(record.diff_id)).contains(&record.chain));
        let parent = record.parent.map(Key::Parent);
        assert!(parent.is_none_or(|parent| self.find(parent).contains(&record.chain)));
    }

    fn files(&self) -> Vec<String> {
        fsutil::names_in(&self.layout.layer_index()).unwrap()
    }
}

#[test]
fn layer_of_either_program_is_found_by_content_parent_and_directory() {
    let root = Root::new();
    let base = root.foreign(None, "base");
    root.assert_found(&base);
    let (one, two) = (root.own(Some(&base), "one"), root.own(Some(&base), "two"));
    assert!(root.is_current(), "own commits keep the index complete");
    let again = root.foreign(Some(&one), "two");
    assert!(!root.is_current());
    [&base, &one, &two, &again].iter().for_each(|record| root.assert_found(record));
    let mut children = root.find(Key::Parent(base.chain));
    children.sort();
    let mut expected = [one.chain, two.chain];
    expected.sort();
    assert_eq!(children, expected);
    assert_eq!(root.find(Key::Diff(two.diff_id)).len(), 2);
    assert!(root.is_current());
}

#[test]
fn rebuild_reads_only_new_records() {
    let root = Root::new();
    let old = [root.own(None, "own"), root.foreign(None, "foreign")];
    root.assert_found(&old[1]);
    old.iter().for_each(|record| root.poison(record));
    let new = root.foreign(Some(&old[0]), "new");
    [&old[0], &old[1], &new].iter().for_each(|record| root.assert_found(record));
}

#[test]
fn record_that_another_program_replaced_is_found_by_its_new_directory() {
    let root = Root::new();
    let old = root.own(None, "layer");
    fs::remove_dir_all(root.layout.layer(&old.chain)).unwrap();
    let new = root.foreign(None, "layer");
    assert_eq!((old.chain, old.diff_id), (new.chain, new.diff_id));
    root.assert_found(&new);
    assert_eq!(root.find(Key::Directory(old.cache_id)), []);
}

#[test]
fn removed_layers_leave_no_file() {
    let root = Root::new();
    let base = root.own(None, "base");
    let files = root.files();
    let top = root.own(Some(&base), "top");
    let index = root.index();
    let mut view = index.open().unwrap();
    fs::remove_dir_all(root.layout.layer(&top.chain)).unwrap();
    index.remove(&mut view, std::slice::from_ref(&top));
    index.confirm(&mut view, &[], 1);
    assert!(root.is_current());
    assert_eq!(root.files(), files);
    assert_eq!(root.find(Key::Parent(base.chain)), []);
}

#[test]
fn process_that_is_killed_at_any_step_of_a_commit_leaves_no_wrong_index() {
    let root = Root::new();
    root.own(None, "other");
    let (index, record) = (root.index(), Root::planned(None, "layer"));
    let mut view = index.open_locked().unwrap();
    index.add(&mut view, &record);
    assert!(root.is_current(), "a fact without a record is harmless");
    assert_eq!(LayerRecord::read(&root.layout, &record.chain).unwrap(), None);
    root.write(&record);
    assert!(!root.is_current(), "the record has no stamp");
    // The temporary file of the stamp, and half of a shard's.
    fs::write(root.layout.layer_index().join(".tmp-1"), "1 x").unwrap();
    root.assert_found(&record);
    assert!(root.is_current());
    assert!(!root.files().iter().any(|name| name.starts_with('.')));
}

#[test]
fn process_that_is_killed_during_a_rebuild_leaves_no_stamp() {
    let root = Root::new();
    let record = root.foreign(None, "layer");
    root.index().known().unwrap();
    assert!(!root.is_current());
    root.assert_found(&record);
    // The next rebuild: the stamp is removed before anything else is done.
    root.foreign(None, "another");
    root.index().known().unwrap();
    assert!(!root.files().contains(&STAMP.to_owned()));
}

#[test]
fn index_of_an_earlier_boot_is_compared_with_the_layer_db() {
    let root = Root::new();
    let record = root.own(None, "layer");
    // What a power failure leaves of files that were not synced.
    for name in root.files().iter().filter(|name| *name != STAMP) {
        fs::write(root.layout.layer_index().join(name), [0; 100]).unwrap();
    }
    let path = root.layout.layer_index().join(STAMP);
    let stamp = fs::read_to_string(&path).unwrap();
    let boot = stamp.split(' ').nth(1).unwrap();
    fs::write(&path, stamp.replace(boot, "00000000-0000-0000-0000-000000000000")).unwrap();
    root.assert_found(&record);
    assert!(root.is_current());
}

#[test]
fn shard_that_ends_within_a_line_is_not_used() {
    let root = Root::new();
    let record = root.own(None, "layer");
    let key = Key::Directory(record.cache_id.clone());
    let path = root.index().shard(&key);
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 9]).unwrap();
    root.assert_found(&record);
    assert_eq!(root.find(key), [record.chain]);
}

#[test]
fn root_without_our_directory_is_read_into_memory() {
    let root = Root::new();
    let record = root.foreign(None, "layer");
    fs::remove_dir_all(root.layout.layer_index().parent().unwrap()).unwrap();
    root.assert_found(&record);
    assert!(!root.layout.layer_index().exists());
    let index = root.index();
    let mut view = index.open().unwrap();
    assert_eq!(index.find(&mut view, &Key::Diff(record.diff_id)).unwrap(), [record.chain]);
    let next = Root::planned(Some(&record), "next");
    index.add(&mut view, &next);
    root.write(&next);
    index.confirm(&mut view, &[&next], 0);
    assert_eq!(index.find(&mut view, &Key::Parent(record.chain)).unwrap(), [next.chain]);
}

#[test]
fn index_is_not_confirmed_while_layers_are_partly_removed() {
    let root = Root::new();
    let (gone, stays) = (root.own(None, "gone"), root.own(None, "stays"));
    let removing = Layout::layer_removing(&root.layout.layer(&gone.chain), "0");
    fs::rename(root.layout.layer(&gone.chain), &removing).unwrap();
    let index = root.index();
    let mut view = index.open_locked().unwrap();
    assert!(!view.is_confirmed());
    // A commit meanwhile does not hide it.
    let own = Root::planned(None, "own");
    index.add(&mut view, &own);
    root.write(&own);
    index.confirm(&mut view, &[&own], 0);
    assert!(!root.is_current());
    let mut view = index.open_locked().unwrap();
    fs::remove_dir_all(&removing).unwrap();
    view.removals_are_finished();
    index.confirm(&mut view, &[], 1);
    assert!(root.is_current());
    [&stays, &own].iter().for_each(|record| root.assert_found(record));
}

#[test]
fn image_of_either_program_is_found_by_each_of_its_layers() {
    let root = Root::new();
    let base = root.own(None, "base");
    let (one, two) = (root.own(Some(&base), "one"), root.own(Some(&base), "two"));
    let own = root.own_image(&[&base, &one]);
    assert!(root.is_current(), "own images keep the index complete");
    let foreign = root.foreign_image(&[&base, &two]);
    assert!(!root.is_current());
    let mut both = vec![own, foreign];
    both.sort();
    assert_eq!(root.users(&base), both);
    assert_eq!((root.users(&one), root.users(&two)), (vec![own], vec![foreign]));
    assert_eq!((root.size(&own), root.size(&foreign)), (Some(2), Some(2)));
    assert!(root.is_current());
}

#[test]
fn rebuild_reads_only_new_images() {
    let root = Root::new();
    let base = root.own(None, "base");
    let old = [root.own_image(&[&base]), root.foreign_image(&[])];
    assert_eq!(root.users(&base), [old[0]]);
    // Damaged without a trace in the directory, so that a read is noticed.
    fs::write(root.layout.image(&old[0]), "damaged").unwrap();
    root.poison(&base);
    let top = root.foreign(Some(&base), "top");
    let new = root.foreign_image(&[&base, &top]);
    assert_eq!(root.users(&top), [new]);
    assert!(root.users(&base).contains(&old[0]));
    assert_eq!(root.size(&old[0]), Some(1));
}

#[test]
fn size_of_an_image_is_unknown_while_a_layer_is_missing() {
    let root = Root::new();
    let (base, top) = (root.own(None, "base"), Root::planned(None, "other"));
    let (whole, half) = (root.own_image(&[&base]), root.foreign_image(&[&base, &top]));
    assert_eq!((root.size(&whole), root.size(&half)), (Some(1), None));
    assert!(root.users(&base).contains(&half));
    fs::remove_dir_all(root.layout.layer(&base.chain)).unwrap();
    assert_eq!(root.size(&whole), None);
    root.write(&base);
    assert_eq!(root.size(&whole), Some(1));
}

#[test]
fn removed_image_leaves_no_file() {
    let root = Root::new();
    let base = root.own(None, "base");
    let files = root.files();
    let id = root.own_image(&[&base]);
    let index = root.index();
    let mut view = index.open().unwrap();
    fs::remove_file(root.layout.image(&id)).unwrap();
    assert_eq!(root.index().users(&mut view, &base.chain).unwrap(), []);
    index.remove_image(&mut view, id, &[base.chain]);
    index.confirm(&mut view, &[], 0);
    assert!(root.is_current());
    assert_eq!(root.files(), files);
}

#[test]
fn process_that_is_killed_before_it_writes_an_image_leaves_no_user() {
    let root = Root::new();
    let base = root.own(None, "base");
    let (index, (id, _)) = (root.index(), Root::image(&[&base]));
    let mut view = index.open_locked().unwrap();
    index.add_image(&mut view, id, std::slice::from_ref(&base));
    assert!(root.is_current());
    assert_eq!(root.users(&base), []);
    assert_eq!(root.own_image(&[&base]), id);
    assert_eq!(root.users(&base), [id]);
}
