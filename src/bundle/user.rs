//! The user of a container, by name or ID (moby daemon/oci_linux.go `getUser`, whose rules are those
//! of opencontainers/runc libcontainer/user `GetExecUser`).

use super::BundleError;

/// The largest user and group ID that dockerd accepts.
const MAX_ID: i64 = i32::MAX as i64;

/// The accounts of an image: the contents of its `/etc/passwd` and `/etc/group`, empty if absent.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: Vec<u8>,
    /// `/etc/group`.
    pub group: Vec<u8>,
}

/// The IDs with which a process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecUser {
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The group ID, and the other groups of the user.
    pub additional_gids: Vec<u32>,
    /// The home directory.
    pub home: String,
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Accounts {
    /// Finds the IDs of `user`, which is `[USER][:GROUP]`; each is a name or an ID. A number is always
    /// an ID. A user without an entry belongs to group 0.
    ///
    /// # Errors
    /// [`BundleError::NoAccount`] if a name has no entry, [`BundleError::IdRange`] if an ID is too large.
    pub fn find(&self, user: &str) -> Result<ExecUser, BundleError> {
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        let uid = number(user);
        let entry = users(&self.passwd).find(|entry| match (user, uid) {
            ("", _) => entry.uid == 0,
            (_, Some(uid)) => i64::from(entry.uid) == uid,
            (name, None) => entry.name == name,
        });
        let none = |kind, name: &str, file| {
            Err(BundleError::NoAccount { kind, name: name.to_owned(), file })
        };
        let mut found = ExecUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/".into() };
        match (&entry, uid) {
            (Some(entry), _) => {
                (found.uid, found.gid) = (entry.uid, entry.gid);
                found.home = entry.home.to_owned();
            }
            (None, Some(uid)) => found.uid = in_range("user", uid)?,
            (None, None) if user.is_empty() => {}
            (None, None) => return none("user", user, "/etc/passwd"),
        }
        let mut others = Vec::new();
        if !group.is_empty() {
            let gid = number(group);
            let entry = groups(&self.group).find(|entry| match gid {
                Some(gid) => i64::from(entry.gid) == gid,
                None => entry.name == group,
            });
            found.gid = match (entry, gid) {
                (Some(entry), _) => entry.gid,
                (None, Some(gid)) => in_range("group", gid)?,
                (None, None) => return none("group", group, "/etc/group"),
            };
        } else if let Some(user) = entry {
            let has = |group: &Group| group.members.split(',').any(|name| name.trim() == user.name);
            others = groups(&self.group).filter(has).map(|group| group.gid).collect();
        }
        found.additional_gids = std::iter::once(found.gid).chain(others).collect();
        Ok(found)
    }
}

fn number(text: &str) -> Option<i64> {
    // Larger than any ID, so that a number is never taken for a name.
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(i64::MAX))
}

fn in_range(kind: &'static str, id: i64) -> Result<u32, BundleError> {
    let out_of_range = || BundleError::IdRange { kind, id: id.to_string() };
    if id > MAX_ID {
        return Err(out_of_range());
    }
    u32::try_from(id).map_err(|_| out_of_range())
}

/// Lines of other forms are ignored.
fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(User { name, uid, gid, home })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    let lines = file.split(|&b| b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"# users\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\nbad:x:y:z::\nweb:x:33:34:web:/srv:/bin/sh\nnohome:x:40:41\n12:x:50:51::/twelve:\n\xff:x:1:1::/:\n".to_vec(),
            group: b"root:x:0:\nwww:x:34:web\nadm:x:4:web,root\n77:x:78:\n".to_vec(),
        }
    }

    #[track_caller]
    fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
        let user = accounts().find(user).unwrap();
        (user.uid, user.gid, user.additional_gids, user.home)
    }

    #[test]
    fn user_is_found_by_name_or_id_as_in_docker() {
        assert_eq!(found(""), (0, 0, vec![0, 4], "/root".into()));
        assert_eq!(found("web"), (33, 34, vec![34, 34, 4], "/srv".into()));
        assert_eq!(found("33"), (33, 34, vec![34, 34, 4], "/srv".into()));
        assert_eq!(found("web:adm"), (33, 4, vec![4], "/srv".into()));
        assert_eq!(found("web:4"), (33, 4, vec![4], "/srv".into()));
        assert_eq!(found("web:"), (33, 34, vec![34, 34, 4], "/srv".into()));
        assert_eq!(found(":www"), (0, 34, vec![34], "/root".into()));
        assert_eq!(found("1000"), (1000, 0, vec![0], "/".into()));
        assert_eq!(found("1000:1001"), (1000, 1001, vec![1001], "/".into()));
        assert_eq!(found("nohome"), (40, 41, vec![41], "/".into()));
    }

    #[test]
    fn number_is_an_id_and_never_a_name() {
        assert_eq!(found("12").0, 12, "not the user named 12");
        assert_eq!(found("1:77").1, 77, "not the group named 77");
    }

    #[test]
    fn unknown_names_and_large_ids_are_errors() {
        for (user, expected) in [
            (
                "nobody",
                "unable to find user nobody: no matching entries in the image's /etc/passwd",
            ),
            (
                "web:none",
                "unable to find group none: no matching entries in the image's /etc/group",
            ),
            ("bad", "unable to find user bad: no matching entries in the image's /etc/passwd"),
            ("2147483648", "the user ID 2147483648 is not in the range from 0 to 2147483647"),
            ("0:99999999999999999999", "is not in the range"),
            ("-1", "unable to find user -1"),
        ] {
            let error = accounts().find(user).unwrap_err().to_string();
            assert!(error.contains(expected), "{user}: {error}");
        }
        assert!(Accounts::default().find("root").is_err());
        assert_eq!(Accounts::default().find("").unwrap().uid, 0);
    }
}
