//! Builds images and pushes them with `oci_client`, an implementation of the protocol
//! that shares nothing with rpull's own.

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::{Client, Reference};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// `sha256:<hex>` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

/// How a layer's tar is packed.
#[derive(Clone, Copy, PartialEq)]
pub enum Pack {
    Plain,
    Gzip,
    /// Several gzip members, as `cat a.gz b.gz` or pigz give.
    Members,
    Zstd,
}

impl Pack {
    fn bytes(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Pack::Plain => tar.to_vec(),
            Pack::Gzip => gzip(tar),
            Pack::Members => tar.chunks(700).flat_map(gzip).collect(),
            Pack::Zstd => zstd::encode_all(tar, 3).expect("zstd"),
        }
    }

    fn media_type(self, family: Family) -> &'static str {
        match (family, self) {
            (Family::Docker, Pack::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (Family::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Family::Oci, Pack::Plain) => "application/vnd.oci.image.layer.v1.tar",
            (Family::Oci, Pack::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Family::Oci, _) => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// Whose media types a manifest speaks.
#[derive(Clone, Copy, PartialEq)]
pub enum Family {
    Docker,
    Oci,
}

#[derive(Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pack: Pack,
}

impl Layer {
    pub fn diff_id(&self) -> String {
        sha256(&self.tar)
    }

    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }
}

/// An image of one platform.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Layer>,
    family: Family,
    platform: Value,
    cmd: Vec<String>,
    /// Set over the config's own fields.
    extra: Value,
    /// Set over the diff ids that the layers have.
    diff_ids: Option<Vec<String>>,
}

/// What stands on the registry after a push.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// `host:port/repository`.
    pub repository: String,
    pub tag: String,
    /// Of the manifest or index.
    pub digest: String,
    /// Of the config: the image id. Empty for an index.
    pub id: String,
}

impl Pushed {
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// A Docker image for this machine's platform with no layers.
    pub fn new() -> Self {
        Self {
            layers: Vec::new(),
            family: Family::Docker,
            platform: json!({"architecture": host_architecture(), "os": "linux"}),
            cmd: vec!["/hello".into()],
            extra: json!({}),
            diff_ids: None,
        }
    }

    pub fn oci() -> Self {
        Self { family: Family::Oci, ..Self::new() }
    }

    pub fn layer(self, tar: Vec<u8>) -> Self {
        self.packed(tar, Pack::Gzip)
    }

    pub fn packed(self, tar: Vec<u8>, pack: Pack) -> Self {
        let blob = pack.bytes(&tar);
        self.blob(tar, blob, pack)
    }

    /// A layer whose blob is not the packed form of its tar, or not by us.
    pub fn blob(mut self, tar: Vec<u8>, blob: Vec<u8>, pack: Pack) -> Self {
        self.layers.push(Layer { tar, blob, pack });
        self
    }

    pub fn cmd(mut self, cmd: &[&str]) -> Self {
        self.cmd = cmd.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    pub fn platform(mut self, os: &str, architecture: &str, variant: &str) -> Self {
        self.platform = json!({"architecture": architecture, "os": os});
        if !variant.is_empty() {
            self.platform["variant"] = json!(variant);
        }
        self
    }

    pub fn extra(mut self, extra: Value) -> Self {
        self.extra = extra;
        self
    }

    /// Diff ids that the layers do not have.
    pub fn claims_diff_ids(mut self, ids: Vec<String>) -> Self {
        self.diff_ids = Some(ids);
        self
    }

    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(Layer::diff_id).collect()
    }

    pub fn config(&self) -> Vec<u8> {
        let history: Vec<_> = (0..self.layers.len())
            .map(|n| json!({"created": "2023-11-14T22:13:20Z", "created_by": format!("layer {n}")}))
            .collect();
        let mut config = json!({
            "config": {"Cmd": self.cmd, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "created": "2023-11-14T22:13:20Z",
            "history": history,
            "rootfs": {
                "type": "layers",
                "diff_ids": self.diff_ids.clone().unwrap_or_else(|| self.diff_ids()),
            },
        });
        merge(&mut config, &self.platform);
        merge(&mut config, &self.extra);
        config.to_string().into_bytes()
    }

    fn media_types(&self) -> (&'static str, &'static str) {
        match self.family {
            Family::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ),
            Family::Oci => (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
            ),
        }
    }

    /// The manifest as a value, for tests that bend it before they push it.
    pub fn manifest(&self) -> Value {
        let config = self.config();
        let (manifest_type, config_type) = self.media_types();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": layer.pack.media_type(self.family),
                    "size": layer.blob.len(),
                    "digest": layer.digest(),
                })
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "size": config.len(), "digest": sha256(&config)},
            "layers": layers,
        })
    }

    /// Pushes everything; `name` is `repository:tag` on `host`.
    pub fn push(&self, host: &str, name: &str) -> Pushed {
        self.push_as(host, name, &self.manifest())
    }

    /// Pushes the blobs and a manifest of the caller's.
    pub fn push_as(&self, host: &str, name: &str, manifest: &Value) -> Pushed {
        let pusher = Pusher::new(host, name);
        for layer in &self.layers {
            pusher.blob(&layer.blob);
        }
        let config = self.config();
        pusher.blob(&config);
        let mut pushed = pusher.manifest(manifest);
        pushed.id = sha256(&config);
        pushed
    }
}

/// The entries of an index that is pushed under one tag.
#[derive(Default)]
pub struct Index {
    entries: Vec<(Image, Value)>,
}

impl Index {
    pub fn new() -> Self {
        Self::default()
    }

    /// With the platform that the image's config has.
    pub fn add(self, image: Image) -> Self {
        let platform = image.platform.clone();
        self.add_as(image, platform)
    }

    /// With another platform in the index, or `Null` for none.
    pub fn add_as(mut self, image: Image, platform: Value) -> Self {
        self.entries.push((image, platform));
        self
    }

    /// What buildkit puts beside an image: an entry of platform unknown/unknown.
    pub fn attestation(self) -> Self {
        let statement = Image::oci().layer(b"{\"_type\":\"in-toto\"}".to_vec());
        self.add_as(statement, json!({"architecture": "unknown", "os": "unknown"}))
    }

    pub fn push(&self, host: &str, name: &str) -> Pushed {
        let repository = name.split(':').next().unwrap_or(name);
        let mut family = Family::Docker;
        let mut manifests = Vec::new();
        for (n, (image, platform)) in self.entries.iter().enumerate() {
            let part = image.push(host, &format!("{repository}:part-{n}"));
            let bytes = image.manifest().to_string();
            let mut entry = json!({
                "mediaType": image.media_types().0,
                "size": bytes.len(),
                "digest": part.digest,
            });
            if !platform.is_null() {
                entry["platform"] = platform.clone();
            }
            if platform["os"] == "unknown" {
                entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
            }
            family = image.family;
            manifests.push(entry);
        }
        let media_type = match family {
            Family::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
            Family::Oci => "application/vnd.oci.image.index.v1+json",
        };
        Pusher::new(host, name).manifest(&json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": manifests,
        }))
    }
}

/// Blobs and manifests into one repository, plain HTTP.
pub struct Pusher {
    client: Client,
    reference: Reference,
}

impl Pusher {
    pub fn new(host: &str, name: &str) -> Self {
        let config = ClientConfig { protocol: ClientProtocol::Http, ..Default::default() };
        let _entered = runtime().enter();
        let client = Client::try_from(config).expect("oci client");
        let reference = format!("{host}/{name}").parse().expect("a name");
        Self { client, reference }
    }

    pub fn blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let push = async {
            if !self.client.blob_exists(&self.reference, &digest).await.expect("ask for a blob") {
                let pushed = self.client.push_blob(&self.reference, bytes.to_vec(), &digest).await;
                pushed.expect("push a blob");
            }
        };
        runtime().block_on(push);
        digest
    }

    pub fn manifest(&self, manifest: &Value) -> Pushed {
        let media_type = manifest["mediaType"].as_str().expect("a media type").to_owned();
        self.manifest_bytes(manifest.to_string().into_bytes(), &media_type)
    }

    pub fn manifest_bytes(&self, bytes: Vec<u8>, media_type: &str) -> Pushed {
        let digest = sha256(&bytes);
        let content_type = media_type.parse().expect("a media type");
        runtime()
            .block_on(self.client.push_manifest_raw(&self.reference, bytes, content_type))
            .expect("push a manifest");
        Pushed {
            repository: format!("{}/{}", self.reference.registry(), self.reference.repository()),
            tag: self.reference.tag().unwrap_or_default().to_owned(),
            digest,
            id: String::new(),
        }
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // Another test may have been first: one provider is as good as the other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// In the words of `GOARCH`.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// Pushes the OCI image layout in `dir`, whose index names one image or index.
pub fn push_layout(host: &str, name: &str, dir: &Path) -> Pushed {
    let repository = name.split(':').next().unwrap_or(name);
    let read = |digest: &str| {
        std::fs::read(dir.join("blobs").join(digest.replace(':', "/"))).expect("a blob")
    };
    let index: Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).expect("index.json"))
            .expect("index.json");
    let root = &index["manifests"][0];
    let bytes = read(root["digest"].as_str().expect("a digest"));
    let parsed: Value = serde_json::from_slice(&bytes).expect("JSON");
    for entry in parsed["manifests"].as_array().into_iter().flatten() {
        let digest = entry["digest"].as_str().expect("a digest");
        let manifest = read(digest);
        let parsed: Value = serde_json::from_slice(&manifest).expect("JSON");
        let pusher = Pusher::new(host, &format!("{repository}@{digest}"));
        let blobs = parsed["layers"].as_array().into_iter().flatten().chain([&parsed["config"]]);
        for blob in blobs {
            pusher.blob(&read(blob["digest"].as_str().expect("a digest")));
        }
        pusher.manifest_bytes(manifest, entry["mediaType"].as_str().expect("a media type"));
    }
    Pusher::new(host, name).manifest_bytes(bytes, root["mediaType"].as_str().expect("a media type"))
}
