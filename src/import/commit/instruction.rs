//! Instructions of a Dockerfile that change an image's config (moby builder/dockerfile/dispatchers.go).

use serde_json::{Map, Value, json};

use super::go_format::{health, quoted_list};
use super::values::{check_signal, first_word, health_check, json_list, ports};
use super::words::{expand, split};

/// The instructions that `docker commit --change` has.
const INSTRUCTIONS: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, \
                            VOLUME and WORKDIR";

/// The shell of a command that is not a JSON list.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The `config` of an image while instructions change it.
pub struct Settings {
    /// The object `config` of the image's config.
    pub config: Map<String, Value>,
    /// Whether an instruction has set the command, which a later entry point then keeps.
    is_cmd_set: bool,
    /// The arguments of a build, `NAME=VALUE`, which instructions can use like variables.
    pub args: Vec<String>,
}

impl Settings {
    /// Starts with the settings of an image. Its triggers for builds are not inherited.
    pub fn new(mut config: Map<String, Value>) -> Self {
        config.remove("OnBuild");
        Self { config, is_cmd_set: false, args: Vec::new() }
    }

    /// Applies one instruction. Returns it as the history of a build shows it, with the values of variables.
    ///
    /// # Errors
    /// Why it is invalid.
    pub fn apply(&mut self, text: &str) -> Result<String, String> {
        let (name, rest) = first_word(text.trim());
        let name = name.to_ascii_uppercase();
        Ok(match name.as_str() {
            "CMD" => {
                let command = self.command(rest)?;
                self.is_cmd_set = true;
                let text = format!("CMD {}", quoted_list(&command));
                self.put("Cmd", command);
                text
            }
            "ENTRYPOINT" => {
                let command = self.command(rest)?;
                if !self.is_cmd_set && !command.is_empty() {
                    self.config.remove("Cmd");
                }
                let text = format!("ENTRYPOINT {}", quoted_list(&command));
                self.put("Entrypoint", command);
                text
            }
            "ENV" => {
                let pairs = self.pairs("ENV", rest)?;
                let text = assignments("ENV", &pairs);
                for (key, value) in pairs {
                    self.set_env(&key, &value);
                }
                text
            }
            "LABEL" => {
                let pairs = self.pairs("LABEL", rest)?;
                let text = assignments("LABEL", &pairs);
                let labels = self.object("Labels");
                labels.extend(pairs.into_iter().map(|(key, value)| (key, value.into())));
                text
            }
            "EXPOSE" => {
                let mut words = self.words("EXPOSE", rest)?;
                words.sort();
                for port in &words {
                    for port in ports(port)? {
                        self.object("ExposedPorts").insert(port, json!({}));
                    }
                }
                format!("EXPOSE {}", words.join(" "))
            }
            "VOLUME" => {
                let volumes = match json_list(rest) {
                    Some(list) => {
                        let env = self.env();
                        list.iter().map(|path| expand(path, &env)).collect::<Result<_, _>>()?
                    }
                    None => self.words("VOLUME", rest)?,
                };
                for path in &volumes {
                    if path.trim().is_empty() {
                        return Err("a volume has no path".to_owned());
                    }
                    self.object("Volumes").insert(path.trim().to_owned(), json!({}));
                }
                format!("VOLUME [{}]", volumes.join(" "))
            }
            "USER" => {
                let user = self.one("USER", rest)?;
                self.set("User", user.clone());
                format!("USER {user}")
            }
            "WORKDIR" => {
                let path = self.one("WORKDIR", rest)?;
                let path = self.work_dir(&path);
                self.set("WorkingDir", path.clone());
                format!("WORKDIR {path}")
            }
            "STOPSIGNAL" => {
                let signal = self.one("STOPSIGNAL", rest)?;
                check_signal(&signal)?;
                self.set("StopSignal", signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            "HEALTHCHECK" => {
                let check = health_check(rest)?;
                let text = format!("HEALTHCHECK {}", health(&check));
                self.config.insert("Healthcheck".to_owned(), check);
                text
            }
            "ONBUILD" => {
                let trigger = rest.trim();
                match first_word(trigger).0.to_ascii_uppercase().as_str() {
                    "" => return Err("ONBUILD needs an instruction".to_owned()),
                    name @ ("ONBUILD" | "FROM" | "MAINTAINER") => {
                        return Err(format!("ONBUILD cannot trigger {name}"));
                    }
                    _ => {}
                }
                let triggers = self.config.entry("OnBuild").or_insert_with(|| json!([]));
                if let Value::Array(triggers) = triggers {
                    triggers.push(trigger.into());
                }
                format!("ONBUILD {trigger}")
            }
            "" => return Err("it is empty".to_owned()),
            name => return Err(format!("{name} cannot change an image; {INSTRUCTIONS} can")),
        })
    }

    pub fn set(&mut self, key: &str, text: String) {
        self.config.insert(key.to_owned(), text.into());
    }

    /// Sets a list; an empty one removes it.
    fn put(&mut self, key: &str, list: Vec<String>) {
        match list.is_empty() {
            true => drop(self.config.remove(key)),
            false => drop(self.config.insert(key.to_owned(), list.into())),
        }
    }

    /// Returns an object in the settings, a new one in place of something else.
    fn object(&mut self, key: &str) -> &mut Map<String, Value> {
        let value = self.config.entry(key).or_insert_with(|| json!({}));
        if !value.is_object() {
            *value = json!({});
        }
        value.as_object_mut().unwrap_or_else(|| unreachable!("it was just made one"))
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        let list = self.config.get(key).and_then(Value::as_array);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        list.map_or_else(Vec::new, |list| list.iter().filter_map(text).collect())
    }

    /// Returns the variables that can be used: those of the config before the arguments of a build.
    pub fn env(&self) -> Vec<String> {
        [self.list("Env"), self.args.clone()].concat()
    }

    fn set_env(&mut self, key: &str, value: &str) {
        let mut env = self.list("Env");
        let pair = format!("{key}={value}");
        let is_same = |other: &&mut String| other.split('=').next() == Some(key);
        match env.iter_mut().find(is_same) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
        self.put("Env", env);
    }

    /// Returns a command: a JSON list, or the rest of the line for a shell.
    pub fn command(&self, rest: &str) -> Result<Vec<String>, String> {
        if let Some(list) = json_list(rest) {
            return Ok(list);
        }
        let command = rest.trim();
        if command.is_empty() {
            return Err("it needs a command".to_owned());
        }
        let mut shell = self.list("Shell");
        if shell.is_empty() {
            shell = DEFAULT_SHELL.map(str::to_owned).to_vec();
        }
        shell.push(command.to_owned());
        Ok(shell)
    }

    /// Returns the pairs of `a=b c=d`, or of the older form `a b c`, which is one pair.
    fn pairs(&self, name: &str, rest: &str) -> Result<Vec<(String, String)>, String> {
        let (env, words) = (self.env(), split(rest));
        let first = words.first().ok_or_else(|| format!("{name} needs NAME=VALUE"))?;
        let pairs: Vec<(&str, &str)> = if first.contains('=') {
            let missing = || format!("{name} needs NAME=VALUE in each word");
            words
                .iter()
                .map(|word| word.split_once('=').ok_or_else(missing))
                .collect::<Result<_, _>>()?
        } else {
            let (key, value) = first_word(rest.trim());
            if value.trim().is_empty() {
                return Err(format!("{name} needs NAME=VALUE"));
            }
            vec![(key, value.trim())]
        };
        let mut expanded = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let key = expand(key, &env)?;
            if key.is_empty() {
                return Err(format!("{name} needs a name before '='"));
            }
            expanded.push((key, expand(value, &env)?));
        }
        Ok(expanded)
    }

    /// Returns the words of `rest`, at least one.
    fn words(&self, name: &str, rest: &str) -> Result<Vec<String>, String> {
        let env = self.env();
        let words =
            split(rest).iter().map(|word| expand(word, &env)).collect::<Result<Vec<_>, _>>()?;
        if words.is_empty() { Err(format!("{name} needs an argument")) } else { Ok(words) }
    }

    /// Returns all of `rest` as one text.
    fn one(&self, name: &str, rest: &str) -> Result<String, String> {
        let text = expand(rest.trim(), &self.env())?;
        if text.is_empty() { Err(format!("{name} needs an argument")) } else { Ok(text) }
    }

    /// Returns an absolute path as it is, and another one below the present directory.
    fn work_dir(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let present = self.config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
        let mut parts: Vec<&str> = Vec::new();
        for part in present.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }
}

/// Returns an instruction with its values, as the history shows it.
fn assignments(name: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(name.to_owned(), |text, (key, value)| format!("{text} {key}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(config: Value, instructions: &[&str]) -> Result<Value, String> {
        let Value::Object(config) = config else { panic!("not an object") };
        let mut settings = Settings::new(config);
        for instruction in instructions {
            settings.apply(instruction)?;
        }
        Ok(settings.config.into())
    }

    #[test]
    fn instructions_change_the_config_as_dockerd_does() {
        let before = json!({
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "WorkingDir": "/srv", "OnBuild": ["RUN x"],
            "Labels": {"kept": "1"},
        });
        let instructions = [
            "ENV A=2 B=\"b $PATH\"",
            "env C a long value",
            "LABEL x='y z' \"k\"=v",
            "EXPOSE 80 53/UDP 8000-8001",
            "VOLUME /data $A",
            "VOLUME [\"/json\"]",
            "USER 1000:$A",
            "WORKDIR app/../$B",
            "STOPSIGNAL SIGRTMIN+3",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl $HOST",
            "ONBUILD RUN make",
            "ENTRYPOINT [\"/e\", \"$A\"]",
        ];
        let expected = json!({
            "Env": ["PATH=/bin", "A=2", "B=b /bin", "C=a long value"],
            "WorkingDir": "/srv/b /bin", "OnBuild": ["RUN make"], "User": "1000:2",
            "Labels": {"kept": "1", "x": "y z", "k": "v"}, "StopSignal": "SIGRTMIN+3",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}},
            "Volumes": {"/data": {}, "2": {}, "/json": {}}, "Entrypoint": ["/e", "$A"],
            "Healthcheck":
                {"Test": ["CMD-SHELL", "curl $HOST"], "Interval": 90_000_000_000_u64, "Retries": 2},
        });
        assert_eq!(applied(before, &instructions).unwrap(), expected);
    }

    #[test]
    fn entry_point_resets_the_command_unless_that_was_changed_too() {
        let before = || json!({"Cmd": ["old"], "Shell": ["/bin/bash", "-c"]});
        let config = applied(before(), &["ENTRYPOINT run it"]).unwrap();
        assert_eq!(config["Entrypoint"], json!(["/bin/bash", "-c", "run it"]));
        assert_eq!(config.get("Cmd"), None);
        let config = applied(before(), &["CMD [\"new\"]", "ENTRYPOINT [\"/e\"]"]).unwrap();
        assert_eq!(config["Cmd"], json!(["new"]));
        let config = applied(before(), &["CMD new"]).unwrap();
        assert_eq!(config["Cmd"], json!(["/bin/bash", "-c", "new"]));
        assert_eq!(applied(before(), &["ENTRYPOINT []"]).unwrap()["Cmd"], json!(["old"]));
    }

    #[test]
    fn invalid_instruction_is_an_error() {
        for text in [
            "",
            "RUN x",
            "FROM x",
            "ENV",
            "ENV A",
            "ENV A=1 B",
            "ENV =1",
            "ENV A='",
            "EXPOSE",
            "EXPOSE x",
            "EXPOSE 70000",
            "EXPOSE 2-1",
            "EXPOSE 1/icmp",
            "EXPOSE +1",
            "VOLUME [\"\"]",
            "USER",
            "WORKDIR ",
            "STOPSIGNAL SIGNONE",
            "STOPSIGNAL 0",
            "HEALTHCHECK",
            "HEALTHCHECK NONE x",
            "HEALTHCHECK --interval=1 CMD x",
            "HEALTHCHECK --retries=0 CMD x",
            "HEALTHCHECK --x=1 CMD x",
            "ONBUILD",
            "ONBUILD FROM x",
            "CMD ",
        ] {
            assert!(applied(json!({}), &[text]).is_err(), "{text}");
        }
    }
}
