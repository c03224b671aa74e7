//! Reads the bytes of the file into a [`Config`]: the file, its syntax, and its diagnostics in order.

use std::{ops::Range, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    Config,
    diagnostic::{Diagnostic, Exit, Report, Source},
    mask,
    schema::{ParseExtent, Schema},
    secret_file,
    sections::ConfigReader,
};

pub(super) fn load(path: &Path) -> Result<Config, Report> {
    let (bytes, metadata) = read_file(path).map_err(Report::of)?;
    let open = secret_file::open_to_others(path, &metadata, "the token in it");
    parse(path, bytes, open)
}

/// Checks the contents of the file; `open_to_others` is the diagnostic to report for a secret in it, where somebody
/// else may read the file.
pub(super) fn parse(
    path: &Path,
    bytes: Vec<u8>,
    open_to_others: Option<Diagnostic>,
) -> Result<Config, Report> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(path, &error)),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim().is_empty() {
        return Err(Report::of(no_file(
            format!("{} is empty", path.display()),
            "remove it and create one with `footbridge init`, or copy config.toml.example over it",
        )));
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.get_ref();
    let broken = errors
        .iter()
        .any(|error| error.message() != "duplicate key");
    let extent = if errors.is_empty() {
        ParseExtent::Whole
    } else {
        ParseExtent::Part
    };
    let masked = mask::secret_ranges(
        text,
        root,
        if broken {
            ParseExtent::Part
        } else {
            ParseExtent::Whole
        },
    );
    let source = Arc::new(Source::new(path, text, &masked));

    let syntax: Vec<Diagnostic> = errors
        .iter()
        .map(|error| syntax_error(error, root))
        .collect();
    let mut reader = ConfigReader {
        schema: Schema::new(extent),
        base: path.parent().unwrap_or(Path::new("")),
        file: path,
        open_to_others,
    };
    let config = reader.config(root, &source);
    let mut diagnostics = reader.schema.diagnostics;
    // What the parser guessed about a broken line is not worth a second diagnostic.
    diagnostics.retain(|diagnostic| {
        !diagnostic
            .labels
            .first()
            .is_some_and(|label| on_a_line_of(text, &label.span, &syntax))
    });
    diagnostics.extend(syntax);
    diagnostics.sort_by_key(|diagnostic| {
        diagnostic
            .labels
            .first()
            .map_or(0, |label| label.span.start)
    });
    match config {
        Some(config) if diagnostics.is_empty() => Ok(config),
        _ => Err(Report {
            source: Some(source),
            diagnostics,
        }),
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), Diagnostic> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(no_file(
            format!("{shown} is a directory, not a file"),
            "name the file in it with --config",
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    Ok((bytes, metadata))
}

fn no_file(what: String, help: &str) -> Diagnostic {
    Diagnostic::new("B06", what).exit(Exit::NoInput).help(help)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => no_file(
            format!("{shown} does not exist"),
            "create one with `footbridge init`, or name another with --config",
        ),
        std::io::ErrorKind::PermissionDenied => {
            let found = std::fs::metadata(path).map_or_else(
                |_| "the permission to search its directory is missing".to_owned(),
                |metadata| {
                    format!(
                        "it belongs to user {} and has mode {:04o}",
                        metadata.uid(),
                        metadata.mode() & 0o777
                    )
                },
            );
            Diagnostic::new("B07", format!("{shown} cannot be read: permission denied"))
                .exit(Exit::Permission)
                .note(found)
                .help(secret_file::to_be_given(path))
        }
        _ => Diagnostic::new("B07", format!("{shown} cannot be read: {error}"))
            .exit(Exit::Io)
            .help("check the file system"),
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Report {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let masked = mask::secret_ranges(&text, &DeTable::new(), ParseExtent::Part);
    let diagnostic = Diagnostic::new("B05", "the file is not UTF-8")
        .labelled(at..at + 1, "this byte is not a character")
        .help("save the file as UTF-8");
    Report {
        source: Some(Arc::new(Source::new(path, &text, &masked))),
        diagnostics: vec![diagnostic],
    }
}

fn syntax_error(error: &toml::de::Error, root: &DeTable<'_>) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    if error.message() == "duplicate key" {
        let diagnostic =
            Diagnostic::new("B03", "this is given twice").labelled(span.clone(), "the second one");
        let diagnostic = match earlier(root, &span) {
            Some(first) => diagnostic.labelled(first, "the first one"),
            None => diagnostic,
        };
        return diagnostic.help("keep one of them");
    }
    let help = if error.message().contains("quote") || error.message().contains("string") {
        "write texts in double quotes, all on one line: key = \"value\""
    } else {
        "write `key = value` lines below a `[table]` line, and texts in double quotes"
    };
    Diagnostic::new("B05", format!("this is not TOML: {}", error.message()))
        .at(span)
        .help(help)
}

// The last key before `span` of the same length: the first of two duplicate keys.
fn earlier(root: &DeTable<'_>, span: &Range<usize>) -> Option<Range<usize>> {
    fn keys(table: &DeTable<'_>, found: &mut Vec<Range<usize>>, length: usize) {
        for (key, value) in table {
            if key.span().len() == length {
                found.push(key.span());
            }
            match value.get_ref() {
                DeValue::Table(inner) => keys(inner, found, length),
                DeValue::Array(items) => items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .for_each(|inner| keys(inner, found, length)),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    keys(root, &mut found, span.len());
    found
        .into_iter()
        .filter(|key| key.start < span.start)
        .max_by_key(|key| key.start)
}

fn on_a_line_of(text: &str, span: &Range<usize>, diagnostics: &[Diagnostic]) -> bool {
    let line = |at: usize| {
        text.get(..at.min(text.len()))
            .map_or(0, |before| before.matches('\n').count())
    };
    diagnostics
        .iter()
        .filter_map(|diagnostic| diagnostic.labels.first())
        .any(|label| (line(label.span.start)..=line(label.span.end)).contains(&line(span.start)))
}
