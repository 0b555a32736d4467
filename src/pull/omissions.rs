//! What all layers of a command lack, in one warning per kind.

use std::sync::{Mutex, PoisonError};

use crate::layer::OmissionReport;
use crate::overlay::{Abilities, Capability, plural};

/// What the layers lack that a command unpacked.
#[derive(Debug, Default)]
pub struct Omissions(Mutex<OmissionReport>);

impl Omissions {
    /// Adds what one layer lacks for want of a capability.
    pub fn add(&self, layer: OmissionReport) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, omitted) = (&mut all.omitted, layer.omitted);
        sum.user_marks += omitted.user_marks;
        sum.devices += omitted.devices;
        sum.owners += omitted.owners;
        sum.attributes += omitted.attributes;
        all.device = all.device.take().or(layer.device);
        all.attribute = all.attribute.take().or(layer.attribute);
    }

    /// Returns the warnings, for a process with `abilities`.
    pub fn warnings(&self, abilities: &Abilities) -> Vec<String> {
        warnings(&self.0.lock().unwrap_or_else(PoisonError::into_inner), abilities)
    }
}

fn warnings(all: &OmissionReport, abilities: &Abilities) -> Vec<String> {
    let omitted = &all.omitted;
    let mut warnings = Vec::new();
    if omitted.owners > 0 {
        let uid = abilities.owners.uid();
        warnings.push(match abilities.owners.lacking() {
            Some(missing) => {
                format!("owners not kept: {} (all files belong to uid {uid})", missing.lack())
            }
            None => format!(
                "owners of {} not kept: the user namespace does not map them (they stay uid {uid})",
                plural(omitted.owners, "file", "files")
            ),
        });
    }
    let first = |first: &Option<String>, quote: &str| {
        first.as_ref().map(|first| format!(" (first: {quote}{first}{quote})")).unwrap_or_default()
    };
    if omitted.devices > 0 {
        let (count, why) = (plural(omitted.devices, "device", "devices"), Capability::Mknod.lack());
        warnings.push(format!("{count} left out: {why}{}", first(&all.device, "'")));
    }
    if omitted.user_marks > 0 {
        let count = plural(omitted.user_marks, "opaque directory", "opaque directories");
        let why = Capability::SysAdmin.lack();
        warnings.push(format!("{count} marked with user.overlay.*: {why}"));
    }
    if omitted.attributes > 0 {
        let count = plural(omitted.attributes, "attribute", "attributes");
        let missing =
            if abilities.file_capabilities { Capability::SysAdmin } else { Capability::Setfcap };
        let (why, first) = (missing.lack(), first(&all.attribute, ""));
        warnings.push(format!("{count} left out: {why}{first}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Omitted, Owners};

    #[test]
    fn omissions_of_all_layers_give_one_warning_per_kind() {
        let omitted =
            Omitted { user_marks: 3, devices: 8, owners: 9, attributes: 1, ..Omitted::default() };
        let all = OmissionReport {
            omitted,
            device: Some("dev/null".to_owned()),
            attribute: Some("security.capability of 'ping'".to_owned()),
            warnings: Vec::new(),
        };
        let abilities = Abilities::none();
        let found = warnings(&all, &abilities);
        assert!(found[0].starts_with("owners not kept: "), "{found:?}");
        assert!(found[1].starts_with("8 devices left out: "), "{found:?}");
        assert!(found[1].ends_with("(first: 'dev/null')"), "{found:?}");
        assert!(
            found[2].starts_with("3 opaque directories marked with user.overlay.*"),
            "{found:?}"
        );
        assert!(found[3].starts_with("1 attribute left out: "), "{found:?}");
        let mapped = Abilities { owners: Owners::mapped(), ..abilities };
        assert!(warnings(&all, &mapped)[0].contains("does not map them"));
        assert_eq!(warnings(&OmissionReport::default(), &mapped), [""; 0]);
    }
}
