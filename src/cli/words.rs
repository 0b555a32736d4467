//! The order of the words on the command line: `rpull IMAGE...` is `rpull pull IMAGE...`, and flags
//! of a command may stand before its name.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The words in the order that the parser takes: the command's name, then all flags.
pub struct Words {
    /// The program's name and the words.
    pub all: Vec<OsString>,
    /// The first word that is not a flag, if it is not the name of a command but an image.
    pub first_image: Option<String>,
}

/// Arranges the words of a command line. A command's name wins over an image of that name; a word
/// after `--` is an image.
pub fn arranged(args: Vec<OsString>, command: &Command) -> Words {
    let mut words = args.into_iter();
    let mut all: Vec<OsString> = words.by_ref().take(1).collect();
    let words: Vec<OsString> = words.collect();
    if words.is_empty() {
        all.push("-h".into());
        return Words { all, first_image: None };
    }
    let mut first_image = None;
    let (verb, flags, rest) = match first_word(&words, command) {
        First::Help(at) => (words[at].clone(), &[][..], &[][..]),
        First::Verb(at) if words[at] == "help" => (words[at].clone(), &[][..], &words[at + 1..]),
        First::Verb(at) => (words[at].clone(), &words[..at], &words[at + 1..]),
        First::Image(at) => {
            let word = words.get(at).and_then(|word| word.to_str());
            first_image = word.filter(|word| *word != "--").map(str::to_owned);
            ("pull".into(), &words[..at], &words[at..])
        }
    };
    all.push(verb);
    all.extend(flags.iter().flat_map(spelled_out));
    all.extend_from_slice(rest);
    Words { all, first_image }
}

/// Returns a flag that stands before a command. The short form of `--verbose` means another flag to some
/// commands, as in docker.
fn spelled_out(word: &OsString) -> Vec<OsString> {
    let letters = word.to_str().and_then(|word| word.strip_prefix('-')).unwrap_or_default();
    if !letters.is_empty() && letters.chars().all(|letter| letter == 'v') {
        return letters.chars().map(|_| "--verbose".into()).collect();
    }
    vec![word.clone()]
}

/// Whether `--FLAG VALUE` is among the words, also of a command line that cannot be parsed.
pub fn has(words: &[OsString], flag: &str, value: &str) -> bool {
    let is = |word: &OsString| word.to_str() == Some(&format!("{flag}={value}"));
    let pair = |pair: &[OsString]| pair[0] == flag && pair[1] == value;
    words.iter().any(is) || words.windows(2).any(pair)
}

/// What follows the flags at the beginning, and where.
pub enum First {
    /// `--help` or `--version`.
    Help(usize),
    /// The name of a command.
    Verb(usize),
    /// An image, `--`, or the end.
    Image(usize),
}

pub fn first_word(words: &[OsString], command: &Command) -> First {
    let mut at = 0;
    while let Some(word) = words.get(at).and_then(|word| word.to_str()) {
        if matches!(word, "--help" | "-h" | "--version" | "-V") {
            return First::Help(at);
        }
        if word == "-" || !word.starts_with('-') {
            let is_verb = word == "help" || command.find_subcommand(word).is_some();
            return if is_verb { First::Verb(at) } else { First::Image(at) };
        }
        if word == "--" {
            return First::Image(at);
        }
        at += if flag_before_value(word, || flags(command)).is_some() { 2 } else { 1 };
    }
    First::Image(at.min(words.len()))
}

/// Returns the flag `word` if the next word is its value. `flags` are searched in their order.
pub fn flag_before_value<'a, I: Iterator<Item = &'a Arg>>(
    word: &str,
    flags: impl Fn() -> I,
) -> Option<&'a Arg> {
    if let Some(name) = word.strip_prefix("--") {
        return flags().find(|flag| flag.get_long() == Some(name)).filter(|flag| takes_value(flag));
    }
    let mut letters = word.chars().skip(1);
    let find = |letter| flags().find(|flag| flag.get_short() == Some(letter));
    // In `-qj4`, the value is in the same word.
    let flag = letters.find_map(|letter| find(letter).filter(|flag| takes_value(flag)))?;
    letters.next().is_none().then_some(flag)
}

fn takes_value(flag: &Arg) -> bool {
    flag.get_action().takes_values()
}

/// The flags of all commands.
pub fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let all = std::iter::once(command).chain(command.get_subcommands());
    all.flat_map(Command::get_arguments)
}

/// Returns the names of the commands that have the flag `--NAME` or `-N`.
pub fn commands_with<'a>(flag: &str, command: &'a Command) -> Vec<&'a str> {
    let name = flag.split('=').next().unwrap_or_default();
    let is_it = |arg: &Arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => name.chars().nth(1).is_some_and(|letter| arg.get_short() == Some(letter)),
    };
    let with = command.get_subcommands().filter(|command| command.get_arguments().any(is_it));
    with.map(Command::get_name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::flags::Cli;

    fn line(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let words = arranged(args, &Cli::command());
        words.all.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn first_word_that_is_not_a_command_is_an_image() {
        assert_eq!(line("rpull nginx"), "rpull pull nginx");
        assert_eq!(line("rpull --root images nginx"), "rpull pull --root images nginx");
        assert_eq!(line("rpull -q nginx a"), "rpull pull -q nginx a");
        assert_eq!(line("rpull --jobs=2 nginx"), "rpull pull --jobs=2 nginx");
        assert_eq!(line("rpull -qj 2 nginx"), "rpull pull -qj 2 nginx");
        assert_eq!(line("rpull -qj2 nginx"), "rpull pull -qj2 nginx");
        assert_eq!(line("rpull -- images"), "rpull pull -- images");
        assert_eq!(line("rpull images"), "rpull images");
        assert_eq!(line("rpull nginx --help"), "rpull pull nginx --help");
    }

    #[test]
    fn flags_before_a_command_move_behind_its_name() {
        assert_eq!(line("rpull --root x images -q"), "rpull images --root x -q");
        assert_eq!(line("rpull --plain-http pull x"), "rpull pull --plain-http x");
        assert_eq!(line("rpull --policy missing pull x"), "rpull pull --policy missing x");
        assert_eq!(line("rpull --policy missing images"), "rpull images --policy missing");
        assert_eq!(line("rpull -j 2 pull x"), "rpull pull -j 2 x");
        assert_eq!(line("rpull --unknown images"), "rpull images --unknown");
        assert_eq!(line("rpull -vv run x"), "rpull run --verbose --verbose x");
        assert_eq!(line("rpull run -v /a:/b x"), "rpull run -v /a:/b x");
    }

    #[test]
    fn help_and_version_stand_alone() {
        assert_eq!(line("rpull"), "rpull -h");
        assert_eq!(line("rpull --version"), "rpull --version");
        assert_eq!(line("rpull -q -h images"), "rpull -h");
        assert_eq!(line("rpull -q help images"), "rpull help images");
        assert_eq!(line("rpull -q"), "rpull pull -q");
    }

    #[test]
    fn first_image_is_a_word_that_could_be_a_command() {
        let first = |line: &str| {
            let args = line.split(' ').map(OsString::from).collect();
            arranged(args, &Cli::command()).first_image
        };
        assert_eq!(first("rpull --policy never pul x").as_deref(), Some("pul"));
        for line in ["rpull", "rpull -q", "rpull -- pul", "rpull pull pul", "rpull help pul"] {
            assert_eq!(first(line), None, "{line}");
        }
    }

    #[test]
    fn flag_with_a_value_is_found_in_both_forms() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let has = |line| has(&words(line), "--format", "json");
        assert!(has("rpull --format json x") && has("rpull x --format=json"));
        assert!(!has("rpull --format text json") && !has("rpull --format"));
    }

    /// Before the command is known, a flag must mean the same in all. Some do not, because docker uses them
    /// in several ways: they must stand behind their command.
    #[test]
    fn flag_takes_a_value_in_all_commands_or_in_none() {
        let command = Cli::command();
        let mut takes = BTreeMap::new();
        for flag in flags(&command) {
            let long = flag.get_long().map(|name| format!("--{name}"));
            let short = flag.get_short().map(|letter| format!("-{letter}"));
            for name in long
                .into_iter()
                .chain(short)
                .filter(|name| !["-a", "-f", "-t", "-i", "-v", "--pull"].contains(&name.as_str()))
            {
                let first = *takes.entry(name.clone()).or_insert(takes_value(flag));
                assert_eq!(first, takes_value(flag), "{name} takes a value only in some commands");
            }
        }
        assert!(takes["--policy"] && !takes["--plain-http"]);
    }

    #[test]
    fn commands_with_a_flag_are_found_by_either_name() {
        let command = Cli::command();
        assert_eq!(commands_with("--policy", &command), ["pull"]);
        assert_eq!(commands_with("--policy=never", &command), ["pull"]);
        assert_eq!(commands_with("-j", &command), ["pull", "push", "copy"]);
        assert_eq!(commands_with("--certs-dir", &command)[..2], ["pull", "push"]);
        assert!(commands_with("--no-such-flag", &command).is_empty());
    }
}
