//! Colons that mean themselves.

use super::{Around, Writer};
use crate::silo::markdown::Flavour;

impl Writer {
    /// Whether this colon, with what stands behind it, would be more than a colon: of the name of an emoji, or of an address that
    /// was not written as one.
    pub(super) fn colon_counts(&self, after: &str, around: Around) -> bool {
        match around {
            Around::Name if after.starts_with('/') => true,
            // No address is looked for in the label of a link.
            Around::Label => self.shortcode(after),
            _ => self.shortcode(after) || self.scheme(after),
        }
    }

    /// Whether what stands behind a colon makes an emoji of it, wherever the silo's apps look for one.
    fn shortcode(&self, after: &str) -> bool {
        let name = after.split_once(':').map(|(name, _)| name);
        name.is_some_and(|name| self.flavour.has_emoji(name))
    }

    /// What we do not take for an address may become one by the marks that are put in it, and Gitter shows these then.
    fn scheme(&self, after: &str) -> bool {
        let known = ["http", "https"]
            .iter()
            .any(|scheme| self.out.ends_with(scheme));
        self.flavour == Flavour::Gitter && after.starts_with("//") && known
    }
}
