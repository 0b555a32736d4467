//! Assembles a layer from its tar-split metadata and its directory, stricter than dockerd does.
//! Shares no code with rpull. The unit tests of `layer` include this file.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use serde_json::Value;

/// The layer's tar, if `metadata` is what dockerd can read and the files of `diff` fit it.
pub fn assemble(metadata: &Path, diff: &Path) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    let mut seen = HashSet::new();
    let text = gunzip(metadata)?;
    let mut last = String::new();
    for (n, line) in text.lines().enumerate() {
        let entry: Value = serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))?;
        if entry["position"] != n {
            return Err(format!("entry {n} has position {}", entry["position"]));
        }
        let payload = match &entry["payload"] {
            Value::Null => Vec::new(),
            Value::String(text) => decode(text)?,
            other => return Err(format!("payload {other}")),
        };
        match entry["type"].as_u64() {
            Some(2) => tar.extend(payload),
            Some(1) => tar.extend(file(diff, &entry, &payload, &mut seen)?),
            other => return Err(format!("type {other:?}")),
        }
        last = line.to_owned();
    }
    if !last.starts_with("{\"type\":2,\"payload\":\"\",") {
        return Err(format!("the last entry is not an empty segment: {last}"));
    }
    Ok(tar)
}

fn gunzip(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file), &mut text)
        .map_err(|e| e.to_string())?;
    Ok(text)
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|e| format!("{text}: {e}"))
}

fn file(
    diff: &Path,
    entry: &Value,
    crc: &[u8],
    seen: &mut HashSet<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let name = match &entry["name_raw"] {
        Value::String(raw) => decode(raw)?,
        _ => entry["name"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(&name));
    let clean: std::path::PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    if !seen.insert(clean.as_os_str().as_bytes().to_vec()) {
        return Err(format!("{} has two entries", path.display()));
    }
    let size = entry["size"].as_u64().unwrap_or(0);
    if size == 0 {
        return Ok(Vec::new());
    }
    let mut at = diff.to_owned();
    for component in clean.components().filter(|c| *c != Component::RootDir) {
        let Component::Normal(part) = component else {
            return Err(format!("{} has '..'", path.display()));
        };
        if fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_symlink()) {
            return Err(format!("{} leads through a symlink", path.display()));
        }
        at.push(part);
    }
    let meta = fs::symlink_metadata(&at).map_err(|e| format!("{}: {e}", at.display()))?;
    if !meta.is_file() || meta.len() != size {
        return Err(format!("{}: is not a file of {size} bytes", at.display()));
    }
    let bytes = fs::read(&at).map_err(|e| e.to_string())?;
    if crc64(&bytes).to_be_bytes() != crc {
        return Err(format!("{}: checksum", at.display()));
    }
    Ok(bytes)
}

/// CRC-64/GO-ISO, bit by bit.
fn crc64(bytes: &[u8]) -> u64 {
    static TABLE: std::sync::OnceLock<Vec<u64>> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let step = |c: u64| if c & 1 == 1 { (c >> 1) ^ 0xD800_0000_0000_0000 } else { c >> 1 };
        (0..256).map(|n| (0..8).fold(n, |c, _| step(c))).collect()
    });
    !bytes.iter().fold(!0, |c, b| table[((c ^ u64::from(*b)) & 0xff) as usize] ^ (c >> 8))
}

#[test]
fn crc64_of_known_text_is_go_iso() {
    assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
}
