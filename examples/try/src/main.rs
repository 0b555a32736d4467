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

use rpull::{Client, Event, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/hello");
    let host = server::serve(fixture)?;
    println!("a registry serves tests/fixtures/hello at http://{host}\n");

    let scratch = Scratch::create()?;
    let store = Store::open(scratch.0.join("root"))?;
    let show = |event| {
        if let Event::Layer { layer, state, .. } = event {
            println!("{}: {state:?}", layer.short());
        }
    };
    let image = Client::from_env().pull(format!("{host}/hello")).events(show).into(&store).await?;
    println!("\npulled {}\n", image.id());
    for layer in image.layers()? {
        println!("layer {}: {}", layer.position(), layer.diff_dir().display());
    }

    let target = scratch.0.join("mnt");
    std::fs::create_dir(&target)?;
    println!("\n{}", image.mount_plan()?.command(&target)?);
    match image.mount(&target) {
        Ok(()) => {
            let ran = run(&target);
            store.unmount(&target)?;
            ran?;
        }
        Err(e) => println!("({e}; mounting needs root)"),
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

fn run(target: &Path) -> Result<(), Box<dyn Error>> {
    let output = Command::new("chroot").arg(target).arg("/hello").output()?;
    println!("mounted; /hello prints: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}
