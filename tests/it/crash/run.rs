//! `run` that is killed after each file operation that changes something: its changes are kept as a writable
//! mount, or nothing of it is left.

use std::fs;

use super::{Scenario, assert_clean, assert_no_orphans};
use crate::support::busybox;
use crate::support::hub::Hub;
use crate::support::snapshot::names;
use crate::support::wait::until;

#[test]
fn run_killed_after_any_operation_leaves_its_changes_or_nothing() {
    let hub = Hub::shared();
    let image = busybox::image().push(&hub.host, &format!("{}:one", hub.repository("crash-run")));
    let name = image.name();
    let args = ["run", "--name", "web", &name, "sh", "-c", "echo x > /new"];
    Scenario::new(&[&image], &args).each(|rpull, operation| {
        let mounts = rpull.root().join("rpull/mounts");
        // The container of a killed rpull ends by itself.
        until("no container is left", || {
            rpull.ok(["run", "--rm", &name, "true"]);
            names(&mounts).iter().all(|mount| !mounts.join(mount).join("run").exists())
        });
        assert_clean(rpull, &["gc"]);
        for mount in names(&mounts) {
            let new = fs::read(mounts.join(mount).join("upper/new"));
            assert_eq!(new.unwrap(), b"x\n", "after '{operation}'");
            rpull.ok(["mounts", "rm", "web"]);
        }
        rpull.ok(["rm", &name]);
        rpull.ok(["gc"]);
        assert_no_orphans(rpull.root(), operation);
    });
}
