//! The library as a program uses it: pull, layers, mount, tag, remove, events, cancellation,
//! credentials of the program's own, and errors.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rpull::credentials::{Credential, CredentialSource, Found, Secret};
use rpull::error::{RegistryError, StoreError};
use rpull::event::{LayerState, Status};
use rpull::{
    Client, DamageClass, Error, ErrorKind, Event, LayerSelector, Policy, Prune, Reference, Removed,
    Source, Store,
};
use tempfile::TempDir;

use crate::support::guard::{PASSWORD, Tls, USER, htpasswd};
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::Rpull;
use crate::support::scratch::{self, Mounted};
use crate::support::snapshot::{assert_consistent, assert_empty, names};
use crate::support::tar::{Tar, noise};

/// Keeps a test that hangs from hanging all; it measures nothing.
const GUARD: Duration = Duration::from_secs(60);

fn image(stem: &str) -> Image {
    Image::new()
        .layer(Tar::new().file("base", "base").file("noise", noise(300_000)).end())
        .layer(Tar::new().file("top", stem).file("more", noise(20_000)).end())
}

/// The digests of an image's blobs, base first.
fn blobs(stem: &str) -> Vec<String> {
    image(stem).layers.iter().map(|layer| layer.digest()).collect()
}

fn push(stem: &str) -> Pushed {
    let hub = Hub::shared();
    let push = || image(stem).push(&hub.host, &format!("{}:one", hub.repository(stem)));
    // It has a runtime of its own, which cannot start on a thread of the test's runtime.
    std::thread::scope(|scope| scope.spawn(push).join().unwrap())
}

fn store() -> (TempDir, Store) {
    let scratch = scratch::dir();
    let store = Store::open(scratch.path().join("root")).unwrap();
    (scratch, store)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn pulled_image_has_its_layers_and_config() {
    let ((_scratch, store), pushed) = (store(), push("library-pull"));
    let image = Client::default().pull(pushed.name()).into(&store).await.unwrap();
    assert_eq!(image.id().to_string(), pushed.id);
    let layers = image.layers().unwrap();
    let pulled: Vec<_> = layers.iter().map(|layer| layer.blob().unwrap().to_string()).collect();
    assert_eq!(pulled, blobs("library-pull"));
    assert_eq!(layers[0].chain_id().digest(), layers[0].diff_id().digest());
    assert_eq!(fs::read_to_string(layers[0].diff_dir().join("base")).unwrap(), "base");
    assert_eq!(fs::read_to_string(layers[1].diff_dir().join("top")).unwrap(), "library-pull");
    let config: serde_json::Value = serde_json::from_slice(&image.config().unwrap()).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][1], layers[1].diff_id().to_string());
    assert_consistent(store.root());
}

#[tokio::test]
async fn library_and_command_share_a_store() {
    let ((_scratch, store), pushed) = (store(), push("library-shared"));
    let rpull = Rpull::on(store.root());
    rpull.ok(["pull", "-q", &pushed.name()]);
    let image = store.image(&pushed.name()).unwrap();
    assert_eq!(image.inspect().unwrap(), rpull.json(["inspect", &pushed.name()])[0]);
    let layers = serde_json::to_value(image.layers().unwrap()).unwrap();
    assert_eq!(layers, rpull.json(["layers", "--format", "json", &pushed.name()]));
    let pull = Client::default().pull(pushed.name()).policy(Policy::Never);
    assert_eq!(pull.into(&store).await.unwrap().id(), image.id());
}

#[tokio::test]
async fn damaged_store_is_checked_repaired_and_cleaned() {
    let ((_scratch, store), pushed) = (store(), push("library-check"));
    let client = Client::default();
    let image = client.pull(pushed.name()).into(&store).await.unwrap();
    let base = image.layers().unwrap()[0].diff_dir().to_owned();
    fs::write(base.join("noise"), "changed").unwrap();
    assert!(store.check().run().unwrap().is_whole());
    let check = store.check().image(pushed.name()).deep(true);
    let report = check.run().unwrap();
    let damage = &report.damage[0];
    assert_eq!((damage.class, &damage.path), (DamageClass::LayerContent, &base.join("noise")));
    let repaired = client.repair(&check, &report, |_| {}).await.unwrap();
    assert_eq!((repaired.repaired.len(), repaired.remaining.len()), (1, 0));
    assert!(check.run().unwrap().is_whole());
    assert_eq!(store.usage().unwrap().images[0].id, image.id());
    assert_eq!(kind(store.check().image("missing").run()), ErrorKind::NotFound);
    let mut prune = Prune::default();
    prune.unused_for = Some(Duration::ZERO);
    let removal = store.removal().unwrap();
    assert_eq!(removal.prune(&prune).unwrap().removed.len(), 1);
    removal.remove_orphans().unwrap();
    drop(removal);
    assert_empty(store.root());
}

#[tokio::test]
async fn image_is_mounted_read_only_and_writable() {
    let ((scratch, store), pushed) = (store(), push("library-mount"));
    let image = Client::default().pull(pushed.name()).into(&store).await.unwrap();
    let target = scratch.path().join("mnt");
    fs::create_dir(&target).unwrap();
    let _mounted = Mounted(target.clone());
    image.mount(&target).unwrap();
    assert_eq!(fs::read_to_string(target.join("top")).unwrap(), "library-mount");
    let written = fs::write(target.join("new"), "").unwrap_err();
    assert_eq!(written.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(store.remove(&pushed.name(), false)), ErrorKind::Busy);
    store.unmount(&target).unwrap();
    assert!(store.unmount(&target).unwrap_err().to_string().contains("nothing is mounted"));

    let plan = image.mount_plan().unwrap().writable().unwrap();
    let changes = plan.upper().unwrap().to_owned();
    plan.mount(&target).unwrap();
    drop(plan);
    fs::write(target.join("new"), "text").unwrap();
    assert_eq!(fs::read_to_string(changes.join("new")).unwrap(), "text");
    assert_eq!(store.mounts().unwrap()[0].upper.as_ref(), Some(&changes));
    assert_eq!(store.unmount(&target).unwrap().upper.as_ref(), Some(&changes));
    assert_eq!(fs::read_to_string(changes.join("new")).unwrap(), "text");
    assert_eq!(store.unmount_and_discard(&changes).unwrap().upper, None);
    assert!(!changes.exists());

    let top = LayerSelector::Position(1);
    let plan = image.mount_plan_at(&top).unwrap().writable_as("web").unwrap();
    plan.mount(&target).unwrap();
    drop(plan);
    assert_eq!(kind(image.mount_plan().unwrap().writable_as("web")), ErrorKind::Busy);
    let mount = store.writable_mount("web").unwrap();
    assert_eq!((mount.name(), mount.image_id()), ("web", image.id()));
    let layers = image.layers().unwrap();
    assert_eq!(mount.lower(), [layers[0].diff_dir()]);
    assert_eq!(mount.chains(), [layers[0].chain_id()]);
    assert!(
        matches!(store.find_source("web").unwrap(), Source::Writable(it) if it.name() == "web")
    );
    assert!(matches!(store.find_source(&pushed.name()).unwrap(), Source::Image(_)));
    assert_eq!(kind(store.find_source("other")), ErrorKind::NotFound);
    store.unmount("web").unwrap();
    // It is read: nothing removes it meanwhile.
    assert_eq!(kind(store.remove_mount("web", false)), ErrorKind::Busy);
    drop(mount);
    assert_eq!(store.mount_names().unwrap(), ["web"]);
    store.remove_mount("web", true).unwrap();
    assert_eq!(kind(store.writable_mount("web")), ErrorKind::NotFound);
}

#[tokio::test]
async fn image_is_tagged_and_removed() {
    let ((_scratch, store), pushed) = (store(), push("library-remove"));
    let image = Client::default().pull(pushed.name()).into(&store).await.unwrap();
    let new: Reference = "registry.example/pinned:v1".parse().unwrap();
    image.tag(&new).unwrap();
    assert_eq!(store.image("registry.example/pinned:v1").unwrap().id(), image.id());
    assert_eq!(store.images().unwrap().len(), 2);
    let by_digest = new.with_digest(rpull::Digest::of(b"something"));
    assert_eq!(kind(image.tag(&by_digest)), ErrorKind::Usage);

    let several = store.remove(&image.id().to_string(), false).unwrap_err();
    assert!(
        matches!(&several, Error::Store(StoreError::SeveralNames { names, .. }) if names.len() == 2)
    );
    let removed = image.clone().remove().unwrap();
    let layers = removed.iter().filter(|removed| matches!(removed, Removed::Layer(_)));
    assert_eq!(layers.count(), 2, "{removed:?}");
    assert_empty(store.root());
    let gone = image.layers().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(gone.to_string(), format!("no such image: {}", pushed.name()));
}

#[tokio::test]
async fn several_images_are_pulled_together() {
    let ((_scratch, store), one, two) = (store(), push("library-one"), push("library-two"));
    let missing = one.name().replace(":one", ":none");
    let names = [one.name(), missing, two.name()].map(|name| name.parse().unwrap());
    let proxied = Client::default().pull_all(names).all_into(&store).await.unwrap();
    let ids: Vec<_> = proxied.iter().flatten().map(|image| image.id().to_string()).collect();
    assert_eq!(ids, [one.id, two.id]);
    assert_eq!(proxied[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn events_tell_the_course_of_a_pull() {
    let ((_scratch, store), pushed) = (store(), push("library-events"));
    let pull = || {
        let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
        let receiver = seen.clone();
        let pull = Client::default()
            .pull(pushed.name())
            .jobs(1)
            .events(move |event| receiver.lock().unwrap().push(event));
        (pull, move || std::mem::take(&mut *seen.lock().unwrap()))
    };
    let (planned, events) = pull();
    planned.dry_run(&store).await.unwrap()[0].as_ref().unwrap();
    let events = events();
    let Some(Event::Planned { layers, requests, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((layers.len(), *requests), (blobs("library-events").len(), 4));
    assert!(!store.root().exists(), "a dry run writes nothing");

    let (started, events) = pull();
    let image = started.into(&store).await.unwrap();
    let events = events();
    let Some(Event::Done { id, status, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((*id, *status), (image.id(), Status::Downloaded));
    let digest = blobs("library-events").remove(1);
    let states = events.iter().filter_map(|event| match event {
        Event::Layer { layer, state, .. } if layer.to_string() == digest => Some(*state),
        _ => None,
    });
    let states: Vec<LayerState> = states.collect();
    assert!(states.is_sorted() && states.last() == Some(&LayerState::PullComplete), "{states:?}");

    let (again, events) = pull();
    again.into(&store).await.unwrap();
    let events = events();
    assert!(
        matches!(events.last(), Some(Event::Done { status: Status::UpToDate, .. })),
        "{events:?}"
    );
}

/// Starts a pull of `push(stem)` whose base layer stalls, and drops it when the other layer is
/// unpacked and waits for the base to be committed.
async fn drop_half_done(store: &Store, pushed: &Pushed, stem: &str) {
    let base = blobs(stem).remove(0);
    let stalling = Proxy::new(move |_, path| match path.contains(&base) {
        true => Fault::Stall(100_000),
        false => Fault::None,
    });
    let complete = Arc::new(AtomicUsize::new(0));
    let counter = complete.clone();
    let pull = Client::default().pull(stalling.name(&pushed.name())).events(move |event| {
        if let Event::Layer { state: LayerState::DownloadComplete, .. } = event {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let staged =
        || names(&store.root().join("overlay2")).iter().filter(|name| *name != "l").count();
    let half_done = async {
        while staged() < 2 || complete.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = pull.into(store) => panic!("the pull ends: {result:?}"),
        half_done = tokio::time::timeout(GUARD, half_done) => half_done.expect("it hangs"),
    }
}

#[test]
fn dropped_pull_leaves_nothing() {
    let ((_scratch, store), pushed) = (store(), push("library-dropped"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(drop_half_done(&store, &pushed, "library-dropped"));
    // It waits for the threads that unpack.
    drop(runtime);
    assert_empty(store.root());
    assert_eq!(names(&store.root().join("rpull/journal")), [""; 0]);
}

/// Waits until pulls that ended or were dropped have removed what they began: they do it on
/// threads of the runtime. The limit only keeps a failing test from hanging.
async fn settle(root: &Path) {
    for _ in 0..6000 {
        if names(&root.join("rpull/journal")).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn pull_after_a_dropped_one_completes() {
    let ((_scratch, store), pushed) = (store(), push("library-again"));
    drop_half_done(&store, &pushed, "library-again").await;
    let image = Client::default().pull(pushed.name()).into(&store).await.unwrap();
    assert_eq!(image.layers().unwrap().len(), 2);
    settle(store.root()).await;
    assert_consistent(store.root());
}

#[tokio::test]
async fn pulls_of_one_program_at_the_same_time_fetch_each_blob_once() {
    let ((_scratch, store), pushed) = (store(), push("library-twice"));
    let proxy = Proxy::plain();
    let name = proxy.name(&pushed.name());
    let pull = || Client::default().pull(name.as_str()).into(&store);
    let (one, two) = tokio::join!(pull(), pull());
    assert_eq!(one.unwrap().id(), two.unwrap().id());
    for blob in blobs("library-twice") {
        assert_eq!(proxy.count(&blob), 1, "{:?}", proxy.requests());
    }
    settle(store.root()).await;
    assert_consistent(store.root());
}

#[test]
fn pull_can_be_spawned() {
    fn assert_send<T: Send>(_: T) {}
    let (_scratch, store) = store();
    assert_send(Client::default().pull("nginx").into(&store));
}

/// Knows one password, and counts how often it is asked.
struct Vault {
    host: String,
    password: &'static str,
    asked: Arc<AtomicUsize>,
}

impl CredentialSource for Vault {
    fn find(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryError> {
        assert!(path.starts_with("test/"), "{path}");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (username, password) = (USER.to_owned(), Secret::new(self.password));
        let credential = Credential::Basic { username, password };
        Ok((host == self.host).then(|| Found::new(credential, "the vault")))
    }
}

/// The error of [`Locked`].
#[derive(Debug, thiserror::Error)]
#[error("the vault is locked")]
struct IsLocked;

/// A source that cannot be read.
struct Locked;

impl CredentialSource for Locked {
    fn find(&self, _host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
        Err(RegistryError::credentials("the vault", IsLocked))
    }
}

async fn pull_with(source: impl CredentialSource + 'static, stem: &str) -> Result<(), Error> {
    let ((_scratch, store), pushed) = (store(), push(stem));
    let name = pushed.name().replace(&Hub::shared().host, htpasswd());
    let client = Client::builder().credential_source(source).build();
    client.pull(name).into(&store).await.map(drop)
}

#[tokio::test]
async fn credential_source_of_the_program_is_used() {
    let asked = Arc::new(AtomicUsize::new(0));
    let vault = |host: &str, password| Vault { host: host.into(), password, asked: asked.clone() };
    pull_with(vault(htpasswd(), PASSWORD), "library-vault").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "a client keeps what it found");

    let unknown = pull_with(vault("registry.example", PASSWORD), "library-unknown").await;
    assert!(matches!(
        unknown.unwrap_err(),
        Error::Registry(RegistryError::Unauthorized { source_of: None, .. })
    ));

    let wrong = pull_with(vault(htpasswd(), "wrong"), "library-wrong").await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Auth);
    assert!(matches!(
        wrong,
        Error::Registry(RegistryError::Unauthorized { source_of: Some(from), .. }) if from == "the vault"
    ));
}

#[tokio::test]
async fn credential_source_that_fails_ends_the_pull_with_its_error() {
    let error = pull_with(Locked, "library-locked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert_eq!(error.to_string(), "cannot read credentials from the vault: the vault is locked");
    assert!(causes(&error).any(|cause| cause.is::<IsLocked>()), "{error:?}");
}

/// The sources of an error, also those that an `io::Error` wraps.
fn causes<'e>(error: &'e Error) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| {
        let cause: &'e (dyn std::error::Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        }
    })
}

#[tokio::test]
async fn errors_have_kinds_and_sources() {
    let ((scratch, store), pushed) = (store(), push("library-errors"));
    let client = Client::builder().retries(0).build();
    let pull = |name: &str| client.pull(name).into(&store);

    assert_eq!(kind(pull("Not A Name").await), ErrorKind::Usage);
    assert_eq!(kind(pull(&pushed.name().replace(":one", ":two")).await), ErrorKind::NotFound);
    let never = client.pull(pushed.name()).policy(Policy::Never).into(&store).await.unwrap_err();
    assert!(matches!(never, Error::NotPresent(_)), "{never:?}");
    assert_eq!(kind(store.images()), ErrorKind::NotFound, "nothing was pulled yet");

    let refused = pull("127.0.0.1:1/test/refused").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Network);
    let refusal = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    };
    assert!(causes(&refused).any(refusal), "{refused:?}");

    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let in_file = Store::open(file.join("root")).unwrap();
    assert_eq!(kind(client.pull(pushed.name()).into(&in_file).await), ErrorKind::Usage);
    let store = Store::open(scratch.path().join("damaged")).unwrap();
    fs::create_dir(store.root()).unwrap();
    fs::write(store.root().join("image"), "").unwrap();
    let storage = client.pull(pushed.name()).into(&store).await.unwrap_err();
    assert_eq!(storage.kind(), ErrorKind::Storage);
    assert!(causes(&storage).any(|cause| cause.is::<io::Error>()), "{storage:?}");
}

#[tokio::test]
async fn certificate_that_is_not_trusted_is_a_tls_error() {
    let (scratch, store) = store();
    let (tls, certs) = (Tls::shared(), scratch.path().join("certs"));
    // An empty directory for the host makes it HTTPS, and adds no root.
    fs::create_dir_all(certs.join(&tls.host)).unwrap();
    let client = Client::builder().certs_dir(certs).build();
    let error = client.pull(format!("{}/test/a", tls.host)).into(&store).await.unwrap_err();
    assert!(matches!(error, Error::Registry(RegistryError::Tls { .. })), "{error:?}");
    assert!(causes(&error).any(|cause| cause.is::<rustls::Error>()), "{error:?}");
}

#[tokio::test]
async fn image_of_another_store_is_not_found() {
    let (_scratch, store) = store();
    assert_eq!(kind(store.image("nginx")), ErrorKind::NotFound);
    assert!(!Path::new(store.root()).exists(), "a look-up creates nothing");
}
