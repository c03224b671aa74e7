//! Inline text in Markdown. Backslashes work for some characters only; elsewhere a zero-width space separates
//! characters, or an entity replaces a character that the grammar would misread.

mod backslash;
pub(super) mod rules;
mod link;
mod email;
mod shortcode;
mod trim;

use footbridge_core::text::{Inline, plain_inlines};

use backslash::is_word;
use rules::{
    bare_url, contains_marked_code, email, is_entity, is_entity_rest, is_url_end, longest_run,
    percent, without_long_runs,
};

use super::{Rules, Underscores};
use crate::url_scanner::UrlScanner;

/// Separates characters invisibly.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// Where inline text is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InlineContext {
    /// In a paragraph.
    Line,
    /// In a heading: one line.
    Heading,
    /// In a table cell: one line, no bars.
    Cell,
    /// In the visible part of a link: one line, no links, no brackets.
    Label,
    /// In a person's name: one line, no links.
    Name,
}

impl InlineContext {
    fn one_line(self) -> bool {
        self != Self::Line
    }

    fn links(self) -> bool {
        !matches!(self, Self::Label | Self::Name)
    }
}

/// Writes inline text.
pub(super) struct InlineWriter {
    out: String,
    rules: Rules,
    underscores: Underscores,
    /// Whether only spaces precede this on its line.
    line_start: bool,
    /// Whether a bare URL was written last: everything up to the next space would belong to it.
    after_url: bool,
    /// The marks of the emphases that are open.
    open: Vec<&'static str>,
    /// The end of the last backslash that was doubled.
    twice_at: Option<usize>,
    /// Whether the output ends in an address that only Mattermost's apps turn into a link.
    address: UrlScanner,
}

impl InlineWriter {
    pub(super) fn new(rules: Rules, underscores: Underscores) -> Self {
        Self {
            out: String::new(),
            rules,
            underscores,
            line_start: true,
            after_url: false,
            open: Vec::new(),
            twice_at: None,
            address: UrlScanner::default(),
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    /// A name: text in which nothing is recognised.
    pub(super) fn name(&mut self, name: &str) {
        self.line_start = false;
        self.text(name, InlineContext::Name);
    }

    pub(super) fn inlines(&mut self, line: &[Inline], around: InlineContext) {
        for inline in line {
            self.inline(inline, around);
        }
    }

    fn inline(&mut self, inline: &Inline, around: InlineContext) {
        match inline {
            Inline::Text(text) => self.text(text, around),
            Inline::Break if around.one_line() => self.raw(" "),
            Inline::Break => {
                self.out.push('\n');
                self.line_start = true;
                self.after_url = false;
            }
            Inline::Bold(inner) => self.emphasis("**", inner, around),
            Inline::Italic(inner) => self.emphasis("*", inner, around),
            Inline::Strike(inner) => self.emphasis("~~", inner, around),
            Inline::Code(code) => self.code(code, around),
            Inline::Maths(tex)
                if self.rules.dollar_maths
                    && around == InlineContext::Line
                    && rules::is_plain_maths(tex) =>
            {
                self.raw(&format!("$${tex}$$"));
            }
            Inline::Maths(tex) => self.code(tex, around),
            Inline::Spoiler(inner) => {
                self.raw("(spoiler) ");
                self.inlines(inner, around);
            }
            Inline::Link { href, label } => self.link(href, label, around),
            Inline::Ping { name, .. } if around == InlineContext::Label => self.text(name, around),
            Inline::Ping { id, .. } => self.write_mention(id),
            Inline::Mention { name, .. } => {
                self.text("@", around);
                self.text(name.trim_start_matches('@'), around);
            }
        }
    }

    /// Writes text without escapes. A space ends a bare URL before it.
    fn raw(&mut self, text: &str) {
        if self.after_url && !text.starts_with([' ', '\n']) {
            self.out.push(' ');
        }
        self.after_url = false;
        self.line_start = false;
        self.out.push_str(text);
    }

    /// Mentions somebody. Separators keep adjacent text out of the name.
    fn write_mention(&mut self, account: &str) {
        if self
            .out
            .chars()
            .next_back()
            .is_some_and(|c| !c.is_whitespace())
        {
            self.raw(" ");
        }
        self.raw("@");
        self.out.push_str(account);
        self.out.push(ZERO_WIDTH_SPACE);
    }

    fn emphasis(&mut self, mark: &'static str, inner: &[Inline], around: InlineContext) {
        let plain = plain_inlines(inner);
        if plain.trim().is_empty() || self.open.contains(&mark) || contains_marked_code(inner) {
            self.inlines(inner, around);
            return;
        }
        if plain.starts_with(char::is_whitespace) && !self.out.is_empty() {
            self.raw(" ");
        }
        // Two adjacent marks would be read as one longer mark.
        if self.out.ends_with(['*', '~']) {
            self.raw("\u{200b}");
        }
        self.raw(mark);
        let inner_at = self.out.len();
        self.open.push(mark);
        self.inlines(inner, around);
        self.open.pop();
        self.trim_behind(mark, inner_at);
        if mark == "~~" && self.out.ends_with('~') {
            self.out.push(ZERO_WIDTH_SPACE);
        }
        self.after_url = false;
        self.line_start = false;
        self.out.push_str(mark);
        if plain.ends_with(char::is_whitespace) {
            self.out.push(' ');
        }
    }

    fn code(&mut self, code: &str, around: InlineContext) {
        let code = code.replace(['\n', '\r'], " ");
        if code.trim().is_empty() {
            self.raw(" ");
            return;
        }
        let readable_as_text = match around {
            InlineContext::Label => code.contains(['[', ']']),
            InlineContext::Cell => code.contains('|'),
            _ => false,
        };
        if readable_as_text {
            self.text(&code, around);
            return;
        }
        let code = without_long_runs(&code);
        let fence = "`".repeat(longest_run(&code, '`') + 1);
        if self.out.ends_with('`') || self.extends_email(&code) {
            self.raw("\u{200b}");
        }
        // A grammar that takes the word before for an address would include the opening mark.
        let word_at = self.out.rfind(rules::is_ascii_space);
        let word_at = word_at.map_or(0, |at| at + 1);
        if self.out.get(word_at..).is_some_and(rules::may_be_address) {
            self.raw(" ");
        }
        self.raw(&fence);
        let pad = if code.starts_with('`') || code.ends_with('`') {
            " "
        } else {
            ""
        };
        self.out.push_str(pad);
        self.out.push_str(&code);
        self.out.push_str(pad);
        self.out.push_str(&fence);
    }

    /// Writes characters literally.
    fn text(&mut self, text: &str, around: InlineContext) {
        let mut at = 0;
        if self.after_url && !text.starts_with(is_url_end) {
            self.raw(" ");
        }
        if text.starts_with(is_word) {
            self.before_word();
        }
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if around.links()
                && let Some(length) = bare_url(rest).or_else(|| self.email(rest))
            {
                self.verbatim(rest.get(..length).unwrap_or(rest));
                at += length;
                continue;
            }
            let mut chars = rest.chars();
            let Some(c) = chars.next() else { break };
            self.char(c, chars.as_str(), around);
            at += c.len_utf8();
        }
    }

    /// Writes a URL or an address, which the grammar takes whole.
    fn verbatim(&mut self, address: &str) {
        let url = address.contains("://");
        self.line_start = false;
        for (index, c) in address.char_indices() {
            match c {
                '*' | '~' | '`' | '|' => percent(c, &mut self.out),
                // Another grammar may take less for a URL, or nothing (C02).
                '@' if url => percent(c, &mut self.out),
                '&' if is_entity(address.get(index..).unwrap_or("")) => self.out.push_str("&amp;"),
                c => self.out.push(c),
            }
        }
        self.after_url = url;
    }

    fn email(&self, rest: &str) -> Option<usize> {
        let free = self
            .out
            .chars()
            .next_back()
            .is_none_or(|c| c.is_whitespace() || c == '(');
        free.then(|| email(rest))?
    }

    fn char(&mut self, c: char, after: &str, around: InlineContext) {
        let next = after.chars().next();
        let blank = c == ' ' || c == '\t' || c == '\u{a0}';
        if blank || c == '\n' {
            self.blank(c, around);
            return;
        }
        if self.after_url && !is_url_end(c) {
            self.raw(" ");
        }
        let begins =
            std::mem::take(&mut self.line_start) && !(c == '|' && around == InlineContext::Cell);
        if begins && self.at_line_start(c, after) {
            return;
        }
        match c {
            '*' if self.open.contains(&"*") => self.out.push_str("&ast;"),
            '_' if self.underscores == Underscores::Escaped => self.escaped(c),
            '[' if around == InlineContext::Label => self.out.push_str("&lsqb;"),
            ']' if around == InlineContext::Label => self.out.push_str("&rsqb;"),
            '\\' => self.backslash(next),
            '`' | '*' | '[' => self.escaped(c),
            '(' if self.out.ends_with(']') => self.escaped(c),
            '|' if around == InlineContext::Cell => self.out.push_str("&vert;"),
            // Names of channels and tags, which the renderer finds after escapes, too.
            '~' | '#' if self.rules.channels_and_tags && next.is_some_and(char::is_alphabetic) => {
                // Three in a row would be the fence of a code block.
                if c == '~' && self.out.ends_with('~') {
                    self.out.push('\\');
                }
                self.out.push(c);
                self.out.push(ZERO_WIDTH_SPACE);
            }
            '~' if next.is_none_or(|next| next == '~') || self.out.ends_with('~') => {
                self.escaped(c);
            }
            '#' if next.is_none_or(|next| next.is_ascii_digit()) => self.escaped(c),
            '<' if self.rules.emoticons && next.is_some_and(|c| c.is_ascii_digit()) => {
                self.out.push('<');
                self.out.push(ZERO_WIDTH_SPACE);
            }
            '<' if (self.rules.may_be_tag)(next) => self.out.push_str("&lt;"),
            '&' if after.is_empty() || is_entity_rest(after) => self.out.push_str("&amp;"),
            '$' if self.out.ends_with('$') => {
                self.out.push(ZERO_WIDTH_SPACE);
                self.out.push('$');
            }
            // C01, C02: an `@` is the only way to mention somebody. Only a space after it is safe, and the end of a
            // label would remove that space.
            '@' if next.is_none_or(|next| !next.is_whitespace()) || after.trim().is_empty() => {
                self.out.push('@');
                self.out.push(ZERO_WIDTH_SPACE);
            }
            '.' if around == InlineContext::Name => self.escaped(c),
            '.' | ')' if next.is_none_or(char::is_whitespace) && self.line_is_number() => {
                self.escaped(c);
            }
            ';' | 'x' | 'X' if self.emoticon(c, after) => {
                self.out.push(c);
                self.out.push(ZERO_WIDTH_SPACE);
            }
            ':' if self.colon_needs_escape(after, around) && self.in_link(around) => {
                percent(':', &mut self.out);
            }
            ':' if self.colon_needs_escape(after, around) => {
                self.out.push(':');
                self.out.push(ZERO_WIDTH_SPACE);
            }
            c => self.out.push(c),
        }
    }

    /// Whether this line is a number so far: a dot or a bracket would make it an item of a list.
    fn line_is_number(&self) -> bool {
        let line = self.out.rsplit('\n').next().unwrap_or("");
        !line.is_empty() && line.chars().all(|c| c.is_ascii_digit())
    }

    fn escaped(&mut self, c: char) {
        self.out.push('\\');
        self.out.push(c);
    }

    fn blank(&mut self, c: char, around: InlineContext) {
        self.after_url = false;
        let feed = c == '\n' && !around.one_line();
        let wide = if c == '\t' { 4 } else { 1 };
        if feed {
            self.out.push('\n');
            self.line_start = true;
        } else if self.line_start {
            // Spaces would make a code block, or be removed.
            self.out.extend(std::iter::repeat_n('\u{2002}', wide));
        } else {
            self.out.push(' ');
        }
    }

    /// Escapes characters that have a meaning only at the start of a line. Returns false for any other character.
    fn at_line_start(&mut self, c: char, after: &str) -> bool {
        let next = after.chars().next();
        let word = next.is_some_and(char::is_alphanumeric);
        let line = after.lines().next().unwrap_or("");
        match c {
            '#' | '>' | '|' => self.escaped(c),
            '-' | '+' if !word => self.escaped(c),
            '=' | ':'
                if line
                    .chars()
                    .all(|c| matches!(c, '=' | '-' | ':' | '|' | ' ')) =>
            {
                self.out.push(ZERO_WIDTH_SPACE);
                self.out.push(c);
            }
            _ => return false,
        }
        true
    }
}
