//! The config of a committed image: that of the image below, changed, with one more step in its history
//! (OCI image-spec config.md, moby image/image.go `NewChildImage`).

use serde_json::{Map, Value, json};

use super::instruction::Settings;
use crate::error::Error;
use crate::oci::DiffId;

/// The fields of the image below that describe its platform.
const PLATFORM: [&str; 5] = ["architecture", "os", "variant", "os.version", "os.features"];

/// A config that is being written.
pub struct NewConfig {
    platform: Map<String, Value>,
    diff_ids: Vec<Value>,
    history: Vec<Value>,
    config: Map<String, Value>,
}

/// What a commit adds.
pub struct Step<'a> {
    /// The new layer; `None` if there is none.
    pub diff_id: Option<DiffId>,
    /// The time, RFC 3339.
    pub created: String,
    /// The command; that of the image for `None`.
    pub created_by: Option<&'a str>,
    /// The message.
    pub message: &'a str,
    /// The author.
    pub author: &'a str,
}

impl NewConfig {
    /// Starts with the config `below` of an image, of whose layers the lowest `layers` are used, and applies
    /// `changes`, each one instruction per line.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid instruction, [`Error::Other`] if the config cannot be extended.
    pub fn new(below: &[u8], layers: usize, changes: &[String]) -> Result<Self, Error> {
        let unusable =
            |why: String| Error::Other(format!("the image's config cannot be extended: {why}"));
        let mut below: Map<String, Value> =
            serde_json::from_slice(below).map_err(|e| unusable(e.to_string()))?;
        let config = match below.remove("config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(config)) => config,
            Some(_) => return Err(unusable("its settings are not an object".to_owned())),
        };
        let mut settings = Settings::new(config);
        for change in changes {
            // A Dockerfile continues a line in this way.
            let change = change.replace("\\\n", "");
            let lines = change.lines().map(str::trim);
            let mut lines =
                lines.filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
            if lines.peek().is_none() {
                return Err(Error::Usage("a change of the image is empty".to_owned()));
            }
            for line in lines {
                let invalid = |why| Error::Usage(format!("invalid change '{line}': {why}"));
                settings.apply(line).map_err(invalid)?;
            }
        }
        let mut diff_ids =
            match below.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")) {
                Some(Value::Array(diff_ids)) => std::mem::take(diff_ids),
                _ => Vec::new(),
            };
        let is_whole = diff_ids.len() == layers;
        diff_ids.truncate(layers);
        let mut history = match below.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        if !is_whole {
            truncate(&mut history, layers);
        }
        let platform = PLATFORM.iter().filter_map(|key| below.remove_entry(*key)).collect();
        Ok(Self { platform, diff_ids, history, config: settings.config })
    }

    /// Returns the bytes of the config with `step` added.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be serialized.
    pub fn finish(self, step: &Step<'_>) -> Result<Vec<u8>, Error> {
        let Self { platform, mut diff_ids, mut history, config } = self;
        let words = |key: &str| {
            let list = config.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        };
        let mut entry = Map::new();
        entry.insert("created".to_owned(), step.created.clone().into());
        let created_by = step.created_by.map_or_else(|| words("Cmd"), str::to_owned);
        for (key, text) in
            [("author", step.author), ("created_by", &created_by), ("comment", step.message)]
        {
            if !text.is_empty() {
                entry.insert(key.to_owned(), text.into());
            }
        }
        match step.diff_id {
            Some(diff_id) => diff_ids.push(diff_id.to_string().into()),
            None => drop(entry.insert("empty_layer".to_owned(), true.into())),
        }
        history.push(entry.into());
        let mut image = platform;
        if !step.author.is_empty() {
            image.insert("author".to_owned(), step.author.into());
        }
        image.insert("config".to_owned(), config.into());
        image.insert("created".to_owned(), step.created.clone().into());
        image.insert("history".to_owned(), history.into());
        image.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        serde_json::to_vec(&image).map_err(|e| Error::Internal(e.to_string()))
    }
}

/// Keeps the history of the lowest `layers` layers.
fn truncate(history: &mut Vec<Value>, layers: usize) {
    let has_layer = |entry: &Value| entry.get("empty_layer") != Some(&Value::Bool(true));
    let mut of_layers = history.iter().enumerate().filter(|(_, entry)| has_layer(entry));
    let last = layers
        .checked_sub(1)
        .map(|above| of_layers.nth(above).map_or(history.len(), |(at, _)| at + 1));
    history.truncate(last.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn below() -> Vec<u8> {
        let [a, b] = [b"a", b"b"].map(|bytes| Digest::of(bytes).to_string());
        json!({
            "architecture": "arm64", "os": "linux", "variant": "v8", "author": "someone",
            "created": "2020-01-01T00:00:00Z", "config": {"Cmd": ["sh", "-c", "x"], "Env": ["A=1"]},
            "container_config": {}, "docker_version": "1",
            "rootfs": {"type": "layers", "diff_ids": [a, b]},
            "history": [{"created_by": "1"}, {"created_by": "2", "empty_layer": true},
                {"created_by": "3"}, {"created_by": "4", "empty_layer": true}],
        })
        .to_string()
        .into_bytes()
    }

    fn step(diff_id: Option<DiffId>) -> Step<'static> {
        let created = "2021-01-01T00:00:00Z".to_owned();
        Step { diff_id, created, created_by: None, message: "m", author: "me" }
    }

    #[test]
    fn config_keeps_the_platform_and_settings_and_adds_a_step() {
        let layer = DiffId(Digest::of(b"c"));
        let config = NewConfig::new(&below(), 2, &["ENV B=2".to_owned()]).unwrap();
        let config: Value =
            serde_json::from_slice(&config.finish(&step(Some(layer))).unwrap()).unwrap();
        assert_eq!(config["architecture"], "arm64");
        assert_eq!((&config["variant"], &config["author"]), (&json!("v8"), &json!("me")));
        assert_eq!(config["config"], json!({"Cmd": ["sh", "-c", "x"], "Env": ["A=1", "B=2"]}));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
        let last = json!({"created": "2021-01-01T00:00:00Z", "created_by": "sh -c x",
            "comment": "m", "author": "me"});
        assert_eq!(config["history"][4], last);
        assert_eq!((config.get("container_config"), config.get("docker_version")), (None, None));
    }

    #[test]
    fn config_of_fewer_layers_has_their_history_only() {
        let config = NewConfig::new(&below(), 1, &[]).unwrap().finish(&step(None)).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
        let history = config["history"].as_array().unwrap();
        assert_eq!((history.len(), &history[1]["empty_layer"]), (2, &json!(true)));
    }

    #[test]
    fn invalid_change_is_named() {
        let new = |change: &str| NewConfig::new(&below(), 2, &[change.to_owned()]);
        let Err(error) = new("ENV A=2\nRUN x") else { panic!("it was accepted") };
        assert!(error.to_string().starts_with("invalid change 'RUN x': RUN cannot"), "{error}");
        assert!(new("\n").is_err());
        assert!(new("ENV A=\\\n2").is_ok());
    }
}
