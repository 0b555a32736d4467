//! Media types of documents and blobs.

/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, compressed by gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, compressed by zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker schema 1, unsigned and signed: requested only for a specific error.
pub const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// The manifest types that a pull requests from a registry.
pub const ACCEPTED_MANIFESTS: [&str; 6] =
    [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, DOCKER_SCHEMA1[0], DOCKER_SCHEMA1[1]];

/// Returns a media type without its parameters (`; charset=utf-8`).
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or(media_type).trim()
}

/// Returns whether a blob of this type can be an image's layer, by the type or its prefix (moby
/// distribution/registry.go). The compression is detected from the bytes.
pub fn is_layer(media_type: &str) -> bool {
    let media_type = essence(media_type);
    let family =
        |prefix: &str| media_type.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    family("application/vnd.oci.image")
        || family("application/vnd.docker")
        || matches!(media_type, "" | "application/octet-stream" | "application/json" | "text/html")
}

/// Returns the kind of artifact that a config of this type describes, if it is not an image.
pub fn other_artifact(config: &str) -> Option<&'static str> {
    match essence(config) {
        "application/vnd.docker.plugin.v1+json" => Some("a Docker plugin"),
        "application/vnd.cncf.helm.config.v1+json" => Some("a Helm chart"),
        "application/vnd.oci.empty.v1+json" => Some("an artifact without a config"),
        kind if kind.starts_with("application/vnd.docker.ai.") => Some("an AI model"),
        kind if kind.starts_with("application/vnd.docker.") => None,
        kind if kind.starts_with("application/vnd.oci.image.") => None,
        // Old registries and builders omitted the type or used these.
        "" | "application/octet-stream" | "application/json" | "text/html" => None,
        _ => Some("an artifact"),
    }
}
