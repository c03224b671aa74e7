//! The log. Our own crates follow `FOOTBRIDGE_LOG` all the way down; foreign crates are never let below `info`,
//! whatever the filter says, because below that they may print bodies, headers and keys.

use std::fmt::Debug;

use tracing::{
    Event, Level, Metadata,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt,
    layer::{Context, Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use super::args::LogFormat;
use crate::config::{Diagnostic, Exit, values::nearest};

const VARIABLE: &str = "FOOTBRIDGE_LOG";
/// Our own news, and what troubles others.
/// The SDK complains of every event that it was made to leave closed for us to open.
const DEFAULT: &str = "warn,matrix_sdk_crypto::machine=error,footbridge=info";
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging to stderr.
pub fn start(format: LogFormat) -> Result<(), Diagnostic> {
    let request = std::env::var(VARIABLE).unwrap_or_default();
    let filter = filter(&request)?;
    let harmless = filter_fn(is_harmless);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(
            lines
                .with_filter(filter)
                .with_filter(harmless)
                .with_filter(NoiseFilter),
        )
        .try_init()
        .map_err(|error| {
            Diagnostic::new("B27", format!("the log cannot start: {error}")).exit(Exit::Failed)
        })
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let ours = metadata
        .target()
        .strip_prefix("footbridge")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':') || rest.starts_with('_'));
    // The SDK's record of requests has room for bodies at every level.
    let requests = metadata.target().contains("::http_client");
    ours || (*metadata.level() <= Level::INFO && !requests)
}

/// Leaves out what others complain of and is as it should be.
struct NoiseFilter;

impl<S> Filter<S> for NoiseFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if !event.metadata().target().starts_with("matrix_sdk_crypto") {
            return true;
        }
        let mut seen = RepeatedOlmMessage(false);
        event.record(&mut seen);
        !seen.0
    }
}

/// Whether an event is about a message of an Olm session that was decrypted before. After a kill the homeserver brings the
/// last of them again, and their keys are used up.
struct RepeatedOlmMessage(bool);

impl Visit for RepeatedOlmMessage {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.0 |= format!("{value:?}").contains("MissingMessageKey(");
    }
}

/// A level alone is about our own crates; `target=level` is about others.
fn filter(request: &str) -> Result<EnvFilter, Diagnostic> {
    let mut directives = vec![DEFAULT.to_owned()];
    for word in request
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let (target, level) = word.split_once('=').unwrap_or(("footbridge", word));
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(unknown_level(level));
        }
        directives.push(format!("{target}={level}"));
    }
    EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse(directives.join(","))
        .map_err(|error| {
            Diagnostic::new("B27", format!("{VARIABLE} cannot be understood: {error}"))
                .exit(Exit::Usage)
                .help("write a level, for example `debug`, or `target=level` separated by commas")
        })
}

fn unknown_level(level: &str) -> Diagnostic {
    let fault = Diagnostic::new("B27", format!("`{level}` in {VARIABLE} is not a log level"))
        .exit(Exit::Usage)
        .note(format!("the levels are {}", LEVELS.join(", ")));
    match nearest(level, LEVELS.iter().copied()) {
        Some(meant) => fault.help(format!("did you mean `{meant}`?")),
        None => fault.help(format!("write, for example, {VARIABLE}=debug")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(request: &str, log: impl FnOnce()) -> String {
        let paper = Paper::default();
        let pen = paper.clone();
        let layer = fmt::layer()
            .with_ansi(false)
            .with_writer(move || pen.clone())
            .with_filter(filter(request).unwrap())
            .with_filter(filter_fn(is_harmless))
            .with_filter(NoiseFilter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_crates_stay_above_debug_whatever_the_filter_says() {
        let log = written(
            "trace,hyper=trace,matrix_sdk=trace,tungstenite=trace,matrix_sdk::http_client=trace",
            || {
                tracing::trace!(target: "footbridge::portal", "ours");
                tracing::trace!(target: "footbridge_store", "the store's");
                tracing::debug!(target: "hyper", "canary");
                tracing::trace!(target: "matrix_sdk", "canary");
                tracing::debug!(target: "tungstenite", "canary");
                tracing::debug!(target: "footbridgelike", "canary");
                tracing::info!(target: "matrix_sdk::http_client", "canary");
                tracing::info!(target: "matrix_sdk", "allowed");
            },
        );
        assert!(
            log.contains("ours") && log.contains("the store's") && log.contains("allowed"),
            "{log}"
        );
        assert!(!log.contains("canary"), "{log}");
    }

    #[test]
    fn without_a_wish_our_news_and_the_troubles_of_others_are_logged() {
        let log = written("", || {
            tracing::info!(target: "footbridge::bridge", "news");
            tracing::debug!(target: "footbridge::bridge", "step");
            tracing::info!(target: "matrix_sdk", "chatter");
            tracing::warn!(target: "hyper", "trouble");
        });
        assert!(log.contains("news") && log.contains("trouble"), "{log}");
        assert!(!log.contains("step") && !log.contains("chatter"), "{log}");
    }

    #[test]
    fn what_was_decrypted_before_a_kill_is_no_trouble() {
        let log = written("", || {
            let error = "Decryption(MissingMessageKey(0))";
            tracing::warn!(target: "matrix_sdk_crypto::olm::account", ?error, "canary");
            let errors = [("session", "InvalidMAC")];
            tracing::warn!(target: "matrix_sdk_crypto::olm::account", ?errors, "another");
        });
        assert!(!log.contains("canary") && log.contains("another"), "{log}");
    }

    #[test]
    fn a_misspelt_level_is_told() {
        let fault = filter("debgu").unwrap_err();
        assert_eq!((fault.code, fault.exit), ("B27", Exit::Usage));
        assert_eq!(fault.help.as_deref(), Some("did you mean `debug`?"));
    }
}
