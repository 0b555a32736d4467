//! The failure of a command: an error, the image that it is about, and what the user can do.
//!
//! It is printed as two lines of text, or as one JSON object (docs/json.md).

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use rpull::error::StoreError;
use rpull::{Error, Reference, printable};

use super::{hints, output};

/// Why a command failed. With several images, one failure per image that failed.
#[derive(Debug)]
pub struct Failure {
    error: Box<Error>,
    /// The name of the image in JSON.
    image: Option<String>,
    /// What is printed before the error, if it does not name the image itself.
    prefix: Option<String>,
    /// A hint that the error alone does not give.
    hint: Option<String>,
    /// The exit code, if it is not that of the error's kind.
    code: Option<u8>,
    /// The failures of later images.
    others: Vec<Failure>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let image = image_of(&error);
        let error = Box::new(error);
        Self { error, image, prefix: None, hint: None, code: None, others: Vec::new() }
    }
}

impl Failure {
    /// Invalid words on the command line, and what to write instead.
    pub fn usage(text: String, hint: Option<String>) -> Self {
        Self { hint, ..Error::Usage(text).into() }
    }

    /// An error that concerns `image`, which is one of `several`.
    pub fn of_image(error: Error, image: &Reference, several: bool) -> Self {
        let name = image.clone().with_default_tag().0;
        let is_named = hints::text(&error).contains(&name.to_string());
        let prefix = (several && !is_named).then(|| name.to_string());
        Self { image: Some(name.canonical()), prefix, ..error.into() }
    }

    /// Replaces the exit code.
    pub fn with_code(self, code: u8) -> Self {
        Self { code: Some(code), ..self }
    }

    fn code(&self) -> u8 {
        self.code.unwrap_or_else(|| hints::exit_code(&self.error))
    }

    /// Joins the failures of several images.
    ///
    /// # Errors
    /// The first failure, with the others.
    pub fn any(failures: impl IntoIterator<Item = Failure>) -> Result<(), Failure> {
        let mut failures = failures.into_iter();
        match failures.next() {
            Some(first) => Err(Self { others: failures.collect(), ..first }),
            None => Ok(()),
        }
    }

    fn text(&self) -> String {
        let text = hints::text(&self.error);
        match &self.prefix {
            Some(prefix) => format!("{prefix}: {text}"),
            None => text,
        }
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone().or_else(|| hints::hint(&self.error))
    }

    fn json(&self) -> Value {
        let short = |text: String| printable::shorten(&text, output::LONGEST_ERROR).into_owned();
        json!({
            "code": self.code(),
            "kind": hints::kind_name(self.error.kind()),
            "message": short(hints::text(&self.error)),
            "hint": self.hint().map(short),
            "image": self.image,
        })
    }
}

/// The image as it was typed, of errors that name one.
fn image_of(error: &Error) -> Option<String> {
    match error {
        Error::NotPresent(image)
        | Error::Damaged { image, .. }
        | Error::Store(
            StoreError::NoSuchImage(image)
            | StoreError::InUse { image, .. }
            | StoreError::SeveralNames { image, .. },
        ) => Some(image.clone()),
        Error::Reference(error) | Error::Store(StoreError::Reference(error)) => {
            Some(error.input.clone())
        }
        Error::Store(StoreError::Ambiguous { prefix, .. }) => Some(prefix.clone()),
        _ => None,
    }
}

/// The forms in which failures are printed.
#[derive(Debug, Clone, Copy)]
pub struct Forms {
    /// On standard error: as JSON in place of text.
    pub json: bool,
    /// On standard output as well: as events at the end of the progress stream.
    pub events: bool,
}

static FORMS: Mutex<Forms> = Mutex::new(Forms { json: false, events: false });

/// From now on, failures are printed in `forms`.
pub fn print_as(forms: Forms) {
    *FORMS.lock().unwrap_or_else(PoisonError::into_inner) = forms;
}

fn forms() -> Forms {
    *FORMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints why the command failed and what to do; returns its exit code.
pub fn fail(failure: &Failure) -> ExitCode {
    std::iter::once(failure).chain(&failure.others).for_each(print);
    ExitCode::from(failure.code())
}

fn print(failure: &Failure) {
    let forms = forms();
    if forms.events {
        event(failure.json());
    }
    if forms.json {
        return output::error_json(&failure.json());
    }
    output::error(&failure.text());
    if let Some(hint) = failure.hint() {
        output::hint(&hint);
    }
}

fn event(mut object: Value) {
    object["event"] = json!("error");
    // The failure of a pull outweighs that of its report.
    let _ = output::json_line(&object);
}

/// Prints the text of the command line's parser, in the forms that failures have.
pub fn print_usage(text: &str) {
    let forms = forms();
    let object = usage_json(text);
    if forms.events {
        event(object.clone());
    }
    match forms.json {
        true => output::error_json(&object),
        false => output::usage_error(text),
    }
}

/// Reads `error: MESSAGE`, an empty line, and lines that begin with `tip: `.
fn usage_json(text: &str) -> Value {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = text.split("\n\n").next().unwrap_or_default();
    let tips: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("tip: "))
        .map(words)
        .collect();
    json!({
        "code": 2,
        "kind": hints::kind_name(rpull::ErrorKind::Usage),
        "message": words(message.strip_prefix("error: ").unwrap_or(message)),
        "hint": (!tips.is_empty()).then(|| tips.join("; ")),
        "image": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> Reference {
        name.parse().unwrap()
    }

    #[test]
    fn image_of_several_is_named_once() {
        let other = || Error::Other("out of luck".to_owned());
        let named = || Error::NotPresent("nginx:latest".to_owned());
        let text = |error, several| Failure::of_image(error, &reference("nginx"), several).text();
        assert_eq!(text(other(), true), "nginx:latest: out of luck");
        assert_eq!(text(other(), false), "out of luck");
        assert_eq!(text(named(), true), text(named(), false));
    }

    #[test]
    fn json_has_the_canonical_name_of_a_pull_and_the_typed_name_elsewhere() {
        let error = || Error::NotPresent("nginx:latest".to_owned());
        let pulled = Failure::of_image(error(), &reference("nginx"), false).json();
        assert_eq!(pulled["image"], "docker.io/library/nginx:latest");
        assert_eq!((&pulled["code"], &pulled["kind"]), (&json!(3), &json!("not-found")));
        assert_eq!(pulled["hint"], "pull it without --policy never");
        assert_eq!(Failure::from(error()).json()["image"], "nginx:latest");
        assert_eq!(Failure::from(Error::Interrupted).json()["image"], Value::Null);
    }

    #[test]
    fn first_of_several_failures_carries_the_others() {
        let failures = ["a", "b", "c"].map(|text| Error::Other(text.to_owned()).into());
        let first = Failure::any(failures).unwrap_err();
        assert_eq!(first.text(), "a");
        assert_eq!(first.others.iter().map(Failure::text).collect::<Vec<_>>(), ["b", "c"]);
        assert!(Failure::any([]).is_ok());
    }

    #[test]
    fn usage_error_keeps_message_and_tips() {
        let text = "error: the following arguments were not provided:\n  <IMAGE>...\n\n  \
                    tip: one\n  tip: two\n\nUsage: rpull pull\n";
        let object = usage_json(text);
        assert_eq!(object["message"], "the following arguments were not provided: <IMAGE>...");
        assert_eq!(object["hint"], "one; two");
        assert_eq!(usage_json("error: x\n\nUsage: y")["hint"], Value::Null);
    }
}
