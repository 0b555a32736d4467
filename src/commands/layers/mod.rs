//! `rpull layers`: all IDs of each layer in one table, or the layers of all images as a tree.

mod columns;
mod picture;
mod shapes;
mod summary;
mod svg;
mod tree;

use std::path::{Path, PathBuf};

use clap::Args;

use rpull::{Error, ImageLayer, LayerTree};

use super::Context;
use crate::cli::{output, quantity};

const EXAMPLES: &str = "\
Examples:
  rpull layers nginx
  rpull layers -q nginx        # the directories only, base layer first
  rpull layers --no-trunc --format json nginx
  rpull layers --tree          # all images, and what they share
  rpull layers --tree nginx    # nginx, and the images that share layers with it
  rpull layers --svg layers.svg";

/// List the layers of an image with their IDs and directories
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Layers {
    /// The image: a reference or an ID. With --tree and --svg, show it and the images that share layers
    /// with it; all images if it is not given
    #[arg(value_name = "IMAGE", required_unless_present_any = ["tree", "svg"])]
    image: Option<String>,
    /// Show the layers of all images as one tree, with their sizes
    #[arg(long)]
    tree: bool,
    /// Draw this tree as a picture in FILE (SVG); - is standard output
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Show IDs in full
    #[arg(long)]
    no_trunc: bool,
}

impl Layers {
    /// Prints one line per layer, base first.
    ///
    /// # Errors
    /// The image is not there.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        if self.tree || self.svg.is_some() {
            return self.run_tree(context);
        }
        let image = self.image.as_deref().unwrap_or_default();
        let lines = context.store()?.image(image)?.layers()?;
        if context.json() {
            return output::json(&lines);
        }
        if context.global.quiet {
            return lines.iter().try_for_each(|line| {
                output::exact("the path", output::path_text(line.diff_dir())?)
            });
        }
        let rows: Vec<Vec<String>> = lines.iter().map(|line| self.row(line)).collect();
        output::table(
            &["#", "DISTRIBUTION ID", "DIFF ID", "CHAIN ID", "CACHE ID", "SIZE", "PATH"],
            &rows,
        )
    }

    /// Prints the tree of all images or of those that share layers with one, and draws it.
    fn run_tree(&self, context: &Context) -> Result<(), Error> {
        let to_stdout = self.svg.as_deref() == Some(Path::new("-"));
        if to_stdout && (self.tree || context.json()) {
            let text = "--svg - prints the picture; give a file to print the tree as well";
            return Err(Error::Usage(text.to_owned()));
        }
        let store = context.store()?;
        let tree = match &self.image {
            Some(image) => store.image(image)?.layer_tree()?,
            None => store.layer_tree()?,
        };
        if let Some(path) = &self.svg {
            let picture = picture::draw(&tree, &store.root().display().to_string());
            let svg = svg::document(&picture);
            if to_stdout {
                return output::rendered(svg.trim_end());
            }
            let failed = |e| Error::Other(format!("cannot write {}: {e}", path.display()));
            std::fs::write(path, svg).map_err(failed)?;
        }
        if context.json() {
            return output::json(&tree);
        }
        if self.tree { self.print(context, &tree) } else { Ok(()) }
    }

    fn print(&self, context: &Context, tree: &LayerTree) -> Result<(), Error> {
        if context.global.quiet {
            return tree.layers.iter().try_for_each(|layer| {
                output::exact("the path", output::path_text(layer.diff_dir())?)
            });
        }
        let style = tree::Style {
            utf8: output::is_utf8(),
            no_trunc: self.no_trunc,
            columns: output::columns(),
        };
        output::rendered(&tree::lines(tree, style).join("\n"))
    }

    fn row(&self, line: &ImageLayer) -> Vec<String> {
        let id = |whole: String, short: String| if self.no_trunc { whole } else { short };
        let blob = line.blob().map(|digest| id(digest.to_string(), digest.short()));
        vec![
            line.position().to_string(),
            blob.unwrap_or_else(|| "<none>".to_owned()),
            id(line.diff_id().to_string(), line.diff_id().short()),
            id(line.chain_id().to_string(), line.chain_id().short()),
            id(line.cache_id().to_owned(), line.cache_id().chars().take(12).collect()),
            quantity::human_size(line.size()),
            line.diff_dir().display().to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rpull::internal::digest::Digest;
    use rpull::internal::oci::{ChainId, DiffId};
    use rpull::{ErrorKind, Store};

    use super::*;

    const SOURCES: &str = "distribution/v2metadata-by-diffid/sha256";

    /// A store with records as dockerd writes them.
    pub struct Root(tempfile::TempDir);

    impl Root {
        pub fn new() -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            let image = root.0.path().join("image/overlay2");
            for dir in ["layerdb/sha256", "imagedb/content/sha256", SOURCES] {
                fs::create_dir_all(image.join(dir)).unwrap();
            }
            root
        }

        /// Writes an image with layers of these contents, base first, and its names.
        fn image(&self, names: &[&str], contents: &[&str]) -> String {
            let image = self.0.path().join("image/overlay2");
            let sources = image.join(SOURCES);
            let mut parent: Option<ChainId> = None;
            for content in contents {
                let diff_id = DiffId(Digest::of(content.as_bytes()));
                let chain = ChainId::above(parent, diff_id);
                let dir = image.join("layerdb/sha256").join(chain.hex());
                let cache_id = Digest::of(format!("directory of {chain}").as_bytes()).hex();
                fs::create_dir_all(&dir).unwrap();
                fs::create_dir_all(self.0.path().join("overlay2").join(&cache_id).join("diff"))
                    .unwrap();
                fs::write(dir.join("diff"), diff_id.to_string()).unwrap();
                fs::write(dir.join("size"), (content.len().pow(3) * 123_457).to_string()).unwrap();
                fs::write(dir.join("cache-id"), cache_id).unwrap();
                if let Some(parent) = parent {
                    fs::write(dir.join("parent"), parent.to_string()).unwrap();
                }
                if *content != "app" {
                    let blob = Digest::of(format!("blob of {content}").as_bytes()).to_string();
                    let source = serde_json::json!([{
                        "Digest": blob, "SourceRepository": "docker.io/library/x", "HMAC": ""
                    }]);
                    fs::write(sources.join(diff_id.hex()), source.to_string()).unwrap();
                }
                // Only the end of this file is looked at: the length of what it decompresses to.
                let end = [&[0; 20][..], &9u32.to_le_bytes()].concat();
                fs::write(dir.join("tar-split.json.gz"), end).unwrap();
                parent = Some(chain);
            }
            let ids = contents.iter().map(|content| Digest::of(content.as_bytes()).to_string());
            let ids: Vec<String> = ids.collect();
            let config = serde_json::json!({
                "comment": names, "rootfs": {"type": "layers", "diff_ids": ids}
            });
            let config = config.to_string();
            let id = Digest::of(config.as_bytes());
            fs::write(image.join("imagedb/content/sha256").join(id.hex()), config).unwrap();
            let path = image.join("repositories.json");
            let text =
                fs::read_to_string(&path).unwrap_or_else(|_| r#"{"Repositories":{}}"#.into());
            let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
            for name in names {
                let repository = name.rsplit_once(':').unwrap().0;
                json["Repositories"][repository][name] = id.to_string().into();
            }
            fs::write(path, json.to_string()).unwrap();
            id.to_string()
        }

        pub fn store(&self) -> Store {
            Store::open(self.0.path()).unwrap()
        }

        pub fn tree(&self) -> LayerTree {
            self.store().layer_tree().unwrap()
        }

        fn text(&self, utf8: bool, columns: Option<usize>) -> String {
            text(&self.tree(), utf8, columns)
        }
    }

    fn text(tree: &LayerTree, utf8: bool, columns: Option<usize>) -> String {
        let style = tree::Style { utf8, no_trunc: false, columns };
        tree::lines(tree, style).join("\n")
    }

    /// Two bases; one content above each of them; an image on another; an image with two names.
    pub fn small() -> Root {
        let root = Root::new();
        root.image(&["debian:12"], &["debian"]);
        root.image(&["nginx:1", "nginx:latest"], &["debian", "libraries", "empty", "nginx"]);
        root.image(&["registry.example:5000/team/app:1"], &["debian", "libraries", "empty", "app"]);
        root.image(&["old:1"], &["debian", "old"]);
        root.image(&["alpine:3"], &["alpine", "empty"]);
        root
    }

    /// 60 images, in groups of other sizes, with stacks of 1 to 12 layers.
    pub fn large() -> Root {
        let root = Root::new();
        for n in 0..60_usize {
            let base =
                ["debian", "alpine", "ubuntu", "fedora", "busybox", "scratch-like"][n % 17 % 6];
            let layers: Vec<String> = (0..n % 12)
                .map(|level| match level {
                    0 => "certificates".to_owned(),
                    1 | 2 => format!("runtime {} {level}", n % 4),
                    level => format!("layer {level} of {n}{}", "x".repeat(n * level)),
                })
                .collect();
            let contents: Vec<&str> =
                std::iter::once(base).chain(layers.iter().map(String::as_str)).collect();
            let long = format!("registry.example:5000/{}/service-{n}:v{n}", "team/".repeat(n % 5));
            root.image(&[&format!("image-{n}:1"), &long.replace("//", "/")], &contents);
        }
        root
    }

    #[test]
    fn tree_shows_each_layer_once_with_the_images_that_end_there() {
        insta::assert_snapshot!("tree", small().text(true, None));
        insta::assert_snapshot!("tree_in_ascii", small().text(false, Some(64)));
    }

    #[test]
    fn tree_fits_a_terminal_of_any_width() {
        for tree in [small().tree(), large().tree()] {
            for columns in 1..150 {
                let text = text(&tree, true, Some(columns));
                assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
                assert!(text.lines().count() > tree.layers.len());
                let ascii = self::text(&tree, false, Some(columns));
                assert!(ascii.is_ascii() && ascii.lines().count() == text.lines().count());
            }
        }
    }

    #[test]
    fn stack_of_many_branches_keeps_its_lines_short() {
        let root = Root::new();
        let trunk: Vec<String> = (0..100).map(|n| format!("trunk {n}")).collect();
        for n in 1..100 {
            let mut contents: Vec<&str> = trunk[..n].iter().map(String::as_str).collect();
            contents.push("branch");
            root.image(&[&format!("image-{n}:1")], &contents);
        }
        let text = root.text(true, None);
        assert!(text.lines().all(|line| line.chars().count() < 130), "{text}");
    }

    #[test]
    fn tree_of_an_image_has_those_that_share_layers_with_it() {
        let root = small();
        let names = |image: &str| {
            let tree = root.store().image(image).unwrap().layer_tree().unwrap();
            tree.images.into_iter().flat_map(|image| image.names).collect::<Vec<_>>()
        };
        let debian =
            ["debian:12", "nginx:1", "nginx:latest", "registry.example:5000/team/app:1", "old:1"];
        assert_eq!(names("alpine:3"), ["alpine:3"]);
        assert_eq!(names("old:1"), debian);
    }

    #[test]
    fn incomplete_and_unneeded_layers_are_counted_only() {
        let root = small();
        root.image(&["broken:1"], &["debian", "gone"]);
        let chain = ChainId::stack(&["debian", "gone"].map(|it| DiffId(Digest::of(it.as_bytes()))));
        let layers = root.0.path().join("image/overlay2/layerdb/sha256");
        fs::remove_file(layers.join(chain[1].hex()).join("size")).unwrap();
        let id = root.image(&["removed:1"], &["unneeded", "layers"]);
        let hex = id.trim_start_matches("sha256:");
        fs::remove_file(root.0.path().join("image/overlay2/imagedb/content/sha256").join(hex))
            .unwrap();
        fs::create_dir(root.0.path().join("overlay2/97hedujzdfi3nwntmld3hmxvt")).unwrap();
        let note = "Not shown: 2 layers of no image, 1 directory of BuildKit, 1 incomplete image.";
        assert!(root.text(true, None).ends_with(note), "{}", root.text(true, None));
        let error = root.store().image("broken:1").unwrap().layer_tree().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
}
