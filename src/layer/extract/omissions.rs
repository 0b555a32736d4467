//! What this process or its file system cannot create of a layer, counted.

use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::error::show;
use crate::overlay::{Abilities, Omitted, XattrSpace};

/// Warnings of one layer at most: an archive may have any number of attribute names.
const MAX_LISTED: usize = 16;

/// What was omitted of a layer.
#[derive(Debug, Default)]
pub struct OmissionReport {
    /// What this process lacks a capability for. All layers of a pull give one warning.
    pub omitted: Omitted,
    /// The first device that is left out, if any, for a message.
    pub device: Option<String>,
    /// The first attribute that is left out for lack of a capability, if any, for a message.
    pub attribute: Option<String>,
    /// Warnings about everything else.
    pub warnings: Vec<String>,
}

/// Counts omissions by cause, so that a thousand files give one warning.
pub struct Omissions {
    abilities: Arc<Abilities>,
    report: OmissionReport,
    listed: Vec<Omission>,
    /// The number of omissions for other causes when the list was full.
    unlisted: u64,
}

/// All omissions for one cause.
struct Omission {
    cause: Cause,
    /// The path of the first entry.
    first: Vec<u8>,
    entries: u64,
}

#[derive(PartialEq)]
enum Cause {
    Device,
    Attribute { name: Vec<u8>, error: Errno },
}

impl Omissions {
    /// Starts to count for a process with `abilities`.
    pub fn new(abilities: &Arc<Abilities>) -> Self {
        let in_user_namespace = abilities.in_user_namespace;
        let omitted = Omitted { in_user_namespace, ..Omitted::default() };
        let report = OmissionReport { omitted, ..OmissionReport::default() };
        Self { abilities: abilities.clone(), report, listed: Vec::new(), unlisted: 0 }
    }

    /// Counts the device `path`, which this process lacks the capability to create.
    pub fn device(&mut self, path: &[u8]) {
        self.report.omitted.devices += 1;
        self.report.device.get_or_insert_with(|| show(path));
    }

    /// Counts the device `path`, which the kernel refused although others are permitted.
    pub fn refused_device(&mut self, path: &[u8]) {
        self.add(Cause::Device, path);
    }

    /// Counts a file whose owner is not kept.
    pub fn owner(&mut self) {
        self.report.omitted.owners += 1;
    }

    /// Counts an opaque directory.
    pub fn mark(&mut self) {
        if self.abilities.space == XattrSpace::User {
            self.report.omitted.user_marks += 1;
        }
    }

    /// Counts the attribute `name` of the entry `path`, which the kernel refused with `error`.
    pub fn attribute(&mut self, name: &[u8], path: &[u8], error: Errno) {
        if error == Errno::PERM && self.needs_more(name) {
            self.report.omitted.attributes += 1;
            let first = || format!("{} of '{}'", show(name), show(path));
            self.report.attribute.get_or_insert_with(first);
        } else {
            self.add(Cause::Attribute { name: name.to_vec(), error }, path);
        }
    }

    /// Whether the attribute needs a capability that this process lacks (capabilities(7)).
    fn needs_more(&self, name: &[u8]) -> bool {
        if name == b"security.capability" {
            return !self.abilities.file_capabilities;
        }
        let is_privileged = name.starts_with(b"trusted.") || name.starts_with(b"security.");
        is_privileged && self.abilities.space == XattrSpace::User
    }

    fn add(&mut self, cause: Cause, path: &[u8]) {
        if let Some(known) = self.listed.iter_mut().find(|known| known.cause == cause) {
            known.entries += 1;
        } else if self.listed.len() < MAX_LISTED {
            self.listed.push(Omission { cause, first: path.to_vec(), entries: 1 });
        } else {
            self.unlisted += 1;
        }
    }

    /// Returns what was omitted, with one warning per cause, in the order of the first omission.
    pub fn report(self) -> OmissionReport {
        let mut warnings: Vec<_> = self.listed.iter().map(Omission::warning).collect();
        match self.unlisted {
            0 => {}
            1 => warnings.push("1 more attribute or device is left out".to_owned()),
            n => warnings.push(format!("{n} more attributes or devices are left out")),
        }
        OmissionReport { warnings, ..self.report }
    }
}

impl Omission {
    fn warning(&self) -> String {
        let first = show(&self.first);
        match &self.cause {
            Cause::Device => {
                let others = match self.entries - 1 {
                    0 => "is".to_owned(),
                    1 => "and 1 other device are".to_owned(),
                    n => format!("and {n} other devices are"),
                };
                format!("device '{first}' {others} left out: the kernel refuses it")
            }
            Cause::Attribute { name, error } => {
                let why = match *error {
                    Errno::NOTSUP => "not supported by the file system",
                    _ => "not permitted",
                };
                let others = match self.entries - 1 {
                    0 => "is".to_owned(),
                    1 => "and of 1 other entry is".to_owned(),
                    n => format!("and of {n} other entries is"),
                };
                format!("attribute {} of '{first}' {others} left out: {why}", show(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omission_for_many_entries_gives_one_warning() {
        let mut omissions = Omissions::new(&Arc::new(Abilities::none()));
        for path in [b"a\n", b"b\n", b"c\n"] {
            omissions.attribute(b"user.\x1b", path, Errno::PERM);
        }
        omissions.attribute(b"foo.bar", b"a", Errno::NOTSUP);
        omissions.attribute(b"foo.bar", b"a", Errno::NOTSUP);
        omissions.refused_device(b"null");
        omissions.refused_device(b"zero");
        assert_eq!(
            omissions.report().warnings,
            [
                "attribute user.\\u{1b} of 'a\\n' and of 2 other entries is left out: not permitted",
                "attribute foo.bar of 'a' and of 1 other entry is left out: \
                 not supported by the file system",
                "device 'null' and 1 other device are left out: the kernel refuses it",
            ]
        );
    }

    #[test]
    fn omission_for_many_names_gives_a_bounded_list() {
        let mut omissions = Omissions::new(&Arc::new(Abilities::none()));
        for n in 0..1000 {
            omissions.attribute(format!("foo.{n}").as_bytes(), b"a", Errno::NOTSUP);
        }
        let warnings = omissions.report().warnings;
        assert_eq!(warnings.len(), MAX_LISTED + 1);
        assert_eq!(warnings[MAX_LISTED], "984 more attributes or devices are left out");
    }
    #[test]
    fn omission_for_lack_of_a_capability_is_counted() {
        let mut omissions = Omissions::new(&Arc::new(Abilities::none()));
        omissions.device(b"dev/a\n");
        omissions.device(b"dev/b");
        omissions.owner();
        omissions.mark();
        omissions.attribute(b"security.capability", b"ping", Errno::PERM);
        omissions.attribute(b"security.selinux", b"ping", Errno::PERM);
        let report = omissions.report();
        let omitted = report.omitted;
        assert_eq!((omitted.devices, omitted.owners, omitted.user_marks), (2, 1, 1));
        assert_eq!((omitted.attributes, report.warnings.len()), (2, 0));
        assert_eq!(report.device.unwrap(), "dev/a\\n");
        assert_eq!(report.attribute.unwrap(), "security.capability of 'ping'");
    }
}
