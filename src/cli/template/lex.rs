//! From the text of a template to pieces: literal text, and the tokens of each action.

/// A part of a template.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Text outside of actions.
    Text(String),
    /// The tokens between `{{` and `}}`.
    Action(Vec<Token>),
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name: a keyword, a function or a constant.
    Word(String),
    /// `.a.b`, or `.` alone, which has no names.
    Field(Vec<String>),
    /// `$name.a.b`; the first name is empty for `$` alone.
    Variable(Vec<String>),
    /// A quoted string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// `|`, `(`, `)`, `,`, `:=`.
    Mark(&'static str),
}

/// Splits a template into its pieces.
///
/// # Errors
/// An action does not end, or contains a character that no token has.
pub fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (trims_before, after) = match after.strip_prefix("- ") {
            Some(after) => (true, after),
            None => (false, after),
        };
        push_text(&mut pieces, before, trim, trims_before);
        let mut action = Action { rest: after, tokens: Vec::new() };
        trim = action.read().map_err(|why| format!("{why} in '{{{{{}'", shown(after)))?;
        rest = action.rest;
        if !action.tokens.is_empty() {
            pieces.push(Piece::Action(action.tokens));
        }
    }
    push_text(&mut pieces, rest, trim, false);
    Ok(pieces)
}

/// Adds literal text, without the white space that the actions beside it trim.
fn push_text(pieces: &mut Vec<Piece>, mut text: &str, trim_start: bool, trim_end: bool) {
    if trim_start {
        text = text.trim_start();
    }
    if trim_end {
        text = text.trim_end();
    }
    if !text.is_empty() {
        // A shell passes both characters of `\t` in quotes, and docker replaces them, too.
        pieces.push(Piece::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

/// Returns the beginning of an action, for an error.
fn shown(text: &str) -> String {
    let end = text.find("}}").map_or(text.len(), |end| end + 2);
    text[..end].chars().take(60).collect()
}

/// An action that is being read.
struct Action<'a> {
    rest: &'a str,
    tokens: Vec<Token>,
}

impl Action<'_> {
    /// Reads up to `}}`. Returns whether it trims the text that follows.
    fn read(&mut self) -> Result<bool, String> {
        if let Some(comment) = self.rest.trim_start().strip_prefix("/*") {
            let (_, after) = comment.split_once("*/").ok_or("the comment does not end")?;
            self.rest = after;
        }
        loop {
            let spaced = self.rest.starts_with([' ', '\t', '\n']);
            self.rest = self.rest.trim_start();
            if let Some(after) = self.rest.strip_prefix("}}") {
                self.rest = after;
                return Ok(false);
            }
            if let (true, Some(after)) = (spaced, self.rest.strip_prefix("-}}")) {
                self.rest = after;
                return Ok(true);
            }
            let token = self.token()?;
            self.tokens.push(token);
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        for mark in ["|", "(", ")", ",", ":="] {
            if let Some(after) = self.rest.strip_prefix(mark) {
                self.rest = after;
                return Ok(Token::Mark(mark));
            }
        }
        let first = self.rest.chars().next().ok_or("the action has no '}}'")?;
        match first {
            '.' => Ok(Token::Field(self.fields())),
            '$' => {
                self.rest = &self.rest[1..];
                let mut path = vec![self.name()];
                path.append(&mut self.fields());
                Ok(Token::Variable(path))
            }
            '"' => self.quoted(),
            '`' => {
                let (text, after) =
                    self.rest[1..].split_once('`').ok_or("the string does not end")?;
                self.rest = after;
                Ok(Token::Text(text.to_owned()))
            }
            '-' | '0'..='9' => self.number(),
            c if is_of_name(c) => Ok(Token::Word(self.name())),
            c => Err(format!("unexpected '{c}'")),
        }
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c| !is_of_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    /// Reads `.a.b`; a dot without a name has no names.
    fn fields(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(after) = self.rest.strip_prefix('.') {
            self.rest = after;
            let name = self.name();
            if name.is_empty() {
                break;
            }
            path.push(name);
        }
        path
    }

    fn number(&mut self) -> Result<Token, String> {
        let end =
            self.rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(self.rest.len(), |at| at + 1);
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().map(Token::Number).map_err(|_| format!("'{digits}' is not a whole number"))
    }

    /// Reads a string in double quotes, with the escapes that JSON and Go share.
    fn quoted(&mut self) -> Result<Token, String> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (text, rest) = self.rest.split_at(end.ok_or("the string does not end")? + 2);
        self.rest = rest;
        // A literal tab or newline is not valid in JSON.
        let json = text.replace('\t', "\\t").replace('\n', "\\n");
        let value = serde_json::from_str(&json);
        value.map(Token::Text).map_err(|_| format!("the string {text} is not valid"))
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
