//! Prevents Matterbridge from making emoji of text: for every network it replaces each `:name:` that its package
//! kyokomi/emoji knows, also within words and addresses (`10:100:30`, `https://x.example/a:x:b`). An author who wanted
//! an emoji has sent one, so every shortcode is broken.

use std::{collections::HashSet, sync::LazyLock};

use super::mentions::ZERO_WIDTH_SPACE;
use crate::url_scanner::UrlScanner;

static NAMES: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("emoji.txt").lines();
    let names = lines.filter(|line| !line.starts_with("# "));
    names.flat_map(str::split_whitespace).collect()
});

/// Whether Matterbridge has an emoji of this name.
pub fn is_known(name: &str) -> bool {
    let country = name.strip_prefix("flag-");
    let is_flag = country
        .is_some_and(|code| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_lowercase()));
    is_flag || NAMES.contains(name)
}

/// The same text without shortcodes for Matterbridge. Matterbridge pairs colons from the left: a pair around an unknown
/// name is consumed, and white space ends one.
#[must_use]
pub fn without_emoji(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut address = UrlScanner::default();
    while let Some((before, after)) = rest.split_once(':') {
        out.push_str(before);
        let ends = |c: char| c == ':' || c.is_whitespace();
        let end = after.find(ends).unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        if name.is_empty() || !behind.starts_with(':') {
            // Another colon begins a new pair.
            out.push(':');
            rest = after;
            if !name.is_empty() {
                out.push_str(name);
                rest = behind;
            }
        } else if !is_known(name) {
            out.push(':');
            out.push_str(name);
            out.push(':');
            rest = behind.get(1..).unwrap_or_default();
        } else if address.ends_in_url(&out) {
            // `%3A` leads to the same address. The other colon begins a new pair.
            out.push_str("%3A");
            out.push_str(name);
            rest = behind;
        } else {
            out.push(':');
            out.push(ZERO_WIDTH_SPACE);
            out.push_str(name);
            out.push(':');
            rest = behind.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shortcodes::digest;

    /// The digest of the names in the package's own file except those of flags, sorted by bytes, joined with commas.
    const PUBLISHED: &str = "c2d682bafb8b7b8421175fb082b390f99d10a9d49312d1601b0d6f2037a16258";

    #[test]
    fn the_list_is_the_one_that_kyokomi_publishes() {
        let mut names: Vec<&str> = NAMES.iter().copied().collect();
        names.sort_unstable();
        assert_eq!(names.len(), 4_524);
        assert_eq!(digest(&names.join(",")), PUBLISHED);
    }

    #[test]
    fn no_emoji_is_created_from_plain_text() {
        for (text, sent) in [
            (
                "10:30:45 a::qq::c :nothing: :",
                "10:30:45 a::qq::c :nothing: :",
            ),
            (":tada: :+1:", ":\u{200b}tada: :\u{200b}+1:"),
            ("10:100:30", "10:\u{200b}100:30"),
            (":flag-de: :flag-D:", ":\u{200b}flag-de: :flag-D:"),
            ("::x:y", "::\u{200b}x:y"),
            // The first pair consumes its colons.
            ("at:no:x:y", "at:no:x:y"),
            (
                "see: https://x.example/a:x:b:o: :x:",
                "see: https://x.example/a:x%3Ab%3Ao: :\u{200b}x:",
            ),
            ("http://x:o:8", "http://x:o:8"),
            ("x:o:8", "x:\u{200b}o:8"),
            (
                "www.x.example/a:x:b ftp://h.example/a:o:b:8",
                "www.x.example/a%3Ax:b ftp://h.example/a:o%3Ab:8",
            ),
        ] {
            assert_eq!(without_emoji(text), sent, "{text}");
        }
    }

    /// Far longer than an event may be: scanning it once per name would take minutes.
    #[test]
    fn a_long_address_with_many_names_is_read_once() {
        let names = ":x".repeat(60_000);
        let sent = without_emoji(&format!("https://a/{names}"));
        // The first colon of a name forms a pair with that of the scheme.
        let expected = format!("https://a/:x{}:x", "%3Ax".repeat(59_998));
        assert!(sent == expected);
    }
}
