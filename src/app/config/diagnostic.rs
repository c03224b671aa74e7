//! Diagnostics: what is wrong with the operator's input, reported as compilers report it: a code, a sentence, the place
//! in the file, and one edit or command that corrects it. No secret gets in here: the secret values of the source text
//! are masked before any diagnostic is made.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

/// The exit code of the program, after `sysexits.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Fine = 0,
    /// An error that has no code of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A file that should be there is not.
    NoInput = 66,
    /// A server cannot be reached or does not answer as it should.
    Unavailable = 69,
    /// A file or directory cannot be made.
    CannotCreate = 73,
    /// A file cannot be read or is damaged.
    Io = 74,
    /// Another process holds the store or the address.
    Locked = 75,
    /// Something is not permitted, or others may read a file that they should not.
    Permission = 77,
    /// The configuration is wrong.
    #[default]
    Configuration = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How severe a diagnostic is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// The program does not continue.
    #[default]
    Error,
    /// The program continues; somebody should look at it.
    Warning,
}

/// A labelled position in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The bytes of the source.
    pub span: Range<usize>,
    /// The text beside the caret.
    pub label: Option<String>,
}

impl From<Range<usize>> for Label {
    fn from(span: Range<usize>) -> Self {
        Self { span, label: None }
    }
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its number in the list of known errors, for example `B01`.
    pub code: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// The exit code of the program because of it.
    pub exit: Exit,
    /// What is wrong, one sentence without a period.
    pub what: String,
    /// The positions, the offending one first.
    pub labels: Vec<Label>,
    /// What else is known.
    pub notes: Vec<String>,
    /// One edit or command that corrects it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error of the configuration, without a position.
    #[must_use]
    pub fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            exit: Exit::Configuration,
            what: what.into(),
            labels: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self.exit = Exit::Fine;
        self
    }

    /// Adds a position.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.labels.push(span.into());
        self
    }

    /// Adds a position with a text beside the caret.
    #[must_use]
    pub fn labelled(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            label: Some(label.into()),
        });
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Sets what corrects it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The diagnostic as text. Positions are shown only where `source` is given.
    #[must_use]
    pub fn render(&self, source: Option<&Source>, style: ColorChoice) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(clean(&self.what))
            .id(self.code)
            .elements(
                source
                    .filter(|_| !self.labels.is_empty())
                    .map(|source| self.snippet(source)),
            );
        for note in &self.notes {
            group = group.element(Level::NOTE.message(clean(note)));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(clean(help)));
        }
        style.renderer().render(&[group as Group<'_>])
    }

    fn snippet<'a>(&'a self, source: &'a Source) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let annotations = self.labels.iter().enumerate().map(|(nth, label)| {
            let kind = if nth == 0 {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            kind.span(source.within(&label.span))
                .label(label.label.as_deref())
        });
        Snippet::source(source.shown.as_str())
            .path(source.path.as_str())
            .annotations(annotations)
    }
}

// A sentence may contain what a person wrote; that must not be able to send control sequences to the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Whether colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorChoice {
    /// Characters only.
    Never,
    /// With colours, for a terminal.
    Always,
}

impl ColorChoice {
    fn renderer(self) -> Renderer {
        match self {
            Self::Never => Renderer::plain(),
            Self::Always => Renderer::styled(),
        }
        .decor_style(DecorStyle::Ascii)
    }
}

/// The configuration file as it may be shown: its secret values are masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    path: String,
    shown: String,
    secret: Vec<Range<usize>>,
}

/// How many characters a masked value seems to have, whatever its length.
const MASK_WIDTH: usize = 6;

impl Source {
    /// The text of the file `path`, with the bytes in `secret` masked.
    #[must_use]
    pub fn new(path: &Path, text: &str, secret: &[Range<usize>]) -> Self {
        let mut shown = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            let hidden = secret.iter().find(|range| range.contains(&at));
            match hidden {
                Some(range) if c != '\n' && c != '\r' => {
                    // As many bytes as before, so that every other position stays the same.
                    let mask = if at < range.start + MASK_WIDTH {
                        '*'
                    } else {
                        ' '
                    };
                    shown.extend(std::iter::repeat_n(mask, c.len_utf8()));
                }
                _ => shown.push(c),
            }
        }
        Self {
            path: path.display().to_string(),
            shown,
            secret: secret.to_vec(),
        }
    }

    /// The path of the file as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    // Clamps a span to the text and to character boundaries, whatever a parser reported.
    fn within(&self, span: &Range<usize>) -> Range<usize> {
        let start = self
            .shown
            .floor_char_boundary(span.start.min(self.shown.len()));
        let end = self
            .shown
            .ceil_char_boundary(span.end.clamp(start, self.shown.len()));
        let masked = self.secret.iter().find(|range| range.contains(&start));
        start..masked.map_or(end, |range| end.min((range.start + MASK_WIDTH).max(start)))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.path)
    }
}

/// All diagnostics, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file, if there is one to show.
    pub source: Option<Arc<Source>>,
    /// The errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// A report of one diagnostic.
    #[must_use]
    pub fn of(diagnostic: Diagnostic) -> Self {
        Self {
            source: None,
            diagnostics: vec![diagnostic],
        }
    }

    /// The exit code: that of the errors where they agree, that of a wrong configuration where they do not.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut exits = self
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .map(|diagnostic| diagnostic.exit);
        match exits.next() {
            None => Exit::Fine,
            Some(first) if exits.all(|exit| exit == first) => first,
            Some(_) => Exit::Configuration,
        }
    }

    /// The report as text, ending with a newline.
    #[must_use]
    pub fn render(&self, style: ColorChoice) -> String {
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            text.push_str(diagnostic.render(self.source.as_deref(), style).trim_end());
            text.push_str("\n\n");
        }
        let errors = self
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count();
        if errors > 1 {
            // Writing into a String cannot fail.
            let _infallible = writeln!(text, "{errors} errors; nothing was started");
        } else {
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(ColorChoice::Never).trim_end())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_value_is_not_shown_and_columns_stay_right() {
        let text = "token = \"hüsh\"\nuser = 1\n";
        let source = Source::new(
            Path::new("config.toml"),
            text,
            std::slice::from_ref(&(9..14)),
        );
        let shown = Diagnostic::new("B04", "wrong")
            .at(0..5)
            .labelled(23..24, "a number")
            .render(Some(&source), ColorChoice::Never);
        assert!(!shown.contains("sh\""), "{shown}");
        assert!(shown.contains("config.toml:1:1"), "{shown}");
        assert!(shown.contains("user = 1"), "{shown}");
    }

    #[test]
    fn a_span_outside_the_text_is_no_panic() {
        let source = Source::new(Path::new("c"), "ü", &[]);
        for span in [1..1, 1..9, 7..9, 0..1] {
            let shown = Diagnostic::new("B05", "x")
                .at(span)
                .render(Some(&source), ColorChoice::Never);
            assert!(shown.contains("B05"), "{shown}");
        }
    }

    #[test]
    fn what_a_person_wrote_cannot_drive_the_terminal() {
        let shown = Diagnostic::new("B01", "unknown \u{1b}[2Jkey").render(None, ColorChoice::Never);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn faults_that_agree_name_the_exit_code_and_others_are_a_matter_of_configuration() {
        let denied = Diagnostic::new("B08", "x").exit(Exit::Permission);
        let wrong = Diagnostic::new("B01", "y");
        let root = Diagnostic::new("B32", "z").warning();
        let exit = |diagnostics: &[&Diagnostic]| {
            Report {
                source: None,
                diagnostics: diagnostics.iter().copied().cloned().collect(),
            }
            .exit()
        };
        assert_eq!(exit(&[&denied, &root]), Exit::Permission);
        assert_eq!(exit(&[&denied, &wrong]), Exit::Configuration);
        assert_eq!(exit(&[&root]), Exit::Fine);
    }
}
