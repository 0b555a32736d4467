//! Images in archives, in the form in which skopeo and podman name them
//! (containers-transports(5)).

use std::path::PathBuf;

use super::read::ArchiveKind;

/// The transports, with the documents that each one reads.
const TRANSPORTS: [(&str, ArchiveKind); 3] = [
    ("oci:", ArchiveKind::Layout),
    ("oci-archive:", ArchiveKind::Layout),
    ("docker-archive:", ArchiveKind::Docker),
];

/// An image in an archive: `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]` or `docker-archive:FILE[:NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveLocation {
    /// The archive.
    pub path: PathBuf,
    /// The image in it, if one was chosen.
    pub name: Option<String>,
    pub(crate) kind: ArchiveKind,
}

impl ArchiveLocation {
    /// Parses `text`; `None` if it does not begin with a transport. The path ends at the first colon.
    pub fn parse(text: &str) -> Option<Self> {
        let (transport, kind) = TRANSPORTS.iter().find(|(name, _)| text.starts_with(name))?;
        let rest = &text[transport.len()..];
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
            Some((path, _)) => (path, None),
            None => (rest, None),
        };
        // `oci://` is a URL of a registry.
        let is_path = !path.is_empty() && !path.starts_with("//");
        is_path.then(|| Self { path: path.into(), name, kind: *kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_a_transport_a_path_and_a_name() {
        for (text, expected) in [
            ("oci:dir", Some(("dir", None))),
            ("oci:/a/b:nginx:1.27", Some(("/a/b", Some("nginx:1.27")))),
            ("oci-archive:a.tar:", Some(("a.tar", None))),
            ("docker-archive:a.tar:h:5000/a:1", Some(("a.tar", Some("h:5000/a:1")))),
            ("oci://host/a", None),
            ("oci:", None),
            ("nginx:1", None),
            ("dir:x", None),
        ] {
            let parsed = ArchiveLocation::parse(text);
            let parsed = parsed.as_ref().map(|it| (it.path.to_str().unwrap(), it.name.as_deref()));
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
