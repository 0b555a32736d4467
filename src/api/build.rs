//! Builds of images from Dockerfiles, prepared step by step.

mod steps;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::Image;
use super::run::{Container, Ended, Runtime};
use super::store::Store;
use crate::build::{BuildArgs, Dockerfile, arguments};
use crate::error::Error;
use crate::fsutil;
use crate::import::expand;
use crate::oci::Platform;
use crate::reference::Reference;

/// Bytes of a Dockerfile at most.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// A build of an image, as docker's classic builder does it.
///
/// ```no_run
/// # fn example(store: &rpull::Store) -> Result<(), rpull::Error> {
/// struct Lines;
///
/// impl rpull::BuildHost for Lines {
///     fn line(&mut self, text: &str) -> Result<(), rpull::Error> {
///         eprintln!("{text}");
///         Ok(())
///     }
/// }
///
/// let build = store.build("src").tag("app:1".parse()?).prepare()?;
/// let built = build.run(&rpull::OciRuntime::find(None)?, &mut Lines)?;
/// println!("{}", built.image.id());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a build is prepared by `prepare`"]
pub struct Build {
    store: Store,
    dir: PathBuf,
    file: Option<PathBuf>,
    tags: Vec<Reference>,
    args: BTreeMap<String, String>,
    target: Option<String>,
    no_cache: bool,
}

/// An image that a Dockerfile names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseImage {
    /// The reference or ID.
    pub name: String,
    /// The platform that the Dockerfile asks for.
    pub platform: Option<Platform>,
}

/// A build whose Dockerfile is known.
#[derive(Debug)]
pub struct PreparedBuild {
    build: Build,
    file: String,
    dockerfile: Dockerfile,
    args: BuildArgs,
    /// The base of each stage, with its variables replaced; `None` for an earlier stage and scratch.
    bases: Vec<Option<BaseImage>>,
    /// The images of which files are copied.
    sources: Vec<BaseImage>,
    path: PathBuf,
}

/// An image that was built.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// The image.
    pub image: Image,
    /// Its names.
    pub names: Vec<Reference>,
}

/// What a build needs of the program that runs it.
pub trait BuildHost {
    /// Takes a line of docker's output.
    ///
    /// # Errors
    /// The build ends with this error.
    fn line(&mut self, text: &str) -> Result<(), Error>;

    /// Returns where commands write; `None` for the standard streams of this process.
    ///
    /// # Errors
    /// The build ends with this error.
    fn output(&self) -> Result<Option<Arc<File>>, Error> {
        Ok(None)
    }

    /// Calls `start` and waits for the container.
    ///
    /// # Errors
    /// The build ends with this error.
    fn run(&mut self, start: &mut dyn FnMut() -> Result<Container, Error>) -> Result<Ended, Error> {
        start()?.wait()
    }

    /// Is called before each step.
    ///
    /// # Errors
    /// The build ends with this error.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl Store {
    /// Prepares to build an image in the directory `dir`, the context, by its `Dockerfile`.
    pub fn build(&self, dir: impl Into<PathBuf>) -> Build {
        Build {
            store: self.clone(),
            dir: dir.into(),
            file: None,
            tags: Vec::new(),
            args: BTreeMap::new(),
            target: None,
            no_cache: false,
        }
    }
}

impl Build {
    /// Uses this Dockerfile.
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..self }
    }

    /// Gives the image a name. Without a tag, that is `latest`.
    pub fn tag(mut self, name: Reference) -> Self {
        self.tags.push(name.with_default_tag().0);
        self
    }

    /// Sets an argument that `ARG` declares.
    pub fn arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.args.insert(name.into(), value.into());
        self
    }

    /// Ends the build with the stage `name`.
    pub fn target(self, name: impl Into<String>) -> Self {
        Self { target: Some(name.into()), ..self }
    }

    /// Runs each instruction, also one whose image the store has.
    pub fn no_cache(self, no_cache: bool) -> Self {
        Self { no_cache, ..self }
    }

    /// Reads the Dockerfile, and refuses what rpull does not support.
    ///
    /// # Errors
    /// [`Error::Dockerfile`] if the Dockerfile is invalid, or needs BuildKit.
    pub fn prepare(self) -> Result<PreparedBuild, Error> {
        if let Some(name) = self.tags.iter().find(|name| name.digest().is_some()) {
            let text = format!("'{name}' has a digest: give the image a tag only");
            return Err(Error::Usage(text));
        }
        if !self.dir.is_dir() {
            let text = format!("the context {} is not a directory", self.dir.display());
            return Err(Error::Usage(text));
        }
        let path = self.file.clone().unwrap_or_else(|| self.dir.join("Dockerfile"));
        let (file, text) = read(&path)?;
        let mut dockerfile = Dockerfile::parse(&file, &text)?;
        if let Some(target) = &self.target {
            dockerfile.end_at(target)?;
        }
        let mut args = BuildArgs::new(self.args.clone());
        let invalid = |line| {
            let file = file.clone();
            move |why| Error::Dockerfile { file, line, why }
        };
        for arg in &dockerfile.args {
            for (name, value) in arguments(&arg.rest, &args.globals()).map_err(invalid(arg.line))? {
                args.declare_global(&name, value);
            }
        }
        let (mut bases, globals) = (Vec::new(), args.globals());
        for (at, stage) in dockerfile.stages.iter().enumerate() {
            let line = stage.from.line;
            let name = expand(&stage.base, &globals).map_err(invalid(line))?;
            if name.is_empty() {
                let why = format!("base name ({}) should not be blank", stage.base);
                return Err(invalid(line)(why));
            }
            let is_image = name != "scratch" && dockerfile.stage(at, &name).is_none();
            let platform = match stage.from.flag("platform") {
                Some(text) => {
                    let text = expand(text, &globals).map_err(invalid(line))?;
                    Some(text.parse().map_err(|e| invalid(line)(format!("{e}")))?)
                }
                None => None,
            };
            bases.push(is_image.then_some(BaseImage { name, platform }));
        }
        let mut sources: Vec<BaseImage> = Vec::new();
        for (at, stage) in dockerfile.stages.iter().enumerate() {
            for name in stage.instructions.iter().filter_map(|it| it.flag("from")) {
                let is_stage =
                    dockerfile.stage(at, name).is_some() || name.parse::<usize>().is_ok();
                if !is_stage && !name.is_empty() {
                    sources.push(BaseImage { name: name.to_owned(), platform: None });
                }
            }
        }
        Ok(PreparedBuild { build: self, file, dockerfile, args, bases, sources, path })
    }
}

impl PreparedBuild {
    /// Returns the images that must be in the store.
    pub fn images(&self) -> impl Iterator<Item = &BaseImage> {
        self.bases.iter().flatten().chain(&self.sources)
    }

    /// Builds the image with the programs that `runtime` runs. Commands have the network of the machine. The
    /// images of all steps stay in the store, also if a later step fails.
    ///
    /// # Errors
    /// [`Error::BuildCommand`] if a command fails, [`Error::Dockerfile`] if an instruction is invalid; an image
    /// is missing, or the store cannot be written.
    pub fn run(self, runtime: &Runtime, host: &mut dyn BuildHost) -> Result<Built, Error> {
        steps::Steps::new(&self, runtime, host).run()
    }
}

/// Reads a Dockerfile. Returns what errors call it, too.
fn read(path: &Path) -> Result<(String, String), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fsutil::read(path, MAX_DOCKERFILE)
        .map_err(|e| Error::Usage(format!("cannot read the Dockerfile {}: {e}", path.display())))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::Usage(format!("{} is not UTF-8", path.display())))?;
    Ok((name, text))
}
