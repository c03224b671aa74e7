//! The Markdown of silos whose apps render it with (a relative of) marked: a pure conversion of neutral text into
//! Markdown that mentions nobody and in which only intended markup is markup. The escapes were measured against the
//! renderer that Gitter's server used; its grammar consists of regular expressions that know no escapes inside emphasis
//! and links, hence the care.

mod escape;
mod read;
mod render;
mod split;

use footbridge_core::{
    message::Style,
    names,
    text::{Block, Body, Inline},
};

pub(super) use escape::rules::{email, has_at_in_authority};
use escape::{InlineContext, InlineWriter, rules as grammar};
pub use read::{body_from_markdown, body_from_markdown_of, resolved};
pub use render::{ACTION_PREFIX, Markdown};
pub use split::{split, split_to, units};

/// What a silo's Markdown recognises in a text, where silos differ.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub struct MarkdownRules {
    /// Whether its apps show a picture for this name between colons.
    pub is_emoji: fn(&str) -> bool,
    /// Whether its apps show emoticons such as `<3`, also behind other characters.
    pub emoticons: bool,
    /// Whether `~name` is a channel and `#name` a tag.
    pub channels_and_tags: bool,
    /// Whether its apps make a link of any address that has a scheme.
    pub any_scheme: bool,
    /// Whether a `<` before this character, or at the end, may open something that is read literally up to its end.
    pub may_be_tag: fn(Option<char>) -> bool,
    /// Whether it looks for addresses, of people and of pages, before emphasis and escapes.
    pub addresses_first: bool,
    /// Whether an item of a list ends at its first rule and at two empty lines, even in code, and takes what follows a nested block
    /// for that block's text.
    pub fragile_items: bool,
    /// Whether a formula stands between double dollars; otherwise it is code, and a block of its own names its language.
    pub dollar_maths: bool,
}

/// The rules of one silo.
pub type Rules = &'static MarkdownRules;

/// The tree as Markdown that mentions nobody and in which only intended markup is markup.
#[must_use]
pub fn markdown_from_body(body: &Body, rules: Rules) -> String {
    let unescaped = blocks(&body.0, (rules, Underscores::Bare), BlockContext::TOP);
    let markdown = if grammar::may_emphasise(&unescaped) {
        blocks(&body.0, (rules, Underscores::Escaped), BlockContext::TOP)
    } else {
        unescaped
    };
    // C27: the apps take a leading slash for a command.
    if markdown.starts_with('/') {
        format!("\u{200b}{markdown}")
    } else {
        markdown
    }
}

/// A name in bold, escaped, and a colon.
#[must_use]
pub fn sender_prefix(name: &str, rules: Rules) -> String {
    format!("**{}**: ", escape_name(name, rules))
}

/// The prefix of every part of a message of this person in this style.
#[must_use]
pub fn prefix(name: &str, style: Style, rules: Rules) -> String {
    match style {
        Style::Text | Style::Notice => sender_prefix(name, rules),
        Style::Emote => format!("\\* **{}** ", escape_name(name, rules)),
    }
}

/// The whole text of a relayed message, with its author in front.
#[must_use]
pub fn attributed(name: &str, body: &Body, style: Style, rules: Rules) -> String {
    joined(
        &prefix(name, style, rules),
        &markdown_from_body(body, rules),
    )
}

/// A text behind a prefix. Block elements begin on a line of their own.
pub(crate) fn joined(prefix: &str, markdown: &str) -> String {
    let block = markdown.starts_with("```")
        || [
            "> ", "- ", "| ", "# ", "## ", "### ", "#### ", "##### ", "###### ", "---",
        ]
        .iter()
        .any(|mark| markdown.starts_with(mark))
        || numbered(markdown);
    if block && !prefix.is_empty() {
        format!("{}\n\n{markdown}", prefix.trim_end())
    } else {
        format!("{prefix}{markdown}")
    }
}

/// Whether this begins with an item of a numbered list.
fn numbered(markdown: &str) -> bool {
    let rest = markdown.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < markdown.len() && rest.starts_with(". ")
}

fn escape_name(name: &str, rules: Rules) -> String {
    let mut writer = InlineWriter::new(rules, Underscores::Escaped);
    writer.name(&names::bidi_isolate(&names::display_name(name, "")));
    writer.finish()
}

/// Whether underscores are written with a backslash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underscores {
    Bare,
    Escaped,
}

type WriterOptions = (Rules, Underscores);

/// How many lists and quotes may contain each other. Newer versions of Mattermost allow no item inside sixteen lists
/// and show it as text.
const MAX_NESTING: usize = 12;

/// What surrounds a block.
#[derive(Clone, Copy, PartialEq, Eq)]
struct BlockContext {
    /// Tables exist only outside of lists.
    in_list: bool,
    /// How many lists and quotes contain it.
    depth: usize,
}

impl BlockContext {
    const TOP: Self = Self {
        in_list: false,
        depth: 0,
    };

    fn in_quote(self) -> Self {
        let depth = self.depth + 1;
        Self { depth, ..self }
    }

    fn in_list(self) -> Self {
        Self {
            in_list: true,
            depth: self.depth + 1,
        }
    }
}

fn blocks(blocks_: &[Block], dialect: WriterOptions, level: BlockContext) -> String {
    let mut out = String::new();
    let mut before: Option<&Block> = None;
    for block in blocks_ {
        let text = write_block(block, dialect, level);
        if text.is_empty() {
            continue;
        }
        if let Some(before) = before {
            out.push_str(if are_one(before, block) {
                LIST_SEPARATOR
            } else {
                "\n\n"
            });
        }
        out.push_str(&text);
        before = Some(block);
    }
    out
}

/// Between two lists: a line with an invisible character. After an empty line alone, the second list would continue the
/// first one, whatever its marks are.
const LIST_SEPARATOR: &str = "\n\n\u{200b}\n\n";

/// Whether two adjacent blocks would become one list.
fn are_one(before: &Block, after: &Block) -> bool {
    let is_list = |block: &Block| matches!(block, Block::List { .. });
    is_list(before) && is_list(after)
}

/// The blocks of an item, one below the other. In Mattermost, a numbered list would be text of the paragraph above it,
/// unless it begins with 1.
fn item(blocks: &[Block], dialect: WriterOptions, level: BlockContext) -> String {
    let mut out = String::new();
    let mut before: Option<&Block> = None;
    let mut is_nested = false;
    for block in blocks {
        let mut text = write_block(block, dialect, level);
        if dialect.0.fragile_items {
            // Two empty lines end a list in Gitter, also in code.
            text = text.replace("\n\n\n", "\n\n\u{200b}\n");
        }
        // A leading blank would make the item one column wider than its other lines.
        let text = text.trim_start_matches([' ', '\n']).trim_end_matches('\n');
        if text.is_empty() {
            continue;
        }
        if let Some(before) = before {
            // Two adjacent quotes are one.
            let first = text.trim_start_matches("> ");
            let apart = numbered(first) && !first.starts_with("1. ");
            // In Gitter, what follows a list or a quote would be text of its last line, and in a code block everything
            // after the first blank line would be text.
            let apart = apart || (is_nested && dialect.0.fragile_items);
            out.push_str(match apart {
                _ if are_one(before, block) => LIST_SEPARATOR,
                true => "\n\n",
                false => "\n",
            });
        }
        is_nested = matches!(block, Block::List { .. } | Block::Quote(_));
        out.push_str(text);
        before = Some(block);
    }
    out
}

fn write_block(block: &Block, dialect: WriterOptions, level: BlockContext) -> String {
    match block {
        Block::Paragraph(line) => inlines(line, dialect, InlineContext::Line),
        Block::Heading(rank, line) => {
            let text = inlines(line, dialect, InlineContext::Heading);
            let marks = "#".repeat(usize::from((*rank).clamp(1, 6)));
            // Marks at the end would be removed.
            let end = if text.ends_with('#') { "\u{200b}" } else { "" };
            format!("{marks} {text}{end}")
        }
        Block::Code { language, text } => fenced(language.as_deref().unwrap_or(""), text),
        // What is nested deeper loses its mark and keeps its text.
        Block::Quote(inner) if level.depth >= MAX_NESTING => item(inner, dialect, level),
        Block::List { items, .. } if level.depth >= MAX_NESTING => {
            let items = items.iter().map(|blocks| item(blocks, dialect, level));
            items.collect::<Vec<_>>().join("\n")
        }
        Block::Quote(inner) => indented(&blocks(inner, dialect, level.in_quote()), "> ", "> "),
        Block::List { start, items } => items
            .iter()
            .zip(0u32..)
            .map(|(blocks, index)| {
                let mark = start.map_or_else(
                    || "- ".to_owned(),
                    // A longer number begins no item.
                    |first| format!("{}. ", first.saturating_add(index).min(999_999_999)),
                );
                let text = item(blocks, dialect, level.in_list());
                let text = indented(&text, &mark, &" ".repeat(mark.len()));
                // In Gitter the next item would be text of the quote at the end of this one.
                let is_open =
                    dialect.0.fragile_items && matches!(blocks.last(), Some(Block::Quote(_)));
                let is_last = usize::try_from(index).is_ok_and(|index| index + 1 == items.len());
                text + if is_open && !is_last { "\n" } else { "" }
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Block::Table(rows) => table(rows, dialect, level),
        // In Gitter a rule would end the list and swap code and text after it.
        Block::Rule if level.in_list && dialect.0.fragile_items => r"\-\-\-".to_owned(),
        Block::Rule => "---".to_owned(),
        Block::Maths(tex) if !dialect.0.dollar_maths => fenced("latex", tex),
        Block::Maths(tex) if grammar::is_plain_maths(tex) => format!("$${tex}$$"),
        Block::Maths(tex) => fenced("", tex),
    }
}

fn inlines(line: &[Inline], (rules, underscores): WriterOptions, around: InlineContext) -> String {
    let mut writer = InlineWriter::new(rules, underscores);
    writer.inlines(line, around);
    writer.finish()
}

fn indented(text: &str, first: &str, rest: &str) -> String {
    text.split('\n')
        .enumerate()
        .map(|(index, line)| format!("{}{line}", if index == 0 { first } else { rest }))
        .collect::<Vec<_>>()
        .join("\n")
}

fn fenced(language: &str, code: &str) -> String {
    if code.trim().is_empty() {
        return String::new();
    }
    let code = grammar::without_long_runs(code);
    let fence = "`".repeat(grammar::longest_run(&code, '`').max(2) + 1);
    format!("{fence}{language}\n{code}\n{fence}")
}

fn table(rows: &[Vec<Vec<Inline>>], dialect: WriterOptions, level: BlockContext) -> String {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = (0..width)
            .map(|column| {
                row.get(column).map_or_else(String::new, |cell| {
                    inlines(cell, dialect, InlineContext::Cell)
                })
            })
            .collect();
        lines.push(if level.in_list {
            cells.join(" / ")
        } else {
            format!("| {} |", cells.join(" | "))
        });
        if index == 0 && !level.in_list {
            lines.push(format!("|{}", " --- |".repeat(width)));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
#[path = "markdown/markdown_tests.rs"]
mod tests;
