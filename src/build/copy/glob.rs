//! Patterns of paths: those of Go's filepath.Match, and those of `.dockerignore`, which add `**`.

/// A pattern. Matching takes time in proportion to the lengths of the pattern and of the path.
#[derive(Debug)]
pub struct Glob(Vec<Token>);

/// Which wildcards a pattern has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wildcards {
    /// `*`, `?` and `[...]`, none of which matches a slash.
    Single,
    /// Also `**`: any number of directories, or, at the end, everything.
    Double,
}

#[derive(Debug)]
enum Token {
    Literal(char),
    /// One character, but no slash.
    One,
    /// Any number of characters, but no slash.
    Many,
    /// Anything.
    All,
    /// Comes before `Dirs`, and can be skipped with it.
    OptionalDirs,
    /// Anything that ends with a slash.
    Dirs,
    /// One of the ranges, or none of them.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Parses a pattern. Returns `None` if it is invalid.
    pub fn new(pattern: &str, wildcards: Wildcards) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if wildcards == Wildcards::Double && chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    match chars.peek() {
                        None => tokens.push(Token::All),
                        Some(_) => tokens.extend([Token::OptionalDirs, Token::Dirs]),
                    }
                }
                '*' => tokens.push(Token::Many),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(class(&mut chars)?),
                '\\' => tokens.push(Token::Literal(chars.next()?)),
                c => tokens.push(Token::Literal(c)),
            }
        }
        Some(Self(tokens))
    }

    /// Returns whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let end = self.0.len();
        // Which tokens can come next.
        let mut states = vec![false; end + 1];
        states[0] = true;
        self.skip(&mut states);
        for c in text.chars() {
            let mut next = vec![false; end + 1];
            for (at, token) in self.0.iter().enumerate().filter(|(at, _)| states[*at]) {
                let (stays, goes_on) = token.take(c);
                next[at] |= stays;
                next[at + 1] |= goes_on;
            }
            self.skip(&mut next);
            states = next;
        }
        states[end]
    }

    /// Adds the states that need no character.
    fn skip(&self, states: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate() {
            if !states[at] {
                continue;
            }
            match token {
                Token::Many | Token::All => states[at + 1] = true,
                Token::OptionalDirs => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

impl Token {
    /// Returns whether more can follow for this token after the character `c`, and whether the next token can.
    fn take(&self, c: char) -> (bool, bool) {
        match self {
            Self::Literal(literal) => (false, c == *literal),
            Self::One => (false, c != '/'),
            Self::Many => (c != '/', false),
            Self::All => (true, false),
            Self::OptionalDirs => (false, false),
            Self::Dirs => (true, c == '/'),
            Self::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                (false, c != '/' && is_in != *negated)
            }
        }
    }
}

/// Parses what follows a `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let first = class_char(chars)?;
        let last = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => first,
        };
        ranges.push((first, last));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Returns whether a path has a wildcard or an escaped character, which Go's filepath.Match has to find.
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_whole_paths_as_in_go() {
        let cases: [(&str, &[&str], &[&str]); 13] = [
            ("a*", &["a", "ab"], &["a/b", "ba"]),
            ("*/b", &["a/b"], &["b", "a/c/b"]),
            ("a?c", &["abc", "a\u{e9}c"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[^a-c]x", &["dx"], &["ax", "/x"]),
            ("\\*", &["*"], &["a"]),
            ("**", &["a", "a/b", ""], &[]),
            ("**/b", &["b", "a/b", "a/c/b"], &["ab", "b/a"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("a/**", &["a/b", "a/b/c"], &["a"]),
            ("a**b", &["ab", "ax/b"], &["axb"]),
            ("**/*.go", &["x.go", "a/b/x.go"], &["x.goo"]),
            ("a.b", &["a.b"], &["axb"]),
        ];
        for (pattern, yes, no) in cases {
            let glob = Glob::new(pattern, Wildcards::Double).unwrap();
            for (texts, expected) in [(yes, true), (no, false)] {
                for text in texts {
                    assert_eq!(glob.matches(text), expected, "{pattern} {text}");
                }
            }
        }
        let single = Glob::new("**/b", Wildcards::Single).unwrap();
        assert!(single.matches("a/b") && !single.matches("a/c/b") && !single.matches("b"));
    }

    #[test]
    fn invalid_pattern_is_refused() {
        for pattern in ["[", "[a", "[]", "[]a]", "[a-]", "a\\", "[-x]"] {
            assert!(Glob::new(pattern, Wildcards::Single).is_none(), "{pattern}");
        }
    }

    #[test]
    fn pattern_with_many_wildcards_is_matched_in_linear_time() {
        let glob = Glob::new(&"*a".repeat(200), Wildcards::Single).unwrap();
        assert!(!glob.matches(&("a".repeat(4000) + "b")));
    }

    #[test]
    fn escaped_wildcard_is_a_plain_path() {
        assert!(has_wildcards("a*") && has_wildcards("a/?") && has_wildcards("[a]"));
        assert!(!has_wildcards("a") && !has_wildcards("\\*"));
    }
}
