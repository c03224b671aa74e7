//! The neutral text: a small tree. Every dialect is parsed into it and generated from it, so markup of one
//! side can never reach the other: what is not in the tree cannot come out.

pub mod html;

use serde::{Deserialize, Serialize};

/// The text of one message.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body(pub Vec<Block>);

/// A paragraph or something of its rank.
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
}

/// A piece of running text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inline {
    /// Characters that mean themselves.
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
    /// Hidden until asked for.
    Spoiler(Vec<Inline>),
    /// A link. The target is `http`, `https`, `mailto` or `matrix`; anything else is not made a link.
    Link {
        /// Where it leads.
        href: String,
        /// What it shows.
        label: Vec<Inline>,
    },
    /// A person called by name. Shown as harmless text unless a side can prove whom to ping.
    Mention {
        /// The person's id in the source network.
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

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
