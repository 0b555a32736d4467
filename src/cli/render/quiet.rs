//! `-q`: the canonical name of each image that is complete, in the order of the arguments, and
//! nothing else.

use std::io::{self, Write};

use rpull::Reference;
use rpull::event::Event;

use super::{Lines, Renderer};

/// Prints names alone.
pub struct Quiet<W> {
    out: Lines<W>,
    /// The images, and whether they are complete, once they ended.
    images: Vec<(Reference, Option<bool>)>,
    /// The images at the beginning that ended and whose names are printed.
    printed: usize,
}

impl<W: Write> Quiet<W> {
    /// Prints the names of `images` to `out`.
    pub fn new(out: Lines<W>, images: &[Reference]) -> Self {
        let images = images.iter().map(|image| (image.clone(), None)).collect();
        Self { out, images, printed: 0 }
    }
}

impl<W: Write + Send> Renderer for Quiet<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let (image, complete) = match event {
            Event::Done { image, .. } | Event::Planned { image, .. } => (image, true),
            Event::Failed { image, .. } => (image, false),
            _ => return Ok(()),
        };
        let mut open = self.images.iter_mut().filter(|(_, ended)| ended.is_none());
        if let Some((_, ended)) = open.find(|(name, _)| name == image.as_ref()) {
            *ended = Some(complete);
        }
        while let Some((name, Some(complete))) = self.images.get(self.printed) {
            self.printed += 1;
            if *complete {
                self.out.text(name.canonical())?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        // Of an interrupted command: images before these are not complete.
        for (name, ended) in self.images.drain(..).skip(self.printed) {
            if ended == Some(true) {
                self.out.text(name.canonical())?;
            }
        }
        Ok(())
    }
}
