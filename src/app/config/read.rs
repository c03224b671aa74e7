//! From the bytes of the file to a [`Config`]: reading it, its syntax, and its faults in order.

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
    let (bytes, facts) = read_file(path).map_err(Report::of)?;
    let open = secret_file::open_to_others(path, &facts, "the token in it");
    parse(path, bytes, open)
}

/// What stands in the file; `open_to_others` where somebody else may read it.
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
            "remove it and let `footbridge init` write one, or copy config.toml.example over it",
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
        .map(|error| syntax_fault(error, root))
        .collect();
    let mut reader = ConfigReader {
        schema: Schema::new(extent),
        base: path.parent().unwrap_or(Path::new("")),
        file: path,
        open_to_others,
    };
    let config = reader.config(root, &source);
    let mut faults = reader.schema.diagnostics;
    // What the parser guessed about a broken line is not worth a second complaint.
    faults.retain(|fault| {
        !fault
            .labels
            .first()
            .is_some_and(|mark| on_a_line_of(text, &mark.span, &syntax))
    });
    faults.extend(syntax);
    faults.sort_by_key(|fault| fault.labels.first().map_or(0, |mark| mark.span.start));
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Report {
            source: Some(source),
            diagnostics: faults,
        }),
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), Diagnostic> {
    let shown = path.display();
    let facts = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if facts.is_dir() {
        return Err(no_file(
            format!("{shown} is a directory, not a file"),
            "name the file in it with --config",
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    Ok((bytes, facts))
}

fn no_file(what: String, help: &str) -> Diagnostic {
    Diagnostic::new("B06", what).exit(Exit::NoInput).help(help)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => no_file(
            format!("{shown} does not exist"),
            "let `footbridge init` write one, or name another with --config",
        ),
        std::io::ErrorKind::PermissionDenied => {
            let found = std::fs::metadata(path).map_or_else(
                |_| "its directory may not be searched".to_owned(),
                |facts| {
                    format!(
                        "it belongs to user {} and has mode {:04o}",
                        facts.uid(),
                        facts.mode() & 0o777
                    )
                },
            );
            Diagnostic::new("B07", format!("{shown} may not be read"))
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
    let fault = Diagnostic::new("B05", "the file is not UTF-8")
        .labelled(at..at + 1, "this byte is no character")
        .help("save the file as UTF-8");
    Report {
        source: Some(Arc::new(Source::new(path, &text, &masked))),
        diagnostics: vec![fault],
    }
}

fn syntax_fault(error: &toml::de::Error, root: &DeTable<'_>) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    if error.message() == "duplicate key" {
        let fault =
            Diagnostic::new("B03", "this is here twice").labelled(span.clone(), "the second one");
        let fault = match earlier(root, &span) {
            Some(first) => fault.labelled(first, "the first one"),
            None => fault,
        };
        return fault.help("keep one of them");
    }
    let help = if error.message().contains("quote") || error.message().contains("string") {
        "write texts in double quotes, all on one line: key = \"value\""
    } else {
        "write `key = value` lines below a `[table]` line; texts stand in double quotes"
    };
    Diagnostic::new("B05", format!("this is not TOML: {}", error.message()))
        .at(span)
        .help(help)
}

// The last key before `span` that spans as much and stands in the same table: where the first of two stands.
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

fn on_a_line_of(text: &str, span: &Range<usize>, faults: &[Diagnostic]) -> bool {
    let line = |at: usize| {
        text.get(..at.min(text.len()))
            .map_or(0, |before| before.matches('\n').count())
    };
    faults
        .iter()
        .filter_map(|fault| fault.labels.first())
        .any(|mark| (line(mark.span.start)..=line(mark.span.end)).contains(&line(span.start)))
}
