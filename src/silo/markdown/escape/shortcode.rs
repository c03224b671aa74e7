//! Literal colons.

use super::{InlineContext, InlineWriter};

/// Whether these eyes and the text after them are an emoticon in Mattermost's apps (`emoticonPatterns`): `:)`, `:-P`,
/// `;)`, `x-D`.
fn is_face(eyes: char, after: &str) -> bool {
    match eyes {
        ':' => is_mouth(after),
        ';' => {
            let mouth = after.strip_prefix('-').unwrap_or(after).strip_prefix(')');
            mouth.is_some_and(|rest| !rest.starts_with(is_letter))
        }
        'x' | 'X' => {
            let mouth = after
                .strip_prefix("-d")
                .or_else(|| after.strip_prefix("-D"));
            mouth.is_some_and(|rest| !rest.starts_with(is_letter))
        }
        _ => false,
    }
}

/// The same after a colon.
fn is_mouth(after: &str) -> bool {
    let (nose, face) = after
        .strip_prefix('-')
        .map_or(("", after), |face| ("-", face));
    let mut rest = face.chars();
    let mark = rest.next().unwrap_or_default().to_ascii_lowercase();
    let ends = |rest: &str| !rest.starts_with(is_letter);
    match mark {
        'd' | 'p' | 's' | 'o' | ')' | ']' | '[' | '(' | '/' | '|' | '$' => ends(rest.as_str()),
        'x' => !nose.is_empty() && ends(rest.as_str()),
        // The `@` gets a separator of its own.
        '@' => true,
        '\'' | '`' | '\u{2019}' if nose.is_empty() => {
            let face = rest.as_str();
            let mouth = face.strip_prefix('-').unwrap_or(face).strip_prefix('(');
            mouth.is_some_and(ends)
        }
        _ => false,
    }
}

/// What the apps take for a letter.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl InlineWriter {
    /// Whether this colon, with the text after it, would be more than a colon: a part of a shortcode, of an emoticon,
    /// or of an address that the author did not write as one.
    pub(super) fn colon_needs_escape(&self, after: &str, around: InlineContext) -> bool {
        match around {
            InlineContext::Name if after.starts_with('/') => true,
            // The label of a link is not searched for addresses.
            InlineContext::Label => self.shortcode(after) || self.emoticon(':', after),
            _ => self.shortcode(after) || self.emoticon(':', after) || self.scheme(after),
        }
    }

    /// Whether the text after a colon makes a shortcode that the silo's apps show as an emoji.
    fn shortcode(&self, after: &str) -> bool {
        let name = after.split_once(':').map(|(name, _)| name);
        name.is_some_and(|name| (self.rules.is_emoji)(name))
    }

    /// Whether Mattermost's apps would wrongly show an emoticon that begins here: an intended one is preceded by a
    /// space.
    pub(super) fn emoticon(&self, eyes: char, after: &str) -> bool {
        // After an ASCII letter the apps show none either.
        let is_attached = |c: char| !c.is_whitespace() && !is_letter(c);
        self.rules.emoticons
            && self.out.chars().next_back().is_some_and(is_attached)
            && is_face(eyes, after)
    }

    /// Whether the output ends in an address that Mattermost's apps turn into a link, whatever its scheme.
    pub(super) fn in_link(&mut self, around: InlineContext) -> bool {
        self.rules.any_scheme && around.links() && self.address.ends_in_url(&self.out)
    }

    /// Escapes in a text that the bridge does not take for an address may make Gitter link it, and Gitter then shows
    /// the escapes.
    fn scheme(&self, after: &str) -> bool {
        let known = ["http", "https"]
            .iter()
            .any(|scheme| self.out.ends_with(scheme));
        self.rules.addresses_first && after.starts_with("//") && known
    }
}
