//! Sanitises names of people: no mention, no markup, no disguise. Markup is escaped where it is generated; this module only
//! removes what no name needs.

use unicode_normalization::UnicodeNormalization as _;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::text::{is_invisible, sanitized};

/// The longest name that is shown, in graphemes.
const MAX_GRAPHEMES: usize = 100;
/// The same in bytes, against graphemes of many scalars.
const MAX_BYTES: usize = 1200;

/// A name that is safe to show on one line: no control, invisible or direction characters, no floods of combining marks, at most
/// 100 characters. Where nothing is left, the id; where that is empty too, `someone`.
#[must_use]
pub fn display_name(name: &str, fallback_id: &str) -> String {
    [name, fallback_id]
        .into_iter()
        .map(visible)
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "someone".to_owned())
}

/// Text on one line, without invisible characters, cut to the length of a name.
fn visible(name: &str) -> String {
    let one_line = name.replace(|c: char| c.is_whitespace(), " ");
    let mut out = String::new();
    let mut kept = 0usize;
    for grapheme in sanitized(&one_line).graphemes(true) {
        if kept == MAX_GRAPHEMES || out.len() > MAX_BYTES {
            out.push('…');
            break;
        }
        // The joiners of an emoji are part of its glyph.
        if emojis::get(grapheme).is_some() {
            out.push_str(grapheme);
            kept += 1;
            continue;
        }
        let shown: String = grapheme.chars().filter(|c| !is_invisible(*c)).collect();
        let doubled = shown == " " && (out.is_empty() || out.ends_with(' '));
        if !shown.is_empty() && !doubled {
            out.push_str(&shown);
            kept += 1;
        }
    }
    let out = out.trim_end();
    // Without their joiners, some graphemes become several.
    let ends: Vec<usize> = out.grapheme_indices(true).map(|(at, _)| at).collect();
    match ends.get(MAX_GRAPHEMES) {
        Some(end) if ends.len() > MAX_GRAPHEMES + 1 => {
            format!("{}…", out.get(..*end).unwrap_or_default().trim_end())
        }
        _ => out.to_owned(),
    }
}

/// The skeleton of a name (UTS #39): two names with the same skeleton cannot be distinguished at a glance, whatever their
/// letters, case and spaces.
#[must_use]
pub fn confusable_skeleton(name: &str) -> String {
    let plain: String = display_name(name, "").nfkc().collect();
    unicode_security::skeleton(&plain.to_lowercase())
        .flat_map(char::to_lowercase)
        .filter(|c| c.is_alphanumeric())
        // A capital I looks like a small l.
        .map(|c| if c == 'i' { 'l' } else { c })
        .collect()
}

/// Isolates the direction of a name, so that it cannot change the direction of the text behind it. Names without letters written
/// from right to left stay as they are.
#[must_use]
pub fn bidi_isolate(name: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c10_names_that_look_alike_have_one_likeness() {
        let alike = [
            ("Alice", "Аlісе"),
            ("Alice", "alice"),
            ("Alice", "A\u{200b}lice"),
            ("Alice", "\u{202e}Alice"),
            ("Alice", "Ａｌｉｃｅ"),
            ("Alice", "𝐀𝐥𝐢𝐜𝐞"),
            ("Alice", " Al ice "),
            ("modern", "modem"),
            ("paypal", "paypaI"),
        ];
        for (one, other) in alike {
            assert_eq!(
                confusable_skeleton(one),
                confusable_skeleton(other),
                "{one} {other:?}"
            );
        }
        for (one, other) in [("Alice", "Alicia"), ("Ann", "Anna"), ("Bob", "Rob")] {
            assert_ne!(
                confusable_skeleton(one),
                confusable_skeleton(other),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn c08_c11_a_name_is_one_line_without_anything_that_hides() {
        let flood = format!("a{}", "\u{301}".repeat(5_000));
        for name in [
            "a\r\nQUIT",
            "a\0b",
            "\u{202e}evil\u{2066}",
            flood.as_str(),
            "\u{9b}31m",
        ] {
            let shown = display_name(name, "");
            let hides = |c: char| c.is_control() || is_invisible(c);
            assert!(!shown.contains(hides), "{name:?}");
            assert!(shown.len() <= MAX_BYTES, "{}", shown.len());
        }
    }
}
