//! A linear scan of the tags before anything is parsed. Depth, number and nesting errors of the tags decide the size of the tree
//! that an HTML parser builds: unclosed formatting is opened again in every following paragraph.

use std::collections::HashMap;

/// Longer input is not parsed.
const MAX_BYTES: usize = 128 * 1024;
/// The specification's own limit.
const MAX_OPEN: usize = 100;
const MAX_TAGS: usize = 5_000;
/// The most nodes that reopened formatting may create.
const MAX_REOPENED: usize = 200_000;
/// A limit because the parser compares all attributes of a tag with each other.
const MAX_TAG_BYTES: usize = 16 * 1024;

/// Elements that end where the next one of their kind opens.
const SELF_CLOSING: [&str; 10] = [
    "p", "li", "td", "th", "tr", "thead", "tbody", "tfoot", "dt", "dd",
];
const VOID: [&str; 8] = ["br", "hr", "img", "wbr", "input", "meta", "link", "col"];

/// Whether this HTML can be parsed without harm.
pub(super) fn is_within_limits(html: &str) -> bool {
    if html.len() > MAX_BYTES {
        return false;
    }
    let mut open: HashMap<String, usize> = HashMap::new();
    let (mut unclosed, mut tags, mut reopened) = (0usize, 0usize, 0usize);
    for tag in Tags(html) {
        tags += 1;
        reopened += unclosed;
        if tags > MAX_TAGS || reopened > MAX_REOPENED || tag.bytes > MAX_TAG_BYTES {
            return false;
        }
        if VOID.contains(&tag.name.as_str()) || SELF_CLOSING.contains(&tag.name.as_str()) {
            continue;
        }
        let count = open.entry(tag.name).or_default();
        if tag.closes {
            unclosed -= usize::from(*count > 0);
            *count = count.saturating_sub(1);
        } else {
            *count += 1;
            unclosed += 1;
        }
        if unclosed > MAX_OPEN {
            return false;
        }
    }
    true
}

/// The text between the tags, basic entities decoded.
pub(super) fn without_tags(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some((text, after)) = rest.split_once('<') {
        out.push_str(text);
        if !after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            out.push('<');
            rest = after;
            continue;
        }
        let (tag, after) = after.split_once('>').unwrap_or((after, ""));
        let name = tag.trim_start_matches('/').to_ascii_lowercase();
        if super::markup::is_block(name.trim_end_matches('/')) || name.starts_with("br") {
            out.push('\n');
        }
        rest = after;
    }
    out.push_str(rest);
    out.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&nbsp;", " ")
        .replace("&amp;", "&")
}

struct Tag {
    name: String,
    closes: bool,
    bytes: usize,
}

/// Anything a parser could take for a tag. Text that only looks like a tag is counted too: that errs on the safe side.
struct Tags<'a>(&'a str);

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        loop {
            let (_, after) = self.0.split_once('<')?;
            self.0 = after;
            let closes = after.starts_with('/');
            let inner = after.strip_prefix('/').unwrap_or(after);
            if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) {
                continue;
            }
            let end = inner
                .find(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/'))
                .unwrap_or(inner.len());
            let bytes = inner.find('>').unwrap_or(inner.len());
            let name = inner.get(..end.min(64)).unwrap_or("?");
            return Some(Tag {
                name: name.to_ascii_lowercase(),
                closes,
                bytes,
            });
        }
    }
}
