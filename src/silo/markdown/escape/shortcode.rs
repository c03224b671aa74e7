//! Colons that mean themselves.

use super::Writer;

impl Writer {
    /// Whether what stands behind a colon makes an emoji of it, wherever the silo's apps look for one.
    pub(super) fn shortcode(&self, after: &str) -> bool {
        let name = after.split_once(':').map(|(name, _)| name);
        name.is_some_and(|name| self.flavour.has_emoji(name))
    }
}
