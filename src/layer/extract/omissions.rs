//! Warnings about entries and attributes that this process or its file system cannot create.

use rustix::io::Errno;

use crate::layer::error::show;

/// Warnings of one layer at most: an archive may have any number of attribute names.
const MAX_LISTED: usize = 16;

/// Counts omissions by cause, so that a thousand files give one warning.
#[derive(Default)]
pub struct Omissions {
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
    /// Counts the device `path`, which only root may create.
    pub fn device(&mut self, path: &[u8]) {
        self.add(Cause::Device, path);
    }

    /// Counts the attribute `name` of the entry `path`, which the kernel refused with `error`.
    pub fn attribute(&mut self, name: &[u8], path: &[u8], error: Errno) {
        self.add(Cause::Attribute { name: name.to_vec(), error }, path);
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

    /// Returns one warning per cause, in the order of the first omission.
    pub fn into_warnings(self) -> Vec<String> {
        let mut warnings: Vec<_> = self.listed.iter().map(Omission::warning).collect();
        match self.unlisted {
            0 => {}
            1 => warnings.push("1 more attribute or device is left out".to_owned()),
            n => warnings.push(format!("{n} more attributes or devices are left out")),
        }
        warnings
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
                format!("device '{first}' {others} left out: making devices needs root")
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
        let mut omissions = Omissions::default();
        for path in [b"a\n", b"b\n", b"c\n"] {
            omissions.attribute(b"user.\x1b", path, Errno::PERM);
        }
        omissions.attribute(b"foo.bar", b"a", Errno::NOTSUP);
        omissions.attribute(b"foo.bar", b"a", Errno::NOTSUP);
        omissions.device(b"null");
        omissions.device(b"zero");
        assert_eq!(
            omissions.into_warnings(),
            [
                "attribute user.\\u{1b} of 'a\\n' and of 2 other entries is left out: not permitted",
                "attribute foo.bar of 'a' and of 1 other entry is left out: \
                 not supported by the file system",
                "device 'null' and 1 other device are left out: making devices needs root",
            ]
        );
    }

    #[test]
    fn omission_for_many_names_gives_a_bounded_list() {
        let mut omissions = Omissions::default();
        for n in 0..1000 {
            omissions.attribute(format!("foo.{n}").as_bytes(), b"a", Errno::NOTSUP);
        }
        let warnings = omissions.into_warnings();
        assert_eq!(warnings.len(), MAX_LISTED + 1);
        assert_eq!(warnings[MAX_LISTED], "984 more attributes or devices are left out");
    }
}
