//! What the picture of `rpull layers --svg` consists of, in pixels.

/// The width that a character takes: more than that of the usual monospace fonts at 11 pixels.
pub const ADVANCE: usize = 7;
/// The same in the title, at 16 pixels.
pub const TITLE_ADVANCE: usize = 10;
/// The height of a line of text.
pub const LINE: usize = 15;
/// The height of the title.
pub const TITLE_LINE: usize = 24;

/// What a box stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A layer, with the number of its colour if others have the same content. A dashed one
    /// continues in another row.
    Layer { colour: Option<usize>, dashed: bool },
    /// The images on top of a stack.
    Image,
}

/// A box.
#[derive(Debug, Clone)]
pub struct Rectangle {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
    pub kind: Kind,
}

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Title,
    Plain,
    Strong,
    Dim,
}

/// A line of text.
#[derive(Debug, Clone)]
pub struct Text {
    pub x: usize,
    /// Its upper edge.
    pub y: usize,
    pub text: String,
    pub look: Look,
    /// What is shown when the mouse points at it.
    pub title: Option<String>,
}

impl Text {
    #[cfg(test)]
    pub fn width(&self) -> usize {
        let advance = if self.look == Look::Title { TITLE_ADVANCE } else { ADVANCE };
        characters(&self.text) * advance
    }
}

/// The boxes and texts of a picture.
#[derive(Debug)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub title: String,
    pub boxes: Vec<Rectangle>,
    pub texts: Vec<Text>,
    /// The number of colours.
    pub colours: usize,
}

/// Returns the columns that a text takes at most. Characters other than ASCII can be wide.
fn characters(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

/// Returns the beginning of `text` that takes at most `most` columns.
pub fn fitted(text: &str, most: usize) -> String {
    if characters(text) <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(2);
    let fits = |c: &char| {
        let width = if c.is_ascii() { 1 } else { 2 };
        let rest = left.checked_sub(width);
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}
