//! `--format`: results as text, as JSON, or by a template.

use chrono::{DateTime, Utc};
use serde_json::Value;

use rpull::{ArchiveFormat, Error};

use super::output;
use super::template::Template;

/// The format of results.
#[derive(Debug, Clone)]
pub enum Format {
    /// Tables and lines for people.
    Text,
    /// JSON for programs.
    Json,
    /// The format of an archive.
    Archive(ArchiveFormat),
    /// The text of a template for each result.
    Lines(Template),
    /// A table whose columns are the tab-separated parts of a template.
    Table(Template),
}

impl Format {
    /// Parses the value of the flag: `text`, `json`, a template, or `table TEMPLATE`, as docker does.
    ///
    /// # Errors
    /// It is none of them, or the template is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "text" | "table" => return Ok(Self::Text),
            "json" => return Ok(Self::Json),
            "oci" | "oci-archive" => return Ok(Self::Archive(ArchiveFormat::Oci)),
            "docker" | "docker-archive" => return Ok(Self::Archive(ArchiveFormat::Docker)),
            word if !word.contains("{{") => {
                return Err("use text, json, or a template such as '{{.ID}}'".to_owned());
            }
            _ => {}
        }
        match text.strip_prefix("table ") {
            Some(template) => Template::parse(template.trim()).map(Self::Table),
            None => Template::parse(text).map(Self::Lines),
        }
    }
}

/// A list that a command prints: its rows, and how.
pub struct Rows<'a> {
    /// The fields of a row, with the headers of their columns.
    pub headers: &'a [(&'a str, &'a str)],
    /// The template of a table for people.
    pub table: &'a str,
    /// The field that `--quiet` prints.
    pub quiet: &'a str,
    /// The rows: objects with these fields, and more for programs.
    pub rows: Vec<Value>,
}

impl Rows<'_> {
    /// Prints the rows. JSON and templates take precedence over `quiet`, as in docker.
    ///
    /// # Errors
    /// The template does not fit the fields, or standard output cannot be written.
    pub fn print(&self, format: &Format, quiet: bool) -> Result<(), Error> {
        match format {
            Format::Json => self.rows.iter().try_for_each(output::json_line),
            Format::Lines(template) => {
                self.rows.iter().try_for_each(|row| output::rendered(&render(template, row)?))
            }
            Format::Table(template) => self.print_table(template),
            Format::Text if quiet => {
                let field = |row: &Value| row[self.quiet].as_str().unwrap_or_default().to_owned();
                self.rows.iter().try_for_each(|row| output::line(field(row)))
            }
            Format::Text | Format::Archive(_) => {
                let template = Template::parse(self.table).map_err(Error::Usage)?;
                self.print_table(&template)
            }
        }
    }

    fn print_table(&self, template: &Template) -> Result<(), Error> {
        let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let headers = self.headers.iter();
        let headers = headers.map(|(field, header)| ((*field).to_owned(), (*header).into()));
        let headers = cells(render(template, &Value::Object(headers.collect()))?);
        let rows = self.rows.iter().map(|row| render(template, row).map(cells));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        output::table(&headers, &rows)
    }
}

/// Renders `data` with `template`.
///
/// # Errors
/// The template does not fit the data.
pub fn render(template: &Template, data: &Value) -> Result<String, Error> {
    template.render(data).map_err(|why| Error::Usage(format!("the template of --format: {why}")))
}

/// Returns the `CreatedAt` of docker's lists, in UTC: Go's default form of a time.
pub fn created_at(created: &str) -> String {
    let time = created.parse::<DateTime<Utc>>();
    time.map_or_else(
        |_| "N/A".to_owned(),
        |time| time.format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_text_json_or_a_template() {
        for (text, expected) in [
            ("", "Text"),
            ("text", "Text"),
            ("table", "Text"),
            ("json", "Json"),
            ("oci", "Archive(Oci)"),
            ("docker-archive", "Archive(Docker)"),
            ("{{.ID}}", "Lines"),
            (r"table {{.ID}}\t{{.Tag}}", "Table"),
        ] {
            let format = format!("{:?}", Format::parse(text).unwrap());
            assert!(format.starts_with(expected), "{text}: {format}");
        }
        for text in ["yaml", "Json", "{{", "table x"] {
            assert!(Format::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_of_a_list_has_the_form_of_go() {
        assert_eq!(created_at("2026-01-31T12:00:00.5+02:00"), "2026-01-31 10:00:00 +0000 UTC");
        assert_eq!(created_at("yesterday"), "N/A");
    }
}
