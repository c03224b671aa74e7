//! Whom a text mentions in Gitter.

/// Gitter's mention grammar: `@` and a name, or `@/` and a group, outside of code. Inside of URLs as well: the exact
/// extent of a URL in Gitter is not known.
#[must_use]
pub fn calls(markdown: &str) -> bool {
    let mut at = 0;
    while let Some(rest) = markdown.get(at..).filter(|rest| !rest.is_empty()) {
        let step = |rest: &str| rest.chars().next().map_or(1, char::len_utf8);
        if rest.starts_with('\\') && !rest.starts_with("\\@") {
            at += 1 + rest.get(1..).map_or(0, step);
            continue;
        }
        let bare = rest.trim_start_matches('`');
        let fence = rest.len() - bare.len();
        if fence > 0
            && let Some(end) = bare.find(&"`".repeat(fence))
        {
            at += end + 2 * fence;
            continue;
        }
        let before = markdown.get(..at).and_then(|text| text.chars().next_back());
        let mail = before.is_some_and(|c| c.is_ascii_alphanumeric());
        let begins = |c: char| c.is_ascii_alphanumeric() || "_-.:[]/".contains(c);
        if !mail
            && rest
                .strip_prefix('@')
                .is_some_and(|name| name.starts_with(begins))
        {
            return true;
        }
        at += step(rest);
    }
    false
}
