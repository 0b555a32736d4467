//! The arguments of `inspect`, `rm` and `tag`: a name, an ID, or the beginning of an ID.

use super::{Reference, ReferenceError, grammar};

/// A query for an image in the store (distribution/reference `ParseAnyReference`, and Docker's
/// search by unique prefix).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// An image ID, 64 hex digits.
    Id(String),
    /// A name; with `prefix`, the text could also be the beginning of an ID. A name takes
    /// precedence over a short ID, as in dockerd.
    Name {
        /// The name.
        name: Reference,
        /// The hex digits.
        prefix: Option<String>,
    },
    /// The hex digits after `sha256:`, the beginning of an ID.
    Prefix(String),
}

impl Query {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`ReferenceError`] if it is neither an ID nor a name.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if grammar::is_bare_id(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        let hex =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if let Some(digits) = text.strip_prefix("sha256:")
            && !digits.is_empty()
            && digits.len() <= 64
            && hex(digits)
        {
            let whole = digits.len() == 64;
            let digits = digits.to_owned();
            return Ok(if whole { Self::Id(digits) } else { Self::Prefix(digits) });
        }
        let prefix = hex(text).then(|| text.to_owned());
        Ok(Self::Name { name: text.parse()?, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_an_id_a_prefix_or_a_name() {
        let id = "ab".repeat(32);
        assert_eq!(Query::parse(&id).unwrap(), Query::Id(id.clone()));
        assert_eq!(Query::parse(&format!("sha256:{id}")).unwrap(), Query::Id(id));
        assert_eq!(Query::parse("sha256:abc").unwrap(), Query::Prefix("abc".into()));
        assert!(
            matches!(Query::parse("abc").unwrap(), Query::Name { prefix: Some(p), .. } if p == "abc")
        );
        assert!(matches!(Query::parse("nginx").unwrap(), Query::Name { prefix: None, .. }));
        assert!(Query::parse("UPPER").is_err());
    }
}
