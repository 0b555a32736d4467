//! `--filter` of `rpull images`, with the meaning that dockerd gives each (moby
//! daemon/images/images.go): several references match any image that one of them matches, several
//! labels must all match.

use chrono::{DateTime, Utc};
use serde_json::Value;

use rpull::{Error, ImageSummary, Reference, Store};

use super::pattern::Pattern;

/// A condition of the command line.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Images without a tag, or only those with one.
    Dangling(bool),
    /// Images with a label, and its value.
    Label(String, Option<String>),
    /// Images whose name matches.
    Reference(NamePattern),
    /// Images built before another.
    Before(String),
    /// Images built after another.
    Since(String),
}

/// A pattern of names, or a name in any of its forms.
#[derive(Debug, Clone)]
pub struct NamePattern {
    pattern: Pattern,
    name: Option<Reference>,
}

impl Filter {
    /// Parses `KEY=VALUE`.
    ///
    /// # Errors
    /// There is no such filter, or its value is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("use KEY=VALUE, such as dangling=true")?;
        match key {
            "dangling" => match value {
                "true" | "1" => Ok(Self::Dangling(true)),
                "false" | "0" => Ok(Self::Dangling(false)),
                _ => Err("dangling is true or false".to_owned()),
            },
            "label" => Ok(match value.split_once('=') {
                Some((label, value)) => Self::Label(label.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            }),
            "reference" => Self::reference(value),
            "before" => Ok(Self::Before(value.to_owned())),
            "since" => Ok(Self::Since(value.to_owned())),
            _ => Err(format!(
                "there is no filter '{key}'; use dangling, label, reference, before or since"
            )),
        }
    }

    /// Returns the filter of names.
    ///
    /// # Errors
    /// The pattern is invalid.
    pub fn reference(text: &str) -> Result<Self, String> {
        let pattern = Pattern::parse(text)?;
        Ok(Self::Reference(NamePattern { pattern, name: text.parse().ok() }))
    }
}

/// All conditions of a command.
#[derive(Debug, Default)]
pub struct Filters {
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
    references: Vec<NamePattern>,
    before: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
}

impl Filters {
    /// Collects `filters`, and looks up the images that they name.
    ///
    /// # Errors
    /// There is no such image, or its time is unknown.
    pub fn new(filters: impl Iterator<Item = Filter>, store: &Store) -> Result<Self, Error> {
        let mut all = Self::default();
        for filter in filters {
            match filter {
                Filter::Dangling(dangling) => all.dangling = Some(dangling),
                Filter::Label(label, value) => all.labels.push((label, value)),
                Filter::Reference(name) => all.references.push(name),
                Filter::Before(image) => all.before = Some(created(store, &image)?),
                Filter::Since(image) => all.since = Some(created(store, &image)?),
            }
        }
        Ok(all)
    }

    /// Returns whether an image matches all conditions.
    ///
    /// # Errors
    /// Its config cannot be read.
    pub fn matches(&self, line: &ImageSummary, store: &Store) -> Result<bool, Error> {
        let created = line.created.parse::<DateTime<Utc>>().ok();
        let fits = self.dangling.is_none_or(|dangling| dangling == line.tag.is_none())
            && self.before.is_none_or(|before| created.is_some_and(|it| it < before))
            && self.since.is_none_or(|since| created.is_some_and(|it| it > since))
            && (self.references.is_empty() || self.references.iter().any(|it| it.matches(line)));
        Ok(fits && (self.labels.is_empty() || self.has_labels(line, store)?))
    }

    /// Reads the image's config: only this filter needs it.
    fn has_labels(&self, line: &ImageSummary, store: &Store) -> Result<bool, Error> {
        let config = store.image(&line.id.to_string())?.config()?;
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let labels = &config["config"]["Labels"];
        Ok(self.labels.iter().all(|(label, value)| match (&labels[label], value) {
            (Value::Null, _) => false,
            (_, None) => true,
            (found, Some(value)) => found.as_str() == Some(value),
        }))
    }
}

impl NamePattern {
    /// Matches the name alone, or with its tag or digest (distribution/reference `FamiliarMatch`);
    /// also the same name in another form, such as `docker.io/library/nginx`.
    fn matches(&self, line: &ImageSummary) -> bool {
        let Some(repository) = &line.repository else { return false };
        let tagged = line.tag.as_ref().map(|tag| format!("{repository}:{tag}"));
        let pinned = line.digest.map(|digest| format!("{repository}@{digest}"));
        let mut forms = [Some(repository.clone()), tagged, pinned].into_iter().flatten();
        forms.any(|form| self.pattern.matches(&form))
            || self.name.as_ref().is_some_and(|name| {
                name.repository().to_string() == *repository
                    && (name.tag().is_none() || name.tag() == line.tag.as_deref())
                    && (name.digest().is_none() || name.digest() == line.digest)
            })
    }
}

/// Returns the time when an image was built.
fn created(store: &Store, image: &str) -> Result<DateTime<Utc>, Error> {
    let inspected = store.image(image)?.inspect()?;
    let time = inspected["Created"].as_str().and_then(|time| time.parse().ok());
    time.ok_or_else(|| Error::Usage(format!("it is not known when {image} was built")))
}
