//! Go templates of `--format`: the part that scripts use with `docker images`, `docker inspect` and
//! `docker history`.
//!
//! The language is that of Go's text/template, with Docker's functions (docker/cli
//! templates/templates.go): fields (`.RootFS.Layers`), `$`, `range`, `if`, `with`, `else`, `end`,
//! pipes, parentheses, comments, `{{-` and `-}}`, and the functions of [`FUNCTIONS`].
//! There is no maintained crate for it; everything else is refused by name.
//!
//! Values come from images, so they are escaped where they are printed. `json` prints them as JSON,
//! which keeps them unchanged.

mod eval;
mod lex;
mod parse;

use serde_json::Value;

use parse::Node;

/// The functions that templates can call.
const FUNCTIONS: [&str; 13] = [
    "json", "join", "len", "index", "println", "upper", "lower", "split", "eq", "ne", "not", "and",
    "or",
];

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template(Vec<Node>);

impl Template {
    /// Parses the text between `--format` and the end of the argument.
    ///
    /// # Errors
    /// What is wrong or unsupported, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::nodes(lex::pieces(text)?).map(Self)
    }

    /// Returns the template's text with the fields of `data`, safe to print: it contains no control
    /// characters except newlines and tabs of the template.
    ///
    /// # Errors
    /// `data` has no such field, or a function cannot handle a value.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        eval::render(&self.0, data)
    }
}

#[cfg(test)]
mod tests;
