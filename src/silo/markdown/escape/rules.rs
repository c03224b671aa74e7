//! The rules of marked's grammar.

use footbridge_core::text::Inline;

use super::ZERO_WIDTH_SPACE;

/// How many backticks in a row stay together.
const MAX_FENCE: usize = 32;

/// Whether a single underscore anywhere in this text could end emphasis: then all of them need a backslash.
pub(in crate::markdown) fn may_emphasise(markdown: &str) -> bool {
    markdown
        .split('_')
        .skip(1)
        .any(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

/// The length of the longest run of one character.
pub(in crate::markdown) fn longest_run(text: &str, of: char) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == of { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Separates backticks that no fence of reasonable length could contain.
pub(in crate::markdown) fn without_long_runs(code: &str) -> String {
    let mut run = 0usize;
    let mut out = String::with_capacity(code.len());
    for c in code.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        if run > MAX_FENCE {
            out.push(ZERO_WIDTH_SPACE);
            run = 1;
        }
        out.push(c);
    }
    out
}

/// What may directly follow a bare URL: white space, or what the grammar excludes from its end.
pub(in crate::markdown) fn is_url_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '.' | ',' | ':' | ';' | '"' | '\'' | ']' | ')')
}

/// Percent-encodes a character that has a meaning outside of the URL.
pub(in crate::markdown) fn percent(c: char, out: &mut String) {
    let mut bytes = [0; 4];
    for byte in c.encode_utf8(&mut bytes).bytes() {
        out.push('%');
        for half in [byte >> 4, byte & 15] {
            out.extend(char::from_digit(u32::from(half), 16).map(|c| c.to_ascii_uppercase()));
        }
    }
}

/// Whether a URL has an `@` in its authority: it cannot be encoded there, and each grammar reads it differently.
pub(crate) fn has_at_in_authority(url: &str) -> bool {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    let end = behind.find(['/', '?', '#', '\\']).unwrap_or(behind.len());
    behind
        .get(..end)
        .is_some_and(|authority| authority.contains('@'))
}

/// White space that ends an address in every grammar. Mattermost's grammar knows no other.
pub(in crate::markdown) fn is_ascii_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

/// Whether a grammar may find an address in this word, with any scheme or none.
pub(in crate::markdown) fn may_be_address(word: &str) -> bool {
    let www = |word: &str| {
        let behind = word.trim_start_matches(|c: char| c.is_ascii_digit());
        behind.starts_with('.')
    };
    word.contains("://") || word.to_ascii_lowercase().split("www").skip(1).any(www)
}

/// The length of the bare URL at the start of this text, as the grammar measures it. A URL with an `@` in its authority
/// does not count.
pub(in crate::markdown) fn bare_url(text: &str) -> Option<usize> {
    let scheme = ["https://", "http://"]
        .iter()
        .find(|scheme| text.starts_with(**scheme))?
        .len();
    let run = text
        .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '\u{feff}'))
        .unwrap_or(text.len());
    let url = text
        .get(..run)?
        .trim_end_matches(['.', ',', ':', ';', '"', '\'', ']']);
    // The grammar requires two characters after the slashes.
    let is_long_enough = url.get(scheme..)?.chars().count() >= 2;
    (is_long_enough && !has_at_in_authority(url)).then_some(url.len())
}

/// The length of the plain mail address at the start of this text: one that the grammar certainly takes whole.
pub(crate) fn email(text: &str) -> Option<usize> {
    let word = |c: char| c.is_ascii_alphanumeric();
    let local = text.find(|c: char| !word(c) && !matches!(c, '.' | '+' | '-'))?;
    let name = text.get(..local)?;
    let domain = text.get(local..)?.strip_prefix('@')?;
    let end = domain
        .find(|c: char| !word(c) && !matches!(c, '.' | '-'))
        .unwrap_or(domain.len());
    let follows = domain.get(end..)?.chars().next();
    let domain = domain.get(..end)?.trim_end_matches('.');
    let good = name.starts_with(word)
        && name.ends_with(word)
        && domain.contains('.')
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.starts_with(word) && label.ends_with(word)
        })
        && follows.is_none_or(|c| c.is_whitespace() || matches!(c, ',' | ';' | '!' | '?' | ')'));
    good.then_some(local + 1 + domain.len())
}

/// Whether an ampersand and what follows would be shown as another character.
pub(in crate::markdown) fn is_entity(text: &str) -> bool {
    text.strip_prefix('&').is_some_and(is_entity_rest)
}

pub(in crate::markdown) fn is_entity_rest(after: &str) -> bool {
    let name = after.strip_prefix('#').unwrap_or(after);
    let end = name
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    end > 0
        && name
            .get(end..)
            .is_some_and(|rest| rest.starts_with(';') || rest.is_empty())
}

/// Whether a mark inside code, where nothing can escape it, would end emphasis around this.
pub(in crate::markdown) fn contains_marked_code(line: &[Inline]) -> bool {
    line.iter().any(|inline| match inline {
        Inline::Code(code) | Inline::Maths(code) => code.contains(['*', '~']),
        Inline::Bold(inner)
        | Inline::Italic(inner)
        | Inline::Strike(inner)
        | Inline::Spoiler(inner)
        | Inline::Link { label: inner, .. } => contains_marked_code(inner),
        Inline::Text(_) | Inline::Break | Inline::Mention { .. } | Inline::Ping { .. } => false,
    })
}

/// Whether Gitter's renderer cannot take anything in a formula for something else, or for a mention.
pub(in crate::markdown) fn is_plain_maths(tex: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || " \\{}()[]^_+-=/*,.;:!'".contains(c);
    !tex.is_empty() && tex.trim() == tex && tex.chars().all(known)
}
