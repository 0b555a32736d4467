//! What a container may do: dockerd's default capabilities, devices, hidden paths and system calls
//! (moby oci/defaults.go, oci/caps/defaults.go, docs.docker.com/engine/security/seccomp).

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxSeccomp, LinuxSeccompAction,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

/// The capabilities of a container's root.
const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Paths that a container cannot read.
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Paths that a container cannot write.
pub const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// System calls that fail with EPERM: those that dockerd's profile refuses to a process with the
/// capabilities above.
const REFUSED_CALLS: [&str; 54] = [
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
];

/// Flags of clone(2) that create namespaces.
const NAMESPACE_FLAGS: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// The device numbers that a container may use: null, zero, full, random, urandom, tty, console,
/// ptmx, and all of pts.
const DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Returns the capabilities of a process. A user other than root gets them only by programs that have
/// them.
pub fn capabilities(is_root: bool) -> Result<LinuxCapabilities, OciSpecError> {
    let all = Capabilities::from(CAPABILITIES);
    let own = if is_root { all.clone() } else { Capabilities::new() };
    LinuxCapabilitiesBuilder::default()
        .bounding(all)
        .effective(own.clone())
        .permitted(own)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

/// Returns the rules of the device cgroup.
pub fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let rule = || LinuxDeviceCgroupBuilder::default().access("rwm");
    let mut rules = vec![rule().allow(false).build()?];
    for (major, minor) in DEVICES {
        let rule = rule().allow(true).typ(LinuxDeviceType::C).major(major);
        rules.push(match minor {
            Some(minor) => rule.minor(minor).build()?,
            None => rule.build()?,
        });
    }
    Ok(rules)
}

/// Returns the filter of system calls.
pub fn seccomp() -> Result<LinuxSeccomp, OciSpecError> {
    let refused = |names: &[&str], errno| {
        LinuxSyscallBuilder::default()
            .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(errno)
    };
    let mut calls: Vec<LinuxSyscall> = vec![refused(&REFUSED_CALLS, EPERM).build()?];
    // A filter cannot read the flags of clone3(2). C libraries fall back to clone(2).
    calls.push(refused(&["clone3"], ENOSYS).build()?);
    for flag in NAMESPACE_FLAGS {
        let has_flag = LinuxSeccompArgBuilder::default()
            .index(0_usize)
            .value(flag)
            .value_two(flag)
            .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
            .build()?;
        calls.push(refused(&["clone"], EPERM).args(vec![has_flag]).build()?);
    }
    let filter = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .syscalls(calls);
    let architectures = if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        return filter.build();
    };
    filter.architectures(architectures).build()
}
