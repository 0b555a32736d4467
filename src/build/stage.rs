//! A stage while its instructions run: the settings of its image, and the config that each instruction gives
//! (moby builder/dockerfile/dispatchers.go).

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::args::BuildArgs;
use super::dockerfile::Instruction;
use crate::error::Error;
use crate::import::{Settings, expand, json_list, split_words};
use crate::oci::{DiffId, ImageId, Platform};

/// The path of programs in an image that sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The fields that dockerd always writes.
const FIELDS: [(&str, Empty); 16] = [
    ("Hostname", Empty::Text),
    ("Domainname", Empty::Text),
    ("User", Empty::Text),
    ("AttachStdin", Empty::False),
    ("AttachStdout", Empty::False),
    ("AttachStderr", Empty::False),
    ("Tty", Empty::False),
    ("OpenStdin", Empty::False),
    ("StdinOnce", Empty::False),
    ("Env", Empty::Null),
    ("Cmd", Empty::Null),
    ("Volumes", Empty::Null),
    ("WorkingDir", Empty::Text),
    ("Entrypoint", Empty::Null),
    ("OnBuild", Empty::Null),
    ("Labels", Empty::Null),
];

#[derive(Clone, Copy)]
enum Empty {
    Text,
    False,
    Null,
}

/// What an instruction needs besides a new config.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Config {
        /// The instruction, as the history shows it.
        history: String,
    },
    /// A directory.
    Directory {
        /// The instruction, as the history shows it.
        history: String,
        /// The absolute path.
        path: String,
    },
    /// Files are copied.
    Copy(CopyStep),
    /// A command runs.
    Run {
        /// The command.
        command: Vec<String>,
        /// It, after the arguments that it gets.
        recorded: Vec<String>,
        /// The arguments that it gets as variables.
        args: Vec<String>,
    },
}

/// A COPY or ADD, with the values of its variables.
#[derive(Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// `COPY` or `ADD`.
    pub keyword: String,
    /// The sources.
    pub sources: Vec<String>,
    /// The destination as it is written.
    pub destination: String,
    /// The destination as an absolute path.
    pub path: String,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<u32>,
    /// `--from`.
    pub from: Option<String>,
}

impl CopyStep {
    /// Returns the instruction as the history shows it: sources by their checksum.
    pub fn history(&self, checksum: &str) -> String {
        let owner = self.owner.as_ref().map(|owner| format!("--chown={owner}"));
        let (keyword, owner) = (&self.keyword, owner.unwrap_or_default());
        format!("{keyword} {owner}{checksum} in {} ", self.destination)
    }
}

/// A stage while its instructions run.
pub struct StageState {
    /// The image so far; `None` at the start of a stage from scratch.
    pub image: Option<ImageId>,
    settings: Settings,
    author: String,
}

impl StageState {
    /// Begins a stage on an image with this config. Also returns the triggers that the image recorded.
    ///
    /// # Errors
    /// [`Error::Other`] if the config is not one.
    pub fn begin(base: Option<(ImageId, &[u8])>) -> Result<(Self, Vec<String>), Error> {
        let mut config = Map::new();
        if let Some((_, bytes)) = base {
            let below: Value = serde_json::from_slice(bytes)
                .map_err(|e| Error::Other(format!("the image's config is invalid: {e}")))?;
            if let Some(of_image) = below.get("config").and_then(Value::as_object) {
                config.clone_from(of_image);
            }
        }
        for key in ["OpenStdin", "StdinOnce"] {
            config.remove(key);
        }
        let triggers = config.get("OnBuild").and_then(Value::as_array).into_iter().flatten();
        let triggers = triggers.filter_map(Value::as_str).map(str::to_owned).collect();
        let mut settings = Settings::new(config);
        let mut env = settings.list("Env");
        if !env.iter().any(|pair| pair.starts_with("PATH=")) {
            env.push(DEFAULT_PATH.to_owned());
            settings.config.insert("Env".to_owned(), env.into());
        }
        let image = base.map(|(id, _)| id);
        let mut state = Self { image: None, settings, author: String::new() };
        state.set_image(image);
        Ok((state, triggers))
    }

    /// Takes the image that an instruction gave.
    pub fn set_image(&mut self, image: Option<ImageId>) {
        self.image = image;
        let text = image.map(|id| id.to_string()).unwrap_or_default();
        self.settings.set("Image", text);
    }

    /// Applies an instruction to the settings.
    ///
    /// # Errors
    /// Why it is invalid.
    pub fn apply(
        &mut self,
        instruction: &Instruction,
        args: &mut BuildArgs,
    ) -> Result<Outcome, String> {
        self.settings.args = args.usable();
        let rest = &instruction.rest;
        let history = match instruction.keyword.as_str() {
            "RUN" => {
                let command = self.settings.command(rest)?;
                let beside = args.beside(&self.settings.list("Env"));
                let recorded = args.recorded(&beside, &command);
                return Ok(Outcome::Run { command, recorded, args: beside });
            }
            "WORKDIR" => {
                let history = self.settings.apply(&instruction.text)?;
                let path = history.split_once(' ').map_or("/", |(_, path)| path).to_owned();
                return Ok(Outcome::Directory { history, path });
            }
            "COPY" | "ADD" => return Ok(Outcome::Copy(self.copy(instruction)?)),
            "MAINTAINER" => {
                self.author.clone_from(rest);
                format!("MAINTAINER {rest}")
            }
            "SHELL" => {
                let none = || "SHELL needs a list of words in JSON".to_owned();
                let shell = json_list(rest).filter(|it| !it.is_empty()).ok_or_else(none)?;
                let history = format!("SHELL [{}]", shell.join(" "));
                self.settings.config.insert("Shell".to_owned(), shell.into());
                history
            }
            "ARG" => {
                let mut history = "ARG".to_owned();
                for (name, value) in arguments(rest, &self.settings.env())? {
                    history.push_str(&format!(" {name}"));
                    if let Some(value) = &value {
                        history.push_str(&format!("={value}"));
                    }
                    args.declare(&name, value);
                }
                history
            }
            _ => self.settings.apply(&instruction.text)?,
        };
        Ok(Outcome::Config { history })
    }

    fn copy(&self, instruction: &Instruction) -> Result<CopyStep, String> {
        let (keyword, env) = (instruction.keyword.clone(), self.settings.env());
        let words = json_list(&instruction.rest)
            .unwrap_or_else(|| instruction.rest.split_whitespace().map(str::to_owned).collect());
        let words: Vec<String> =
            words.iter().map(|word| expand(word, &env)).collect::<Result<_, _>>()?;
        let Some((destination, sources)) = words.split_last().filter(|(_, it)| !it.is_empty())
        else {
            return Err(format!("{keyword} needs a source and a destination"));
        };
        let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        let mode = match instruction.flag("chmod") {
            None => None,
            Some(text) => {
                let text = expand(text, &env)?;
                let invalid = || format!("--chmod={text} is not an octal mode such as 755");
                Some(octal(&text).ok_or_else(invalid)?)
            }
        };
        let owner = instruction.flag("chown").map(|text| expand(text, &env)).transpose()?;
        let work_dir = self.settings.config.get("WorkingDir").and_then(Value::as_str);
        let path = match destination.starts_with('/') {
            true => destination.clone(),
            false => format!("/{}/{destination}", work_dir.unwrap_or_default()),
        };
        Ok(CopyStep {
            sources: sources.to_vec(),
            destination: destination.clone(),
            path,
            owner: owner.filter(|owner| !owner.is_empty()),
            mode,
            from: instruction.flag("from").map(str::to_owned),
            keyword,
        })
    }

    /// Returns the words of a step that runs nothing, as the cache and the history know it.
    /// `COPY`, `ADD` and `WORKDIR` are one word there.
    pub fn comment(&self, history: &str, is_one: bool) -> Vec<String> {
        let mut shell = self.settings.list("Shell");
        if shell.is_empty() {
            shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        match is_one {
            true => shell.push(format!("#(nop) {history}")),
            false => shell.extend(["#(nop) ".to_owned(), history.to_owned()]),
        }
        shell
    }

    /// Returns the config of the container of a step, by which the cache finds it.
    pub fn step(&self, words: &[String], is_run: bool) -> Value {
        let mut config = self.settings.config.clone();
        config.insert("Cmd".to_owned(), words.into());
        if is_run {
            config.remove("Entrypoint");
        }
        complete(config)
    }

    /// Returns the config of the image that a step gives, above an image with the config `below`.
    ///
    /// # Errors
    /// [`Error::Other`] if `below` cannot be extended.
    pub fn config(
        &self,
        below: Option<&[u8]>,
        step: &Value,
        diff_id: Option<DiffId>,
    ) -> Result<Vec<u8>, Error> {
        let mut image: Map<String, Value> = match below {
            Some(below) => serde_json::from_slice(below)
                .map_err(|e| Error::Other(format!("the image's config cannot be extended: {e}")))?,
            None => {
                let host = Platform::host();
                let fields = [("architecture", host.architecture), ("os", host.os)];
                fields.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect()
            }
        };
        let list = |value: Option<Value>| match value {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let diff_ids = image.get_mut("rootfs").and_then(|it| it.get_mut("diff_ids"));
        let mut diff_ids = list(diff_ids.map(Value::take));
        let mut history = list(image.remove("history"));
        let platform = ["architecture", "os", "variant", "os.version", "os.features"];
        let mut image: Map<String, Value> =
            platform.iter().filter_map(|key| image.remove_entry(*key)).collect();
        let created = Utc::now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let words = step.get("Cmd").and_then(Value::as_array).into_iter().flatten();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        let mut entry = json!({"created": created, "created_by": words.join(" ")});
        match diff_id {
            Some(diff_id) => diff_ids.push(diff_id.to_string().into()),
            None => entry["empty_layer"] = true.into(),
        }
        if !self.author.is_empty() {
            entry["author"] = self.author.clone().into();
            image.insert("author".to_owned(), self.author.clone().into());
        }
        history.push(entry);
        image.insert("config".to_owned(), complete(self.settings.config.clone()));
        image.insert("container_config".to_owned(), step.clone());
        image.insert("created".to_owned(), created.into());
        image.insert("history".to_owned(), history.into());
        image.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        serde_json::to_vec(&image).map_err(|e| Error::Internal(e.to_string()))
    }
}

/// Returns the arguments of `ARG`: names, with defaults.
///
/// # Errors
/// Why they are invalid.
pub fn arguments(rest: &str, env: &[String]) -> Result<Vec<(String, Option<String>)>, String> {
    let words = split_words(rest);
    if words.is_empty() {
        return Err("ARG needs a name".to_owned());
    }
    let parse = |word: &&str| {
        let (name, value) = word.split_once('=').map_or((*word, None), |(n, v)| (n, Some(v)));
        let name = expand(name, env)?;
        match name.is_empty() {
            true => Err("ARG needs a name".to_owned()),
            false => Ok((name, value.map(|value| expand(value, env)).transpose()?)),
        }
    };
    words.iter().map(parse).collect()
}

fn complete(mut config: Map<String, Value>) -> Value {
    for (key, empty) in FIELDS {
        config.entry(key).or_insert_with(|| match empty {
            Empty::Text => "".into(),
            Empty::False => false.into(),
            Empty::Null => Value::Null,
        });
    }
    config.into()
}
