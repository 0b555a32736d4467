//! Patterns of image names, with the rules of Go's path.Match, which dockerd uses: `*` and `?`
//! match no `/`, `[a-z]` and `[^a-z]` match one character, and `\` takes away a special meaning.

/// A parsed pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A class or an escape does not end, or a class is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("the pattern '{text}' is invalid: check its [...] and \\");
        let mut chars = text.chars().peekable();
        let mut parts = Vec::new();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => Part::Literal(chars.next().ok_or_else(invalid)?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while chars.next_if_eq(&']').is_none() {
                        let mut one = || match chars.next() {
                            Some('\\') => chars.next(),
                            Some('-') => None,
                            other => other,
                        };
                        let low = one().ok_or_else(invalid)?;
                        let high = match chars.next_if_eq(&'-') {
                            Some(_) => match chars.next() {
                                Some('\\') => chars.next(),
                                Some(']' | '-') => None,
                                other => other,
                            },
                            None => Some(low),
                        };
                        ranges.push((low, high.ok_or_else(invalid)?));
                    }
                    if ranges.is_empty() {
                        return Err(invalid());
                    }
                    Part::Class { negated, ranges }
                }
                c => Part::Literal(c),
            });
        }
        Ok(Self(parts))
    }

    /// Returns whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where the last star stands, and where the text that it matches ends.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (self.0.get(part), name.get(at)) {
                (None, None) => return true,
                (Some(Part::Star), _) => {
                    star = Some((part, at));
                    part += 1;
                    continue;
                }
                (Some(one), Some(&c)) if one.is(c) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            // The last star takes one character more. An earlier one could only end at the same `/`.
            match star {
                Some((of_star, end)) if name.get(end).is_some_and(|&c| c != '/') => {
                    star = Some((of_star, end + 1));
                    (part, at) = (of_star + 1, end + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn is(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        // Cases of Go's path/match_test.go, and names of images.
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a?b", "a/b", false),
            ("", "a", false),
            ("", "", true),
            ("nginx:1.*", "nginx:1.27", true),
            ("*/nginx", "local/nginx", true),
            ("ng*", "local/nginx", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        for pattern in ["[", "[]", "[a", "[a-", "[-]", "[a-]", "a\\", "[^"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
