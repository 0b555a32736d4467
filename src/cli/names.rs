//! References on the command line. What belongs to another tool's names, such as `docker://`, is
//! refused with what to write instead.

use rpull::{ArchiveLocation, Error, Reference};

use super::failure::Failure;

/// Transports of skopeo and podman that name images of a registry.
const OF_REGISTRIES: [&str; 2] = ["docker-daemon:", "containers-storage:"];

/// Transports of skopeo and podman that name files.
const OF_FILES: [&str; 6] =
    ["oci:", "dir:", "oci-archive:", "docker-archive:", "docker-tarball:", "sif:"];

/// What a word names to pull.
pub enum Named {
    /// An image of a registry.
    Reference(Reference),
    /// An image in an archive.
    Archive(ArchiveLocation),
}

/// Returns the image of a registry or an archive that `word` names.
///
/// # Errors
/// It is neither, or it begins with another tool's prefix.
pub fn source(word: &str) -> Result<Named, Failure> {
    match ArchiveLocation::parse(word) {
        Some(location) => Ok(Named::Archive(location)),
        None => reference(word).map(Named::Reference),
    }
}

/// Returns the reference that `word` is.
///
/// # Errors
/// It is not a reference, or it begins with another tool's prefix.
pub fn reference(word: &str) -> Result<Reference, Failure> {
    match foreign(word) {
        Some(failure) => Err(failure),
        None => Ok(word.parse().map_err(Error::Reference)?),
    }
}

fn foreign(word: &str) -> Option<Failure> {
    let refused = |prefix: &str, hint: String| {
        let text = format!("'{word}' is not an image reference: it begins with '{prefix}'");
        Some(Failure::usage(text, Some(hint)))
    };
    if let Some((scheme, rest)) = word.split_once("://") {
        let rest = match rest.strip_prefix("hub.docker.com/") {
            Some(page) => page.trim_start_matches("_/").trim_start_matches("r/"),
            None => rest,
        };
        let also = match scheme {
            "http" => ", and give --plain-http if the registry does not use TLS",
            _ => "",
        };
        let prefix = format!("{scheme}://");
        let hint = format!("leave out '{prefix}': {}{also}", rest.trim_end_matches('/'));
        return refused(&prefix, hint);
    }
    let begins = |prefix: &&&str| word.starts_with(**prefix);
    if let Some(prefix) = OF_REGISTRIES.iter().find(begins) {
        let rest = &word[prefix.len()..];
        return refused(prefix, format!("leave out '{prefix}' to pull {rest} from its registry"));
    }
    let prefix = OF_FILES.iter().find(begins)?;
    refused(
        prefix,
        format!(
            "only `rpull pull` reads oci:DIR, oci-archive:FILE and docker-archive:FILE; an image of that \
             name is docker.io/library/{word}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_other_tools_are_refused() {
        for word in [
            "docker://nginx",
            "https://quay.io/a/b",
            "oci://registry.example/chart",
            "oci:dir:tag",
            "oci-archive:a.tar",
            "docker-daemon:nginx:latest",
            "containers-storage:nginx",
        ] {
            assert!(reference(word).is_err(), "{word}");
        }
        for word in ["oci", "dir/x:1", "docker", "docker.io/library/oci:dir", "host:5000/oci:1"] {
            assert!(reference(word).is_ok(), "{word}");
        }
    }
}
