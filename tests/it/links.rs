//! The documentation's references: every relative link and its anchor, and every path of the
//! repository in code spans, names something that exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories of the repository. A code span that starts with one of them is a path.
const TOP: [&str; 8] =
    [".github/", "benches/", "crates/", "docs/", "examples/", "fuzz/", "src/", "tests/"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![repository().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The lines outside fenced blocks, with their numbers.
fn lines(markdown: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(markdown.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// The code spans of a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The targets of the links of a line: `](TARGET)`, outside code spans.
fn targets(line: &str) -> Vec<String> {
    let text = line.split('`').step_by(2).collect::<Vec<_>>().join("_");
    let links = text.split("](").skip(1);
    links.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The anchor that hosting sites give to a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = lines(markdown).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| slug(line.trim_start_matches('#').trim())).collect()
}

/// Returns what is wrong with a link in a document of `directory`, if anything is.
fn broken(directory: &Path, text: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = directory.join(path);
    if !file.exists() {
        return Some(format!("the link {target} leads to a file that does not exist"));
    }
    if anchor.is_empty() {
        return None;
    }
    let linked = match path {
        "" => text.to_owned(),
        _ => fs::read_to_string(&file).ok()?,
    };
    let found = anchors(&linked).contains(anchor);
    (!found).then(|| format!("the link {target} leads to a heading that does not exist"))
}

/// Returns whether a code span is a path, such as `src/error.rs` or, for a module, `store/lock`,
/// and where it leads. A span with a blank is a command.
fn path_of(span: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if span.starts_with('/') || !span.contains('/') || !span.chars().all(plain) {
        return None;
    }
    if TOP.iter().any(|top| span.starts_with(top)) {
        return Some(repository().join(span));
    }
    let module = repository().join("src").join(span.split('/').next()?);
    module.is_dir().then(|| repository().join("src").join(span))
}

/// Returns whether the path, or the module of that name, exists.
fn exists(path: &Path) -> bool {
    path.exists() || path.with_extension("rs").exists()
}

#[test]
fn links_of_the_documentation_lead_to_files_and_headings() {
    let documents = documents();
    let mut faults = Vec::new();
    let mut links = 0;
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        for (number, line) in lines(&text) {
            for target in targets(line) {
                links += 1;
                if let Some(fault) = broken(document.parent().unwrap(), &text, &target) {
                    faults.push(format!("{}:{number}: {fault}", document.display()));
                }
            }
        }
    }
    assert!(documents.len() >= 9 && links >= 12, "{links} links in {documents:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn paths_in_the_documentation_exist() {
    let mut faults = Vec::new();
    let mut paths = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (number, line) in lines(&text) {
            for (span, path) in spans(line).filter_map(|span| Some((span, path_of(span)?))) {
                paths += 1;
                if !exists(&path) {
                    faults.push(format!("{}:{number}: {span} does not exist", document.display()));
                }
            }
        }
    }
    assert!(paths >= 40, "{paths} paths");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn link_to_a_missing_file_or_heading_is_reported() {
    let text = "# A cache, shared by `roots`\n[a](#a-cache-shared-by-roots) [b](#other)";
    let faults = |target: &str| broken(repository(), text, target);
    assert_eq!(targets("see [a](README.md#use) and `[x](y)`, [b](#c)"), ["README.md#use", "#c"]);
    assert_eq!(faults("#a-cache-shared-by-roots"), None);
    assert_eq!(faults("README.md#use"), None);
    assert!(faults("#other").is_some());
    assert!(faults("README.md#other").is_some());
    assert!(faults("OTHER.md").is_some());
}

#[test]
fn path_to_a_missing_file_is_reported() {
    let found = |span| path_of(span).map(|path| exists(&path));
    assert_eq!(found("tests/it/links.rs"), Some(true));
    assert_eq!(found("src/store/"), Some(true));
    assert_eq!(found("store/layout"), Some(true));
    assert_eq!(found("tests/it/other.rs"), Some(false));
    assert_eq!(found("store/other"), Some(false));
    assert_eq!(found("linux/arm64"), None);
    assert_eq!(found("/etc/docker/certs.d"), None);
    assert_eq!(found("tests/run --help"), None);
}
