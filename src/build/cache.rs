//! The cache of a build: an image that the same instruction made of the same parent (moby image/cache).

use serde_json::Value;

use crate::error::Error;
use crate::oci::ImageId;
use crate::store::{Condition, Store};

/// The fields that make two steps the same.
const COMPARED: [&str; 11] = [
    "AttachStdout",
    "AttachStderr",
    "User",
    "OpenStdin",
    "Tty",
    "Cmd",
    "Env",
    "Labels",
    "ExposedPorts",
    "Entrypoint",
    "Volumes",
];

/// Returns the newest whole image that a step with the config `step` made of `parent`. The caller holds the
/// lock of the store.
///
/// # Errors
/// [`Error::Store`] if the store cannot be read.
pub fn cached(
    store: &Store,
    parent: Option<&ImageId>,
    step: &Value,
) -> Result<Option<ImageId>, Error> {
    let mut newest: Option<(String, ImageId)> = None;
    for id in store.images().children(parent)? {
        // One that is damaged is not used.
        let Ok(Some(bytes)) = store.images().get(&id) else { continue };
        let Ok(config) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let Some(of_image) = config.get("container_config") else { continue };
        if !is_same(of_image, step) || !matches!(store.condition(&id)?, Condition::Whole(_)) {
            continue;
        }
        let created = config.get("created").and_then(Value::as_str).unwrap_or_default().to_owned();
        if newest.as_ref().is_none_or(|(other, _)| *other < created) {
            newest = Some((created, id));
        }
    }
    Ok(newest.map(|(_, id)| id))
}

fn is_same(a: &Value, b: &Value) -> bool {
    COMPARED.iter().all(|key| field(a, key) == field(b, key))
}

/// Returns a field, or `None` if it is empty, which Go does not distinguish.
fn field<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    config.get(key).filter(|value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_the_same_by_command_and_settings() {
        let step = json!({"Cmd": ["sh", "-c", "x"], "Env": ["A=1"], "Volumes": null, "Image": "a"});
        let same = json!({"Cmd": ["sh", "-c", "x"], "Env": ["A=1"], "Tty": false, "Image": "b"});
        assert!(is_same(&step, &same));
        let other = json!({"Cmd": ["sh", "-c", "x"], "Env": ["A=2"]});
        assert!(!is_same(&step, &other));
    }
}
