//! The image of rpull that `dist/image` writes.

use std::fs;
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::{host_architecture, push_layout};
use crate::support::rpull::{BINARY, Done, Rpull};
use crate::support::scratch::{self, Mounted};

fn write_image(out: &std::path::Path) -> String {
    let binary = format!("{}={BINARY}", host_architecture());
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dist/image"));
    command.arg(out).args(["9.9.9", &binary]).env("SOURCE_DATE_EPOCH", "1700000000");
    let done: Done = command.output().expect("start dist/image").into();
    assert_eq!(done.code, Some(0), "{done}");
    done.stdout.trim().to_owned()
}

#[test]
fn image_of_rpull_is_pulled_by_rpull_and_pulls_itself() {
    let scratch = scratch::dir();
    let layout = scratch.path().join("layout");
    let digest = write_image(&layout);
    assert_eq!(write_image(&scratch.path().join("again")), digest, "it is reproducible");
    let hub = Hub::shared();
    let pushed = push_layout(&hub.host, &format!("{}:9.9.9", hub.repository("rpull")), &layout);
    assert_eq!(pushed.digest, digest);

    let rpull = Rpull::on(scratch.path().join("root"));
    rpull.ok(["pull", "-q", &pushed.name()]);
    let entry = rpull.ok(["inspect", "-f", "{{index .Config.Entrypoint 0}}", &pushed.name()]);
    let at = scratch.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let _mounted = Mounted(at.clone());
    rpull.ok(["mount", &pushed.name(), at.to_str().unwrap()]);
    assert!(fs::metadata(at.join("etc/ssl/certs/ca-certificates.crt")).unwrap().len() > 10_000);

    // Not in a chroot: without `tests/portability`, the binary under test is not static.
    let inside = at.join(entry.trim().trim_start_matches('/'));
    let mut pulled = Command::new(inside);
    let other = Rpull::on(scratch.path().join("other"));
    other.dress(&mut pulled);
    let done: Done = pulled.args(["pull", "-q", &pushed.name()]).output().unwrap().into();
    assert_eq!((done.code, done.stdout.trim()), (Some(0), pushed.name().as_str()), "{done}");
    let ids = |rpull: &Rpull| rpull.ok(["images", "-q", "--no-trunc"]);
    assert_eq!(ids(&rpull), ids(&other));
    rpull.ok(["umount", at.to_str().unwrap()]);
}
