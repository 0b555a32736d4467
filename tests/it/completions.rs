//! Completion in real shells.

use std::path::Path;
use std::process::Command;

use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch;
use crate::support::tar::Tar;

/// A store with an image, whose name has several colons, and the scripts of all shells.
struct Place {
    rpull: Rpull,
    image: String,
    scripts: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let hub = Hub::shared();
        let image = Image::new().layer(Tar::new().file("mark", "completed").end());
        let pushed = image.push(&hub.host, &format!("{}:latest", hub.repository("completed")));
        let scripts = scratch::dir();
        let rpull = Rpull::on(scripts.path().join("root"));
        rpull.ok(["pull", "-q", &pushed.name()]);
        for shell in ["bash", "zsh", "fish"] {
            std::fs::write(scripts.path().join(shell), rpull.ok(["completions", shell])).unwrap();
        }
        Self { rpull, image: pushed.name(), scripts }
    }

    /// Runs `script` in `shell`, which finds rpull in PATH, and returns its lines.
    fn run(&self, shell: &[&str], script: &str) -> Vec<String> {
        let mut command = Command::new(shell[0]);
        self.rpull.dress(&mut command);
        let of_binary = Path::new(BINARY).parent().unwrap().display();
        command.env("PATH", format!("{of_binary}:/usr/bin:/bin")).env("TERM", "dumb");
        command.env("HOME", self.scripts.path()).current_dir(self.scripts.path());
        let output = command.args(&shell[1..]).arg(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// What bash would insert in place of the last part of `line`.
    fn bash(&self, line: &str) -> Vec<String> {
        let script = format!(
            "source ./bash; complete -p rpull >/dev/null || exit 1; COMP_LINE='{line}'; \
             COMP_POINT=${{#COMP_LINE}}; _rpull rpull; \
             ((${{#COMPREPLY[@]}} == 0)) || printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        self.run(&["bash", "--norc", "-c"], &script)
    }

    fn fish(&self, line: &str) -> Vec<String> {
        self.run(&["fish", "--no-config", "-c"], &format!("source ./fish; complete -C '{line}'"))
    }

    /// What zsh passes to its own functions for words and for paths.
    fn zsh(&self, line: &str) -> Vec<String> {
        let (before, prefix) = line.rsplit_once(' ').unwrap();
        let script = format!(
            "compdef() {{ }}; _files() {{ print -r -- _files $@ }}; compset() {{ }}; \
             _describe() {{ print -rl -- ${{(P)2}} }}; source ./zsh; \
             words=({before} '{prefix}'); CURRENT=$#words; PREFIX='{prefix}'; _rpull"
        );
        self.run(&["zsh", "-f", "-c"], &script)
    }
}

#[test]
fn bash_completes_commands_flags_and_images() {
    let place = Place::new();
    assert_eq!(place.bash("rpull insp"), ["inspect"]);
    assert_eq!(place.bash("rpull rm --for"), ["--force", "--format"]);
    assert_eq!(place.bash("rpull --policy mis"), ["missing"]);
    // bash keeps what is before the last colon, and the text before `=`.
    let host = &place.image[..place.image.find(':').unwrap()];
    let (_, after) = place.image.split_once(':').unwrap();
    let (_, tag) = place.image.rsplit_once(':').unwrap();
    assert_eq!(place.bash(&format!("rpull {}", &host[..3])), [place.image.as_str()]);
    assert_eq!(place.bash(&format!("rpull inspect {host}:")), [after]);
    let up_to_tag = place.image.strip_suffix("latest").unwrap();
    assert_eq!(place.bash(&format!("rpull mount {up_to_tag}la")), [tag]);
    assert_eq!(place.bash("rpull pull --policy=al"), ["always"]);
    assert_eq!(place.bash("rpull --root ro"), ["root"]);
    assert!(place.bash("rpull --root nothing inspect 1").is_empty());
}

#[test]
fn fish_completes_commands_flags_and_images_with_descriptions() {
    let place = Place::new();
    let inspect = "inspect\tShow details of images in the form of `docker inspect`";
    assert_eq!(place.fish("rpull insp"), [inspect]);
    assert!(place.fish("rpull gc --dry")[0].starts_with("--dry-run\tShow what would be removed"));
    assert_eq!(place.fish("rpull rm 127"), [place.image.as_str()]);
    let directories = place.fish("rpull images --root ro");
    assert!(directories.iter().any(|line| line.starts_with("root/")), "{directories:?}");
}

#[test]
fn zsh_completes_commands_flags_and_images_with_descriptions() {
    let place = Place::new();
    let inspect = "inspect:Show details of images in the form of `docker inspect`";
    assert_eq!(place.zsh("rpull insp"), [inspect]);
    assert!(place.zsh("rpull gc --dry")[0].starts_with("--dry-run:Show what would be removed"));
    assert_eq!(place.zsh("rpull rm 127"), [place.image.replace(':', "\\:")]);
    assert_eq!(place.zsh("rpull images --root ro"), ["_files -/"]);
    assert_eq!(place.zsh("rpull --auth-file a"), ["_files"]);
}

#[test]
fn completion_in_a_root_without_a_store_changes_nothing() {
    let scratch = scratch::dir();
    let root = scratch.path().join("root");
    let rpull = Rpull::on(&root);
    for words in [&["inspect", ""][..], &["--root", "/dev/null", "rm", "x"], &[], &["--", "-x", ""]]
    {
        let done = rpull.run(["__complete"].iter().chain(words).copied());
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(0), "", ""), "{words:?}");
    }
    assert!(!root.exists());
}
