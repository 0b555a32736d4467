//! Tries rpull without the internet: serves the image of tests/fixtures/hello from a registry
//! of its own on this machine, pulls it over HTTP, mounts it if this is root, and runs it.
//!
//! ```text
//! cargo run --release --example try
//! ```
#![allow(clippy::print_stdout, reason = "an example prints to its user")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as Segments, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use rpull::progress::{Event, Sender};
use rpull::pull::{self, Options, Pulled};
use rpull::registry::{Registry, RegistryOptions};
use rpull::store::Store;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hello");
    let host = serve(fixture).await?;
    println!("a registry serves tests/fixtures/hello at http://{host}\n");

    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    let store = Arc::new(Store::at(&root, None));
    let pulled = pull_from(&host, &store).await?;
    println!("\npulled {} as {}\n", pulled.reference, pulled.id);
    for layer in store.layer_lines(&pulled.id)? {
        println!("layer {}: {}", layer.position, layer.path.display());
    }

    let stack = store.mount_stack(&pulled.id)?;
    let target = scratch.path().join("mnt");
    std::fs::create_dir(&target)?;
    println!("\n{}", stack.command(&target));
    match stack.mount(&target) {
        Ok(()) => {
            let ran = run(&target);
            rpull::overlay::unmount(&target)?;
            ran?;
        }
        Err(e) => println!("(not mounted: {e}; mounting needs root)"),
    }
    Ok(())
}

async fn pull_from(host: &str, store: &Arc<Store>) -> Outcome<Pulled> {
    let (sender, events) = Sender::channel();
    let registry = Registry::new(RegistryOptions::default());
    let image = format!("{host}/hello").parse()?;
    let mut results = pull::pull(store, &registry, vec![image], &Options::default(), &sender).await;
    drop(sender);
    for event in events {
        if let Event::Layer { layer, state, .. } = event {
            println!("{}: {state:?}", layer.short());
        }
    }
    results.pop().ok_or("nothing was pulled")?.map_err(|e| e.to_string().into())
}

fn run(target: &Path) -> Outcome<()> {
    let output = Command::new("chroot").arg(target).arg("/hello").output()?;
    println!("mounted; /hello prints: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

/// Serves an OCI image layout through the distribution protocol, and returns its address.
async fn serve(layout: PathBuf) -> Outcome<String> {
    let routes = Router::new()
        .route("/v2/", get(|| async { "{}" }))
        .route("/v2/hello/manifests/{reference}", get(manifest))
        .route("/v2/hello/blobs/{digest}", get(blob))
        .with_state(layout);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let host = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(host)
}

async fn manifest(
    State(layout): State<PathBuf>,
    Segments(reference): Segments<String>,
) -> Response {
    let digest = match reference.contains(':') {
        true => Some(reference),
        false => named_by_index(&layout),
    };
    let Some((digest, bytes)) =
        digest.and_then(|digest| Some((digest.clone(), read(&layout, &digest)?)))
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let media_type =
        json["mediaType"].as_str().unwrap_or("application/vnd.oci.image.index.v1+json").to_owned();
    let headers = [(header::CONTENT_TYPE.as_str(), media_type), ("docker-content-digest", digest)];
    (headers, bytes).into_response()
}

async fn blob(State(layout): State<PathBuf>, Segments(digest): Segments<String>) -> Response {
    match read(&layout, &digest) {
        Some(bytes) => bytes.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn named_by_index(layout: &Path) -> Option<String> {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?).ok()?;
    Some(index["manifests"][0]["digest"].as_str()?.to_owned())
}

fn read(layout: &Path, digest: &str) -> Option<Vec<u8>> {
    let digest: rpull::digest::Digest = digest.parse().ok()?;
    std::fs::read(layout.join("blobs/sha256").join(digest.hex())).ok()
}
