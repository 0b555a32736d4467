//! Volumes of containers.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::{Place, busybox};
use crate::support::tar::{Entry, Tar};

#[test]
fn directory_of_the_machine_is_shared() {
    let place = Place::new("bind");
    let dir = place.scratch.path().join("new/data");
    let volume = format!("{}:/data", dir.display());
    place.ok(&["--rm", "-v", &volume], "echo x > /data/file");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "x\n");
    let read_only = format!("{volume}:ro");
    let failed = place.run(&["--rm", "-v", &read_only], &["touch", "/data/other"]);
    assert!(failed.stderr.contains("Read-only file system"), "{failed}");
    let hosts = place.scratch.path().join("hosts");
    fs::write(&hosts, "own\n").unwrap();
    let volume = format!("{}:/etc/hosts", hosts.display());
    assert_eq!(place.ok(&["--rm", "-v", &volume], "cat /etc/hosts"), "own\n");
}

#[test]
fn anonymous_volume_begins_with_what_the_image_has() {
    let layer = Tar::new()
        .add(Entry::dir("data/").mode(0o750).owner(33, 34))
        .add(Entry::file("data/seed", "seed\n").owner(33, 34))
        .end();
    let config = json!({"config": {"Volumes": {"/data": {}, "/empty/dir": {}}, "Cmd": ["sh"]}});
    let place = Place::with(&busybox::image().layer(layer).extra(config), "anonymous");
    let script = "stat -c '%a %u %g' /data /data/seed; cat /data/seed; rm /data/seed; touch /data/new /empty/dir/new; ls /data /empty/dir";
    let said = place.ok(&["--name", "web", "-v", "/more"], &format!("{script}; touch /more/x"));
    assert_eq!(said, "750 33 34\n644 33 34\nseed\n/data:\nnew\n\n/empty/dir:\nnew\n");
    let lines = place.rpull.json(["mounts", "--format", "json"]);
    let upper = lines[0]["upper"].as_str().unwrap();
    assert!(!fs::exists(format!("{upper}/data")).unwrap(), "a volume is not a change");
    assert_eq!(fs::read_dir(format!("{upper}/empty/dir")).unwrap().count(), 0);
    assert_eq!(fs::metadata(format!("{upper}/more")).unwrap().uid(), 0);
    place.rpull.ok(["mounts", "rm", "web"]);
    assert!(place.mounts().is_empty());
}
