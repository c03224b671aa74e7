//! What is wrong with what the operator gave us, told the way compilers tell it: a code, a sentence, the place
//! in the file, and one edit or command that mends it. Secrets never get in here: the source text that is
//! shown has its secret values masked before any fault is made.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

/// How the program ends, after `sysexits.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// Something that has no code of its own.
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
    /// Another process holds what we need.
    Locked = 75,
    /// Somebody may not do this, or a file is open to the wrong people.
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

/// How bad a fault is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// The program does not go on.
    #[default]
    Error,
    /// The program goes on; somebody should look.
    Warning,
}

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the source.
    pub span: Range<usize>,
    /// What stands beside the caret.
    pub label: Option<String>,
}

impl From<Range<usize>> for Label {
    fn from(span: Range<usize>) -> Self {
        Self { span, label: None }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its number in the list of known faults, for example `B01`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How the program ends because of it.
    pub exit: Exit,
    /// What is wrong, one sentence without a period.
    pub what: String,
    /// Where, the offending place first.
    pub labels: Vec<Label>,
    /// What is known beyond that.
    pub notes: Vec<String>,
    /// One edit or command that mends it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A fault of the configuration, without a place.
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

    /// The same, ending the program in another way.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same, as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self.exit = Exit::Fine;
        self
    }

    /// The same, at one more place.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.labels.push(span.into());
        self
    }

    /// The same, at one more place, with words beside the caret.
    #[must_use]
    pub fn labelled(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            label: Some(label.into()),
        });
        self
    }

    /// The same, with something more to know.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same, with what mends it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The fault as text. Places are shown only where the source is at hand.
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
        let marks = self.labels.iter().enumerate().map(|(nth, mark)| {
            let kind = if nth == 0 {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            kind.span(source.within(&mark.span))
                .label(mark.label.as_deref())
        });
        Snippet::source(source.shown.as_str())
            .path(source.path.as_str())
            .annotations(marks)
    }
}

// What a person wrote may stand in a sentence; it must not be able to drive the terminal.
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
                    // As many bytes as before, so that every other place stays where it was.
                    let payload = if at < range.start + MASK_WIDTH {
                        '*'
                    } else {
                        ' '
                    };
                    shown.extend(std::iter::repeat_n(payload, c.len_utf8()));
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

    /// The file as it was named.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    // A span that lies inside the text, on character borders, whatever a parser said.
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

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file, if there is one to show.
    pub source: Option<Arc<Source>>,
    /// The faults.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The report of one fault.
    #[must_use]
    pub fn of(fault: Diagnostic) -> Self {
        Self {
            source: None,
            diagnostics: vec![fault],
        }
    }

    /// How the program ends: as its faults say when they agree, as a faulty configuration when they do not.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut exits = self
            .diagnostics
            .iter()
            .filter(|fault| fault.severity == Severity::Error)
            .map(|fault| fault.exit);
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
        for fault in &self.diagnostics {
            text.push_str(fault.render(self.source.as_deref(), style).trim_end());
            text.push_str("\n\n");
        }
        let errors = self
            .diagnostics
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .count();
        if errors > 1 {
            // Writing into a String cannot fail.
            let _whole = writeln!(text, "{errors} errors; nothing was started");
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
        let exit = |faults: &[&Diagnostic]| {
            Report {
                source: None,
                diagnostics: faults.iter().copied().cloned().collect(),
            }
            .exit()
        };
        assert_eq!(exit(&[&denied, &root]), Exit::Permission);
        assert_eq!(exit(&[&denied, &wrong]), Exit::Configuration);
        assert_eq!(exit(&[&root]), Exit::Fine);
    }
}
