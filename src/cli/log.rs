//! The log on standard error: what the library does, from its `tracing` events and spans.
//!
//! `-v` or `RPULL_LOG` chooses what is printed. Only events of rpull itself are: those of the HTTP
//! libraries can contain credentials.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use rpull::Error;

use super::output;

/// The targets of rpull's own events.
const OWN: &str = "rpull";

/// Which events are printed: a level, and other levels for some modules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    all: LevelFilter,
    /// A target or the beginning of one, and its level. The longest that matches is used.
    modules: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// The filter of `-v`, given `count` times.
    fn of_count(count: u8) -> Self {
        let all = match count {
            0 => LevelFilter::OFF,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        Self { all, modules: Vec::new() }
    }

    /// Returns the level for `target`.
    fn level(&self, target: &str) -> LevelFilter {
        let is_own = is_within(target, OWN);
        let matching = self.modules.iter().filter(|(module, _)| is_within(target, module));
        let longest = matching.max_by_key(|(module, _)| module.len());
        match longest {
            _ if !is_own => LevelFilter::OFF,
            Some((_, level)) => *level,
            None => self.all,
        }
    }

    fn most(&self) -> LevelFilter {
        self.modules.iter().map(|(_, level)| *level).fold(self.all, LevelFilter::max)
    }
}

/// Whether `target` is `module` or below it.
fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl FromStr for Filter {
    type Err = String;

    /// Parses `LEVEL`, `MODULE=LEVEL`, or several of them with commas in between.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self { all: LevelFilter::OFF, modules: Vec::new() };
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.split_once('=') {
                None => filter.all = level(directive)?,
                Some((module, of_module)) => {
                    let module = match module.trim() {
                        own if is_within(own, OWN) => own.to_owned(),
                        below => format!("{OWN}::{below}"),
                    };
                    filter.modules.push((module, level(of_module.trim())?));
                }
            }
        }
        Ok(filter)
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return Err(format!("'{text}' is not off, error, warn, info, debug or trace")),
    })
}

/// Starts the log that `-v`, given `count` times, or `RPULL_LOG` asks for. The flag wins.
///
/// # Errors
/// [`Error::Usage`] if the variable is not a filter.
pub fn start(count: u8) -> Result<(), Error> {
    let variable = std::env::var_os("RPULL_LOG").filter(|_| count == 0);
    let filter = match variable {
        Some(text) => of_variable(text)?,
        None => Filter::of_count(count),
    };
    // Without a subscriber, an event costs one comparison.
    if filter.most() > LevelFilter::OFF {
        // It fails only if there is a subscriber, and this is the only place that sets one.
        let _ = tracing::subscriber::set_global_default(Log::new(filter, output::log));
    }
    Ok(())
}

fn of_variable(text: OsString) -> Result<Filter, Error> {
    let text = text.to_string_lossy();
    text.parse().map_err(|what| Error::Usage(format!("RPULL_LOG: {what}")))
}

/// Prints events as they come, and spans with their duration when they end.
struct Log<P> {
    filter: Filter,
    print: P,
    spans: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

/// A span that has not ended.
struct Open {
    references: usize,
    began: Instant,
    prefix: String,
    text: Text,
}

impl<P: Fn(&str)> Log<P> {
    fn new(filter: Filter, print: P) -> Self {
        Self { filter, print, spans: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn span<T>(&self, id: &Id, change: impl FnOnce(&mut HashMap<u64, Open>, u64) -> T) -> T {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut spans, id.into_u64())
    }
}

impl<P: Fn(&str) + Send + Sync + 'static> Subscriber for Log<P> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.filter.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.most())
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        (self.print)(&format!("{}{}", prefix(event.metadata()), text.0));
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        let open =
            Open { references: 1, began: Instant::now(), prefix: prefix(span.metadata()), text };
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.span(span, |spans, id| spans.get_mut(&id).map(|open| values.record(&mut open.text)));
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.span(span, |spans, id| spans.get_mut(&id).map(|open| open.references += 1));
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let closed = self.span(&span, |spans, id| {
            let open = spans.get_mut(&id)?;
            open.references -= 1;
            if open.references == 0 { spans.remove(&id) } else { None }
        });
        // Printed without the lock: the bars of a terminal may be redrawn first.
        if let Some(Open { began, prefix, text, .. }) = &closed {
            (self.print)(&format!("{prefix}{}: {} ms", text.0, began.elapsed().as_millis()));
        }
        closed.is_some()
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// `DEBUG registry: `
fn prefix(metadata: &Metadata<'_>) -> String {
    let target = metadata.target();
    let module = target.strip_prefix("rpull::").unwrap_or(target).split("::").next();
    let level: &Level = metadata.level();
    format!("{level} {}: ", module.unwrap_or(target))
}

/// The message, and other fields as `name=value`.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn lines_of(filter: &str, work: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out = lines.clone();
        let print = move |line: &str| out.lock().unwrap().push(line.to_owned());
        tracing::subscriber::with_default(Log::new(filter.parse().unwrap(), print), work);
        lines.lock().unwrap().clone()
    }

    #[test]
    fn filter_gives_the_level_of_the_longest_module() {
        let filter: Filter = "info, registry=debug,rpull::registry::parallel=off".parse().unwrap();
        for (target, level) in [
            ("rpull", LevelFilter::INFO),
            ("rpull::pull::plan", LevelFilter::INFO),
            ("rpull::registry", LevelFilter::DEBUG),
            ("rpull::registry::http", LevelFilter::DEBUG),
            ("rpull::registry_of_ships", LevelFilter::INFO),
            ("rpull::registry::parallel", LevelFilter::OFF),
        ] {
            assert_eq!(filter.level(target), level, "{target}");
        }
        assert_eq!(filter.most(), LevelFilter::DEBUG);
        assert_eq!("".parse(), Ok(Filter::of_count(0)));
        assert_eq!("TRACE".parse(), Ok(Filter::of_count(9)));
        for wrong in ["loud", "registry=", "registry=2", "=debug=info"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_of_other_crates_are_never_printed() {
        let lines = lines_of("trace", || {
            tracing::error!(target: "h2::codec", "authorization: secret");
            tracing::error!(target: "rpull_other", "other");
            tracing::trace!(target: "rpull::registry::http", "own");
        });
        assert_eq!(lines, ["TRACE registry: own"]);
    }

    #[test]
    fn event_is_printed_with_its_fields_and_a_span_when_it_ends() {
        let lines = lines_of("pull=debug", || {
            let span = tracing::debug_span!(target: "rpull::pull", "fetch", layer = "abc", n = 7);
            let clone = span.clone();
            span.in_scope(|| tracing::info!(target: "rpull::pull::plan", n = 1, "got {}", 2));
            drop(span);
            tracing::debug!(target: "rpull::store", "not of this module");
            tracing::info!(target: "rpull::pull", "still open");
            drop(clone);
        });
        assert_eq!(lines[..2], ["INFO pull: got 2 n=1", "INFO pull: still open"]);
        assert!(lines[2].starts_with("DEBUG pull: fetch layer=abc n=7: "), "{lines:?}");
        assert!(lines[2].ends_with(" ms") && lines.len() == 3, "{lines:?}");
    }
}
