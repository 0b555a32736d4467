//! The documentation against the sources: pages, links and messages.

use std::fs;
use std::path::{Path, PathBuf};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            all.push(path);
        }
    }
    all
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(PROJECT);
    let top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    top.iter().map(|name| root.join(name)).chain(files(&root.join("docs"), "md")).collect()
}

/// Returns the text of a page outside of code blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("```").step_by(2).collect()
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_the_documentation_lead_to_files_and_headings() {
    for page in pages() {
        let text = prose(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let link = link.0;
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let at = page.display();
            assert!(target.exists(), "{at}: {link} leads nowhere");
            let has = |line: &str| {
                line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading
            };
            assert!(
                heading.is_empty() || prose(&target).lines().any(has),
                "{at}: no heading {link}"
            );
        }
    }
}

#[test]
fn index_of_the_documentation_lists_every_page() {
    let docs = Path::new(PROJECT).join("docs");
    let index = fs::read_to_string(docs.join("README.md")).unwrap();
    for page in files(&docs, "md") {
        let name = page.strip_prefix(&docs).unwrap().display().to_string();
        assert!(
            name == "README.md" || index.contains(&format!("]({name})")),
            "{name} is not listed"
        );
    }
}

/// Every message of docs/troubleshooting.md is one of rpull's: its words, without the names in capitals,
/// stand in the sources.
#[test]
fn messages_of_the_troubleshooting_page_are_in_the_sources() {
    let page = include_str!("../../docs/troubleshooting.md");
    let sources = files(&Path::new(PROJECT).join("src"), "rs");
    // A literal can continue on the next line.
    let all: String = sources.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let all = all.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "");
    let (mut messages, mut missing) = (0, Vec::new());
    for line in page.lines().filter_map(|line| line.strip_prefix("### ")) {
        for message in line.split('`').skip(1).step_by(2) {
            messages += 1;
            let is_name =
                |word: &str| word.chars().filter(|c| c.is_uppercase()).count() > 1 || word == "N";
            let words: Vec<&str> = message.split(' ').collect();
            for part in words.split(|word| is_name(word)) {
                let part = part.join(" ");
                let part = part.trim_end_matches([':', ',', 's']);
                if !all.contains(part) {
                    missing.push(part.to_owned());
                }
            }
        }
    }
    assert!(messages > 15);
    assert!(missing.is_empty(), "no source has {missing:?}");
}
