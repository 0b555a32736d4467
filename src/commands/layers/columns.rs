//! The columns of the picture of `rpull layers --svg`, and the rows that they are in.

use std::collections::{BTreeSet, HashMap};

use rpull::{ChainId, LayerTree, TreeImage};

/// Columns beside each other, so that the picture is as wide as a page.
const COLUMNS: usize = 4;

/// A column: the images that end at a layer, and the layers below them, base first.
pub struct Column<'a> {
    pub images: Vec<&'a TreeImage>,
    pub stack: Vec<usize>,
}

/// Columns beside each other, as positions in the list of columns.
pub type Row = Vec<usize>;

/// Returns the columns of a tree, in its order.
pub fn of(tree: &LayerTree) -> Vec<Column<'_>> {
    let by_chain: HashMap<ChainId, usize> =
        tree.layers.iter().enumerate().map(|(at, layer)| (layer.chain_id(), at)).collect();
    let at = |chain: Option<ChainId>| chain.and_then(|it| by_chain.get(&it)).copied();
    let mut columns: Vec<Column<'_>> = Vec::new();
    let mut next = tree.images.iter().filter_map(|image| Some((at(image.top)?, image))).peekable();
    while let Some((top, image)) = next.next() {
        let mut images = vec![image];
        while let Some((_, image)) = next.next_if(|(other, _)| *other == top) {
            images.push(image);
        }
        let below = |layer: &usize| at(tree.layers[*layer].parent);
        let mut stack: Vec<usize> = std::iter::successors(Some(top), below).collect();
        stack.reverse();
        columns.push(Column { images, stack });
    }
    columns
}

/// Distributes the columns over rows. Columns with the same base layer stay together if they fit;
/// small groups share a row.
pub fn in_rows(columns: &[Column<'_>]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // The rows by the columns that are free in them.
    let mut free: [BTreeSet<usize>; COLUMNS] = Default::default();
    let all: Vec<usize> = (0..columns.len()).collect();
    for group in all.chunk_by(|a, b| columns[*a].stack.first() == columns[*b].stack.first()) {
        for part in group.chunks(COLUMNS) {
            let fitting = (part.len()..COLUMNS).filter_map(|count| free[count].first());
            let row = match fitting.min().copied() {
                Some(row) => row,
                None => {
                    rows.push(Row::new());
                    rows.len() - 1
                }
            };
            for rows in &mut free {
                rows.remove(&row);
            }
            rows[row].extend(part);
            if let Some(rows_with) = free.get_mut(COLUMNS - rows[row].len()) {
                rows_with.insert(row);
            }
        }
    }
    rows
}

/// Returns the number of columns of each layer.
pub fn of_layers(tree: &LayerTree, columns: &[Column<'_>]) -> Vec<usize> {
    let mut spans = vec![0; tree.layers.len()];
    columns.iter().flat_map(|column| &column.stack).for_each(|layer| spans[*layer] += 1);
    spans
}
