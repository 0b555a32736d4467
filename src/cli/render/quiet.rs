//! `-q`: the canonical name of each image that is complete, and nothing else.

use std::io::{self, Write};

use rpull::progress::Event;

use super::Renderer;

/// Prints names alone.
pub struct Quiet<W>(W);

impl<W: Write> Quiet<W> {
    /// Prints to `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Quiet<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Event::Done { image, .. } = event else { return Ok(()) };
        writeln!(self.0, "{}", image.canonical())?;
        self.0.flush()
    }
}
