//! Pulls an image and prints the directory of each layer. Without a reference, it pulls the image
//! of tests/fixtures/hello from a registry on this machine.
//!
//! ```text
//! cargo run --release --example pull [REFERENCE]
//! ```
#![allow(clippy::print_stdout, reason = "an example prints to its user")]

#[path = "try/src/server.rs"]
mod server;

use rpull::{Client, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layout = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hello");
    let fixture = format!("{}/hello", server::serve(layout.into())?);
    let reference = std::env::args().nth(1).unwrap_or(fixture);
    let root = tempfile::tempdir()?;
    let store = Store::open(root.path())?;
    let image = Client::from_env().pull(reference).into(&store).await?;
    for layer in image.layers()? {
        println!("{} {}", layer.chain_id(), layer.diff_dir().display());
    }
    Ok(())
}
