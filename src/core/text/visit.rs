//! Visits a tree, run by run.

use super::{Block, Inline};

pub(super) fn blocks(blocks_: &mut [Block], act: &mut dyn FnMut(&mut Vec<Inline>)) {
    for block in blocks_ {
        match block {
            Block::Paragraph(line) | Block::Heading(_, line) => inlines(line, act),
            Block::Quote(inner) => blocks(inner, act),
            Block::List { items, .. } => {
                for item in items {
                    blocks(item, act);
                }
            }
            Block::Table(rows) => {
                for cell in rows.iter_mut().flatten() {
                    inlines(cell, act);
                }
            }
            Block::Code { .. } | Block::Rule | Block::Maths(_) => {}
        }
    }
}

fn inlines(line: &mut Vec<Inline>, act: &mut dyn FnMut(&mut Vec<Inline>)) {
    for inline in line.iter_mut() {
        match inline {
            Inline::Bold(inner)
            | Inline::Italic(inner)
            | Inline::Strike(inner)
            | Inline::Spoiler(inner)
            | Inline::Link { label: inner, .. } => inlines(inner, act),
            _ => {}
        }
    }
    act(line);
}
