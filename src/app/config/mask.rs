//! Which bytes of the configuration file must never be shown: values of secret keys and of unknown keys, credentials in
//! URLs, comments. In doubt a byte is masked.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{secret_keys, table_names, table_of},
    schema::ParseExtent,
};

/// The bytes to mask.
#[must_use]
pub fn secret_ranges(text: &str, root: &DeTable<'_>, extent: ParseExtent) -> Vec<Range<usize>> {
    let mut masked = MaskedRanges::default();
    masked.table(root, Depth::Top);
    let comments = comments(text, &masked.values);
    masked.secret.extend(comments);
    if extent == ParseExtent::Part {
        masked.secret.extend(doubtful_lines(text));
    }
    masked.secret
}

/// Whether a text looks like a token rather than like the name of a file.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    text.len() >= 24
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '='))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Section,
    Deeper,
}

#[derive(Default)]
struct MaskedRanges {
    secret: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
}

impl MaskedRanges {
    fn table(&mut self, table: &DeTable<'_>, depth: Depth) {
        for (key, value) in table {
            self.values.push(key.span());
            match value.get_ref() {
                DeValue::Table(inner) if depth == Depth::Top => self.table(inner, Depth::Section),
                DeValue::Array(items) if depth == Depth::Top => {
                    for item in items {
                        match item.get_ref() {
                            DeValue::Table(inner) => self.table(inner, Depth::Section),
                            _ => self.secret.push(item.span()),
                        }
                    }
                }
                DeValue::Table(inner) => {
                    self.table(inner, Depth::Deeper);
                    self.secret.push(value.span());
                }
                _ => self.scalar(key.get_ref(), value, depth),
            }
        }
    }

    fn scalar(&mut self, key: &str, value: &Spanned<DeValue<'_>>, depth: Depth) {
        self.values.push(value.span());
        let text = value.get_ref().as_str().unwrap_or_default();
        let secret = depth == Depth::Deeper
            || !is_plain(key)
            || !matches!(
                value.get_ref(),
                DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
            )
            || has_credentials(text)
            || (key.ends_with("_file") && looks_like_token(text));
        if secret {
            self.secret.push(value.span());
        }
    }
}

fn is_plain(key: &str) -> bool {
    !is_secret(key) && table_of(key).is_some()
}

fn is_secret(key: &str) -> bool {
    secret_keys().any(|secret| secret == key)
}

fn has_credentials(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(_, rest)| rest.contains('@'))
}

// A comment may contain an old token. Whatever follows the first `#` outside of every key and value is a comment.
fn comments(text: &str, values: &[Range<usize>]) -> Vec<Range<usize>> {
    lines(text)
        .filter_map(|(start, line)| {
            let hash = line
                .match_indices('#')
                .map(|(at, _)| start + at)
                .find(|at| !values.iter().any(|value| value.contains(at)))?;
            Some(hash + 1..start + line.len())
        })
        .collect()
}

// After a syntax error a secret may be anywhere. Only headers, lines of keys that are known to be harmless, and the key
// of a secret are shown.
fn doubtful_lines(text: &str) -> Vec<Range<usize>> {
    lines(text)
        .filter_map(|(start, line)| {
            let end = start + line.len();
            let body = line.trim_start();
            let word: String = body
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let header = body.starts_with('[')
                && table_names().any(|name| body.contains(name))
                && !body.contains('=');
            // Two lines that were joined by mistake begin with a harmless key and contain a secret.
            let single = body.matches('=').count() <= 1
                && body.matches('"').count() <= 2
                && !secret_keys().any(|secret| body.contains(secret) && !word.contains(secret));
            if body.is_empty() || header || (is_plain(&word) && single && !has_credentials(body)) {
                return None;
            }
            let known = is_plain(&word) || is_secret(&word);
            let shown = if known {
                start + line.len() - body.len() + word.len()
            } else {
                start
            };
            Some(shown..end)
        })
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let here = start;
        start += line.len();
        (here, line.trim_end_matches(['\n', '\r']))
    })
}
