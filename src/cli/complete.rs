//! Candidates for the word at which a shell's completion was asked for.
//!
//! The scripts of clap_complete complete neither references in bash, which contain colons, nor flags
//! before a command, nor `rpull IMAGE`. Its completion at run time does, but its interface is declared
//! unstable. So the scripts in contrib/completions call `rpull __complete WORD...`, which comes here.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::flags::Cli;
use super::words::{self, First};

/// What a shell offers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// These words.
    Words(Vec<Candidate>),
    /// The directories that it finds.
    Directories,
    /// The files that it finds.
    Files,
}

/// A word that completes the typed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word. It contains no spaces.
    pub word: String,
    /// A description in one line; can be empty.
    pub about: String,
}

/// What a store has names of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Images.
    Image,
    /// Writable mounts.
    Mount,
}

/// Returns the names of one kind in the store at a root, or in the default store.
pub type Names<'a> = &'a dyn Fn(Option<&OsStr>, Named) -> Vec<String>;

/// Returns the candidates for the last of `words`, which can be empty.
pub fn complete(words: &[OsString], names: Names<'_>) -> Answer {
    let mut command = Cli::command();
    command.build();
    let Some((current, before)) = words.split_last() else { return Answer::Words(Vec::new()) };
    let line = Line { command: &command, before, root: root(before), names };
    line.complete(&current.to_string_lossy())
}

/// The value of `--root` among `words`.
fn root(words: &[OsString]) -> Option<&OsStr> {
    let after = words.windows(2).find(|pair| pair[0] == "--root").map(|pair| pair[1].as_os_str());
    let joined = || words.iter().find_map(|word| word.to_str()?.strip_prefix("--root="));
    after.or_else(|| joined().map(OsStr::new))
}

struct Line<'a> {
    command: &'a Command,
    /// The words before the one to complete.
    before: &'a [OsString],
    root: Option<&'a OsStr>,
    names: Names<'a>,
}

impl<'a> Line<'a> {
    fn complete(&self, current: &str) -> Answer {
        let (name_at, mut verb) = match words::first_word(self.before, self.command) {
            First::Help(_) => return Answer::Words(Vec::new()),
            First::Verb(at) => (
                Some(at),
                self.before[at].to_str().and_then(|name| self.command.find_subcommand(name)),
            ),
            First::Image(at) if at < self.before.len() => (None, self.pull()),
            First::Image(_) => (None, None),
        };
        let (mut escaped, mut positionals, mut flag) = (false, 0, None);
        for (at, word) in self.before.iter().enumerate() {
            let word = word.to_string_lossy();
            if Some(at) == name_at || flag.take().is_some() {
                continue;
            }
            match &*word {
                "--" if !escaped => escaped = true,
                word if !escaped && word.len() > 1 && word.starts_with('-') => {
                    flag = words::flag_before_value(word, || self.flags(verb));
                }
                word => {
                    match verb.filter(|_| positionals == 0).and_then(|it| it.find_subcommand(word))
                    {
                        Some(action) => verb = Some(action),
                        None => positionals += 1,
                    }
                }
            }
        }
        if let Some(flag) = flag {
            return self.values(flag, "", current);
        }
        if !escaped && current.starts_with('-') {
            return match current.split_once('=') {
                Some((name, value)) => match words::flag_before_value(name, || self.flags(verb)) {
                    Some(flag) => self.values(flag, &format!("{name}="), value),
                    None => Answer::Words(Vec::new()),
                },
                None => Answer::Words(self.names_of_flags(verb, current)),
            };
        }
        match verb {
            None => {
                let images = self.images_like(current);
                Answer::Words(self.verbs(current).chain(images).collect())
            }
            Some(verb) if verb.get_name() == "help" => Answer::Words(self.verbs(current).collect()),
            Some(verb) if positionals == 0 && verb.has_subcommands() => {
                Answer::Words(subcommands(verb, current).collect())
            }
            Some(verb) => match positional(verb, positionals) {
                Some(arg) => self.values(arg, "", current),
                None => Answer::Words(Vec::new()),
            },
        }
    }

    fn pull(&self) -> Option<&'a Command> {
        self.command.find_subcommand("pull")
    }

    /// The flags that `verb` accepts; without one, those of any command, which is not known yet.
    fn flags(&self, verb: Option<&'a Command>) -> impl Iterator<Item = &'a Arg> + use<'a> {
        let own = verb.into_iter().flat_map(Command::get_arguments);
        own.chain(words::flags(self.command))
    }

    fn names_of_flags(&self, verb: Option<&Command>, current: &str) -> Vec<Candidate> {
        // Without a command, `rpull IMAGE` takes the flags of `pull`.
        let flags = verb.or(self.pull()).into_iter().flat_map(Command::get_arguments);
        let shown = flags.filter(|flag| !flag.is_positional() && !flag.is_hide_set());
        let candidates = shown.flat_map(|flag| {
            let about = about(flag.get_help());
            let long = flag.get_long().map(|name| format!("--{name}"));
            let short = flag.get_short().map(|letter| format!("-{letter}"));
            long.into_iter().chain(short).map(move |word| Candidate { word, about: about.clone() })
        });
        candidates.filter(|candidate| candidate.word.starts_with(current)).collect()
    }

    fn verbs(&self, current: &str) -> impl Iterator<Item = Candidate> {
        subcommands(self.command, current)
    }

    /// The names of writable mounts.
    fn mounts_like(&self, current: &str) -> Vec<Candidate> {
        let names = (self.names)(self.root, Named::Mount).into_iter();
        let begin = names.filter(|name| name.starts_with(current));
        begin.map(|word| Candidate { word, about: String::new() }).collect()
    }

    fn images_like(&self, current: &str) -> Vec<Candidate> {
        let names = (self.names)(self.root, Named::Image)
            .into_iter()
            .filter(|name| name.starts_with(current));
        // Most images have a name with a tag; a digest is offered to those who ask for one.
        let names = names.filter(|name| !name.contains('@') || current.contains('@'));
        names.map(|word| Candidate { word, about: String::new() }).collect()
    }

    /// The values of `arg` that begin with `current`, after `prefix`.
    fn values(&self, arg: &Arg, prefix: &str, current: &str) -> Answer {
        let one = |word: &str, about: String| Candidate { word: format!("{prefix}{word}"), about };
        let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
        let words = match name {
            Some("DIR") => return Answer::Directories,
            Some("DIR|NAME") => match self.mounts_like(current) {
                names if names.is_empty() => return Answer::Directories,
                names => names,
            },
            Some("NAME") if arg.get_id().as_str().starts_with("mount_name") => {
                self.mounts_like(current)
            }
            Some("IMAGE|NAME") => [self.mounts_like(current), self.images_like(current)].concat(),
            Some("FILE") => return Answer::Files,
            Some("IMAGE" | "SOURCE" | "NAME") if arg.is_positional() => self.images_like(current),
            Some("FORMAT") => ["json", "text"].map(|word| one(word, String::new())).into(),
            _ => {
                let values = arg.get_possible_values().into_iter();
                values.map(|value| one(value.get_name(), about(value.get_help()))).collect()
            }
        };
        let begins = |candidate: &Candidate| candidate.word[prefix.len()..].starts_with(current);
        Answer::Words(words.into_iter().filter(begins).collect())
    }
}

fn subcommands(command: &Command, current: &str) -> impl Iterator<Item = Candidate> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let begin = shown.filter(move |command| command.get_name().starts_with(current));
    begin.map(|command| Candidate {
        word: command.get_name().to_owned(),
        about: about(command.get_about()),
    })
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().map(Cow::from).unwrap_or_default().into_owned()
}

/// The positional argument after `count` others.
fn positional(verb: &Command, count: usize) -> Option<&Arg> {
    let all: Vec<&Arg> = verb.get_positionals().collect();
    let last = all.last().copied();
    let repeated = last.filter(|arg| arg.get_num_args().is_some_and(|num| num.max_values() > 1));
    all.get(count).copied().or(repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> Answer {
        let words: Vec<OsString> = line.split(' ').skip(1).map(OsString::from).collect();
        complete(&words, &|root, named| match root.and_then(OsStr::to_str) {
            _ if named == Named::Mount => vec!["web".to_owned()],
            None => vec!["nginx:1".to_owned(), format!("nginx@sha256:{}", "0".repeat(64))],
            Some(root) => vec![format!("of{root}:1")],
        })
    }

    fn words(line: &str) -> Vec<String> {
        match answer(line) {
            Answer::Words(all) => all.into_iter().map(|candidate| candidate.word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn first_word_is_a_command_or_an_image() {
        assert_eq!(words("rpull in"), ["inspect"]);
        assert_eq!(words("rpull ng"), ["nginx:1"]);
        assert_eq!(words("rpull -q --root /x of"), ["of/x:1"]);
        assert_eq!(words("rpull help pru"), ["prune"]);
        let all = words("rpull ");
        assert!(all.contains(&"pull".to_owned()) && all.contains(&"nginx:1".to_owned()));
    }

    #[test]
    fn flags_are_those_of_the_command() {
        assert_eq!(words("rpull rm --fo"), ["--force", "--format"]);
        assert_eq!(words("rpull --plain"), ["--plain-http"]);
        assert_eq!(words("rpull nginx --pol"), ["--policy"]);
        assert!(words("rpull images --pol").is_empty());
        assert!(words("rpull rm -- --fo").is_empty());
    }

    #[test]
    fn values_are_those_of_the_flag() {
        assert_eq!(words("rpull pull --policy n"), ["never"]);
        assert_eq!(words("rpull --policy m"), ["missing"]);
        assert_eq!(words("rpull pull --policy=a"), ["--policy=always"]);
        assert_eq!(words("rpull df --format j"), ["json"]);
        assert_eq!(answer("rpull images --root "), Answer::Directories);
        assert_eq!(answer("rpull --auth-file x"), Answer::Files);
        assert!(words("rpull pull --username n").is_empty());
    }

    #[test]
    fn positional_arguments_are_images_and_directories() {
        assert_eq!(words("rpull inspect ng"), ["nginx:1"]);
        assert_eq!(words("rpull rm -f a b nginx:"), ["nginx:1"]);
        assert_eq!(words("rpull --root=/x mount "), ["web", "of/x:1"]);
        assert_eq!(words("rpull mounts r"), ["rm"]);
        assert_eq!(words("rpull mounts rm w"), ["web"]);
        assert_eq!(words("rpull mounts rm web w"), ["web"]);
        assert_eq!(words("rpull umount w"), ["web"]);
        assert_eq!(answer("rpull umount /m"), Answer::Directories);
        assert_eq!(answer("rpull mount nginx "), Answer::Directories);
        assert!(words("rpull mount nginx /mnt n").is_empty());
        assert_eq!(words("rpull inspect nginx@").len(), 1);
        assert!(words("rpull --help ng").is_empty());
    }
}
