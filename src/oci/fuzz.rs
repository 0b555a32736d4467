//! Fuzz targets for the documents of an image.

use bytes::Bytes;

use super::{AnyManifest, ImageConfig, MAX_LAYERS, Platform, media_type};
use crate::digest::Digest;

#[test]
fn mutated_manifest_is_parsed_within_its_limits_or_refused() {
    fuzz_harness::run("tests/corpus/manifest", 20_000, |input| {
        let parsed = AnyManifest::parse(
            Bytes::copy_from_slice(input),
            Digest::of(input),
            media_type::OCI_MANIFEST,
        );
        match parsed {
            Err(e) => assert!(!e.to_string().is_empty()),
            Ok(AnyManifest::Image(image)) => {
                assert_eq!(image.bytes, input);
                let layers = &image.parsed.layers;
                assert!(layers.len() <= MAX_LAYERS);
                assert!(layers.iter().all(|layer| media_type::is_layer(&layer.media_type)));
            }
            Ok(AnyManifest::Index(index)) => {
                assert_eq!(index.bytes, input);
                let platform = Platform::new("linux", "amd64", "");
                if let Ok(selected) = index.parsed.select(&platform) {
                    assert!((1..=index.parsed.manifests.len()).contains(&selected.len()));
                }
            }
        }
    });
}

#[test]
fn mutated_config_is_parsed_or_refused() {
    fuzz_harness::run("tests/corpus/config", 20_000, |input| {
        let Ok(config) = ImageConfig::parse(input) else { return };
        let layers = config.diff_ids().len();
        assert!(config.check_layers(layers).is_ok() && config.check_layers(layers + 1).is_err());
        config.runs_on(&Platform::new("linux", "arm64", "v9.2"));
    });
}

#[test]
fn mutated_platform_that_parses_is_the_same_after_printing() {
    fuzz_harness::run("tests/corpus/platform", 20_000, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(platform) = text.parse::<Platform>() else { return };
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform), "{platform}");
        platform.rank(&Platform::new("linux", "arm", "v5"));
    });
}
