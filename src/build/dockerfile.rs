//! A Dockerfile as stages of instructions. The parser of `parse-dockerfile` finds the instructions and
//! refuses invalid ones; their text is joined as in dockerd, because the output and the history show it
//! (moby/buildkit frontend/dockerfile/parser).

use std::collections::HashSet;

use parse_dockerfile::{Instruction as Parsed, Source};

use crate::error::Error;
use crate::import::{first_word, split_words};

/// A Dockerfile.
#[derive(Debug)]
pub struct Dockerfile {
    /// The arguments before the first stage.
    pub args: Vec<Instruction>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
}

/// What one `FROM` begins.
#[derive(Debug)]
pub struct Stage {
    /// The `FROM`.
    pub from: Instruction,
    /// The image or earlier stage, with variables.
    pub base: String,
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// The other instructions.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Its line, from 1.
    pub line: usize,
    /// Its text in one line, without comments.
    pub text: String,
    /// The keyword, in upper case.
    pub keyword: String,
    /// The flags, `--NAME=VALUE`.
    pub flags: Vec<(String, String)>,
    /// What follows the flags.
    pub rest: String,
}

impl Instruction {
    /// Returns the value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    fn new(line: usize, text: String) -> Self {
        let (keyword, mut rest) = first_word(&text);
        rest = rest.trim();
        let mut flags = Vec::new();
        let keyword = keyword.to_ascii_uppercase();
        // The flags of HEALTHCHECK are read with it, and those of a trigger when it runs.
        if !["HEALTHCHECK", "ONBUILD"].contains(&keyword.as_str()) {
            while let Some(flag) = rest.strip_prefix("--") {
                let (flag, after) = first_word(flag);
                let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
                flags.push((name.to_owned(), value.to_owned()));
                rest = after.trim_start();
            }
        }
        let rest = rest.to_owned();
        Self { line, text, keyword, flags, rest }
    }
}

impl Dockerfile {
    /// Parses the text of the file `name`.
    ///
    /// # Errors
    /// [`Error::Dockerfile`] if it is invalid or needs BuildKit.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let fail = |line, why| Error::Dockerfile { file: name.to_owned(), line, why };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line_at = |at: usize| {
            1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count()
        };
        if text.trim().is_empty() {
            return Err(fail(1, "the file is empty".to_owned()));
        }
        let parsed = parse_dockerfile::parse(text).map_err(|e| {
            // It ends with the line as well.
            let why = e.to_string();
            let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
            fail(e.line().max(1), why.to_owned())
        })?;
        let directives = &parsed.parser_directives;
        if let Some(syntax) = &directives.syntax {
            let why = buildkit("the directive 'syntax'");
            return Err(fail(line_at(syntax.span().start), why));
        }
        if let Some(escape) = directives.escape.as_ref().filter(|it| it.value.value != '\\') {
            let why = "the directive 'escape' can only name the backslash here".to_owned();
            return Err(fail(line_at(escape.span().start), why));
        }
        let starts: Vec<usize> = parsed.instructions.iter().map(start).collect();
        let mut file = Self { args: Vec::new(), stages: Vec::new() };
        for (at, (instruction, &start)) in parsed.instructions.iter().zip(&starts).enumerate() {
            let line = line_at(start);
            if has_here_doc(instruction) {
                return Err(fail(line, buildkit("a here-document")));
            }
            let end = starts.get(at + 1).copied().unwrap_or(text.len());
            let instruction = Instruction::new(line, joined(&text[start..end]));
            check(&instruction).map_err(|why| fail(line, why))?;
            match (instruction.keyword.as_str(), file.stages.last_mut()) {
                ("FROM", _) => {
                    let stage = stage(instruction).map_err(|why| fail(line, why))?;
                    file.stages.push(stage);
                }
                (_, Some(stage)) => stage.instructions.push(instruction),
                (_, None) => file.args.push(instruction),
            }
        }
        Ok(file)
    }

    /// Removes the stages after `target`: a name, or a number from 0.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such stage.
    pub fn end_at(&mut self, target: &str) -> Result<(), Error> {
        let at = self
            .stage(self.stages.len(), target)
            .or_else(|| target.parse::<usize>().ok().filter(|number| *number < self.stages.len()));
        let none = || Error::Usage(format!("failed to reach build target {target} in Dockerfile"));
        self.stages.truncate(at.ok_or_else(none)? + 1);
        Ok(())
    }

    /// Returns the stage with this name among the first `before`.
    pub fn stage(&self, before: usize, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages[..before].iter().position(|stage| stage.name.as_deref() == Some(&name))
    }

    /// Returns the number of steps, as the output counts them.
    pub fn steps(&self) -> usize {
        let in_stages = self.stages.iter().map(|stage| 1 + stage.instructions.len());
        self.args.len() + in_stages.sum::<usize>()
    }
}

/// Parses what an image has recorded by `ONBUILD`.
///
/// # Errors
/// [`Error::Dockerfile`] as for a file; the line is that of the `FROM`.
pub fn trigger(file: &str, from: usize, text: &str) -> Result<Instruction, Error> {
    let fail = |why| Error::Dockerfile { file: file.to_owned(), line: from, why };
    let parsed = Dockerfile::parse(file, &format!("FROM scratch\n{text}"));
    let parsed = parsed.map_err(|error| match error {
        Error::Dockerfile { why, .. } => fail(format!("the trigger '{text}' of the image: {why}")),
        error => error,
    })?;
    match parsed.stages.as_slice() {
        [stage] if stage.instructions.len() == 1 => {
            Ok(Instruction { line: from, ..stage.instructions[0].clone() })
        }
        _ => Err(fail(format!("the trigger '{text}' of the image is not one instruction"))),
    }
}

fn stage(from: Instruction) -> Result<Stage, String> {
    let words = split_words(&from.rest);
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, as_, name] if as_.eq_ignore_ascii_case("AS") => (*base, Some(*name)),
        _ => {
            return Err("FROM needs an image, and can have a name: FROM IMAGE [AS NAME]".to_owned());
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(name) = name
        && !(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain))
    {
        return Err(format!("invalid name for build stage: '{name}'"));
    }
    let (base, name) = (base.to_owned(), name.map(str::to_lowercase));
    Ok(Stage { base, name, from, instructions: Vec::new() })
}

fn buildkit(what: &str) -> String {
    format!("{what} needs BuildKit, which rpull does not have")
}

/// Refuses what the classic builder does not have.
fn check(instruction: &Instruction) -> Result<(), String> {
    let known: &[&str] = match instruction.keyword.as_str() {
        "FROM" => &["platform"],
        "COPY" => &["from", "chown", "chmod"],
        "ADD" => &["chown", "chmod"],
        _ => &[],
    };
    let mut seen = HashSet::new();
    for (flag, _) in &instruction.flags {
        if !known.contains(&flag.as_str()) {
            return Err(buildkit(&format!("{} --{flag}", instruction.keyword)));
        }
        if !seen.insert(flag) {
            return Err(format!("duplicate flag: --{flag}"));
        }
    }
    match instruction.keyword.as_str() {
        "ONBUILD" => check(&Instruction::new(instruction.line, instruction.rest.clone())),
        "ADD" if instruction.rest.split_whitespace().any(is_remote) => {
            Err("ADD of a URL or a Git repository is not supported: fetch it before the build, or in RUN".to_owned())
        }
        _ => Ok(()),
    }
}

/// Returns whether a word of ADD is not a file of the context.
fn is_remote(word: &str) -> bool {
    let word = word.trim_start_matches(['[', '"']);
    let starts = ["http://", "https://", "ftp://", "git://", "git@", "ssh://"];
    starts.iter().any(|start| word.starts_with(start))
}

fn has_here_doc(instruction: &Parsed<'_>) -> bool {
    let any = |sources: &[Source<'_>]| sources.iter().any(|it| matches!(it, Source::HereDoc(_)));
    match instruction {
        Parsed::Run(run) => !run.here_docs.is_empty(),
        Parsed::Copy(copy) => any(&copy.src),
        Parsed::Add(add) => any(&add.src),
        Parsed::Onbuild(onbuild) => has_here_doc(&onbuild.instruction),
        _ => false,
    }
}

/// Returns where an instruction begins, in bytes.
fn start(instruction: &Parsed<'_>) -> usize {
    let keyword = match instruction {
        Parsed::Add(it) => &it.add,
        Parsed::Arg(it) => &it.arg,
        Parsed::Cmd(it) => &it.cmd,
        Parsed::Copy(it) => &it.copy,
        Parsed::Entrypoint(it) => &it.entrypoint,
        Parsed::Env(it) => &it.env,
        Parsed::Expose(it) => &it.expose,
        Parsed::From(it) => &it.from,
        Parsed::Healthcheck(it) => &it.healthcheck,
        Parsed::Label(it) => &it.label,
        Parsed::Maintainer(it) => &it.maintainer,
        Parsed::Onbuild(it) => &it.onbuild,
        Parsed::Run(it) => &it.run,
        Parsed::Shell(it) => &it.shell,
        Parsed::Stopsignal(it) => &it.stopsignal,
        Parsed::User(it) => &it.user,
        Parsed::Volume(it) => &it.volume,
        Parsed::Workdir(it) => &it.workdir,
        _ => return 0,
    };
    keyword.span.start
}

/// Joins the lines of an instruction. Comments and empty lines between them are left out.
fn joined(lines: &str) -> String {
    let mut text = String::new();
    for (at, line) in lines.lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#');
        if at > 0 && (is_comment || line.trim().is_empty()) {
            continue;
        }
        match line.trim_end_matches([' ', '\t', '\r']).strip_suffix('\\') {
            Some(line) => text.push_str(line),
            None => {
                text.push_str(line);
                break;
            }
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dockerfile, String> {
        Dockerfile::parse("Dockerfile", text).map_err(|e| e.to_string())
    }

    #[test]
    fn instructions_are_joined_as_in_docker() {
        let text = "# a comment\nARG A=1\nFROM --platform=linux/amd64 base:$A AS Build\n\
                    run a && \\\n  # no\n\n   b\\\n c\nCMD [\"x\"]\n";
        let file = parse(text).unwrap();
        assert_eq!((file.args.len(), file.steps()), (1, 4));
        let stage = &file.stages[0];
        assert_eq!((stage.base.as_str(), stage.name.as_deref()), ("base:$A", Some("build")));
        assert_eq!(stage.from.flag("platform"), Some("linux/amd64"));
        let run = &stage.instructions[0];
        assert_eq!((run.line, run.text.as_str()), (4, "run a &&    b c"));
        assert_eq!((run.keyword.as_str(), run.rest.as_str()), ("RUN", "a &&    b c"));
    }

    #[test]
    fn what_needs_buildkit_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "# syntax=docker/dockerfile:1\nFROM a\n",
                "Dockerfile:1: the directive 'syntax' needs",
            ),
            ("FROM a\nRUN --mount=type=cache,target=/x true\n", "Dockerfile:2: RUN --mount needs"),
            ("FROM a\n\nRUN <<EOF\ntrue\nEOF\n", "Dockerfile:3: a here-document needs BuildKit"),
            ("FROM a\nONBUILD RUN --network=none x\n", "Dockerfile:2: RUN --network needs"),
            ("FROM a\nFRO b\n", "Dockerfile:2: "),
            ("RUN x\n", "Dockerfile:1: "),
            ("\n", "Dockerfile:1: the file is empty"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn target_ends_the_file_after_its_stage() {
        let mut file = parse("FROM a AS One\nRUN x\nFROM b\n").unwrap();
        assert!(file.end_at("two").is_err());
        file.end_at("ONE").unwrap();
        assert_eq!((file.stages.len(), file.steps()), (1, 2));
    }
}
