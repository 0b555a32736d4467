//! `.dockerignore`: which files of a context are left out.
//!
//! The syntax is not that of `.gitignore`: a pattern without a slash matches at the top of the context only, a
//! pattern that matches a directory matches everything in it, and the last pattern that matches wins
//! (docs of `docker build`, ".dockerignore file"; moby pkg/fileutils).

use super::glob::{Glob, Wildcards};

/// The patterns of a `.dockerignore` file.
#[derive(Debug, Default)]
pub struct Ignore(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// Whether what matches is included after all.
    is_exception: bool,
    glob: Glob,
    /// The patterns of the single names, to tell which directories an exception can be in.
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// A `**` is in the name, so that any directories can follow.
    Any,
    Name(Glob),
}

/// A line that is not a pattern.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidLine {
    /// The line, counted from 1.
    pub line: usize,
    /// The pattern.
    pub pattern: String,
}

impl Ignore {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`InvalidLine`].
    pub fn parse(text: &str) -> Result<Self, InvalidLine> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let pattern = Pattern::parse(trimmed)
                .ok_or_else(|| InvalidLine { line: at + 1, pattern: trimmed.to_owned() })?;
            patterns.push(pattern);
        }
        Ok(Self(patterns))
    }

    /// Returns whether the file at `path`, which is clean and relative, is left out.
    pub fn excludes(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let slashes = path.match_indices('/').map(|(at, _)| at);
        let prefixes: Vec<&str> = slashes
            .chain([path.len()])
            .map(|end| &path[..end])
            .filter(|it| !it.is_empty())
            .collect();
        let matching = |pattern: &&Pattern| prefixes.iter().any(|it| pattern.glob.matches(it));
        self.0.iter().rfind(matching).is_some_and(|pattern| !pattern.is_exception)
    }

    /// Returns whether an exception can match something below the directory `dir`, which is left out itself.
    pub fn may_include_below(&self, dir: &[u8]) -> bool {
        let dir = String::from_utf8_lossy(dir);
        let names: Vec<&str> = dir.split('/').collect();
        self.0.iter().any(|pattern| pattern.is_exception && pattern.can_match_below(&names))
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let (is_exception, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if pattern.is_empty() {
            return None;
        }
        let pattern = clean(pattern);
        let pattern = match pattern.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &pattern,
        };
        let part = |part: &str| {
            if part.contains("**") {
                return Some(Part::Any);
            }
            Glob::new(part, Wildcards::Single).map(Part::Name)
        };
        Some(Self {
            is_exception,
            glob: Glob::new(pattern, Wildcards::Double)?,
            parts: pattern.split('/').map(part).collect::<Option<_>>()?,
        })
    }

    fn can_match_below(&self, names: &[&str]) -> bool {
        for (at, name) in names.iter().enumerate() {
            match self.parts.get(at) {
                Some(Part::Any) => return true,
                Some(Part::Name(glob)) if glob.matches(name) => {}
                _ => return false,
            }
        }
        self.parts.len() > names.len()
    }
}

/// Cleans a path as Go's filepath.Clean does.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, parts) => format!("/{parts}"),
        (false, parts) if parts.is_empty() => ".".to_owned(),
        (false, parts) => parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of docker's own documentation of the file, and of its parser.
    #[test]
    fn files_are_excluded_as_docker_documents() {
        let cases: [(&str, &[&str], &[&str]); 19] = [
            (
                "# comment\n*/temp*",
                &["a/temporary.txt", "a/temp", "a/temp/x"],
                &["temp", "a/b/temp"],
            ),
            ("*/*/temp*", &["a/b/temporary.txt"], &["a/temp", "temp"]),
            ("temp?", &["tempa", "tempb/x"], &["temp", "tempab", "a/tempa"]),
            ("**/*.go", &["a.go", "b/c/a.go"], &["a.goo"]),
            ("*.md\n!README.md", &["a.md"], &["README.md", "docs/a.md"]),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                &["a.md", "README-secret.md"],
                &["README.md", "README-x.md"],
            ),
            ("*.md\nREADME-secret.md\n!README*.md", &["a.md"], &["README-secret.md", "README.md"]),
            ("/foo/bar", &["foo/bar", "foo/bar/x"], &["foo", "x/foo/bar"]),
            ("foo/bar/", &["foo/bar"], &["foo/ba"]),
            ("  foo  \n\n\t", &["foo"], &["foo "]),
            (" # not a comment", &["# not a comment"], &[]),
            ("\u{feff}foo", &["foo"], &[]),
            ("foo\r\nbar\r\n", &["foo", "bar"], &[]),
            ("*\n!src", &["a", "b/c"], &["src", "src/x"]),
            ("*\n!src\nsrc/secret", &["a", "src/secret", "src/secret/x"], &["src", "src/x"]),
            ("! a \na", &["a"], &[]),
            ("a\n! a ", &[], &["a"]),
            ("./a/../b", &["b"], &["a"]),
            ("**\n!a/b/**", &["x", "a", "a/b"], &["a/b/c", "a/b/c/d"]),
        ];
        for (text, excluded, included) in cases {
            let ignore = Ignore::parse(text).unwrap();
            for path in excluded {
                assert!(ignore.excludes(path.as_bytes()), "{text:?} {path}");
            }
            for path in included {
                assert!(!ignore.excludes(path.as_bytes()), "{text:?} {path}");
            }
        }
    }

    #[test]
    fn directory_with_an_exception_below_is_read() {
        let ignore = Ignore::parse("*\n!a/*/c\n!d/**/e").unwrap();
        for (dir, expected) in [("a", true), ("a/x", true), ("a/x/c", false), ("b", false)] {
            assert_eq!(ignore.may_include_below(dir.as_bytes()), expected, "{dir}");
        }
        assert!(ignore.may_include_below(b"d/x/y") && !ignore.may_include_below(b"x/d"));
    }

    #[test]
    fn invalid_line_is_named_by_its_number() {
        for pattern in ["!", "[a", "a\\"] {
            let error = Ignore::parse(&format!("# x\n{pattern}\n")).unwrap_err();
            assert_eq!(error, InvalidLine { line: 2, pattern: pattern.to_owned() });
        }
    }
}
