//! Tries rpull without the internet: serves the image of tests/fixtures/hello from a registry
//! of its own on this machine, pulls it over HTTP, mounts it if this is root, and runs it.
//!
//! ```text
//! cargo run --release -p try
//! ```
#![allow(clippy::print_stdout, reason = "an example prints to its user")]

mod server;

use std::error::Error;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rpull::progress::{Event, Sender};
use rpull::pull::{self, Options, Pulled};
use rpull::registry::{Registry, RegistryOptions};
use rpull::store::Store;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/hello");
    let host = server::serve(fixture)?.to_string();
    println!("a registry serves tests/fixtures/hello at http://{host}\n");

    let scratch = Scratch::create()?;
    let root = scratch.0.join("root");
    let store = Arc::new(Store::at(&root, None));
    let pulled = pull_from(&host, &store).await?;
    println!("\npulled {} as {}\n", pulled.reference, pulled.id);
    for layer in store.layer_lines(&pulled.id)? {
        println!("layer {}: {}", layer.position, layer.path.display());
    }

    let stack = store.mount_stack(&pulled.id)?;
    let target = scratch.0.join("mnt");
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

/// A directory that is removed when this value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("rpull-try-{}", std::process::id()));
        // Fails if the path exists: it could be another user's.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            println!("could not remove {}: {e}", self.0.display());
        }
    }
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
