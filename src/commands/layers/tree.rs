//! The tree of `rpull layers --tree` as text.
//!
//! A layer is on the layer above its own line that starts in the same column. Only branches are
//! indented, so that a stack of a hundred layers stays readable.

use std::collections::HashMap;

use rpull::{ChainId, LayerTree, TreeLayer};

use super::summary;
use crate::cli::quantity::human_size;
use crate::cli::render::fit;

/// Branches that are indented, one in another. Lines of a tree with more would become ever longer.
const MAX_LEVELS: usize = 16;

/// Columns between two columns of the table.
const GAP: usize = 3;

/// Columns that names should have. Other columns are left out for them.
const NAMES_WIDTH: usize = 20;

const HEADER: [&str; 6] = ["#", "CHAIN ID", "SIZE", "TOTAL", "IMAGES", "NAMES"];
const NAMES: usize = 5;

/// The columns that a terminal shows. A narrower one shows a later set.
const SHOWN: [&[usize]; 4] = [&[0, 1, 2, 3, 4, 5], &[0, 1, 2, 4, 5], &[0, 1, 2, 5], &[1, 2, 5]];

/// How a tree is printed.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether lines can have characters other than ASCII.
    pub utf8: bool,
    /// Whether IDs are shown in full.
    pub no_trunc: bool,
    /// The columns of the terminal, if there is one.
    pub columns: Option<usize>,
}

/// A row without its names, and the names of the images that end there.
struct Row {
    cells: [String; NAMES],
    names: Vec<String>,
}

/// Returns the lines of a tree.
pub fn lines(tree: &LayerTree, style: Style) -> Vec<String> {
    let rows = rows(tree, style);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| fit::width(&row.cells[column]));
        cells.max().unwrap_or(0).max(HEADER[column].len())
    };
    let mut widths: [usize; NAMES] = std::array::from_fn(width);
    if let Some(columns) = style.columns.filter(|_| !style.no_trunc) {
        widths[1] = widths[1].min((columns / 2).max(HEADER[1].len()));
    }
    let before_names = |shown: &[usize]| -> usize {
        shown.iter().filter(|column| **column != NAMES).map(|column| widths[*column] + GAP).sum()
    };
    let fits = |shown: &&&[usize]| {
        style.columns.is_none_or(|columns| before_names(shown) + NAMES_WIDTH <= columns)
    };
    let shown = SHOWN.iter().find(fits).copied().unwrap_or(SHOWN[3]);
    let names_width = style.columns.map(|columns| columns.saturating_sub(before_names(shown)));
    let line = |cells: &[String; NAMES], names: &str| {
        let cell = |column: &usize| match *column {
            NAMES => names.to_owned(),
            1 => format!("{:1$}", end_of(&cells[1], widths[1]), widths[1] + GAP),
            column => format!("{:1$}", cells[column], widths[column] + GAP),
        };
        let line: String = shown.iter().map(cell).collect();
        let line = line.trim_end();
        style.columns.map_or(line.to_owned(), |columns| fit::end(line, columns))
    };
    let header = std::array::from_fn(|column| HEADER[column].to_owned());
    let mut lines = vec![line(&header, HEADER[NAMES])];
    lines.extend(rows.iter().map(|row| line(&row.cells, &names_in(&row.names, names_width))));
    let mut notes = vec![format!("{}.", summary::sum(tree))];
    if tree.layers.iter().any(|layer| layer.copies > 1) {
        notes.push("* The same content (diff ID) is also above other layers.".to_owned());
    }
    notes.extend(summary::not_shown(tree));
    lines.push(String::new());
    for note in notes {
        lines.extend(summary::wrapped(&note, style.columns.unwrap_or(usize::MAX)));
    }
    if !style.utf8 {
        lines.iter_mut().for_each(|line| *line = line.replace('…', "~"));
    }
    lines
}

fn rows(tree: &LayerTree, style: Style) -> Vec<Row> {
    let mut names: HashMap<Option<ChainId>, Vec<String>> = HashMap::new();
    for image in &tree.images {
        names.entry(image.top).or_default().extend(summary::names(image));
    }
    let bare = names.remove(&None).into_iter().flatten().map(|name| Row {
        cells: ["0", "-", "0B", "0B", "1"].map(str::to_owned),
        names: vec![name],
    });
    let mut rows: Vec<Row> = bare.collect();
    let starts = starts(tree, style.utf8);
    for (layer, start) in tree.layers.iter().zip(starts) {
        let chain = layer.chain_id();
        let id = if style.no_trunc { chain.to_string() } else { chain.short() };
        let mark = if layer.copies > 1 { "*" } else { "" };
        rows.push(Row {
            cells: [
                layer.position().to_string(),
                format!("{start}{id}{mark}"),
                human_size(layer.size()),
                human_size(layer.total),
                layer.images.len().to_string(),
            ],
            names: names.remove(&Some(chain)).unwrap_or_default(),
        });
    }
    rows
}

/// Returns what stands before the ID of each layer.
fn starts(tree: &LayerTree, utf8: bool) -> Vec<String> {
    let [branch, last_branch, line, deeper] = match utf8 {
        true => ["├─ ", "└─ ", "│  ", "… "],
        false => ["|- ", "`- ", "|  ", "> "],
    };
    // The number of layers on each layer that are not listed yet.
    let mut left: HashMap<ChainId, usize> = HashMap::new();
    for parent in tree.layers.iter().filter_map(|layer| layer.parent) {
        *left.entry(parent).or_default() += 1;
    }
    let branches: HashMap<ChainId, bool> =
        left.iter().map(|(chain, count)| (*chain, *count > 1)).collect();
    // What stands before the layers on each layer, and the number of levels in it.
    let mut above: HashMap<ChainId, (String, usize)> = HashMap::new();
    let mut start = |layer: &TreeLayer| {
        let below = layer.parent.and_then(|parent| above.get(&parent)).cloned();
        let (column, level) = below.unwrap_or_default();
        let is_branch = layer.parent.is_some_and(|it| branches.get(&it) == Some(&true));
        let left = layer.parent.and_then(|parent| left.get_mut(&parent));
        let is_last = left.is_none_or(|left| {
            *left -= 1;
            *left == 0
        });
        let (own, next, level) = match (is_branch, is_last) {
            (false, _) => (column.clone(), column, level),
            (true, _) if level >= MAX_LEVELS => (format!("{column}{deeper}"), column, level),
            (true, false) => (format!("{column}{branch}"), format!("{column}{line}"), level + 1),
            (true, true) => (format!("{column}{last_branch}"), format!("{column}   "), level + 1),
        };
        above.insert(layer.chain_id(), (next, level));
        own
    };
    tree.layers.iter().map(&mut start).collect()
}

/// Returns `text` in at most `columns`, without its beginning if it is longer.
fn end_of(text: &str, columns: usize) -> String {
    match fit::width(text).checked_sub(columns) {
        None | Some(0) => text.to_owned(),
        Some(more) => std::iter::once('…').chain(text.chars().skip(more + 1)).collect(),
    }
}

/// Returns the names in at most `columns`: all, or the first one and the number of the others.
fn names_in(names: &[String], columns: Option<usize>) -> String {
    let all = names.join(", ");
    match (columns, names) {
        (Some(columns), [first, others @ ..]) if fit::width(&all) > columns => {
            let others = match others.len() {
                0 => String::new(),
                count => format!(" +{count}"),
            };
            fit::name(first, columns.saturating_sub(others.len())) + &others
        }
        _ => all,
    }
}
