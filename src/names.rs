//! Names of people made harmless: no ping, no markup, no disguise. Markup is escaped where a dialect is
//! written; here only what no name needs is taken out.

use unicode_segmentation::UnicodeSegmentation as _;

use crate::text::{cleaned, is_invisible};

/// How much of a name is shown.
const MAX_GRAPHEMES: usize = 100;
/// The same against characters made of many.
const MAX_BYTES: usize = 1200;

/// A name fit to be shown on one line: no control, invisible or direction characters, no floods of marks, at
/// most 100 characters. Where nothing is left, the id; where that is empty too, `someone`.
#[must_use]
pub fn shown(name: &str, fallback_id: &str) -> String {
    [name, fallback_id]
        .into_iter()
        .map(visible)
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "someone".to_owned())
}

/// Text on one line, without anything invisible, cut to what a name may have.
fn visible(name: &str) -> String {
    let one_line = name.replace(|c: char| c.is_whitespace(), " ");
    let mut out = String::new();
    let mut kept = 0usize;
    for grapheme in cleaned(&one_line).graphemes(true) {
        if kept == MAX_GRAPHEMES || out.len() > MAX_BYTES {
            out.push('…');
            break;
        }
        // The joiners of an emoji are part of its picture.
        if emojis::get(grapheme).is_some() {
            out.push_str(grapheme);
            kept += 1;
            continue;
        }
        let seen: String = grapheme.chars().filter(|c| !is_invisible(*c)).collect();
        let doubled = seen == " " && (out.is_empty() || out.ends_with(' '));
        if !seen.is_empty() && !doubled {
            out.push_str(&seen);
            kept += 1;
        }
    }
    out.trim_end().to_owned()
}

/// A name that cannot turn the direction of the text behind it. Names without letters written from right to
/// left stay as they are.
#[must_use]
pub fn isolated(name: &str) -> String {
    let right_to_left = |c: char| {
        matches!(c,
            '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}'
            | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
    };
    if name.chars().any(right_to_left) {
        format!("\u{2068}{name}\u{2069}")
    } else {
        name.to_owned()
    }
}
