//! What the files of a layer lack, because the process that unpacked it lacked a capability.

use serde::{Deserialize, Serialize};

use super::abilities::{Abilities, XattrSpace};

/// What the files of a layer lack, because the process that unpacked it lacked a capability. The
/// layer's tar-split metadata still has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Omitted {
    /// Opaque directories that are marked with `user.overlay.opaque`, so that only mounts with
    /// `userxattr` see the mark.
    pub user_marks: u64,
    /// Devices that are left out.
    pub devices: u64,
    /// Files whose owner is not kept.
    pub owners: u64,
    /// Extended attributes that are left out.
    pub attributes: u64,
    /// Whether a user namespace shifted all owners.
    pub in_user_namespace: bool,
    /// Whether the record of all this is damaged.
    #[serde(skip)]
    pub unknown: bool,
}

impl Omitted {
    /// Parses a record. After a power failure, it may have lost its content.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or(Self { unknown: true, ..Self::default() })
    }

    /// Returns what more capabilities would avoid, without what a file system refused to a process
    /// whose capabilities promise `expected`: it would refuse that again. Marks are not forgotten.
    #[must_use]
    pub fn avoided_by_capabilities(self, expected: &Abilities) -> Self {
        let is_trusted = expected.space == XattrSpace::Trusted;
        let all_attributes = is_trusted && expected.file_capabilities;
        Self {
            devices: if expected.devices { 0 } else { self.devices },
            owners: if expected.sets_all_owners() { 0 } else { self.owners },
            attributes: if all_attributes { 0 } else { self.attributes },
            ..self
        }
    }

    /// Returns what a process with `abilities` would not omit, in one clause.
    pub fn avoidable(&self, abilities: &Abilities) -> Option<String> {
        if self.unknown {
            return abilities.is_complete().then(|| "it is unknown what it lacks".to_owned());
        }
        let is_trusted = abilities.space == XattrSpace::Trusted;
        let mut found = Vec::new();
        if self.user_marks > 0 && is_trusted {
            let dirs = plural(self.user_marks, "opaque directory", "opaque directories");
            found.push(format!("{dirs} marked with user.overlay.*, which dockerd ignores"));
        }
        if self.devices > 0 && abilities.devices {
            found.push(format!("{} left out", plural(self.devices, "device", "devices")));
        }
        if (self.owners > 0 || self.in_user_namespace) && abilities.sets_all_owners() {
            found.push("owners not kept".to_owned());
        }
        if self.attributes > 0 && is_trusted && abilities.file_capabilities {
            found.push(format!("{} left out", plural(self.attributes, "attribute", "attributes")));
        }
        (!found.is_empty()).then(|| found.join(", "))
    }
}

/// Returns `1 device` or `2 devices`.
pub fn plural(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Owners;

    fn complete() -> Abilities {
        Abilities {
            space: XattrSpace::Trusted,
            devices: true,
            file_capabilities: true,
            owners: Owners::mapped(),
            in_user_namespace: false,
        }
    }

    #[test]
    fn omission_is_avoidable_only_with_the_ability_that_was_missing() {
        let omitted = Omitted { user_marks: 1, devices: 2, ..Omitted::default() };
        assert_eq!(omitted.avoidable(&Abilities::none()), None);
        let mknod = Abilities { devices: true, ..Abilities::none() };
        assert_eq!(omitted.avoidable(&mknod).unwrap(), "2 devices left out");
        let all = omitted.avoidable(&complete()).unwrap();
        assert!(all.starts_with("1 opaque directory marked"), "{all}");
        assert_eq!(Omitted::default().avoidable(&complete()), None);
    }

    #[test]
    fn omission_that_a_file_system_caused_is_not_avoidable() {
        let omitted =
            Omitted { user_marks: 1, devices: 2, owners: 3, attributes: 4, ..Omitted::default() };
        let left = omitted.avoided_by_capabilities(&complete());
        assert_eq!(left, Omitted { user_marks: 1, ..Omitted::default() });
        assert_eq!(omitted.avoided_by_capabilities(&Abilities::none()), omitted);
    }

    #[test]
    fn record_that_lost_its_content_is_unknown() {
        let text = serde_json::to_string(&Omitted { owners: 3, ..Omitted::default() }).unwrap();
        assert_eq!(Omitted::parse(&text).owners, 3);
        for text in ["", "{", "\0\0"] {
            let unknown = Omitted::parse(text);
            assert!(unknown.unknown && unknown.avoidable(&complete()).is_some());
            assert_eq!(unknown.avoidable(&Abilities::none()), None);
        }
    }
}
