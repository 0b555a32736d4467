//! What this process may do with the files of layers.
//!
//! The user ID does not tell it: in a container, root has few capabilities, and in a user namespace
//! root has all of them, but only for the IDs that the namespace maps. A command that writes probes
//! it in the root (see `probe`); one that reads goes by [`Abilities::expected`].

use std::ops::Range;

use rustix::fs::{Gid, Uid};

/// The xattr namespace of overlayfs's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrSpace {
    /// `trusted.overlay.*`: mounts by a process with `CAP_SYS_ADMIN` in the initial user namespace,
    /// such as dockerd's.
    Trusted,
    /// `user.overlay.*`: mounts made with `userxattr`.
    User,
}

impl XattrSpace {
    pub(in crate::overlay) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => USER_OPAQUE,
        }
    }
}

/// The mark of an opaque directory for mounts made with `userxattr`.
pub const USER_OPAQUE: &str = "user.overlay.opaque";

/// A capability (capabilities(7)) that unpacking a layer can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Setting owners.
    Chown = 0,
    /// Using files of other owners.
    DacOverride = 1,
    /// Setting modes, times and attributes of files of other owners.
    Fowner = 3,
    /// Setting setgid bits on files of other groups.
    Fsetid = 4,
    /// Attributes `trusted.*`, and most of `security.*`.
    SysAdmin = 21,
    /// Creating devices.
    Mknod = 27,
    /// The attribute `security.capability`.
    Setfcap = 31,
}

impl Capability {
    /// Returns why the kernel refuses what needs the capability: `no CAP_MKNOD`.
    pub fn lack(self) -> String {
        let name = match self {
            Self::Chown => "CAP_CHOWN",
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::Fowner => "CAP_FOWNER",
            Self::Fsetid => "CAP_FSETID",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Mknod => "CAP_MKNOD",
            Self::Setfcap => "CAP_SETFCAP",
        };
        match (self.is_effective(), in_user_namespace()) {
            (false, _) => format!("no {name}"),
            (true, true) => format!("{name} is not enough in a user namespace"),
            (true, false) => format!("refused in spite of {name}"),
        }
    }

    pub(super) fn is_effective(self) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits >> self as u32 & 1 == 1)
    }
}

/// Returns whether this process is in a user namespace other than the initial one. A kernel without
/// user namespaces has no link.
pub fn in_user_namespace() -> bool {
    let link = std::fs::read_link("/proc/self/ns/user");
    link.is_ok_and(|link| link != std::path::Path::new(FIRST_USER_NS))
}

/// The initial user namespace (PROC_USER_INIT_INO of the kernel).
const FIRST_USER_NS: &str = "user:[4026531837]";

/// What this process may do with the files of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// The marks that it can write.
    pub space: XattrSpace,
    /// Whether it may create devices.
    pub devices: bool,
    /// Whether it may set `security.capability`.
    pub file_capabilities: bool,
    /// The owners that it may set.
    pub owners: Owners,
    /// Whether it is in a user namespace, whose IDs are others outside of it.
    pub in_user_namespace: bool,
}

impl Abilities {
    /// Those of a process without any capability.
    pub fn none() -> Self {
        Self {
            space: XattrSpace::User,
            devices: false,
            file_capabilities: false,
            owners: Owners::none(Capability::Chown),
            in_user_namespace: in_user_namespace(),
        }
    }

    /// Those that the capabilities of this process promise, for a command that must not write to the
    /// root to find out.
    pub fn expected() -> Self {
        use Capability::{Chown, DacOverride, Fowner, Fsetid, Mknod, Setfcap, SysAdmin};
        let in_user_namespace = in_user_namespace();
        let lacking =
            [Chown, DacOverride, Fowner, Fsetid].into_iter().find(|it| !it.is_effective());
        let is_trusted = SysAdmin.is_effective() && !in_user_namespace;
        Self {
            space: if is_trusted { XattrSpace::Trusted } else { XattrSpace::User },
            devices: Mknod.is_effective() && !in_user_namespace,
            file_capabilities: Setfcap.is_effective(),
            owners: lacking.map_or_else(Owners::mapped, Owners::none),
            in_user_namespace,
        }
    }

    /// Returns whether a layer can be unpacked exactly as dockerd does it.
    pub fn is_complete(&self) -> bool {
        self.space == XattrSpace::Trusted
            && self.devices
            && self.file_capabilities
            && self.sets_all_owners()
    }

    /// Returns whether all files can get the owner that they have in the archive.
    pub fn sets_all_owners(&self) -> bool {
        !self.in_user_namespace && self.owners.are_kept()
    }
}

/// The owners that this process may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    uid: u32,
    gid: u32,
    settable: Result<Settable, Capability>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Settable {
    uids: Ids,
    gids: Ids,
}

/// An owner to set: what is `None` stays as it is.
pub type NewOwner = (Option<Uid>, Option<Gid>);

impl Owners {
    /// All files belong to this process, since it lacks `capability`.
    pub fn none(capability: Capability) -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, settable: Err(capability) }
    }

    /// All IDs that the user namespace of this process maps, which are all IDs in the initial one.
    pub fn mapped() -> Self {
        let settable = Settable { uids: Ids::of("uid_map"), gids: Ids::of("gid_map") };
        Self { settable: Ok(settable), ..Self::none(Capability::Chown) }
    }

    /// Whether owners can be set.
    pub fn are_kept(&self) -> bool {
        self.settable.is_ok()
    }

    /// Returns why owners cannot be set; `None` if they can.
    pub fn lacking(&self) -> Option<Capability> {
        self.settable.as_ref().err().copied()
    }

    /// The user who owns files whose owner cannot be set.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns whether a file gets the owner `uid` and `gid`.
    pub fn can_be(&self, uid: u32, gid: u32) -> bool {
        match &self.settable {
            Ok(ids) => ids.uids.contains(uid) && ids.gids.contains(gid),
            Err(_) => (uid, gid) == (self.uid, self.gid),
        }
    }

    /// Returns the owner to set on a file whose owner is unknown.
    pub fn to_set(&self, uid: u32, gid: u32) -> Option<NewOwner> {
        let ids = self.settable.as_ref().ok()?;
        let uid = ids.uids.contains(uid).then(|| Uid::from_raw(uid));
        let gid = ids.gids.contains(gid).then(|| Gid::from_raw(gid));
        (uid.is_some() || gid.is_some()).then_some((uid, gid))
    }

    /// Returns the owner to set on a new file in a directory of the group `parent_gid`, which the
    /// file may have inherited.
    pub fn to_set_on_new(&self, uid: u32, gid: u32, parent_gid: u32) -> Option<NewOwner> {
        let right = (uid, gid, parent_gid) == (self.uid, self.gid, self.gid);
        if right { None } else { self.to_set(uid, gid) }
    }

    /// Returns an ID of another user and one of a group that this process is not in, if there are
    /// any, to probe with.
    pub(super) fn others(&self) -> NewOwner {
        let Ok(ids) = &self.settable else { return (None, None) };
        let groups = rustix::process::getgroups().unwrap_or_default();
        let is_own = |gid: u32| gid == self.gid || groups.iter().any(|own| own.as_raw() == gid);
        let uid = ids.uids.iter().find(|uid| *uid != self.uid);
        let gid = ids.gids.iter().find(|gid| !is_own(*gid));
        (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }
}

/// IDs that a user namespace maps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids(Vec<Range<u32>>);

impl Ids {
    fn all() -> Self {
        Self::parse("0 0 4294967295")
    }

    /// Reads a map of this process; a kernel without user namespaces has none.
    fn of(name: &str) -> Self {
        std::fs::read_to_string(format!("/proc/self/{name}"))
            .ok()
            .filter(|map| !map.is_empty())
            .map_or_else(Self::all, |map| Self::parse(&map))
    }

    fn parse(map: &str) -> Self {
        let range = |line: &str| {
            let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (first, count) = (words.next()?.ok()?, words.nth(1)?.ok()?);
            Some(first..first.saturating_add(count))
        };
        Self(map.lines().filter_map(range).collect())
    }

    fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|range| range.contains(&id))
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        // From 1: 0 is special to some file systems.
        self.0.iter().flat_map(|range| range.clone().skip(usize::from(range.start == 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(uid: u32, gid: u32, uids: &str, gids: &str) -> Owners {
        Owners {
            uid,
            gid,
            settable: Ok(Settable { uids: Ids::parse(uids), gids: Ids::parse(gids) }),
        }
    }

    #[test]
    fn owner_in_the_initial_namespace_is_set_unless_it_is_right() {
        let root = owners(0, 0, "0 0 4294967295\n", "0 0 4294967295\n");
        assert_eq!(root.to_set_on_new(0, 0, 0), None);
        assert_eq!(root.to_set_on_new(0, 0, 7), Some((Some(Uid::ROOT), Some(Gid::ROOT))));
        let (uid, gid) = (Some(Uid::from_raw(5)), Some(Gid::from_raw(6)));
        assert_eq!(root.to_set_on_new(5, 6, 0), Some((uid, gid)));
        assert_eq!(root.to_set(0, 0), Some((Some(Uid::ROOT), Some(Gid::ROOT))));
        assert!(root.can_be(5, 6));
    }

    #[test]
    fn owner_that_the_namespace_does_not_map_stays_as_it_is() {
        let one = owners(0, 0, "0 1000 1\n", "0 1000 1\n");
        assert_eq!(one.to_set_on_new(5, 6, 0), None);
        assert_eq!(one.to_set_on_new(0, 6, 0), Some((Some(Uid::ROOT), None)));
        assert_eq!((one.can_be(0, 0), one.can_be(0, 6)), (true, false));
        assert_eq!(one.others(), (None, None));
        let many = owners(0, 0, "0 1000 1\n1 100000 65535\n", "0 1000 1\n1 100000 65535\n");
        assert!(many.can_be(65534, 1) && !many.can_be(65536, 1));
        assert!(many.others().0.is_some());
    }

    #[test]
    fn owners_without_capability_are_those_of_the_process() {
        let none = Owners::none(Capability::Chown);
        assert!(!none.are_kept() && none.can_be(none.uid, none.gid));
        assert_eq!(none.to_set(none.uid + 1, none.gid), None);
    }
}
