//! The design's tables, read off the source: which module may import which, where a
//! third-party crate may be named, where the root's path names may stand, and that the files
//! of a module do not import each other in a cycle.

mod cycles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the public face may see: the operations as well.
const FACADE: &[&str] = &[
    "digest",
    "fsutil",
    "reference",
    "oci",
    "progress",
    "overlay",
    "registry",
    "layer",
    "store",
    "archive",
    "bundle",
    "namespace",
    "error",
    "pull",
    "import",
    "push",
    "copy",
    "build",
];

/// `pull` fails with the top error, so it stands above it.
const OPERATION: &[&str] = FACADE.split_at(13).0;

/// What adds content of this machine sees no registry.
const LOCAL: &[&str] =
    &["digest", "fsutil", "reference", "oci", "overlay", "layer", "store", "error", "pull"];

/// What goes between registries sees no store.
const REMOTE: &[&str] = &["digest", "reference", "oci", "progress", "registry", "error", "pull"];

/// What builds images sees neither registries nor the facade.
const BUILD: &[&str] = &[
    "digest",
    "fsutil",
    "printable",
    "oci",
    "overlay",
    "layer",
    "store",
    "import",
    "pull",
    "error",
];

/// What the top error may see: every module that has errors of its own.
const MECHANISMS: &[&str] = FACADE.split_at(12).0;

/// A module and what it may import of this crate.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("digest", &[]),
    ("fsutil", &[]),
    ("printable", &[]),
    ("reference", &["digest"]),
    ("oci", &["digest"]),
    ("progress", &["digest", "reference", "oci"]),
    ("overlay", &["fsutil"]),
    ("registry", &["digest", "reference", "oci", "progress", "printable"]),
    ("layer", &["digest", "oci", "overlay", "progress", "fsutil", "printable"]),
    ("store", &["digest", "reference", "oci", "overlay", "fsutil"]),
    ("archive", &["digest", "reference", "oci", "overlay", "fsutil", "layer", "store"]),
    ("bundle", &[]),
    ("namespace", &["overlay"]),
    ("error", MECHANISMS),
    ("pull", OPERATION),
    ("push", FACADE),
    ("copy", REMOTE),
    ("import", LOCAL),
    ("build", BUILD),
    ("api", FACADE),
];

/// Modules of the binary: they see the library's public API and each other.
const BINARY: &[&str] = &["main", "cli", "commands"];

/// A crate and the only modules that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("oci_client", &["registry"]),
    ("oci_spec", &["bundle"]),
    ("parse_dockerfile", &["build"]),
    ("reqwest", &["registry"]),
    ("hyper_util", &["registry"]),
    ("rustls", &["registry"]),
    ("rustls_native_certs", &["registry"]),
    ("webpki", &["registry"]),
    ("tar", &["layer"]),
    ("flate2", &["layer"]),
    ("inflate", &["layer"]),
    ("sha256_x2", &["digest"]),
    ("zstd", &["layer"]),
    ("indicatif", BINARY),
    ("clap", BINARY),
    // Modules that decide something or wait. What only computes has nothing to log.
    ("tracing", &["registry", "pull", "push", "store", "cli"]),
    ("tokio", &["registry", "pull", "push", "main", "cli", "commands"]),
];

/// Names that only the drawing of the root may spell.
const ROOT_NAMES: &[&str] = &[
    "layerdb",
    "imagedb",
    "repositories.json",
    "diffid-by-digest",
    "v2metadata-by-diffid",
    "cache-id",
    "tar-split.json.gz",
    "committed",
];

struct Source {
    /// Below `src`, as `layer/unpack.rs`.
    path: PathBuf,
    module: String,
    /// Without comments and without the unit tests.
    code: String,
}

/// The sources of `rpull` itself.
fn sources() -> Vec<Source> {
    let found = sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.len() > 10, "these are not the sources");
    found
}

fn sources_below(src: &Path) -> Vec<Source> {
    let mut open = vec![src.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(src).unwrap().to_owned();
            let first = below.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            found.push(Source {
                module,
                code: code(&fs::read_to_string(&path).unwrap()),
                path: below,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn code(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let uncomment = |line: &str| match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text[..tests].lines().map(|line| uncomment(line) + "\n").collect()
}

/// The top-level modules that `code` names by `crate::` or by climbing to the root.
fn imports(source: &Source) -> BTreeSet<String> {
    let depth = source.path.components().count()
        - usize::from(source.path.ends_with("mod.rs") && source.path.components().count() > 1);
    let climb = "super::".repeat(depth);
    let mut found = BTreeSet::new();
    for prefix in ["crate::", climb.as_str()] {
        for (at, _) in source.code.match_indices(prefix) {
            if source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &source.code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(heads(group));
            } else {
                found.insert(word(rest).to_owned());
            }
        }
    }
    found.retain(|name| {
        MAY_IMPORT.iter().any(|(module, _)| module == name) || BINARY.contains(&name.as_str())
    });
    found.remove(&source.module);
    found
}

/// The first word of each member of a `{a::b, c::{d, e}}` whose brace is open.
fn heads(group: &str) -> Vec<String> {
    members(group).into_iter().map(|member| word(member).to_owned()).collect()
}

/// The members of a `{a::b, c::{d, e}}` whose brace is open.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn modules_import_only_what_the_design_allows() {
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module == "lib" || BINARY.contains(&source.module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(source.module.as_str()) else {
            wrong.push(format!("{}: module {} is in no row", source.path.display(), source.module));
            continue;
        };
        for import in imports(&source) {
            if !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn third_party_crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in CONFINED {
            if names_crate(&source.code, name) && !homes.contains(&source.module.as_str()) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `name::` at the head of a path, or `use name;`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"')
            || before.strip_suffix("::").is_some_and(|b| b.ends_with(char::is_alphanumeric));
        let after = &code[at + name.len()..];
        !inside && (after.starts_with("::") || before.ends_with("use ") && after.starts_with(';'))
    })
}

/// The lint tables forbid it already; this notices when a table is lost or overridden.
#[test]
fn unsafe_code_is_only_in_sha256_x2() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = |path: &str| fs::read_to_string(root.join(path).join("Cargo.toml")).unwrap();
    assert!(manifest("").contains("\nunsafe_code = \"forbid\"\n"));
    for forbidding in ["", "crates/inflate"] {
        assert!(manifest(forbidding).contains("[lints]\nworkspace = true"), "{forbidding}");
    }
    let mut folders = vec![PathBuf::from("src")];
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        folders.push(Path::new("crates").join(entry.unwrap().file_name()).join("src"));
    }
    assert!(folders.len() > 2, "the crates were not found");
    folders.retain(|folder| {
        sources_below(&root.join(folder)).iter().any(|source| has_word(&source.code, "unsafe"))
    });
    assert_eq!(folders, [Path::new("crates/sha256-x2/src")]);
}

/// Whether `code` has `name` as a word of its own, so not within `unsafe_code`.
fn has_word(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// clippy.toml forbids the functions; this holds also for code that no lint is run on, and
/// for indicatif, which writes by itself.
#[test]
fn output_leaves_through_one_file() {
    let mut wrong = Vec::new();
    for source in sources() {
        for door in ["io::stdout", "io::stderr", "println!", "print!", "dbg!", "/dev/tty"] {
            if source.code.contains(door) && source.path != Path::new("cli/output.rs") {
                wrong.push(format!("{} names {door}", source.path.display()));
            }
        }
        let texts = [".println(", ".set_message(", ".set_prefix("];
        let texts: usize = texts.iter().map(|text| source.code.matches(text).count()).sum();
        if texts != usize::from(source.path == Path::new("cli/render/tty.rs")) {
            wrong.push(format!("{} prints {texts} times by itself", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A root can have a FIFO or a device in place of a file, which `fsutil` refuses. The others read
/// files of the kernel, or open a directory.
#[test]
fn files_of_a_root_are_read_by_fsutil() {
    let kernel = [
        "daemon.rs",
        "lock.rs",
        "mounted.rs",
        "boot.rs",
        "mountinfo.rs",
        "diff_dir.rs",
        "abilities.rs",
    ];
    let directory = ["mounts.rs", "unsynced.rs"];
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|it| ["store", "overlay"].contains(&&*it.module)) {
        for (door, known) in [
            ("fs::read(", &kernel[..]),
            ("fs::read_to_string(", &kernel),
            ("File::open(", &directory),
        ] {
            let name = source.path.file_name().unwrap().to_str().unwrap();
            let test = name == "tests.rs";
            if source.code.contains(door) && !known.contains(&name) && !test {
                wrong.push(format!("{} names {door}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn path_names_of_the_root_are_in_one_file() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module == "overlay" || source.path == Path::new("store/layout.rs") {
            continue;
        }
        for name in ROOT_NAMES {
            if source.code.contains(&format!("\"{name}\""))
                || source.code.contains(&format!("{name}/"))
            {
                wrong.push(format!("{} spells {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn import_in_every_form_is_found() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        module: word(path).to_owned(),
        code: code(text),
    };
    let of = |path: &str, text: &str| {
        imports(&source(path, text)).into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of("layer/a.rs", "use crate::store::Store;"), "store");
    assert_eq!(of("layer/a.rs", "use crate::{digest::{A, B}, store::Store};"), "digest store");
    assert_eq!(of("layer/a.rs", "fn f() -> crate::pull::X {}"), "pull");
    assert_eq!(of("layer/a.rs", "use super::super::store;"), "store");
    assert_eq!(of("layer/mod.rs", "use super::store;"), "store");
    assert_eq!(of("layer.rs", "use super::store;"), "store");
    assert_eq!(of("layer/a.rs", "// crate::store\nuse super::tar;"), "");
    assert_eq!(of("layer/a.rs", "#[cfg(test)]\nmod tests { use crate::store; }"), "");
    assert!(names_crate("use tar::Header;", "tar"));
    assert!(names_crate("let h: ::tar::Header;", "tar"));
    assert!(!names_crate("use crate::layer::tar::X; start::x", "tar"));
}
