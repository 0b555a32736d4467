//! Volumes: `SOURCE:TARGET[:OPTIONS]`, or `TARGET` alone for an anonymous volume (docker/cli
//! opts, moby volume/mounts/linux_parser.go).

use std::path::{Component, Path, PathBuf};

use super::BundleError;

/// A directory or file that a container sees at `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The directory or file of the host; `None` for an anonymous volume.
    pub source: Option<PathBuf>,
    /// The absolute path in the container.
    pub target: PathBuf,
    /// Whether the container cannot write it.
    pub read_only: bool,
    /// The propagation of mounts below it.
    pub propagation: &'static str,
}

/// Propagations that docker accepts.
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl Volume {
    /// Reads a volume as `docker run -v` takes it.
    ///
    /// # Errors
    /// [`BundleError::Volume`] if it has another form, or names a volume of dockerd.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let because =
            |why: &str| BundleError::Volume { volume: text.to_owned(), why: why.to_owned() };
        let wrong = |why: &str| Err(because(why));
        let fields: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match fields.as_slice() {
            [target] => (None, *target, ""),
            [source, target] => (Some(*source), *target, ""),
            [source, target, options] => (Some(*source), *target, *options),
            _ => return wrong("give SOURCE:TARGET[:OPTIONS]"),
        };
        if source.is_some_and(|source| !source.contains('/') && source != "." && source != "..") {
            return wrong("there are no named volumes; give a path, such as ./data:/data");
        }
        let mut volume = Self {
            source: source.map(PathBuf::from),
            target: target_in_container(target)
                .ok_or_else(|| because("the path in the container is not absolute, or is /"))?,
            read_only: false,
            propagation: "rprivate",
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => volume.read_only = true,
                // SELinux labels are not set; the others are defaults.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" => {}
                other => match PROPAGATIONS.into_iter().find(|known| *known == other) {
                    Some(propagation) => volume.propagation = propagation,
                    None => return wrong(&format!("the option '{other}' is unknown")),
                },
            }
        }
        Ok(volume)
    }

    /// Returns the anonymous volume that an image has at `target`; `None` if this is not an absolute
    /// path.
    pub fn of_image(target: &str) -> Option<Self> {
        let target = target_in_container(target)?;
        Some(Self { source: None, target, read_only: false, propagation: "rprivate" })
    }
}

/// Returns the absolute path without `.` and `..`; `None` if it is relative or the root.
fn target_in_container(text: &str) -> Option<PathBuf> {
    if !text.starts_with('/') {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    (clean.as_os_str() != "/").then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_is_read_as_docker_does() {
        let volume = Volume::parse("./data:/srv//a/../b:ro,z,rslave").unwrap();
        assert_eq!(volume.source.as_deref(), Some(Path::new("./data")));
        assert_eq!(volume.target, Path::new("/srv/b"));
        assert!(volume.read_only && volume.propagation == "rslave");
        let anonymous = Volume::parse("/data").unwrap();
        assert_eq!((anonymous.source, anonymous.target), (None, "/data".into()));
        assert_eq!(Volume::of_image("/../x").unwrap().target, Path::new("/x"));
        assert_eq!(Volume::of_image("data"), None);
    }

    #[test]
    fn volume_in_another_form_is_an_error() {
        for text in ["", "a:b:c:d", "/a:b", "/a:/", "/a:/b:wrong", "named:/data", "/a:/.."] {
            assert!(Volume::parse(text).is_err(), "{text}");
        }
        let named = Volume::parse("named:/data").unwrap_err().to_string();
        assert!(named.contains("there are no named volumes"), "{named}");
    }
}
