//! What the text and the picture of a tree both say.

use rpull::{LayerTree, TreeImage};

use crate::cli::quantity::human_size;
use crate::cli::render::fit;

/// Returns the numbers of images and layers, and what sharing saves.
pub fn sum(tree: &LayerTree) -> String {
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    let stored = sum(&mut tree.layers.iter().map(rpull::TreeLayer::size));
    let unshared = sum(&mut tree.images.iter().map(|image| image.size));
    format!(
        "{}, {}, {}; {} without sharing",
        counted(tree.images.len(), "image", "images"),
        counted(tree.layers.len(), "layer", "layers"),
        human_size(stored),
        human_size(unshared)
    )
}

/// Returns what is left out, if there is something.
pub fn not_shown(tree: &LayerTree) -> Option<String> {
    let it = tree.not_shown;
    let parts = [
        (it.layers, "layer of no image", "layers of no image"),
        (it.buildkit_directories, "directory of BuildKit", "directories of BuildKit"),
        (it.incomplete_images, "incomplete image", "incomplete images"),
        (it.intermediate_images, "intermediate image", "intermediate images"),
    ];
    let parts = parts.into_iter().filter(|(count, ..)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, one, many)| counted(count, one, many)).collect();
    (!parts.is_empty()).then(|| format!("Not shown: {}.", parts.join(", ")))
}

/// Returns the names of an image, or what stands for them.
pub fn names(image: &TreeImage) -> Vec<String> {
    match image.names.as_slice() {
        [] => vec![format!("<none> {}", image.id.short())],
        names => names.to_vec(),
    }
}

/// Returns a number with a word.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Returns `text` in lines of at most `columns`, broken at spaces.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if fit::width(line) + 1 + fit::width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit::end(word, columns)),
        }
    }
    lines
}
