//! `-q`: the canonical name of each image that is complete, and nothing else.

use std::io::{self, Write};

use rpull::event::Event;

use super::{Lines, Renderer};

/// Prints names alone.
pub struct Quiet<W>(Lines<W>);

impl<W: Write> Quiet<W> {
    /// Prints to `out`.
    pub fn new(out: Lines<W>) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Quiet<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Done { image, .. } | Event::Planned { image, .. } => {
                self.0.text(image.canonical())
            }
            _ => Ok(()),
        }
    }
}
