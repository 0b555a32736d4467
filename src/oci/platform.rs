//! Platforms and their compatibility (containerd/platforms `compare.go` and `database.go`, which
//! dockerd uses, too).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, an architecture and its variant, in normal form: lower case, and
/// `arm64` and `amd64` without the variant that is their base.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "WirePlatform")]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`; empty for the base.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl From<WirePlatform> for Platform {
    fn from(wire: WirePlatform) -> Self {
        Self::new(&wire.os, &wire.architecture, &wire.variant)
    }
}

/// The error for an invalid [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid platform '{0}': expected OS[/ARCH[/VARIANT]] or ARCH, like linux/arm64 or linux/arm/v7"
)]
pub struct PlatformError(String);

/// Architectures that are accepted without an operating system.
const KNOWN_ARCHITECTURES: [&str; 15] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
];

impl Platform {
    /// Creates a platform in normal form.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let (architecture, variant) =
            normal(&architecture.to_ascii_lowercase(), &variant.to_ascii_lowercase());
        Self { os, architecture, variant }
    }

    /// Returns the platform of this process.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, host_variant())
    }

    /// Returns the rank of an image for `offered` on this platform: 0 is best, `None` is
    /// incompatible.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        self.preferences().iter().position(|preferred| preferred == offered)
    }

    /// Returns the platforms that run on this one, best first.
    fn preferences(&self) -> Vec<Self> {
        let of = |architecture: &str, variant: String| Self {
            os: self.os.clone(),
            architecture: architecture.to_owned(),
            variant,
        };
        // A `u8` bounds the list for any `--platform`.
        let number = |default: u8| {
            self.variant.strip_prefix('v').and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        let mut list = Vec::new();
        match self.architecture.as_str() {
            "amd64" => {
                let levels = (2..=number(1)).rev().map(|level| of("amd64", format!("v{level}")));
                list.extend(levels);
                list.push(of("amd64", String::new()));
                list.push(of("386", String::new()));
            }
            "arm" => {
                list.extend((5..=number(7)).rev().map(|version| of("arm", format!("v{version}"))))
            }
            "arm64" => {
                list.extend(
                    arm64_versions(&self.variant).into_iter().map(|version| of("arm64", version)),
                );
                list.extend((5..=8).rev().map(|version| of("arm", format!("v{version}"))));
            }
            _ => list.push(self.clone()),
        }
        list
    }
}

/// Returns the compatible arm64 variants, best first: ARMv9.x includes ARMv8.(x+5)
/// (containerd/platforms compare.go).
fn arm64_versions(variant: &str) -> Vec<String> {
    let text = variant.strip_prefix('v').unwrap_or("8");
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str, default: u8| u32::from(text.parse().unwrap_or(default));
    let (major, minor) = (number(major, 8), number(minor, 0));
    let name = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    let nines = if major == 9 {
        (0..=minor).rev().map(|minor| name(9, minor)).collect()
    } else {
        Vec::new()
    };
    let eights = if major == 9 { minor + 5 } else { minor };
    nines.into_iter().chain((0..=eights).rev().map(|minor| name(8, minor))).collect()
}

fn normal(architecture: &str, variant: &str) -> (String, String) {
    let v = |text: &str| {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            format!("v{text}")
        } else {
            text.to_owned()
        }
    };
    let variant = v(variant);
    let (architecture, variant) = match (architecture, variant.as_str()) {
        ("i386", _) => ("386", String::new()),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", String::new()),
        ("x86_64" | "x86-64" | "amd64", _) => ("amd64", variant),
        ("aarch64" | "arm64", "v8" | "v8.0") => ("arm64", String::new()),
        ("aarch64" | "arm64", "v9.0") => ("arm64", "v9".to_owned()),
        ("aarch64" | "arm64", _) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7".to_owned()),
        ("armel", _) => ("arm", "v6".to_owned()),
        ("arm", "") => ("arm", "v7".to_owned()),
        (other, _) => (other, variant),
    };
    (architecture.to_owned(), variant)
}

/// Returns the x86-64 level of this processor (System V ABI, x86-64 microarchitecture levels).
#[cfg(target_arch = "x86_64")]
fn host_variant() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2")
        && has!("cmpxchg16b");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    if v4 {
        "v4"
    } else if v3 {
        "v3"
    } else if v2 {
        "v2"
    } else {
        ""
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> &'static str {
    ""
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.')
        };
        if !parts.iter().all(word) {
            return Err(wrong());
        }
        let host = Self::host();
        Ok(match parts.as_slice() {
            [one] => {
                let alone = Self::new(&host.os, one, "");
                match KNOWN_ARCHITECTURES.contains(&alone.architecture.as_str()) {
                    true => alone,
                    false
                        if ["linux", "windows", "darwin", "macos", "freebsd"]
                            .contains(&one.to_ascii_lowercase().as_str()) =>
                    {
                        Self::new(one, &host.architecture, &host.variant)
                    }
                    false => return Err(wrong()),
                }
            }
            [os, architecture] => Self::new(os, architecture, ""),
            [os, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Platform>().unwrap().to_string()
    }

    #[test]
    fn platform_in_any_spelling_has_one_normal_form() {
        assert_eq!(shown("linux/x86_64"), "linux/amd64");
        assert_eq!(shown("Linux/AARCH64/v8"), "linux/arm64");
        assert_eq!(shown("linux/arm64/9.0"), "linux/arm64/v9");
        assert_eq!(shown("linux/armhf"), "linux/arm/v7");
        assert_eq!(shown("linux/armel"), "linux/arm/v6");
        assert_eq!(shown("linux/arm/6"), "linux/arm/v6");
        assert_eq!(shown("macos/arm64"), "darwin/arm64");
        assert_eq!(shown("s390x"), "linux/s390x");
        for wrong in ["", "linux/", "a/b/c/d", "lin ux/amd64", "nonsense"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn platform_with_a_huge_variant_has_few_preferences() {
        for text in
            ["amd64/v2000000000", "arm/v2000000000", "arm64/v8.4000000000", "arm64/v9.4294967295"]
        {
            let platform: Platform = format!("linux/{text}").parse().unwrap();
            assert!(platform.preferences().len() < 20, "{text}");
        }
    }

    #[test]
    fn newer_arm_platform_runs_older_images() {
        let nine = Platform::new("linux", "arm64", "v9.1");
        let ranks: Vec<_> = ["v9.1", "v9", "v8.6", "v8"]
            .iter()
            .map(|v| nine.rank(&Platform::new("linux", "arm64", v)))
            .collect();
        assert!(ranks.is_sorted() && ranks.iter().all(Option::is_some), "{ranks:?}");
        assert!(nine.rank(&Platform::new("linux", "arm", "v7")).is_some());
        assert_eq!(nine.rank(&Platform::new("linux", "arm64", "v9.2")), None);
    }
}
