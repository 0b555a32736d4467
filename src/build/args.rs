//! The arguments of a build (moby builder/dockerfile/buildargs.go).

use std::collections::{BTreeMap, BTreeSet};

/// Arguments that need no `ARG`, and that the cache ignores.
const BUILT_IN: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// The arguments that the user gave, and those that a Dockerfile declares.
#[derive(Debug, Clone, Default)]
pub struct BuildArgs {
    given: BTreeMap<String, String>,
    global: BTreeMap<String, Option<String>>,
    of_stage: BTreeMap<String, Option<String>>,
    declared: BTreeSet<String>,
}

impl BuildArgs {
    /// Starts with what the user gave.
    pub fn new(given: BTreeMap<String, String>) -> Self {
        Self { given, ..Self::default() }
    }

    /// Declares an argument before the first stage.
    pub fn declare_global(&mut self, name: &str, default: Option<String>) {
        self.declared.insert(name.to_owned());
        self.global.insert(name.to_owned(), default);
    }

    /// Declares an argument in a stage.
    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.declared.insert(name.to_owned());
        self.of_stage.insert(name.to_owned(), default);
    }

    /// Begins a stage: arguments of the stage before do not exist there.
    pub fn begin_stage(&mut self) {
        self.of_stage.clear();
    }

    /// Returns the arguments before the first stage, `NAME=VALUE`.
    pub fn globals(&self) -> Vec<String> {
        let value = |name: &String, default: &Option<String>| {
            self.given.get(name).cloned().or_else(|| default.clone())
        };
        let pair = |(name, default)| Some(format!("{name}={}", value(name, default)?));
        self.global.iter().filter_map(pair).collect()
    }

    /// Returns the arguments of the stage, `NAME=VALUE`.
    pub fn usable(&self) -> Vec<String> {
        let mut names: BTreeSet<&str> = self.of_stage.keys().map(String::as_str).collect();
        names.extend(BUILT_IN);
        let value = |name: &str| {
            let declared = self.of_stage.get(name).cloned().flatten();
            let global = || self.global.get(name).cloned().flatten();
            self.given.get(name).cloned().or(declared).or_else(global)
        };
        names.into_iter().filter_map(|name| Some(format!("{name}={}", value(name)?))).collect()
    }

    /// Returns those that a command gets beside the variables `env`.
    pub fn beside(&self, env: &[String]) -> Vec<String> {
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        let set: BTreeSet<String> = env.iter().map(|pair| name(pair)).collect();
        self.usable().into_iter().filter(|pair| !set.contains(&name(pair))).collect()
    }

    /// Returns a command as the cache and the history name it: after the arguments that it got.
    pub fn recorded(&self, beside: &[String], command: &[String]) -> Vec<String> {
        let counts = |pair: &&String| {
            let name = pair.split('=').next().unwrap_or_default();
            self.declared.contains(name) || !BUILT_IN.contains(&name)
        };
        let counted: Vec<String> = beside.iter().filter(counts).cloned().collect();
        if beside.is_empty() {
            return command.to_vec();
        }
        [vec![format!("|{}", counted.len())], counted, command.to_vec()].concat()
    }

    /// Returns the names that the user gave and that no `ARG` declares.
    pub fn unused(&self) -> Vec<&str> {
        let names = self.given.keys().map(String::as_str);
        names.filter(|name| !self.declared.contains(*name) && !BUILT_IN.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_stages_have_given_default_and_global_values() {
        let given = [("A", "given"), ("http_proxy", "p"), ("X", "x")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut args = BuildArgs::new(given.into());
        args.declare_global("G", Some("global".to_owned()));
        assert_eq!(args.globals(), ["G=global"]);
        args.declare("A", Some("default".to_owned()));
        args.declare("G", None);
        args.declare("N", None);
        assert_eq!(args.usable(), ["A=given", "G=global", "http_proxy=p"]);
        let beside = args.beside(&["G=env".to_owned()]);
        let command = args.recorded(&beside, &["sh".to_owned()]);
        assert_eq!(command, ["|1", "A=given", "sh"]);
        assert_eq!(args.unused(), ["X"]);
        args.begin_stage();
        assert_eq!(args.usable(), ["http_proxy=p"]);
    }
}
