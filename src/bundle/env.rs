//! The environment of a container (moby container/container.go `CreateDaemonEnvironment`,
//! docker/cli opts/parse.go).

use super::BundleError;

/// The search path of an image without one.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a user changes about the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvChange {
    /// Sets a variable.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Removes a variable that the image sets.
    Remove {
        /// Its name.
        name: String,
    },
}

impl EnvChange {
    /// Reads `NAME=VALUE`, or `NAME` for the value that `outside` has, or none.
    ///
    /// # Errors
    /// [`BundleError::Variable`] if the name is empty.
    pub fn parse(
        text: &str,
        outside: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BundleError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, outside(text)),
        };
        if name.is_empty() {
            return Err(BundleError::Variable(text.to_owned()));
        }
        let name = name.to_owned();
        Ok(match value {
            Some(value) => Self::Set { name, value },
            None => Self::Remove { name },
        })
    }
}

/// Reads a file of variables, one per line, with comments that begin with `#`.
///
/// # Errors
/// [`BundleError::Variable`] if a name contains white space or is empty.
pub fn parse_env_file(
    text: &str,
    outside: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<EnvChange>, BundleError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let changes = lines.filter_map(|line| {
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Some(Err(BundleError::Variable(format!("'{name}' contains white space"))));
        }
        let change = EnvChange::parse(line, outside);
        // A name alone that is not set outside is ignored, in contrast to the flag.
        (!matches!(change, Ok(EnvChange::Remove { .. }))).then_some(change)
    });
    changes.collect()
}

/// Returns the environment of a container, one element per variable.
pub fn environment(
    image: &[String],
    changes: &[EnvChange],
    hostname: &str,
    terminal: bool,
) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if terminal {
        env.push("TERM=xterm".to_owned());
    }
    for variable in image {
        match variable.split_once('=') {
            Some((name, _)) => set(&mut env, name, variable.clone()),
            None => env.retain(|other| name_of(other) != variable),
        }
    }
    for change in changes {
        match change {
            EnvChange::Set { name, value } => set(&mut env, name, format!("{name}={value}")),
            EnvChange::Remove { name } => env.retain(|other| name_of(other) != name),
        }
    }
    env
}

/// Returns whether `env` has a variable `name`.
pub fn has(env: &[String], name: &str) -> bool {
    env.iter().any(|variable| name_of(variable) == name)
}

fn set(env: &mut Vec<String>, name: &str, variable: String) {
    match env.iter_mut().find(|other| name_of(other) == name) {
        Some(other) => *other = variable,
        None => env.push(variable),
    }
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(name: &str) -> Option<String> {
        (name == "LANG").then(|| "C.UTF-8".to_owned())
    }

    fn changes(all: &[&str]) -> Vec<EnvChange> {
        all.iter().map(|text| EnvChange::parse(text, &outside).unwrap()).collect()
    }

    #[test]
    fn later_variable_replaces_an_earlier_one_in_its_place() {
        let image = ["A=1", "PATH=/bin", "B=2"].map(str::to_owned);
        let env = environment(&image, &changes(&["A=3", "LANG", "B", "C=x=y"]), "box", true);
        let expected = ["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "A=3", "LANG=C.UTF-8", "C=x=y"];
        assert_eq!(env, expected);
        assert!(has(&env, "LANG") && !has(&env, "LAN"));
    }

    #[test]
    fn environment_of_an_image_without_one_has_a_path() {
        let env = environment(&[], &[], "box", false);
        assert_eq!(env, [DEFAULT_PATH, "HOSTNAME=box"]);
    }

    #[test]
    fn env_file_has_comments_and_names_alone() {
        let text = "\u{feff}# comment\n\n  A=1 2\nLANG\nUNSET\nB=\n";
        let set = |name: &str, value: &str| EnvChange::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let expected = [set("A", "1 2"), set("LANG", "C.UTF-8"), set("B", "")];
        assert_eq!(parse_env_file(text, &outside).unwrap(), expected);
        assert!(parse_env_file("A B=1", &outside).is_err());
        assert!(parse_env_file("=1", &outside).is_err());
    }
}
