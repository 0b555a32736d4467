//! The log of `-v` on a terminal that shows bars.

use std::process::Command;

use indicatif::{InMemoryTerm, TermLike};

use crate::support::hub::Hub;
use crate::support::image::{Image, Pack};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch;
use crate::support::tar::{Tar, noise};

#[test]
fn log_lines_are_printed_above_the_bars() {
    let layer = |size: usize| Tar::new().file("noise", noise(size)).end();
    let image = (1..=3).fold(Image::new(), |image, n| image.packed(layer(n << 20), Pack::Plain));
    let hub = Hub::shared();
    let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("terminal-log")));
    // Bars are drawn several times.
    let slow = Proxy::every("/blobs/", Fault::Slow(4 << 20));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let line = format!("stty rows 100 cols 250; {BINARY} -vv {}", slow.name(&pushed.name()));
    let mut command = Command::new("script");
    rpull.dress(&mut command);
    let command = command.args(["-q", "-e", "-c", &line, "/dev/null"]);
    let output = command.envs([("TERM", "xterm"), ("SHELL", "/bin/sh")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    // A terminal shows this in the end.
    let terminal = InMemoryTerm::new(100, 250);
    terminal.write_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let shown = terminal.contents();
    let count = |text: &str| shown.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("Downloading") + count("Total "), 0, "{shown}");
    assert!(count("DEBUG registry: GET ") >= 5 && count("DEBUG pull: unpack ") == 3, "{shown}");
    for line in shown.lines() {
        for level in ["DEBUG ", "INFO "] {
            assert!(!line.contains(level) || line.starts_with(level), "'{line}' in: {shown}");
        }
    }
    let summary = shown.lines().skip_while(|line| !line.starts_with("Digest: "));
    assert_eq!(summary.filter(|line| !line.starts_with("DEBUG ")).count(), 4, "{shown}");
}
