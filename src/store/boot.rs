//! Which start of the machine this is.

use std::fs;
use std::sync::OnceLock;

/// Returns the ID of this boot (proc_sys_kernel(5), `random/boot_id`); `None` if the kernel does
/// not tell it.
pub fn boot_id() -> Option<&'static str> {
    static BOOT_ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = text.trim();
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        plain.then(|| id.to_owned())
    };
    BOOT_ID.get_or_init(read).as_deref()
}
