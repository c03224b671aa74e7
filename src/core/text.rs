//! The neutral text: a small tree. Every markup language is parsed into it and generated from it, so markup of one side can never
//! reach the other: what the tree cannot hold cannot be generated.

mod split;
pub mod html;
mod plain;
mod render;
mod visit;

use std::borrow::Cow;

pub use render::html_from_body;
use serde::{Deserialize, Serialize};
pub use split::split_body;

use unicode_segmentation::UnicodeSegmentation as _;

/// How deeply blocks and inlines may be nested. What is nested deeper loses its markup and keeps its text. The stored form uses
/// up to four levels of JSON for one level of the tree, and the JSON reader stops at 128.
pub const MAX_DEPTH: usize = 24;

/// How many combining marks one character may carry.
const MAX_MARKS: usize = 8;

/// How many scalars an emoji sequence may have; the longest in use have ten.
const MAX_JOINED: usize = 16;

/// The text of one message.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body(pub Vec<Block>);

/// A paragraph or another block element.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// Running text.
    Paragraph(Vec<Inline>),
    /// A heading; level 1 to 6.
    Heading(u8, Vec<Inline>),
    /// A block of code.
    Code {
        /// The language, lower case, if the author named one.
        language: Option<String>,
        /// The code, without a trailing newline.
        text: String,
    },
    /// Quoted blocks.
    Quote(Vec<Block>),
    /// A list.
    List {
        /// The first number of a numbered list; `None` for bullets.
        start: Option<u32>,
        /// The items.
        items: Vec<Vec<Block>>,
    },
    /// A table: rows of cells, the first row is the header.
    Table(Vec<Vec<Vec<Inline>>>),
    /// A horizontal rule.
    Rule,
    /// A formula in a block of its own, in LaTeX.
    Maths(String),
}

/// A piece of running text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inline {
    /// Plain characters.
    Text(String),
    /// A line break.
    Break,
    /// Strong.
    Bold(Vec<Inline>),
    /// Emphasised.
    Italic(Vec<Inline>),
    /// Struck through.
    Strike(Vec<Inline>),
    /// Code in running text.
    Code(String),
    /// A formula in running text, in LaTeX.
    Maths(String),
    /// A spoiler: hidden until the reader reveals it.
    Spoiler(Vec<Inline>),
    /// A link. The target is `http`, `https`, `mailto` or `matrix`; anything else is not made a link.
    Link {
        /// The target.
        href: String,
        /// The text shown.
        label: Vec<Inline>,
    },
    /// A mention of a person. Shown as inert text unless the configuration says whom to notify.
    Mention {
        /// The person's id in the source network.
        id: String,
        /// The name shown, without a leading `@`.
        name: String,
    },
    /// A mention that notifies a person, wherever this is shown. Never parsed from input: only made from a [`Inline::Mention`]
    /// whose person the configuration knows.
    Ping {
        /// The person's id in the network where it is shown.
        id: String,
        /// The name shown, without a leading `@`.
        name: String,
    },
}

// Message text never reaches a log: not even by an accidental `{:?}`.
macro_rules! silent_debug {
    ($($name:ident),+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}
silent_debug!(Body, Block, Inline);

impl Body {
    /// Plain text: paragraphs at blank lines, breaks at single ones, no markup.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        let mut blocks = Vec::new();
        let mut lines: Vec<Inline> = Vec::new();
        let text = sanitized(text);
        for line in text.lines() {
            if line.trim().is_empty() {
                if !lines.is_empty() {
                    blocks.push(Block::Paragraph(std::mem::take(&mut lines)));
                }
                continue;
            }
            if !lines.is_empty() {
                lines.push(Inline::Break);
            }
            lines.push(Inline::Text(line.to_owned()));
        }
        if !lines.is_empty() {
            blocks.push(Block::Paragraph(lines));
        }
        Self(blocks)
    }

    /// Readable text without markup, for notifications and for clients that do not show HTML.
    #[must_use]
    pub fn to_plain(&self) -> String {
        plain::of_blocks(&self.0)
    }

    /// Calls `act` for every run of text, the innermost first.
    pub fn visit_runs(&mut self, act: &mut dyn FnMut(&mut Vec<Inline>)) {
        visit::blocks(&mut self.0, act);
    }

    /// The persons that it notifies: the ids of each [`Inline::Ping`], once.
    #[must_use]
    pub fn pinged(&self) -> Vec<String> {
        let mut pinged = Vec::new();
        self.clone().visit_runs(&mut |line| {
            for inline in line {
                if let Inline::Ping { id, .. } = inline
                    && !pinged.contains(id)
                {
                    pinged.push(id.clone());
                }
            }
        });
        pinged
    }

    /// Whether it contains no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Readable text of one run, without markup.
#[must_use]
pub fn plain_inlines(inlines: &[Inline]) -> String {
    plain::of_inlines(inlines)
}

/// Sanitises text from outside for the tree: removes control characters except tab and line feed, and direction overrides, and
/// limits the combining marks of each character.
#[must_use]
pub fn sanitized(text: &str) -> Cow<'_, str> {
    let clean = |c: char| {
        matches!(c, '\t' | '\n') || !(c.is_control() || matches!(c, '\u{202d}' | '\u{202e}'))
    };
    if text.is_ascii() && text.chars().all(clean) {
        return Cow::Borrowed(text);
    }
    let kept: String = text
        .replace("\r\n", "\n")
        .chars()
        .map(|c| if c == '\r' { '\n' } else { c })
        .filter(|c| clean(*c))
        .collect();
    Cow::Owned(kept.graphemes(true).flat_map(limit_marks).collect())
}

/// Limits the scalars of one grapheme: joined emoji are long by nature, anything else is not.
fn limit_marks(grapheme: &str) -> impl Iterator<Item = char> + '_ {
    let joined = grapheme
        .chars()
        .any(|c| c == '\u{200d}' || matches!(c, '\u{e0020}'..='\u{e007f}'));
    let limit = if joined { MAX_JOINED } else { 1 + MAX_MARKS };
    grapheme.chars().take(limit)
}

/// Whether a character is invisible and can hide a disguise.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether this text, behind an ampersand, is read as an `@`: `commat;`, `#64;`, `#x40;`, the latter two also without the
/// semicolon.
#[must_use]
pub fn is_at_reference(after: &str) -> bool {
    after.starts_with("commat;") || char_reference(after) == Some(64)
}

/// The number of the character that a reference behind an ampersand names: `#64` or `#x40`, with or without the semicolon.
#[must_use]
pub fn char_reference(after: &str) -> Option<u32> {
    let number = after.strip_prefix('#')?;
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix));
    let digits = digits.get(..end.unwrap_or(digits.len()))?;
    u32::from_str_radix(digits, radix).ok()
}

/// Replaces `:shortcodes:` with their emoji by `emoji_of`. Unknown ones stay as they are, and so do those within a word, as in
/// `10:100:30`, and in a URL.
#[must_use]
pub fn with_emoji(text: &str, emoji_of: fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let (words, address) = word.split_at(address_at(word).unwrap_or(word.len()));
        emoji_in(words, emoji_of, &mut out);
        out.push_str(address);
    }
    out
}

fn emoji_in(word: &str, emoji_of: fn(&str) -> Option<String>, out: &mut String) {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = word;
    while let Some((before, after)) = rest.split_once(':') {
        out.push_str(before);
        let name = after
            .split_once(':')
            .filter(|(name, behind)| {
                let parts = before.is_empty() && out.ends_with(':');
                let is_free = !parts && !before.ends_with(in_word) && !behind.starts_with(in_word);
                is_free && (1..=64).contains(&name.len())
            })
            .map(|(name, _)| name);
        if let Some(emoji) = name.and_then(emoji_of) {
            out.push_str(&emoji);
            rest = after.get(name.map_or(0, str::len) + 1..).unwrap_or("");
        } else {
            out.push(':');
            rest = after;
        }
    }
    out.push_str(rest);
}

/// Where a URL begins in a word: `https://…`, `mailto:…`, `www.…`, `example.org/…`.
fn address_at(word: &str) -> Option<usize> {
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let begins = |end: usize, of: &dyn Fn(char) -> bool| {
        let before = word.get(..end).unwrap_or_default();
        before.trim_end_matches(of).len()
    };
    let scheme = word.find("://").map(|end| begins(end, &of_scheme));
    let lower = word.to_ascii_lowercase();
    let known = ["www.", "mailto:", "matrix:", "geo:", "magnet:"];
    let known = known.iter().filter_map(|start| {
        let at = lower.find(start)?;
        let free = word
            .get(..at)
            .is_some_and(|before| !before.ends_with(of_scheme));
        free.then_some(at)
    });
    let host = word.find('/').and_then(|end| {
        let of_host = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
        let start = begins(end, &of_host);
        let (name, last) = word.get(start..end)?.rsplit_once('.')?;
        let is_host = !name.is_empty() && last.len() >= 2 && last.chars().all(char::is_alphabetic);
        is_host.then_some(start)
    });
    known.chain(scheme).chain(host).min()
}

/// Whether a link shows one address and has another as its target.
#[must_use]
pub fn is_misleading_link(href: &str, label: &str) -> bool {
    let shown = label.trim();
    if shown == href || shown.is_empty() || shown.contains(char::is_whitespace) {
        return false;
    }
    let Some(shown) = address_in(shown) else {
        return false;
    };
    let Ok(real) = url::Url::parse(href) else {
        return true;
    };
    if real.scheme() == "mailto" {
        return !real.path().eq_ignore_ascii_case(label.trim());
    }
    let bare = |url: &url::Url| {
        url.host_str()
            .map(|host| host.trim_start_matches("www.").to_owned())
    };
    bare(&shown) != bare(&real)
}

/// Parses a label as a URL, if people would take it for one.
fn address_in(shown: &str) -> Option<url::Url> {
    if let Some((scheme, _)) = shown.split_once("://") {
        return scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric())
            .then(|| url::Url::parse(shown).ok())?;
    }
    let host = shown.split(['/', '?', '#', ':']).next()?;
    let (_, last) = host.rsplit_once('.')?;
    let a_name = host
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '-'))
        || host.contains('@');
    (a_name && last.chars().count() >= 2 && last.chars().all(char::is_alphabetic))
        .then(|| url::Url::parse(&format!("https://{shown}")).ok())?
}

#[cfg(test)]
#[path = "text/text_tests.rs"]
mod tests;
