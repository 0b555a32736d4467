//! Printing: the only module that writes to standard output and standard error.
//!
//! Registries, images, files and arguments bring most of the text that is printed, so all of
//! it is escaped here by [`rpull::printable`]. `clippy.toml` forbids the standard streams
//! elsewhere, and `tests/it/layering.rs` checks it.
//!
//! Results (lines, tables, JSON) are printed whole. Errors, hints and notices take one line
//! each and have a limited length.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, fstat};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use rpull::Error;
use rpull::printable;

use super::colour::{Colour, Palette};

/// The most bytes of an error's line.
pub const LONGEST_ERROR: usize = 1536;

/// The most bytes of a warning, a retry or a hint. One error may come with several of them.
const LONGEST_NOTICE: usize = 400;

/// The most bytes of a line of a foreign file that are printed in one line.
const LONGEST_PART: u64 = 64 << 10;

/// An output that takes nothing but whole lines, and escapes them.
pub struct Lines<W>(W);

impl<W: Write> Lines<W> {
    /// Writes to `out`.
    pub fn to(out: W) -> Self {
        Self(out)
    }

    /// Writes one line of text.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn text(&mut self, text: impl Display) -> io::Result<()> {
        self.write(&printable::escape(&text.to_string()))
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.write(&printable::escape_json(&serde_json::to_string(value)?))
    }

    /// Writes a line in one piece, so that those of other threads and processes stay apart.
    fn write(&mut self, safe: &str) -> io::Result<()> {
        self.0.write_all(format!("{safe}\n").as_bytes())?;
        self.0.flush()
    }
}

/// Standard output.
#[expect(clippy::disallowed_methods, reason = "the only place that opens it")]
pub fn stdout() -> Lines<io::Stdout> {
    Lines::to(io::stdout())
}

/// Standard error.
#[expect(clippy::disallowed_methods, reason = "the only place that opens it")]
fn stderr() -> Lines<io::Stderr> {
    Lines::to(io::stderr())
}

/// Whether standard output is a terminal.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Standard output for the bytes of an archive, which are not text.
///
/// # Errors
/// Standard output is closed.
#[expect(clippy::disallowed_methods, reason = "the only place that opens it")]
pub fn archive() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Standard error for the output of other programs, whose bytes are not escaped.
///
/// # Errors
/// Standard error is closed.
#[expect(clippy::disallowed_methods, reason = "the only place that opens it")]
pub fn error_file() -> Result<File, Error> {
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    file.map_err(|e| Error::Other(format!("cannot write to standard error: {e}")))
}

/// A file that takes output of other programs which is not wanted.
///
/// # Errors
/// The file cannot be opened.
pub fn nothing() -> Result<File, Error> {
    let file = File::options().write(true).open("/dev/null");
    file.map_err(|e| Error::Other(format!("/dev/null: {e}")))
}

/// Whether standard input is a terminal.
pub fn reads_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether standard output is read by a program, which may show it on the terminal of standard
/// error.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn is_piped() -> bool {
    let kind = fstat(io::stdout()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::Socket))
}

/// Whether bars can be drawn on standard error: it is a terminal that can move its cursor.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn can_draw() -> bool {
    let terminal = std::env::var_os("TERM");
    io::stderr().is_terminal() && terminal.is_some_and(|name| !name.is_empty() && name != "dumb")
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its columns.
    pub columns: usize,
    /// Its lines.
    pub lines: usize,
}

/// The size of standard error's terminal at this moment.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn terminal_size() -> Size {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), lines: size.ws_row.into() }
        }
        // The size that indicatif assumes.
        _ => Size { columns: 79, lines: 24 },
    }
}

/// The columns of standard output's terminal; `None` if it is not a terminal.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn columns() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok().filter(|_| is_terminal());
    size.map(|size| size.ws_col.into()).filter(|columns| *columns > 0)
}

/// Whether the locale's encoding is UTF-8 (POSIX, XBD 8.2: the first of these variables that is
/// set).
pub fn is_utf8() -> bool {
    let variables = ["LC_ALL", "LC_CTYPE", "LANG"].map(std::env::var_os);
    let locale = variables.into_iter().flatten().find(|value| !value.is_empty());
    let locale = locale.map(|value| value.to_string_lossy().to_lowercase().replace('-', ""));
    locale.is_some_and(|locale| locale.contains("utf8"))
}

/// The colours of standard error.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn palette() -> Palette {
    Palette::of_environment(io::stderr().is_terminal())
}

/// The result of printing. A reader that closed the pipe is not a failure: it has read what
/// it needs.
///
/// # Errors
/// Standard output cannot be written.
pub fn printed(result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Other(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line.
///
/// # Errors
/// Standard output cannot be written.
pub fn line(text: impl Display) -> Result<(), Error> {
    printed(stdout().text(text))
}

/// Prints what a template gave. Its newlines and tabs stay.
///
/// # Errors
/// As [`line`].
pub fn rendered(text: &str) -> Result<(), Error> {
    let line = |line: &str| line.split('\t').map(printable::escape).collect::<Vec<_>>().join("\t");
    printed(stdout().write(&text.split('\n').map(line).collect::<Vec<_>>().join("\n")))
}

/// Prints a line that another program takes literally, like a path or a command.
///
/// # Errors
/// As [`line`]; [`Error::Usage`] if the text would have to be escaped, which would change
/// what it means. `what` names it.
pub fn exact(what: &str, text: &str) -> Result<(), Error> {
    if printable::is_printable(text) {
        return line(text);
    }
    Err(Error::Usage(format!(
        "{what} contains control or invisible characters and cannot be printed unchanged: {text}; \
         use --format json"
    )))
}

/// The text of a path that is printed for another program.
///
/// # Errors
/// [`Error::Usage`] if it is not UTF-8, which neither text nor JSON can show.
pub fn path_text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| {
        Error::Usage(format!("the path {} is not UTF-8 and cannot be printed", path.display()))
    })
}

/// Prints a value as indented JSON.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Other(e.to_string()))?;
    printed(stdout().write(&printable::escape_json(&text)))
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`line`].
pub fn json_line(value: &impl Serialize) -> Result<(), Error> {
    printed(stdout().json(value))
}

/// Prints a table with its columns aligned, three spaces between them, as docker does.
///
/// # Errors
/// As [`line`].
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
    printed(stdout().write(&aligned(header, rows)))
}

/// The lines of a table. Widths are those of the escaped cells.
fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let escaped = |cell: &str| printable::escape(cell).into_owned();
    let header = header.iter().map(|cell| escaped(cell)).collect();
    let rows = rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect());
    let all: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let mut widths = vec![0; all[0].len()];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}   "));
        cells.collect::<String>().trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Prints the help of the command line's parser, which has several lines.
///
/// # Errors
/// As [`line`].
pub fn help(text: &str) -> Result<(), Error> {
    printed(stdout().write(&escaped_lines(text)))
}

/// Prints the content of a foreign file on a terminal. Its newlines and tabs stay.
///
/// # Errors
/// As [`line`], or the file cannot be read.
pub fn escaped(file: &mut impl Read) -> Result<(), Error> {
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let part = lines.by_ref().take(LONGEST_PART).read_until(b'\n', &mut line);
        if part.map_err(|e| Error::Other(format!("cannot read the file: {e}")))? == 0 {
            return Ok(());
        }
        rendered(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).as_ref())?;
    }
}

/// Prints a file of this project.
///
/// # Errors
/// As [`line`].
pub fn script(text: &str) -> Result<(), Error> {
    printed(stdout().write(text.trim_end()))
}

/// Prints a usage error of the command line's parser, which has several lines, on standard error.
pub fn usage_error(text: &str) {
    // Standard error may be closed, and there is no other place to report it.
    let _ = stderr().write(&escaped_lines(text));
}

fn escaped_lines(text: &str) -> String {
    text.trim_end().split('\n').map(printable::escape).collect::<Vec<_>>().join("\n")
}

/// Prints on standard error why something failed.
pub fn error(text: &str) {
    error_line(Some((Colour::Red, "rpull:")), text, LONGEST_ERROR);
}

/// Prints on standard error what the user can do about an error.
pub fn hint(text: &str) {
    error_line(None, &format!("hint: {text}"), LONGEST_NOTICE);
}

/// Prints on standard error why something failed, as one line of JSON.
pub fn error_json(value: &impl Serialize) {
    // Standard error may be closed, and there is no other place to report it.
    suspended(|| drop(stderr().json(value)));
}

/// Prints a problem on standard error that does not end the command.
pub fn warning(text: &str) {
    error_line(Some((Colour::Yellow, "warning:")), text, LONGEST_NOTICE);
}

/// Prints a line of a summary on standard error, whose parts have colours.
pub fn summary(parts: &[(Option<Colour>, &str)]) {
    let palette = palette();
    let part =
        |(colour, text): &(_, &str)| palette.paint(*colour, &printable::escape(text)).into_owned();
    write_error(&parts.iter().map(part).collect::<String>());
}

/// Prints on standard error what the user should know and what does not end the command.
pub fn notice(text: &str) {
    error_line(None, text, LONGEST_NOTICE);
}

/// Prints a line of the log on standard error.
pub fn log(text: &str) {
    error_line(None, text, LONGEST_ERROR);
}

/// Calls its argument once while the screen has no bars.
type Suspend = Box<dyn Fn(&mut dyn FnMut()) + Send>;

/// How to write to standard error while it shows bars.
static SUSPEND: Mutex<Option<Suspend>> = Mutex::new(None);

/// Standard error shows bars from now on. Lines are printed above them by `suspend`, which calls
/// its argument once, until the result is dropped. `suspend` must not print by itself.
pub fn bars(suspend: impl Fn(&mut dyn FnMut()) + Send + 'static) -> Bars {
    *SUSPEND.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(suspend));
    Bars(())
}

/// Standard error shows bars while this exists.
pub struct Bars(());

impl Drop for Bars {
    fn drop(&mut self) {
        *SUSPEND.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Prints a line on standard error. Colours are added after foreign text is escaped.
fn error_line(word: Option<(Colour, &str)>, text: &str, limit: usize) {
    let text = printable::one_line(text, limit);
    match word {
        Some((colour, word)) => write_error(&format!("{} {text}", palette().paint(colour, word))),
        None => write_error(&text),
    }
}

fn write_error(line: &str) {
    // Standard error may be closed, and there is no other place to report it.
    suspended(|| drop(stderr().write(line)));
}

/// Calls `write` once while standard error shows no bars.
fn suspended(mut write: impl FnMut()) {
    match &*SUSPEND.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(suspend) => suspend(&mut write),
        None => write(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_foreign_cells_is_escaped_and_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["\x1b[2J\u{202e}", "x\n"]), row(["日本", "y  "])];
        let lines = [
            format!("{:20}B", "A"),
            r"\u{1b}[2J\u{202e}   x\n".to_owned(),
            format!("{:20}y", "日本"),
        ];
        assert_eq!(aligned(&["A", "B"], &rows), lines.join("\n"));
    }

    #[test]
    fn lines_take_no_control_characters() {
        let mut out = Vec::new();
        let mut lines = Lines::to(&mut out);
        lines.text("a\nb\x1b[2J\r").unwrap();
        lines.json(&"a\nb\x1b[2J\u{9b}").unwrap();
        let expected = "a\\nb\\u{1b}[2J\\r\n\"a\\nb\\u001b[2J\\u009b\"\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
