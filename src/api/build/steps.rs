//! The loop of a build: each instruction gives an image, above that of the one before.
//!
//! The store is locked only while a step looks up or adds an image, so that long commands delay no other
//! program. The writable mount of a command protects its image. If another program removes the image of the
//! last step between two steps, the build ends with an error.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::{BuildHost, Built, PreparedBuild};
use crate::api::image::Image;
use crate::api::run::container::discard;
use crate::api::run::inside::{accounts, tree};
use crate::api::run::{RunOptions, Runtime, Stdin};
use crate::build::copy::{Context, CopyError, CopyFrom, CopySpec, prepare};
use crate::build::{BuildArgs, CopyStep, Instruction, Outcome, Stage, StageState, cached, trigger};
use crate::bundle::{Accounts, EnvChange, Network};
use crate::error::Error;
use crate::fsutil::{self, At};
use crate::import::{EMPTY_TAR, Import, NewImage, Source, Staged};
use crate::layer::Limits;
use crate::oci::{ImageConfig, ImageId};
use crate::overlay::{MergedTree, Stack, XattrSpace};
use crate::store::{LayerRecord, Lock, MountDir};

/// Digits of an ID that docker shows.
const SHORT: usize = 12;

/// A build that runs.
pub(super) struct Steps<'a> {
    prepared: &'a PreparedBuild,
    runtime: &'a Runtime,
    host: &'a mut dyn BuildHost,
    args: BuildArgs,
    number: usize,
    total: usize,
    /// Whether an instruction of this stage was not in the cache, so that no later one can be.
    is_changed: bool,
    /// The images of the stages before.
    stages: Vec<Option<ImageId>>,
}

impl<'a> Steps<'a> {
    pub fn new(
        prepared: &'a PreparedBuild,
        runtime: &'a Runtime,
        host: &'a mut dyn BuildHost,
    ) -> Self {
        Self {
            prepared,
            runtime,
            host,
            args: prepared.args.clone(),
            number: 0,
            total: prepared.dockerfile.steps(),
            is_changed: false,
            stages: Vec::new(),
        }
    }

    pub fn run(mut self) -> Result<Built, Error> {
        for arg in &self.prepared.dockerfile.args {
            self.begin_step(arg)?;
        }
        for (at, stage) in self.prepared.dockerfile.stages.iter().enumerate() {
            let image = self.stage(at, stage)?;
            self.stages.push(image);
        }
        let unused = self.args.unused();
        if !unused.is_empty() {
            let unused = unused.join(" ");
            let text = format!("[Warning] One or more build-args [{unused}] were not consumed");
            self.host.line(&text)?;
        }
        let image = self.stages.last().copied().flatten();
        let none = || Error::Usage("No image was generated. Is your Dockerfile empty?".to_owned());
        let image = image.ok_or_else(none)?;
        self.host.line(&format!("Successfully built {}", short(&image)))?;
        let store = &self.prepared.build.store;
        let mut names = Vec::new();
        for name in &self.prepared.build.tags {
            store.tag(&image.to_string(), name)?;
            self.host.line(&format!("Successfully tagged {name}"))?;
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let name = names.first().map_or_else(|| image.to_string(), ToString::to_string);
        Ok(Built { image: Image::new(store.clone(), image, name), names })
    }

    fn begin_step(&mut self, instruction: &Instruction) -> Result<(), Error> {
        self.host.check()?;
        self.number += 1;
        self.host.line(&format!("Step {}/{} : {}", self.number, self.total, instruction.text))
    }

    /// Builds a stage. Returns its image.
    fn stage(&mut self, at: usize, stage: &Stage) -> Result<Option<ImageId>, Error> {
        self.begin_step(&stage.from)?;
        self.args.begin_stage();
        self.is_changed = self.prepared.build.no_cache;
        let base = self.base(at, stage)?;
        let below = base.as_ref().map(|base| base.config()).transpose()?;
        let of_base = base.as_ref().map(Image::id).zip(below.as_deref());
        let (mut state, triggers) = StageState::begin(of_base)?;
        if !triggers.is_empty() {
            let (count, s) = (triggers.len(), if triggers.len() == 1 { "" } else { "s" });
            self.host.line(&format!("# Executing {count} build trigger{s}"))?;
        }
        // Before the first of them runs.
        let parse = |text: &String| trigger(&self.prepared.file, stage.from.line, text);
        let triggers = triggers.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        for instruction in &triggers {
            self.host.check()?;
            self.instruction(&mut state, instruction)?;
        }
        self.end_step(&state)?;
        for instruction in &stage.instructions {
            self.begin_step(instruction)?;
            self.instruction(&mut state, instruction)?;
            self.end_step(&state)?;
        }
        Ok(state.image)
    }

    fn end_step(&mut self, state: &StageState) -> Result<(), Error> {
        let id = state.image.as_ref().map(short).unwrap_or_default();
        self.host.line(&format!(" ---> {id}"))
    }

    /// Finds the image that a stage begins with; `None` for scratch.
    fn base(&self, at: usize, stage: &Stage) -> Result<Option<Image>, Error> {
        let prepared = self.prepared;
        let store = &prepared.build.store;
        if let Some(base) = &prepared.bases[at] {
            let image = store.image(&base.name)?;
            if let Some(platform) = &base.platform {
                let config = ImageConfig::parse(&image.config()?)?;
                if !config.runs_on(platform) {
                    let text = format!("{} in the store is not for {platform}", base.name);
                    return Err(Error::Usage(text));
                }
            }
            return Ok(Some(image));
        }
        let globals = self.args.globals();
        let name = crate::import::expand(&stage.base, &globals).map_err(Error::Usage)?;
        let earlier = prepared.dockerfile.stage(at, &name);
        let id = earlier.and_then(|earlier| self.stages[earlier]);
        Ok(id.map(|id| Image::new(store.clone(), id, name)))
    }

    fn instruction(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
    ) -> Result<(), Error> {
        let invalid = |why| Error::Dockerfile {
            file: self.prepared.file.clone(),
            line: instruction.line,
            why,
        };
        let outcome = state.apply(instruction, &mut self.args).map_err(invalid)?;
        if let Outcome::Copy(copy) = outcome {
            return self.copy(state, &copy, instruction.line);
        }
        let (words, is_run) = match &outcome {
            Outcome::Config { history } => (state.comment(history, false), false),
            Outcome::Directory { history, .. } => (state.comment(history, true), false),
            Outcome::Run { recorded, .. } => (recorded.clone(), true),
            Outcome::Copy(_) => return Ok(()),
        };
        let step = state.step(&words, is_run);
        if let Some(id) = self.probe(state, &step)? {
            self.host.line(" ---> Using cache")?;
            state.set_image(Some(id));
            return Ok(());
        }
        let changes = match outcome {
            Outcome::Config { .. } | Outcome::Copy(_) => None,
            Outcome::Directory { path, .. } => self.directory(state, &path)?,
            Outcome::Run { command, args, .. } => Some(self.command(state, command, args)?),
        };
        let committed = self.commit(state, &step, |import, parent| match &changes {
            Some(changes) => commit_layer(import, changes, parent),
            None => Ok(None),
        });
        if let Some(changes) = changes {
            discard(&self.prepared.build.store, changes);
        }
        state.set_image(Some(committed?));
        Ok(())
    }

    /// Copies files of the context or another image.
    fn copy(&mut self, state: &mut StageState, copy: &CopyStep, line: usize) -> Result<(), Error> {
        let prepared = self.prepared;
        let invalid = |why: String| {
            let why = format!("{} failed: {why}", copy.keyword);
            Error::Dockerfile { file: prepared.file.clone(), line, why }
        };
        let failed = |e: CopyError| invalid(e.to_string());
        let (step, tar) = {
            // The locks keep the images while they are read. They are released before the layer is added.
            let base = match &state.image {
                Some(_) => files(&self.image(state)?)?,
                None => None,
            };
            let (context, stage);
            let from = match &copy.from {
                None => {
                    let opened = Context::open(&prepared.build.dir, &prepared.path);
                    context = opened.map_err(failed)?;
                    CopyFrom::Context(&context)
                }
                Some(name) => {
                    let image = self.source(name, &invalid)?;
                    stage =
                        files(&image)?.ok_or_else(|| invalid(format!("{name} has no files")))?;
                    CopyFrom::Stage(&stage.tree)
                }
            };
            let owner = match &copy.owner {
                Some(owner) => {
                    // Without a group, it has the name of the user.
                    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
                    let group = if group.is_empty() { user } else { group };
                    let accounts = match &base {
                        Some(base) => accounts(&base.stack)?,
                        None => Accounts::default(),
                    };
                    let found = accounts.find(&format!("{user}:{group}"))?;
                    Some((found.uid, found.gid))
                }
                None => None,
            };
            let spec = CopySpec {
                sources: copy.sources.clone(),
                destination: copy.path.clone(),
                owner,
                mode: copy.mode,
                unpack: copy.keyword == "ADD",
            };
            let found = prepare(from, &spec, base.as_ref().map(|base| &base.tree));
            let found = found.map_err(failed)?;
            let step =
                state.step(&state.comment(&copy.history(&found.checksum_text()), true), false);
            if let Some(id) = self.probe(state, &step)? {
                self.host.line(" ---> Using cache")?;
                state.set_image(Some(id));
                return Ok(());
            }
            let mut tar = prepared.build.store.begin().scratch_file()?;
            let written = found.write(std::io::BufWriter::new(&tar));
            written.map_err(failed)?;
            std::io::Seek::rewind(&mut tar).at("read", Path::new("the layer"))?;
            (step, tar)
        };
        let id = self.commit(state, &step, |import, parent| {
            let staged = import.stage(Source::new(copy.keyword.clone(), tar).plain())?;
            add(import, staged, parent)
        })?;
        state.set_image(Some(id));
        Ok(())
    }

    /// Finds what `--from` names: an earlier stage by its name or number, or an image.
    fn source(&self, name: &str, invalid: &dyn Fn(String) -> Error) -> Result<Image, Error> {
        let store = &self.prepared.build.store;
        let at = self.prepared.dockerfile.stage(self.stages.len(), name);
        let at = at.or_else(|| name.parse().ok());
        match at {
            None => store.image(name),
            Some(at) => {
                let id = self.stages.get(at).copied().flatten();
                let id = id.ok_or_else(|| invalid(format!("there is no stage {name} before")))?;
                Ok(Image::new(store.clone(), id, name.to_owned()))
            }
        }
    }

    /// Looks into the cache.
    fn probe(&mut self, state: &StageState, step: &Value) -> Result<Option<ImageId>, Error> {
        if self.is_changed {
            return Ok(None);
        }
        let found = self
            .prepared
            .build
            .store
            .read_and_keep(|store| Ok(cached(store, state.image.as_ref(), step)))?;
        let id = found.0?;
        self.is_changed = id.is_none();
        Ok(id)
    }

    fn image(&self, state: &StageState) -> Result<Image, Error> {
        let none = || Error::Usage("a stage from scratch has no programs to run".to_owned());
        let id = state.image.ok_or_else(none)?;
        Ok(Image::new(self.prepared.build.store.clone(), id, id.to_string()))
    }

    /// Runs a command. Returns its writable mount.
    fn command(
        &mut self,
        state: &StageState,
        command: Vec<String>,
        args: Vec<String>,
    ) -> Result<MountDir, Error> {
        let image = self.image(state)?;
        let name = fsutil::random_hex::<6>().at("generate", Path::new("a name"))?;
        let shown = command.join(" ");
        let mut options = RunOptions {
            name: Some(name.clone()),
            command,
            // Removes that of the image.
            entrypoint: Some(String::new()),
            network: Network::Host,
            output: self.host.output()?,
            lent: true,
            ..RunOptions::default()
        };
        for arg in &args {
            options.env.push(EnvChange::parse(arg, &|_| None)?);
        }
        self.host.line(&format!(" ---> Running in {name}"))?;
        let runtime = self.runtime;
        let ended = self.host.run(&mut || image.run(&options, runtime, Stdin::Null))?;
        let none = || Error::Internal("a command has left no changes".to_owned());
        let changes = ended.mount.ok_or_else(none)?;
        if ended.code != 0 {
            discard(&self.prepared.build.store, changes);
            return Err(Error::BuildCommand { command: shown, code: ended.code });
        }
        self.host.line(&format!("Removing intermediate container {name}"))?;
        Ok(changes)
    }

    /// Creates a directory of the image, if it is missing. Returns the writable mount that has it.
    fn directory(&self, state: &StageState, path: &str) -> Result<Option<MountDir>, Error> {
        if state.image.is_none() {
            return Ok(None);
        }
        let changes = self.image(state)?.change(|root| create(root, path))?;
        Ok(Some(changes))
    }

    /// Adds the image of a step.
    fn commit(
        &self,
        state: &StageState,
        step: &Value,
        layer: impl FnOnce(&Import, Option<&LayerRecord>) -> Result<Option<LayerRecord>, Error>,
    ) -> Result<ImageId, Error> {
        let import = self.prepared.build.store.begin_import(Limits::default())?;
        let (mut layers, below) = match &state.image {
            Some(id) => {
                let (layers, below) = import.layers_of(id)?;
                (layers, Some(below))
            }
            None => (Vec::new(), None),
        };
        let layer = layer(&import, layers.last())?;
        let diff_id = layer.as_ref().map(|layer| layer.diff_id);
        layers.extend(layer);
        let config = state.config(below.as_deref(), step, diff_id)?;
        let parent = state.image;
        import.image(NewImage { config: &config, layers: &layers, names: &[], parent })
    }
}

/// The files of an image, and the lock that keeps them.
struct ImageFiles {
    tree: MergedTree,
    stack: Stack,
    _lock: Option<Lock>,
}

/// Returns the files of an image; `None` if it has no layers.
fn files(image: &Image) -> Result<Option<ImageFiles>, Error> {
    if image.layers()?.is_empty() {
        return Ok(None);
    }
    let ((stack, _), lock) = image.stack(None)?;
    Ok(Some(ImageFiles { tree: tree(&stack)?, stack, _lock: lock }))
}

/// Adds the changes of a mount as a layer; `None` if there are none.
fn commit_layer(
    import: &Import,
    changes: &MountDir,
    parent: Option<&LayerRecord>,
) -> Result<Option<LayerRecord>, Error> {
    let space = match changes.record().userxattr {
        true => XattrSpace::User,
        false => XattrSpace::Trusted,
    };
    let staged = import.stage_changes(changes.name(), (&changes.upper(), space), None)?;
    add(import, staged, parent)
}

/// Adds a staged layer, unless it is empty.
fn add(
    import: &Import,
    staged: Staged<'_>,
    parent: Option<&LayerRecord>,
) -> Result<Option<LayerRecord>, Error> {
    match staged.diff_id().to_string() == EMPTY_TAR {
        true => Ok(None),
        false => Ok(Some(import.commit(parent, staged)?)),
    }
}

/// Creates a directory and its parents below `root`. No link leads out of it.
fn create(root: &Path, path: &str) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let failed = |e: Errno| {
        Error::Usage(format!(
            "cannot create the working directory {path}: {}",
            std::io::Error::from(e)
        ))
    };
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(failed)?;
    let mut walked = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = rustix::fs::openat2(&top, &*walked, flags, Mode::empty(), resolve);
        let parent = parent.map_err(failed)?;
        walked.push_str(part);
        match rustix::fs::openat2(&top, &*walked, flags, Mode::empty(), resolve) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(&parent, part, mode).map_err(failed)?;
                let none = rustix::fs::AtFlags::empty();
                rustix::fs::chmodat(&parent, part, mode, none).map_err(failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
        walked.push('/');
    }
    Ok(())
}

fn short(id: &ImageId) -> String {
    id.hex().chars().take(SHORT).collect()
}
