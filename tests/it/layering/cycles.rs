//! Files of one module must not import each other in a cycle.
//!
//! In each folder below `src`, the nodes are its files and subfolders, except `mod.rs`. A name
//! that `mod.rs` re-exports counts as an import of the file that defines it. A name that
//! `mod.rs` itself defines belongs to the module as a whole and counts as no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Source, members, sources, word};

/// Cycles that are known and not broken yet: the folder and one node of the cycle.
const KNOWN: &[(&str, &str)] = &[("api", "client"), ("api", "store"), ("registry", "options")];

/// The files that a file imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The module path of a file: `["layer", "tar", "pax"]`.
fn module_path(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod").collect()
}

/// The folders of modules, as module paths.
fn folders(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let is_mod = |source: &&Source| source.path.ends_with("mod.rs");
    sources.iter().filter(is_mod).map(|source| module_path(&source.path)).collect()
}

/// Appends the paths of a use tree, or of a single path, at the beginning of `text`.
fn tree(text: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let name = word(text);
    let path = [prefix, &[name.to_owned()]].concat();
    match text[name.len()..].strip_prefix("::").map(str::trim_start) {
        Some(rest) => match rest.strip_prefix('{') {
            Some(group) => members(group).iter().for_each(|member| tree(member, &path, found)),
            None => tree(rest, &path, found),
        },
        None => found.push(path),
    }
}

/// The paths in `code` that begin with one of `heads`, which end with `::` or a space.
fn paths(code: &str, heads: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for head in heads {
        for (at, _) in code.match_indices(head) {
            let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':');
            if !code[..at].ends_with(inside) {
                let text = &code[at..];
                tree(text.strip_prefix("use ").unwrap_or(text), &[], &mut found);
            }
        }
    }
    found
}

/// The paths from the root of the crate that a file at `module` names.
fn absolute_paths(source: &Source) -> Vec<Vec<String>> {
    let module = module_path(&source.path);
    let resolve = |path: Vec<String>| {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let base = match path.first().map(String::as_str) {
            Some("crate") => &[][..],
            _ => &module[..module.len().saturating_sub(ups)],
        };
        [base, &path[ups.max(1)..]].concat()
    };
    paths(&source.code, &["super::", "crate::", "self::"]).into_iter().map(resolve).collect()
}

/// The imports between the nodes of `folder`.
fn graph(folder: &[String], sources: &[Source]) -> Graph {
    let below = |path: &[String]| path.strip_prefix(folder).and_then(<[_]>::first).cloned();
    let node = |source: &Source| below(&module_path(&source.path));
    let nodes: BTreeSet<String> = sources.iter().filter_map(node).collect();
    let root = sources
        .iter()
        .find(|source| source.path.ends_with("mod.rs") && module_path(&source.path) == folder);
    let uses = root.map(|root| paths(&root.code, &["use "])).unwrap_or_default();
    let re_exports: BTreeMap<&String, &String> = uses
        .iter()
        .filter(|path| nodes.contains(&path[0]))
        .filter_map(|path| Some((path.last()?, path.first()?)))
        .collect();
    let mut graph = Graph::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("tests.rs")) {
        let Some(node) = node(source) else { continue };
        for name in absolute_paths(source).iter().filter_map(|path| below(path)) {
            let target =
                if nodes.contains(&name) { Some(&name) } else { re_exports.get(&name).copied() };
            if let Some(target) = target.filter(|target| **target != node) {
                graph.entry(node.clone()).or_default().insert(target.clone());
            }
        }
    }
    graph
}

/// The nodes that `start` imports, directly or not.
fn reachable(graph: &Graph, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(node) = open.pop() {
        for next in graph.get(&node).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    found
}

/// The cycles of a graph, each as its sorted nodes.
fn cycles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|node| (node, reachable(graph, node))).collect();
    let together = |a: &String, b: &String| reach[a].contains(b) && reach[b].contains(a);
    let with =
        |node: &&String| graph.keys().filter(|other| together(node, other)).cloned().collect();
    graph.keys().filter(|node| reach[node].contains(*node)).map(|node| with(&node)).collect()
}

#[test]
fn files_of_a_module_have_no_import_cycle() {
    let sources = sources();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for folder in folders(&sources) {
        let name = folder.join("/");
        for cycle in cycles(&graph(&folder, &sources)) {
            let entry =
                KNOWN.iter().find(|(at, node)| *at == name && cycle.iter().any(|n| n == node));
            match entry {
                Some(entry) => drop(known.insert(*entry)),
                None => wrong.push(format!("{name}: {} import each other", cycle.join(", "))),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(known, KNOWN.iter().copied().collect(), "remove broken cycles from the list");
}

#[test]
fn cycle_in_each_form_of_import_is_found() {
    let source = |path: &str, code: &str| Source {
        path: path.into(),
        module: "m".to_owned(),
        code: code.to_owned(),
    };
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files.iter().map(|(path, code)| source(path, code)).collect();
        cycles(&graph(&["m".to_owned()], &sources))
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let root = ("m/mod.rs", "pub use a::{A, sub::B};\nuse b::Own;\nstruct Whole;");
    let to_a = ("m/b.rs", "use super::a::A;");
    assert_eq!(found(&[root, ("m/a.rs", "use super::b::Own;"), to_a]), "a b");
    assert_eq!(found(&[root, ("m/a.rs", "use crate::{x::Y, m::{b, c}};"), to_a]), "a b");
    assert_eq!(found(&[root, ("m/a.rs", "fn f() { super::b::g() }"), to_a]), "a b");
    assert_eq!(found(&[root, ("m/a/sub.rs", "use super::super::b;"), to_a]), "a b");
    assert_eq!(found(&[root, ("m/a.rs", "use super::Own;"), ("m/b.rs", "use super::B;")]), "a b");
    assert_eq!(found(&[root, ("m/a.rs", "use super::Whole;"), to_a]), "");
    assert_eq!(found(&[root, ("m/a.rs", "pub(super) fn b() {}\nuse x::super_b;"), to_a]), "");
}
