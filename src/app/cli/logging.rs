//! The log. The bridge's own crates follow `FOOTBRIDGE_LOG` down to every level; foreign crates never log below `info`,
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
/// `info` of the bridge's own crates and `warn` of the others. The SDK logs a warning for every event that the bridge
/// makes it leave encrypted, to decrypt it itself.
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
    // The SDK's log of requests may contain bodies at every level.
    let requests = metadata.target().contains("::http_client");
    ours || (*metadata.level() <= Level::INFO && !requests)
}

/// Drops log events of the SDK about something that is expected.
struct NoiseFilter;

/// A target and a text that only expected events contain. After a kill the homeserver sends the last messages of an Olm session
/// again, and their message keys are used up. And at the end of the process the SDK's background tasks lose their databases.
const EXPECTED: &[(&str, &str)] = &[
    ("matrix_sdk_crypto", "MissingMessageKey("),
    ("matrix_sdk::encryption", "OperationAborted"),
    ("matrix_sdk::client", "requested an abort"),
];

impl<S> Filter<S> for NoiseFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let target = event.metadata().target();
        let mut expected = EXPECTED.iter();
        !expected.any(|(prefix, text)| {
            let mut search = FieldSearch { text, found: false };
            if target.starts_with(prefix) {
                event.record(&mut search);
            }
            search.found
        })
    }
}

/// Whether a field of a log event contains a text.
struct FieldSearch {
    text: &'static str,
    found: bool,
}

impl Visit for FieldSearch {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.found |= format!("{value:?}").contains(self.text);
    }
}

/// A level alone applies to the bridge's own crates; `target=level` applies to others.
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
            Diagnostic::new("B27", format!("{VARIABLE} is invalid: {error}"))
                .exit(Exit::Usage)
                .help("write a level, for example `debug`, or `target=level` separated by commas")
        })
}

fn unknown_level(level: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new("B27", format!("`{level}` in {VARIABLE} is not a log level"))
        .exit(Exit::Usage)
        .note(format!("the levels are {}", LEVELS.join(", ")));
    match nearest(level, LEVELS.iter().copied()) {
        Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
        None => diagnostic.help(format!("write, for example, {VARIABLE}=debug")),
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
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(request: &str, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_filter(filter(request).unwrap())
            .with_filter(filter_fn(is_harmless))
            .with_filter(NoiseFilter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_crates_stay_above_debug_with_any_filter() {
        let log = written(
            "trace,hyper=trace,matrix_sdk=trace,tungstenite=trace,matrix_sdk::http_client=trace",
            || {
                tracing::trace!(target: "footbridge::portal", "own trace");
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
            log.contains("own trace") && log.contains("the store's") && log.contains("allowed"),
            "{log}"
        );
        assert!(!log.contains("canary"), "{log}");
    }

    #[test]
    fn by_default_own_infos_and_foreign_warnings_are_logged() {
        let log = written("", || {
            tracing::info!(target: "footbridge::bridge", "own info message");
            tracing::debug!(target: "footbridge::bridge", "step");
            tracing::info!(target: "matrix_sdk", "chatter");
            tracing::warn!(target: "hyper", "foreign warning");
        });
        assert!(
            log.contains("own info message") && log.contains("foreign warning"),
            "{log}"
        );
        assert!(!log.contains("step") && !log.contains("chatter"), "{log}");
    }

    #[test]
    fn a_repeated_olm_message_is_not_logged() {
        let log = written("", || {
            let error = "Decryption(MissingMessageKey(0))";
            tracing::warn!(target: "matrix_sdk_crypto::olm::account", ?error, "canary");
            let errors = [("session", "InvalidMAC")];
            tracing::warn!(target: "matrix_sdk_crypto::olm::account", ?errors, "another");
        });
        assert!(!log.contains("canary") && log.contains("another"), "{log}");
    }

    #[test]
    fn an_aborted_task_of_the_sdk_is_not_logged() {
        let log = written("", || {
            let error = "SqliteFailure(Error { code: OperationAborted, extended_code: 4 }, None)";
            tracing::error!(target: "matrix_sdk::encryption", "canary {error}");
            tracing::error!(target: "matrix_sdk::encryption", "another");
        });
        assert!(!log.contains("canary") && log.contains("another"), "{log}");
    }

    #[test]
    fn a_misspelt_level_is_reported() {
        let diagnostic = filter("debgu").unwrap_err();
        assert_eq!((diagnostic.code, diagnostic.exit), ("B27", Exit::Usage));
        assert_eq!(diagnostic.help.as_deref(), Some("did you mean `debug`?"));
    }
}
