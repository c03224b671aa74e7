//! Links in Markdown.

use footbridge_core::text::{Inline, is_misleading_link, plain_inlines};

use super::{
    InlineContext, InlineWriter,
    rules::{has_at_in_authority, percent},
};

impl InlineWriter {
    pub(super) fn link(&mut self, href: &str, label: &[Inline], around: InlineContext) {
        let shown = plain_inlines(label);
        let shown = shown.trim();
        if !around.links() {
            self.inlines(label, around);
            return;
        }
        let web = (href.starts_with("http://") || href.starts_with("https://"))
            && !has_at_in_authority(href);
        let address = href.strip_prefix("mailto:").unwrap_or(href);
        if shown.is_empty() || shown == address {
            self.text(address, around);
            return;
        }
        if !web {
            // Renderers put http:// in front of other schemes, or show them as text; and an `@` in the authority cannot
            // be kept from mentioning somebody.
            self.inlines(label, around);
            self.raw(" (");
            self.text(address, around);
            self.text(")", around);
            return;
        }
        // An exclamation mark before a link would make it an image.
        if self.out.ends_with('!') && !self.out.ends_with("\\!") {
            self.out.pop();
            self.out.push_str("\\!");
        }
        self.raw("[");
        let inner_at = self.out.len();
        self.inlines(label, InlineContext::Label);
        self.trim_behind("[", inner_at);
        self.out.push_str("](");
        for c in href.chars() {
            self.href_char(c);
        }
        self.out.push(')');
        self.after_url = false;
        if is_misleading_link(href, shown) {
            self.raw(" (");
            self.text(href, around);
            self.text(")", around);
        }
    }

    fn href_char(&mut self, c: char) {
        match c {
            '(' | ')' | '<' | '>' | '"' | '\'' | '\\' | '*' | '`' | '~' | '|' | '[' | ']' | ' '
            | '@' => {
                percent(c, &mut self.out);
            }
            c => self.out.push(c),
        }
    }
}
