//! Colours: the only module that writes their escape sequences.

use std::borrow::Cow;
use std::ffi::OsStr;

/// A colour that tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// An error.
    Red,
    /// A warning, or something that waits for a retry.
    Yellow,
    /// Something that is complete.
    Green,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette(bool);

impl Palette {
    /// No colours.
    #[cfg(test)]
    pub const PLAIN: Self = Self(false);

    /// All colours.
    #[cfg(test)]
    pub const COLOURED: Self = Self(true);

    /// Returns whether an output is coloured: with `CLICOLOR_FORCE` always, otherwise on a terminal
    /// other than a dumb one, and never with `NO_COLOR` or `CLICOLOR=0`. An empty variable counts as
    /// unset.
    pub fn of_environment(is_terminal: bool) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::choose(is_terminal, |name| variable(name).as_deref().map(OsStr::to_owned))
    }

    fn choose<T: AsRef<OsStr>>(is_terminal: bool, variable: impl Fn(&str) -> Option<T>) -> Self {
        let is = |name: &str, value: &str| variable(name).is_some_and(|it| it.as_ref() == value);
        if variable("NO_COLOR").is_some() {
            return Self(false);
        }
        if variable("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0") {
            return Self(true);
        }
        let dumb = variable("TERM").is_none() || is("TERM", "dumb");
        Self(is_terminal && !dumb && !is("CLICOLOR", "0"))
    }

    /// Returns `text` in `colour`. It must contain no escape sequences.
    pub fn paint(self, colour: impl Into<Option<Colour>>, text: &str) -> Cow<'_, str> {
        let code = match colour.into() {
            Some(Colour::Red) => "1;31",
            Some(Colour::Yellow) => "1;33",
            Some(Colour::Green) => "32",
            None => return Cow::Borrowed(text),
        };
        match self.0 {
            true => Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")),
            false => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn chosen(is_terminal: bool, variables: &[(&str, &'static str)], colours: bool) {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        assert_eq!(Palette::choose(is_terminal, variable), Palette(colours), "{variables:?}");
    }

    #[test]
    fn colours_depend_on_the_terminal_and_the_variables() {
        let xterm = ("TERM", "xterm");
        chosen(true, &[xterm], true);
        chosen(false, &[xterm], false);
        chosen(true, &[], false);
        chosen(true, &[("TERM", "dumb")], false);
        chosen(true, &[xterm, ("NO_COLOR", "1")], false);
        chosen(true, &[xterm, ("CLICOLOR", "0")], false);
        chosen(true, &[xterm, ("CLICOLOR", "1")], true);
        chosen(false, &[("CLICOLOR_FORCE", "1")], true);
        chosen(true, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true);
        chosen(false, &[xterm, ("CLICOLOR_FORCE", "0")], false);
        chosen(true, &[xterm, ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false);
    }

    #[test]
    fn text_without_colours_is_unchanged() {
        assert_eq!(Palette(true).paint(Colour::Red, "rpull:"), "\x1b[1;31mrpull:\x1b[0m");
        assert_eq!(Palette(true).paint(None, "text"), "text");
        assert_eq!(Palette::PLAIN.paint(Colour::Green, "done"), "done");
    }
}
