//! Splits a body that is too long for one message, between its blocks where it can.

use unicode_segmentation::UnicodeSegmentation as _;

use super::{Block, Body, Inline, plain};

/// The body in parts that each weigh at most `limit` by `weigh`. The weight of a part is taken to be the sum of the weights of
/// its blocks. One part, possibly empty, if everything fits.
#[must_use]
pub fn split_body(body: &Body, limit: usize, weigh: &dyn Fn(&Block) -> usize) -> Vec<Body> {
    let mut parts: Vec<Body> = Vec::new();
    let mut part: Vec<Block> = Vec::new();
    let mut weight = 0usize;
    for block in body.0.iter().flat_map(|block| fitting(block, limit, weigh)) {
        let own = weigh(&block);
        if !part.is_empty() && weight + own > limit {
            parts.push(Body(std::mem::take(&mut part)));
            weight = 0;
        }
        weight += own;
        part.push(block);
    }
    parts.push(Body(part));
    parts
}

/// One block, split into one or more that fit.
fn fitting(block: &Block, limit: usize, weigh: &dyn Fn(&Block) -> usize) -> Vec<Block> {
    if weigh(block) <= limit {
        return vec![block.clone()];
    }
    match block {
        Block::Code { language, text } => pieces(text, limit, &|piece| {
            weigh(&Block::Code {
                language: language.clone(),
                text: piece.to_owned(),
            })
        })
        .into_iter()
        .map(|text| Block::Code {
            language: language.clone(),
            text,
        })
        .collect(),
        Block::List { start, items } => items
            .iter()
            .zip(0u32..)
            .map(|(item, index)| Block::List {
                start: start.map(|first| first.saturating_add(index)),
                items: vec![item.clone()],
            })
            .flat_map(|item| {
                if weigh(&item) <= limit {
                    vec![item]
                } else {
                    as_plain(&item, limit, weigh)
                }
            })
            .collect(),
        other => as_plain(other, limit, weigh),
    }
}

/// A block that cannot be split with its markup is split as plain text.
fn as_plain(block: &Block, limit: usize, weigh: &dyn Fn(&Block) -> usize) -> Vec<Block> {
    let paragraph = |text: &str| {
        let mut line = Vec::new();
        for (index, text) in text.split('\n').enumerate() {
            if index > 0 {
                line.push(Inline::Break);
            }
            if !text.is_empty() {
                line.push(Inline::Text(text.to_owned()));
            }
        }
        Block::Paragraph(line)
    };
    let text = plain::of_blocks(std::slice::from_ref(block));
    pieces(&text, limit, &|piece| weigh(&paragraph(piece)))
        .iter()
        .map(|piece| paragraph(piece))
        .collect()
}

/// Splits a text: between lines where possible, else between words where possible, never within a character.
fn pieces(text: &str, limit: usize, weigh: &dyn Fn(&str) -> usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if weigh(rest) <= limit {
            out.push(rest.to_owned());
            break;
        }
        let end = longest(rest, limit, weigh);
        let head = rest.get(..end).unwrap_or(rest);
        let border = [head.rfind('\n'), head.rfind(' ')]
            .into_iter()
            .flatten()
            .map(|at| at + 1)
            .find(|at| *at > end / 2)
            .unwrap_or(end);
        let (head, tail) = rest.split_at(border);
        out.push(head.trim_end_matches('\n').to_owned());
        rest = tail;
    }
    out
}

/// The end of the longest prefix that fits; never within a character, never zero.
fn longest(text: &str, limit: usize, weigh: &dyn Fn(&str) -> usize) -> usize {
    let borders: Vec<usize> = text
        .grapheme_indices(true)
        // Every character weighs at least one.
        .take(limit + 1)
        .map(|(at, grapheme)| at + grapheme.len())
        .collect();
    let fits =
        borders.partition_point(|end| text.get(..*end).is_some_and(|head| weigh(head) <= limit));
    borders
        .get(fits.saturating_sub(1))
        .copied()
        .unwrap_or(text.len())
}
