//! The words of an instruction: quotes, escapes and variables, as in a Dockerfile (moby/buildkit
//! frontend/dockerfile/shell and parser).

/// Splits `text` at white space outside of quotes. Quotes and escapes stay.
pub fn split(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote, mut escaped) = (Vec::new(), None, None, false);
    for (at, c) in text.char_indices() {
        let in_word = start.is_some();
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => {
                escaped = true;
                start.get_or_insert(at);
            }
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                start.get_or_insert(at);
            }
            _ if c.is_whitespace() && quote.is_none() => {
                if in_word {
                    words.extend(start.take().map(|start| &text[start..at]));
                }
            }
            _ => drop(start.get_or_insert(at)),
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

/// Removes the quotes and escapes of `word` and replaces its variables by those of `env`, whose elements are
/// `NAME=value`. A variable that is not set is empty.
///
/// # Errors
/// Why the word is invalid.
pub fn expand(word: &str, env: &[String]) -> Result<String, String> {
    let chars: Vec<char> = word.chars().collect();
    let mut expansion = Expansion { chars: &chars, at: 0, env, depth: 0 };
    expansion.until(None)
}

/// `${A:-${B:-…}}` is read by recursion.
const MAX_DEPTH: usize = 32;

struct Expansion<'a> {
    chars: &'a [char],
    at: usize,
    env: &'a [String],
    depth: usize,
}

impl Expansion<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Reads up to `end`, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return Ok(out),
                '\'' => loop {
                    match self.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err("a single quote is not closed".to_owned()),
                    }
                },
                '"' => self.double_quoted(&mut out)?,
                '\\' => out.push(self.next().unwrap_or('\\')),
                '$' => out.push_str(&self.variable()?),
                c => out.push(c),
            }
        }
        match end {
            None => Ok(out),
            Some(_) => Err("a variable in braces is not closed".to_owned()),
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable()?),
                Some('\\') => match self.next() {
                    Some(c @ ('"' | '$' | '\\')) => out.push(c),
                    Some(c) => out.extend(['\\', c]),
                    None => {}
                },
                Some(c) => out.push(c),
                None => return Err("a double quote is not closed".to_owned()),
            }
        }
    }

    /// Reads a variable after its dollar sign.
    fn variable(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                self.value(&name).unwrap_or_default()
            });
        }
        self.at += 1;
        self.depth += 1;
        let name = self.name();
        if name.is_empty() || self.depth > MAX_DEPTH {
            return Err("a variable in braces is invalid".to_owned());
        }
        let value = self.value(&name);
        let is_colon = self.peek() == Some(':');
        self.at += usize::from(is_colon);
        // With a colon, an empty value counts as none.
        let set = value.clone().filter(|value| !(is_colon && value.is_empty()));
        let replaced = match self.next() {
            Some('}') if !is_colon => value.unwrap_or_default(),
            Some('-') => {
                let default = self.until(Some('}'))?;
                set.unwrap_or(default)
            }
            Some('+') => {
                let other = self.until(Some('}'))?;
                set.map(|_| other).unwrap_or_default()
            }
            Some('?') => {
                let message = self.until(Some('}'))?;
                set.ok_or_else(|| format!("the variable {name} is not set: {message}"))?
            }
            _ => return Err(format!("the use of the variable {name} is invalid")),
        };
        self.depth -= 1;
        Ok(replaced)
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c == '_' || c.is_ascii_alphanumeric()) {
            self.at += 1;
            // $1 is a name of one digit.
            if self.chars[start].is_ascii_digit() {
                break;
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        let value = |pair: &String| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        self.env.iter().find_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_outside_of_quotes() {
        assert_eq!(split(r#" a="b c"  d='e "f' g\ h "#), [r#"a="b c""#, r#"d='e "f'"#, r"g\ h"]);
        assert_eq!(split("  "), [""; 0]);
    }

    #[test]
    fn quotes_are_removed_and_variables_replaced() {
        let env = ["A=1".to_owned(), "EMPTY=".to_owned(), "AB=2".to_owned()];
        for (word, expected) in [
            ("a$A-${AB}", "a1-2"),
            (r#""$A '$A'" '$A'"#, "1 '1' $A"),
            (r#"\$A "\$A\n""#, r"$A $A\n"),
            ("${EMPTY:-x}${EMPTY-x}${NONE-y}${NONE:-$A}", "xy1"),
            ("${A:+on}${NONE:+on}${EMPTY+set}", "onset"),
            ("$ $? $NONE.", "$ $? ."),
        ] {
            assert_eq!(expand(word, &env).as_deref(), Ok(expected), "{word}");
        }
        for word in ["'a", "\"a", "${A", "${}", "${A:}", "${A*}", "${NONE:?no}"] {
            assert!(expand(word, &env).is_err(), "{word}");
        }
        assert!(expand(&"${A:-".repeat(100_000), &env).is_err());
    }
}
