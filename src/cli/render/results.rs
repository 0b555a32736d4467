//! What a script reads of a pull, in the order of the arguments: with `-q` the canonical name of each
//! image that is complete, with `--format json` one object per image.

use std::io::{self, Write};

use rpull::Reference;
use rpull::event::Event;
use serde_json::Value;

use super::{Lines, Renderer, json};

/// The form of a result.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// The name alone.
    Name,
    /// The event of `--progress json` that ends the image, without its `event`.
    Json,
}

/// Prints results alone.
pub struct Results<W> {
    out: Lines<W>,
    form: Form,
    images: Vec<(Reference, Option<Ended>)>,
    /// The images at the beginning that ended and whose results are printed.
    printed: usize,
}

/// How an image ended: with a result, or without one if it failed.
type Ended = Option<Value>;

impl<W: Write> Results<W> {
    /// Prints the results of `images` to `out`.
    pub fn new(out: Lines<W>, form: Form, images: &[Reference]) -> Self {
        let images = images.iter().map(|image| (image.clone(), None)).collect();
        Self { out, form, images, printed: 0 }
    }

    fn print(&mut self, name: &Reference, result: &Value) -> io::Result<()> {
        match self.form {
            Form::Name => self.out.text(name.canonical()),
            Form::Json => self.out.json(result),
        }
    }
}

impl<W: Write + Send> Renderer for Results<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let (image, result) = match event {
            Event::Done { image, .. }
            | Event::Planned { image, .. }
            | Event::Pushed { image, .. } => (image, result(event)),
            Event::Failed { image, .. } => (image, None),
            _ => return Ok(()),
        };
        let mut open = self.images.iter_mut().filter(|(_, ended)| ended.is_none());
        if let Some((_, ended)) = open.find(|(name, _)| name == image.as_ref()) {
            *ended = Some(result);
        }
        while let Some((name, Some(result))) = self.images.get(self.printed).cloned() {
            self.printed += 1;
            if let Some(result) = result {
                self.print(&name, &result)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        // Of an interrupted command: images before these are not complete.
        let left: Vec<_> = self.images.drain(..).skip(self.printed).collect();
        for (name, ended) in left {
            if let Some(result) = ended.flatten() {
                self.print(&name, &result)?;
            }
        }
        Ok(())
    }
}

fn result(event: &Event) -> Option<Value> {
    let mut result = json::object(event)?;
    result.as_object_mut()?.remove("event");
    Some(result)
}
