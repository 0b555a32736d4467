//! The whole root after a pull, drawn with its random ids replaced.

use crate::support::hub::Hub;
use crate::support::rpull::Rpull;
use crate::support::snapshot::{Ids, snapshot_store};
use crate::support::{fixture, scratch};

#[test]
fn root_after_one_pull_matches_the_snapshot() {
    let hub = Hub::shared();
    let repository = hub.repository("layout");
    let pushed = fixture::push_hello(&format!("{repository}:latest"));
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    Rpull::on(&root).ok(["pull", "-q", "--platform", "linux/amd64", &pushed.name()]);
    let ids = Ids::numbered(&root).and(&hub.host, "[REGISTRY]").and(&repository, "hello");
    insta::assert_snapshot!(snapshot_store(&root, &ids));
}
