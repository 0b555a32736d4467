use super::*;
use crate::digest::Digest;

fn record() -> MountRecord {
    let id = format!("{}", Digest::of(b"config")).parse().unwrap();
    let base = format!("{}", Digest::of(b"layer")).parse().unwrap();
    MountRecord::new("nginx".to_owned(), id, base, false)
}

fn named(name: &str) -> MountRecord {
    MountRecord { name: Some(name.to_owned()), ..record() }
}

/// Leaves a new directory as a killed process does: no lock, nothing removed.
fn killed(layout: &Layout) -> KeptDir {
    let new = MountDir::create(layout, record()).unwrap();
    leave(layout, new)
}

fn leave(layout: &Layout, new: MountDir) -> KeptDir {
    let kept = KeptDir { path: new.path.clone() };
    let away = layout.root().join("away");
    fs::rename(&new.path, &away).unwrap();
    drop(new);
    fs::create_dir_all(away.join(UPPER)).unwrap();
    fs::create_dir_all(away.join(WORK)).unwrap();
    fs::rename(away, &kept.path).unwrap();
    kept
}

#[test]
fn sweep_keeps_a_directory_that_is_being_mounted() {
    let (_dir, layout) = Layout::scratch();
    let new = MountDir::create(&layout, record()).unwrap();
    sweep(&layout).unwrap();
    assert!(new.upper().is_dir() && new.work().is_dir());
    assert_eq!(KeptDir::all(&layout).unwrap()[0].record().unwrap(), new.record);
    drop(new);
    assert!(is_empty(&layout.mounts()), "a directory that was never mounted stays");
}

#[test]
fn sweep_removes_what_a_killed_mount_left_and_no_changes() {
    let (_dir, layout) = Layout::scratch();
    let (empty, once, changed) = (killed(&layout), killed(&layout), killed(&layout));
    fs::create_dir(once.path.join(WORK).join("work")).unwrap();
    fs::write(changed.upper().join("new"), "").unwrap();
    sweep(&layout).unwrap();
    assert!(!empty.path.exists());
    let (_, all) = overlay::uppers_everywhere();
    assert_eq!(once.path.exists(), !all);
    assert!(changed.upper().join("new").exists());
}

#[test]
fn sweep_completes_a_killed_removal_of_changes() {
    let (_dir, layout) = Layout::scratch();
    let half = layout.mounts().join(format!("{:016x}{DISCARDED}", 7));
    fs::create_dir_all(half.join(UPPER).join("new")).unwrap();
    let foreign = layout.mounts().join("notes");
    fs::create_dir(&foreign).unwrap();
    sweep(&layout).unwrap();
    assert!(!half.exists());
    assert!(foreign.exists());
}

#[test]
fn changes_are_found_by_the_path_that_the_mount_used() {
    let (dir, layout) = Layout::scratch();
    let kept = killed(&layout);
    let name = kept.path.file_name().unwrap().to_str().unwrap();
    let relative = Path::new("../rpull/mounts").join(name).join(UPPER);
    assert_eq!(KeptDir::of_upper(&layout, &relative).unwrap().path, kept.path);
    assert!(KeptDir::of_upper(&layout, &dir.path().join("upper")).is_none());
    let other = dir.path().join(name).join(UPPER);
    fs::create_dir_all(&other).unwrap();
    assert!(KeptDir::of_upper(&layout, &other).is_none());
    assert_eq!(KeptDir::at(&layout, &kept.upper()).unwrap().unwrap().path, kept.path);
    kept.discard(Elsewhere::Counts).unwrap();
    assert!(is_empty(&layout.mounts()));
}

#[test]
fn second_mount_with_a_name_is_refused_with_the_image_of_the_first() {
    let (_dir, layout) = Layout::scratch();
    let first = MountDir::create(&layout, named("web")).unwrap();
    let refused = MountDir::create(&layout, named("web")).unwrap_err().to_string();
    assert_eq!(refused, "the name web is in use by a writable mount of nginx");
    assert_eq!(KeptDir::all(&layout).unwrap().len(), 1);
    let other = MountDir::create(&layout, record()).unwrap();
    assert_ne!(other.name(), first.name());
    drop((first, other));
    MountDir::create(&layout, named("web")).unwrap();
    MountDir::create(&layout, named("../x")).unwrap_err();
    assert!(is_empty(&layout.mounts()));
}

#[test]
fn record_without_a_name_has_that_of_its_directory() {
    let (_dir, layout) = Layout::scratch();
    let kept = killed(&layout);
    let id = kept.id();
    let old = format!(r#"{{"image":"nginx","id":"{}"}}"#, Digest::of(b"config"));
    fs::write(kept.path.join(IMAGE), old).unwrap();
    assert_eq!(kept.record().unwrap().base, None);
    assert_eq!(KeptDir::named(&layout, &id).unwrap().unwrap().path, kept.path);
    MountDir::create(&layout, named(&id)).unwrap_err();
    for text in ["", "{}", r#"{"image":1}"#] {
        fs::write(kept.path.join(IMAGE), text).unwrap();
        assert_eq!((kept.name(), kept.record()), (id.clone(), None));
    }
    let hostile = format!(r#"{{"name":"a\nb","image":"x","id":"{}"}}"#, Digest::of(b"config"));
    fs::write(kept.path.join(IMAGE), hostile).unwrap();
    assert_eq!(kept.name(), id);
}

#[test]
fn unchanged_mount_stays_if_the_user_chose_its_name() {
    let (_dir, layout) = Layout::scratch();
    let never = MountDir::create(&layout, named("never")).unwrap();
    let never = leave(&layout, never);
    let once = MountDir::create(&layout, named("once")).unwrap();
    once.record_mount(&layout, Path::new("/mnt"));
    let once = leave(&layout, once);
    sweep(&layout).unwrap();
    assert!(!never.path.exists());
    assert!(!once.remove_if_unneeded().unwrap());
    assert_eq!(once.record().unwrap().target.as_deref(), Some("/mnt"));
    once.discard(Elsewhere::Counts).unwrap();
    assert!(is_empty(&layout.mounts()));
}

#[test]
fn mount_that_is_read_is_neither_removed_nor_mounted() {
    let (_dir, layout) = Layout::scratch();
    let shared = killed(&layout).share().unwrap();
    let kept = || KeptDir::named(&layout, shared.record.name.as_ref().unwrap()).unwrap().unwrap();
    let refused = kept().discard(Elsewhere::Counts).unwrap_err();
    assert!(matches!(refused, StoreError::MountInUse { act: "remove", .. }), "{refused}");
    kept().mount_again().unwrap_err();
    kept().share().unwrap();
    let kept = kept();
    drop(shared);
    let again = kept.mount_again().unwrap();
    assert!(again.upper().is_dir());
}
