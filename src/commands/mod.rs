//! One file per command: its flags, and a `run` that calls the library and prints.

pub mod build;
pub mod bundle;
pub mod cat;
pub mod check;
pub mod commit;
pub mod completions;
mod container;
pub mod copy;
pub mod cp;
pub mod df;
pub mod diff;
pub mod export;
pub mod gc;
pub mod history;
pub mod images;
pub mod inspect;
pub mod layers;
pub mod load;
pub mod ls;
#[cfg(feature = "man")]
pub mod man;
pub mod mount;
pub mod mounts;
pub mod prune;
pub mod pull;
pub mod push;
pub mod resolve;
pub mod rm;
pub mod run;
pub mod save;
mod signals;
pub mod tag;
pub mod umount;
pub mod unshare;

use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use directories::ProjectDirs;
use tokio::runtime::Runtime;

use rpull::credentials::{Credential, Found, Secret};
use rpull::{Client, ClientBuilder, Error, Platform, Store};

use crate::cli::failure::Failure;
use crate::cli::flags::{Cli, Command, Global, PlatformFlag, RegistryFlags};
use crate::cli::format::Format;
use crate::cli::{output, unknown};

/// Threads of the async runtime at most, which receive bytes: they keep up with any connection.
const MAX_WORKERS: usize = 4;

/// Blocking threads besides those of the layers, for name resolution and short work on the store.
const SPARE_THREADS: usize = 2;

/// What every command needs of the flags.
pub struct Context {
    /// The flags of all commands.
    pub global: Global,
    root: PathBuf,
}

/// Runs what the command line says.
///
/// # Errors
/// Why it failed.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let context = root(cli.global.root.as_deref()).map(|root| Context { root, global: cli.global });
    let unknown = cli.first_image.and_then(|word| Some((unknown::command(&word)?, word)));
    if let Some((failure, word)) = unknown
        && !context.as_ref().is_ok_and(|context| context.has_image(&word))
    {
        return Err(failure);
    }
    let context = &context?;
    let has_fields =
        matches!(cli.command, Command::Images(_) | Command::History(_) | Command::Inspect(_));
    if !has_fields && matches!(context.global.format, Format::Lines(_) | Format::Table(_)) {
        let text = "templates work with images, history and inspect; use --format json here";
        return Err(Error::Usage(text.to_owned()).into());
    }
    if matches!(context.global.format, Format::Archive(_))
        && !matches!(cli.command, Command::Save(_))
    {
        return Err(Error::Usage("the formats oci and docker work with save".to_owned()).into());
    }
    match cli.command {
        Command::Pull(command) => command.run(context)?,
        Command::Push(command) => command.run(context)?,
        Command::Copy(command) => command.run(context)?,
        Command::Resolve(command) => command.run(context)?,
        Command::Images(command) => command.run(context)?,
        Command::Inspect(command) => command.run(context)?,
        Command::Layers(command) => command.run(context)?,
        Command::History(command) => command.run(context)?,
        Command::Ls(command) => command.run(context)?,
        Command::Cat(command) => command.run(context)?,
        Command::Cp(command) => command.run(context)?,
        Command::Export(command) => command.run(context)?,
        Command::Mount(command) => command.run(context)?,
        Command::Mounts(command) => command.run(context)?,
        Command::Umount(command) => command.run(context)?,
        Command::Rm(command) => command.run(context)?,
        Command::Load(command) => command.run(context)?,
        Command::Run(command) => return command.run(context),
        Command::Build(command) => return command.run(context),
        Command::Bundle(command) => command.run(context)?,
        Command::Unshare(command) => return Err(command.run(context)),
        Command::Save(command) => command.run(context)?,
        Command::Commit(command) => command.run(context)?,
        Command::Tag(command) => command.run(context)?,
        Command::Check(command) => command.run(context)?,
        Command::Df(command) => command.run(context)?,
        Command::Diff(command) => command.run(context)?,
        Command::Gc(command) => command.run(context)?,
        Command::Prune(command) => command.run(context)?,
        Command::Completions(command) => command.run(context)?,
        #[cfg(feature = "man")]
        Command::Man(command) => command.run(context)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `--root`, `RPULL_ROOT`, or the data directory of this user; absolute, because the mount
/// lines and layer paths that are printed must be.
fn root(chosen: Option<&Path>) -> Result<PathBuf, Error> {
    let root = match chosen {
        Some(root) => root.to_owned(),
        None => ProjectDirs::from("", "", "rpull")
            .map(|dirs| dirs.data_dir().to_owned())
            .ok_or_else(|| {
                Error::Other("there is no home directory: choose a store with --root".to_owned())
            })?,
    };
    std::path::absolute(&root).map_err(|e| Error::Other(format!("--root {}: {e}", root.display())))
}

impl Context {
    /// The store that the flags name. Its methods report on standard error which lock they wait
    /// for.
    ///
    /// # Errors
    /// The root is not a path.
    pub fn store(&self) -> Result<Store, Error> {
        let waiting = |what: &str| output::notice(&format!("waiting for {what}"));
        let store = Store::open(&self.root)?.on_wait(waiting).on_drop(output::warning);
        Ok(match &self.global.content {
            Some(content) => store.with_content(content),
            None => store,
        })
    }

    /// Whether the store has an image of this repository. Waits for no lock.
    fn has_image(&self, repository: &str) -> bool {
        let names = self.store().and_then(|store| store.names()).unwrap_or_default();
        names.iter().any(|name| name.repository().to_string() == repository)
    }

    /// Whether results are printed as JSON.
    pub fn json(&self) -> bool {
        matches!(self.global.format, Format::Json)
    }
}

impl PlatformFlag {
    /// The platform that was asked for.
    ///
    /// # Errors
    /// It is not a platform.
    pub fn parsed(&self) -> Result<Option<Platform>, Error> {
        Ok(self.platform.as_deref().map(str::parse).transpose()?)
    }
}

impl RegistryFlags {
    /// The client that the flags and the environment describe.
    ///
    /// # Errors
    /// A password is missing, or a directory of certificates.
    pub fn client(&self) -> Result<Client, Error> {
        let mut builder = ClientBuilder::from_env()
            .plain_http(self.plain_http)
            .retries(self.retries)
            .outage_timeout(Duration::from_secs(self.outage_timeout))
            .stall_timeout(Duration::from_secs(self.stall_timeout));
        if let Some(found) = self.credential()? {
            builder = builder.credential(found);
        }
        if let Some(path) = &self.auth_file {
            builder = builder.auth_file(path);
        }
        for host in &self.insecure {
            builder = builder.insecure(host);
        }
        for dir in &self.certs_dir {
            if !dir.is_dir() {
                let text = format!("--certs-dir {}: there is no such directory", dir.display());
                return Err(Error::Usage(text));
            }
            builder = builder.certs_dir(dir);
        }
        Ok(builder.build())
    }

    fn credential(&self) -> Result<Option<Found>, Error> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(token) = env("RPULL_TOKEN") {
            return Ok(Some(explicit(Credential::Bearer(Secret::new(token)))));
        }
        let Some(username) = self.username.clone() else { return Ok(None) };
        let password =
            if self.password_stdin { Some(password_from_stdin()?) } else { env("RPULL_PASSWORD") };
        let none = || {
            Error::Other(
                "--username needs a password: add --password-stdin or set RPULL_PASSWORD"
                    .to_owned(),
            )
        };
        let password = Secret::new(password.ok_or_else(none)?);
        Ok(Some(explicit(Credential::Basic { username, password })))
    }
}

fn explicit(credential: Credential) -> Found {
    Found::new(credential, "the flags or RPULL_* variables")
}

fn password_from_stdin() -> Result<String, Error> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Error::Other(format!("cannot read the password from standard input: {e}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// The runtime for requests to registries. Half of the cores can receive more than the other half
/// can unpack.
///
/// # Errors
/// [`Error::Threads`] if the system refuses threads.
pub fn runtime() -> Result<Runtime, Error> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = (cores / 2).clamp(1, MAX_WORKERS);
    rpull::internal::try_threads(workers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        // Once refused, a thread that ended could not be replaced.
        .thread_keep_alive(Duration::from_secs(24 * 3600))
        .enable_all()
        .build()
        .map_err(|e| Error::Other(format!("cannot start the async runtime: {e}")))?;
    rpull::internal::reserve_threads(runtime.handle(), SPARE_THREADS)?;
    Ok(runtime)
}

/// Runs `work` until it is done or the user presses Ctrl-C. Then it is dropped, which gives
/// up all transfers; what blocks ends by itself, and is waited for when the runtime is
/// dropped, so that nothing half done is left. A second Ctrl-C does not wait.
///
/// # Errors
/// [`Error::Interrupted`].
pub async fn interruptible<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let interrupted = async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let terminated = async {
            match &mut terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminated => {} }
    };
    tokio::select! {
        done = work => Ok(done),
        () = interrupted => {
            // What is staged stays in the journal if another process holds the locks.
            rpull::internal::stop_waiting();
            tokio::spawn(async {
                let _ = tokio::signal::ctrl_c().await;
                #[expect(clippy::exit, reason = "the user insists; the journal names what is left")]
                std::process::exit(130);
            });
            Err(Error::Interrupted)
        }
    }
}
