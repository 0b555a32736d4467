//! The fields of an image's config that say how its containers run (OCI image-spec, config.md), and
//! what a user changes about them (moby daemon/commit.go `merge`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BundleError;

/// How the containers of an image run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// The user and group, by name or ID: `USER[:GROUP]`.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Variables: `NAME=VALUE`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The first words of the command.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The command, or its arguments if there is an entry point.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// The directories that are volumes.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// The working directory.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
}

/// A value that is always `{}`, because the names are a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Empty {}

/// Reads `null` as the default, as Go does.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Image {
    config: Option<RunConfig>,
}

impl RunConfig {
    /// Reads an image's config.
    ///
    /// # Errors
    /// [`BundleError::Config`] if it has another structure.
    pub fn of_image(config: &[u8]) -> Result<Self, BundleError> {
        let image: Image =
            serde_json::from_slice(config).map_err(|e| BundleError::Config(e.to_string()))?;
        Ok(image.config.unwrap_or_default())
    }

    /// Replaces the entry point and the command: an entry point drops the image's command, and an
    /// empty one the image's entry point.
    pub fn set_command(&mut self, entrypoint: Option<&str>, cmd: &[String]) {
        if let Some(entrypoint) = entrypoint {
            self.entrypoint =
                if entrypoint.is_empty() { Vec::new() } else { vec![entrypoint.to_owned()] };
            self.cmd = Vec::new();
        }
        if !cmd.is_empty() {
            self.cmd = cmd.to_vec();
        }
    }

    /// Returns the words of the command.
    ///
    /// # Errors
    /// [`BundleError::NoCommand`] if there are none.
    pub fn args(&self) -> Result<Vec<String>, BundleError> {
        let args: Vec<String> = self.entrypoint.iter().chain(&self.cmd).cloned().collect();
        match args.is_empty() {
            true => Err(BundleError::NoCommand),
            false => Ok(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn config_with_nulls_is_read_as_go_reads_it() {
        let json = br#"{"config":{"Entrypoint":null,"Cmd":["sh"],"Env":null,"Volumes":{"/data":{}},"User":"web","Other":7}}"#;
        let config = RunConfig::of_image(json).unwrap();
        assert_eq!((config.cmd.clone(), config.user.as_str()), (words(&["sh"]), "web"));
        assert!(config.volumes.contains_key("/data"));
        assert_eq!(RunConfig::of_image(br#"{"config":null}"#).unwrap(), RunConfig::default());
        assert!(matches!(
            RunConfig::of_image(br#"{"config":{"Cmd":"sh"}}"#),
            Err(BundleError::Config(_))
        ));
    }

    #[test]
    fn command_of_the_user_replaces_that_of_the_image_as_in_docker() {
        let image = RunConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["default"]),
            ..RunConfig::default()
        };
        let args = |entrypoint, cmd: &[&str]| {
            let mut config = image.clone();
            config.set_command(entrypoint, &words(cmd));
            config.args().ok()
        };
        assert_eq!(args(None, &[]), Some(words(&["/entry", "default"])));
        assert_eq!(args(None, &["x", "y"]), Some(words(&["/entry", "x", "y"])));
        assert_eq!(args(Some("/other"), &[]), Some(words(&["/other"])));
        assert_eq!(args(Some(""), &["x"]), Some(words(&["x"])));
        assert_eq!(args(Some(""), &[]), None);
    }
}
