//! The layout of the picture of `rpull layers --svg`: boxes and lines of text, in pixels.
//!
//! Layers are boxes that are stacked from the base layer, at the bottom, up to the images, whose
//! boxes are on top. Each image takes one column. A layer is as wide as the columns of the images
//! that have it, so images share what is below both. Images with the same layers share a column. A
//! picture has few columns, and continues in more rows of stacks.

use std::collections::{BTreeSet, HashMap};

use rpull::{DiffId, ImageId, LayerTree, TreeImage, TreeLayer, printable};

use super::columns::{self, Column, Row};
use super::shapes::{
    ADVANCE, Kind, LINE, Look, Picture, Rectangle, TITLE_ADVANCE, TITLE_LINE, Text, fitted,
};
use super::summary;
use crate::cli::quantity::human_size;
use crate::cli::render::fit;

const MARGIN: usize = 20;
const PADDING: usize = 8;
const GAP: usize = 6;
/// Between two rows of stacks.
const ROW_GAP: usize = 30;

/// Characters of a label with a space, and of an ID.
const LABEL: usize = 6;
const ID: usize = 12;
/// The width of a label with its ID, with the space before the next one.
const LABELLED: usize = (LABEL + ID) * ADVANCE + 10;

const BOX_WIDTH: usize = 2 * LABELLED - 10 + 2 * PADDING;
const BOX_HEIGHT: usize = 3 * LINE + PADDING;

/// Images that the box on top of a stack names, if several have the same layers.
const NAMED: usize = 2;

/// Returns the picture of a tree of the store at `root`.
pub fn draw(tree: &LayerTree, root: &str) -> Picture {
    let columns = columns::of(tree);
    let rows = columns::in_rows(&columns);
    let widest = rows.iter().map(Vec::len).max().unwrap_or(0).max(2);
    let width = 2 * MARGIN + widest * (BOX_WIDTH + GAP) - GAP;
    let title = format!("Layers of {}", printable::escape(root));
    let mut drawing = Drawing {
        tree,
        images: tree.images.iter().map(|image| (image.id, image)).collect(),
        columns: &columns,
        spans: columns::of_layers(tree, &columns),
        colours: colours(tree),
        picture: Picture {
            width,
            height: 0,
            title,
            boxes: Vec::new(),
            texts: Vec::new(),
            colours: 0,
        },
    };
    drawing.picture.colours = drawing.colours.len();
    let mut y = drawing.header(&rows);
    for row in &rows {
        y = drawing.row(row, y + ROW_GAP);
    }
    drawing.picture.height = y + MARGIN;
    drawing.picture
}

/// Numbers the contents that several layers have.
fn colours(tree: &LayerTree) -> HashMap<DiffId, usize> {
    let mut colours = HashMap::new();
    for layer in tree.layers.iter().filter(|layer| layer.copies > 1) {
        let next = colours.len();
        colours.entry(layer.diff_id()).or_insert(next);
    }
    colours
}

struct Drawing<'a> {
    tree: &'a LayerTree,
    images: HashMap<ImageId, &'a TreeImage>,
    columns: &'a [Column<'a>],
    /// The number of columns of each layer.
    spans: Vec<usize>,
    colours: HashMap<DiffId, usize>,
    picture: Picture,
}

impl Drawing<'_> {
    /// Adds the title and the explanations. Returns the edge below them.
    fn header(&mut self, rows: &[Row]) -> usize {
        let inner = self.picture.width - 2 * MARGIN;
        let title = self.picture.title.clone();
        self.text(MARGIN, MARGIN, fitted(&title, inner / TITLE_ADVANCE), Look::Title, Some(title));
        let mut notes = vec![
            (format!("{}.", summary::sum(self.tree)), Look::Strong),
            (
                "Each box is a layer. It is on top of the layers that it needs, and as wide as the \
                 images that have it. It shows its size, the size with all layers below it, and \
                 how many images share it."
                    .to_owned(),
                Look::Plain,
            ),
            (
                "blob: distribution ID; diff: diff ID; chain: chain ID; cache: cache ID. Point at \
                 an ID to see all of it."
                    .to_owned(),
                Look::Plain,
            ),
        ];
        if !self.colours.is_empty() {
            let text =
                "Boxes of one colour are copies: the same content (diff ID) above other layers.";
            notes.push((text.to_owned(), Look::Plain));
        }
        if self.continues(rows) {
            let text = "A dashed box continues in another row.";
            notes.push((text.to_owned(), Look::Plain));
        }
        let bare: Vec<String> = self.tree.images.iter().filter(|image| image.top.is_none()).fold(
            Vec::new(),
            |mut all, image| {
                all.extend(summary::names(image));
                all
            },
        );
        if !bare.is_empty() {
            notes.push((format!("Without layers: {}.", bare.join(", ")), Look::Plain));
        }
        notes.extend(summary::not_shown(self.tree).map(|text| (text, Look::Plain)));
        let mut y = MARGIN + TITLE_LINE;
        for (note, look) in notes {
            for line in summary::wrapped(&note, inner / ADVANCE) {
                self.text(MARGIN, y, line, look, None);
                y += LINE;
            }
            y += 3;
        }
        y
    }

    /// Returns whether a layer is drawn in several rows: a base layer is, if any is.
    fn continues(&self, rows: &[Row]) -> bool {
        let base = |column: &usize| self.columns[*column].stack.first();
        let firsts = rows.iter().flat_map(|row| row.chunk_by(|a, b| base(a) == base(b)));
        let mut seen = BTreeSet::new();
        firsts.filter_map(|part| base(part.first()?)).any(|layer| !seen.insert(layer))
    }

    /// Adds a row of stacks whose upper edge is `top`. Returns the edge below it.
    fn row(&mut self, row: &Row, top: usize) -> usize {
        let columns = self.columns;
        let height = |column: &usize| {
            let column = &columns[*column];
            column.stack.len() * (BOX_HEIGHT + GAP) + label_height(column)
        };
        let bottom = top + row.iter().map(height).max().unwrap_or(0);
        // The layers that the columns so far have, with the first column of each.
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (place, column) in row.iter().map(|at| &columns[*at]).enumerate() {
            let same = open.iter().zip(&column.stack).take_while(|((a, _), b)| a == *b).count();
            self.layers(&open, same, place, bottom);
            open.truncate(same);
            open.extend(column.stack[same..].iter().map(|layer| (*layer, place)));
            let y = bottom + GAP - column.stack.len() * (BOX_HEIGHT + GAP) - label_height(column);
            self.label(column, x_of(place), y);
        }
        self.layers(&open, 0, row.len(), bottom);
        bottom
    }

    /// Adds the layers of `open` above the lowest `same`, up to the column `end`.
    fn layers(&mut self, open: &[(usize, usize)], same: usize, end: usize, bottom: usize) {
        for (level, (layer, start)) in open.iter().enumerate().skip(same) {
            let y = bottom - (level + 1) * (BOX_HEIGHT + GAP) + GAP;
            self.layer(*layer, *start, end, y);
        }
    }

    /// Adds the layer at `at` of the tree, from the column `start` up to before `end`.
    fn layer(&mut self, at: usize, start: usize, end: usize, y: usize) {
        let layer = &self.tree.layers[at];
        let x = x_of(start);
        let width = (end - start) * (BOX_WIDTH + GAP) - GAP;
        let colour = self.colours.get(&layer.diff_id()).copied();
        let kind = Kind::Layer { colour, dashed: end - start < self.spans[at] };
        self.picture.boxes.push(Rectangle { x, y, width, height: BOX_HEIGHT, kind });
        let (inner, mut y) = (width - 2 * PADDING, y + PADDING / 2);
        let x = x + PADDING;
        self.sizes(layer, x, y, inner);
        y += LINE;
        let digest = |name: &str, id: &dyn std::fmt::Display| format!("{name} {id}");
        let ids = [
            (
                "blob",
                layer.blob().map_or("<none>".to_owned(), |blob| blob.short()),
                layer.blob().map_or("it was not pulled".to_owned(), |blob| {
                    digest("distribution ID", &blob)
                }),
            ),
            ("diff", layer.diff_id().short(), digest("diff ID", &layer.diff_id())),
            ("chain", layer.chain_id().short(), digest("chain ID", &layer.chain_id())),
            (
                "cache",
                layer.cache_id().chars().take(ID).collect(),
                digest("cache ID", &layer.cache_id()),
            ),
        ];
        let per_line = if end - start > 1 { 4 } else { 2 };
        for (n, (label, short, title)) in ids.into_iter().enumerate() {
            let (x, y) = (x + n % per_line * LABELLED, y + n / per_line * LINE);
            self.text(x, y, label.to_owned(), Look::Dim, None);
            self.text(x + LABEL * ADVANCE, y, short, Look::Plain, Some(title));
        }
        if per_line == 4 {
            self.sharers(layer, x, y + LINE, inner);
        }
    }

    /// Adds the first line of a layer.
    fn sizes(&mut self, layer: &TreeLayer, x: usize, y: usize, inner: usize) {
        let size = human_size(layer.size());
        let of = match layer.parent {
            Some(_) => format!(" of {}", human_size(layer.total)),
            None => String::new(),
        };
        let mut counts = Vec::new();
        if layer.images.len() > 1 {
            counts.push(format!("{} images", layer.images.len()));
        }
        if layer.copies > 1 {
            counts.push(format!("{} copies", layer.copies));
        }
        let counts = counts.join(", ");
        let right = x + inner - counts.len() * ADVANCE;
        let next = x + size.len() * ADVANCE;
        self.text(x, y, size, Look::Strong, None);
        if !of.is_empty() && next + of.len() * ADVANCE < right {
            let title = "the size with all layers below it".to_owned();
            self.text(next, y, of, Look::Plain, Some(title));
        }
        if !counts.is_empty() {
            self.text(right, y, counts, Look::Plain, None);
        }
    }

    /// Adds the names of the images that have a layer.
    fn sharers(&mut self, layer: &TreeLayer, x: usize, y: usize, inner: usize) {
        let room = inner / ADVANCE;
        let images = &layer.images;
        let more = format!(" +{}", images.len());
        let mut text = String::new();
        let mut named = 0;
        for image in images.iter().filter_map(|id| self.images.get(id)) {
            let name = &summary::names(image)[0];
            let comma = if named > 0 { ", " } else { "" };
            if text.len() + comma.len() + name.len() + more.len() > room {
                break;
            }
            text = text + comma + name;
            named += 1;
        }
        if named < images.len() {
            text = format!("{text} +{}", images.len() - named).trim_start().to_owned();
        }
        self.text(x, y, text, Look::Dim, None);
    }

    /// Adds the box with the images on top of a stack.
    fn label(&mut self, column: &Column<'_>, x: usize, y: usize) {
        let height = label_height(column) - GAP;
        self.picture.boxes.push(Rectangle { x, y, width: BOX_WIDTH, height, kind: Kind::Image });
        let room = (BOX_WIDTH - 2 * PADDING) / ADVANCE;
        let (x, mut y) = (x + PADDING, y + PADDING / 2);
        for image in column.images.iter().take(NAMED) {
            let names = summary::names(image);
            let more = match names.len() {
                1 => String::new(),
                count => format!(" +{}", count - 1),
            };
            let first = fit::name(&names[0], room.saturating_sub(more.len() + 1));
            self.text(x, y, first + &more, Look::Strong, Some(names.join(", ")));
            let sizes = format!("  {}, own {}", human_size(image.size), human_size(image.unique));
            let title = Some(format!("image ID {}", image.id));
            self.text(x, y + LINE, image.id.short(), Look::Plain, title);
            let at = x + ID * ADVANCE;
            let title = "the size of the image, and of the layers that only it has".to_owned();
            self.text(at, y + LINE, fitted(&sizes, room - ID), Look::Plain, Some(title));
            y += 2 * LINE;
        }
        if let Some(others @ [_, ..]) = column.images.get(NAMED..) {
            let one =
                |image: &&TreeImage| format!("{} {}", summary::names(image).join(", "), image.id);
            let title = others.iter().map(one).collect::<Vec<_>>().join("; ");
            let text = format!("+{}", summary::counted(others.len(), "image", "images"));
            self.text(x, y, text, Look::Plain, Some(title));
        }
    }

    fn text(&mut self, x: usize, y: usize, text: String, look: Look, title: Option<String>) {
        self.picture.texts.push(Text { x, y, text, look, title });
    }
}

fn x_of(column: usize) -> usize {
    MARGIN + column * (BOX_WIDTH + GAP)
}

/// Returns the height of the box on top of a stack, with the gap below it.
fn label_height(column: &Column<'_>) -> usize {
    let named = column.images.len().min(NAMED);
    let others = usize::from(column.images.len() > NAMED);
    (2 * named + others) * LINE + PADDING + GAP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::layers::tests::{Root, large, small};

    fn picture(root: &Root) -> Picture {
        draw(&root.tree(), "/var/lib/docker")
    }

    #[test]
    fn texts_of_a_picture_overlap_nothing_and_stay_in_their_boxes() {
        for root in [Root::new(), small(), large()] {
            let picture = picture(&root);
            let edges = |text: &Text| {
                let height = if text.look == Look::Title { TITLE_LINE } else { LINE };
                (text.x, text.y, text.x + text.width(), text.y + height)
            };
            let within = |it: &Rectangle| (it.x, it.y, it.x + it.width, it.y + it.height);
            let apart = |a: (usize, usize, usize, usize), b: (usize, usize, usize, usize)| {
                a.2 <= b.0 || b.2 <= a.0 || a.3 <= b.1 || b.3 <= a.1
            };
            let inside = |a: (usize, usize, usize, usize), b: (usize, usize, usize, usize)| {
                a.0 >= b.0 && a.1 >= b.1 && a.2 <= b.2 && a.3 <= b.3
            };
            let all = (0, 0, picture.width, picture.height);
            for (n, text) in picture.texts.iter().enumerate() {
                let at = edges(text);
                assert!(inside(at, all) && !text.text.is_empty(), "{text:?} {all:?}");
                for other in &picture.texts[n + 1..] {
                    assert!(apart(at, edges(other)), "{text:?} {other:?}");
                }
                for it in &picture.boxes {
                    assert!(apart(at, within(it)) || inside(at, within(it)), "{text:?} {it:?}");
                }
            }
            for (n, it) in picture.boxes.iter().enumerate() {
                assert!(inside(within(it), all), "{it:?}");
                for other in &picture.boxes[n + 1..] {
                    assert!(apart(within(it), within(other)), "{it:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn layer_is_below_exactly_the_images_that_have_it() {
        let root = small();
        // One row of stacks.
        let tree = root.store().image("old:1").unwrap().layer_tree().unwrap();
        let picture = draw(&tree, "/");
        assert_eq!(tree.images.len(), 4);
        for layer in &tree.layers {
            let id = picture.texts.iter().find(|text| text.text == layer.chain_id().short());
            let id = id.unwrap();
            let around = |it: &&Rectangle| {
                it.x <= id.x && id.x < it.x + it.width && it.y <= id.y && id.y < it.y + it.height
            };
            let found = picture.boxes.iter().find(around).unwrap();
            let above = |it: &&Rectangle| {
                it.kind == Kind::Image
                    && it.x >= found.x
                    && it.x < found.x + found.width
                    && it.y < found.y
            };
            assert_eq!(picture.boxes.iter().filter(above).count(), layer.images.len(), "{layer:?}");
        }
    }
}
