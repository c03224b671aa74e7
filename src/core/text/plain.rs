//! Renders the tree as readable plain text.

use super::{Block, Inline};

/// Blocks, a blank line between them.
pub(super) fn of_blocks(blocks: &[Block]) -> String {
    blocks
        .iter()
        .map(of_block)
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn of_block(block: &Block) -> String {
    match block {
        Block::Paragraph(inlines) | Block::Heading(_, inlines) => of_inlines(inlines),
        Block::Code { text, .. } => text.clone(),
        Block::Quote(blocks) => prefixed(&of_blocks(blocks), "> ", "> "),
        Block::List { start, items } => items
            .iter()
            .zip(0u32..)
            .map(|(item, index)| {
                let mark = start.map_or_else(
                    || "- ".to_owned(),
                    |first| format!("{}. ", first.saturating_add(index)),
                );
                let text = item.iter().map(of_block).collect::<Vec<_>>().join("\n");
                prefixed(&text, &mark, &" ".repeat(mark.len()))
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Block::Table(rows) => rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| of_inlines(cell))
                    .collect::<Vec<_>>()
                    .join(" | ")
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Block::Rule => "---".to_owned(),
        Block::Maths(tex) => tex.clone(),
    }
}

fn prefixed(text: &str, first: &str, rest: &str) -> String {
    let mut out = String::with_capacity(text.len() + first.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(if index == 0 { first } else { rest });
        out.push_str(line);
    }
    out
}

/// Running text on one or more lines.
pub(super) fn of_inlines(inlines: &[Inline]) -> String {
    let mut out = String::new();
    for inline in inlines {
        write_inline(inline, &mut out);
    }
    out
}

fn write_inline(inline: &Inline, out: &mut String) {
    match inline {
        Inline::Text(text) | Inline::Code(text) | Inline::Maths(text) => out.push_str(text),
        Inline::Break => out.push('\n'),
        Inline::Bold(inner) | Inline::Italic(inner) | Inline::Strike(inner) => {
            out.push_str(&of_inlines(inner));
        }
        Inline::Spoiler(inner) => {
            out.push_str("(spoiler) ");
            out.push_str(&of_inlines(inner));
        }
        Inline::Link { href, label } => {
            let shown = of_inlines(label);
            let address = href.strip_prefix("mailto:").unwrap_or(href);
            if shown.trim().is_empty() || shown.trim() == address {
                out.push_str(address);
            } else {
                for piece in [&shown, " (", address, ")"] {
                    out.push_str(piece);
                }
            }
        }
        Inline::Ping { name, .. } => out.push_str(name.trim_start_matches('@')),
        Inline::Mention { name, .. } => {
            if !name.starts_with('@') {
                out.push('@');
            }
            out.push_str(name);
        }
    }
}
