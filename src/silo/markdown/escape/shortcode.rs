//! Colons that mean themselves.

use super::{InlineContext, InlineWriter};
use crate::markdown::Flavour;

/// Whether these eyes and what stands behind them are a face to Mattermost's apps (`emoticonPatterns`): `:)`, `:-P`, `;)`, `x-D`.
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

/// The same behind a colon.
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
        // It is parted from what stands behind it.
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
    /// Whether this colon, with what stands behind it, would be more than a colon: of the name of an emoji, or of an address that
    /// was not written as one.
    pub(super) fn colon_needs_escape(&self, after: &str, around: InlineContext) -> bool {
        match around {
            InlineContext::Name if after.starts_with('/') => true,
            // No address is looked for in the label of a link.
            InlineContext::Label => self.shortcode(after) || self.emoticon(':', after),
            _ => self.shortcode(after) || self.emoticon(':', after) || self.scheme(after),
        }
    }

    /// Whether what stands behind a colon makes an emoji of it, wherever the silo's apps look for one.
    fn shortcode(&self, after: &str) -> bool {
        let name = after.split_once(':').map(|(name, _)| name);
        name.is_some_and(|name| self.flavour.has_emoji(name))
    }

    /// Whether Mattermost's apps make a face of what begins with this, and it is none: one that is meant stands by itself.
    pub(super) fn emoticon(&self, eyes: char, after: &str) -> bool {
        // Behind a letter of ASCII the apps see none either.
        let is_attached = |c: char| !c.is_whitespace() && !is_letter(c);
        self.flavour == Flavour::Mattermost
            && self.out.chars().next_back().is_some_and(is_attached)
            && is_face(eyes, after)
    }

    /// Whether this stands in what Mattermost's apps make a link of, whatever its scheme.
    pub(super) fn in_link(&mut self, around: InlineContext) -> bool {
        self.flavour == Flavour::Mattermost && around.links() && self.address.ends_in_url(&self.out)
    }

    /// What we do not take for an address may become one by the marks that are put in it, and Gitter shows these then.
    fn scheme(&self, after: &str) -> bool {
        let known = ["http", "https"]
            .iter()
            .any(|scheme| self.out.ends_with(scheme));
        self.flavour == Flavour::Gitter && after.starts_with("//") && known
    }
}
