//! How Gitter's server renders inline text: its fork of marked (`gitter-marked` 0.16.0, `InlineLexer`, with `gfm`,
//! `breaks` and `sanitize`) and its renderer (`gitter-markdown-processor` 21.0.0), reimplemented independently of the
//! bridge's reader and writer; and what its app then shows. Links with a label are not rendered: they become `<link>`.

mod rules;

use std::fmt::Write as _;

use rules::{
    code, html_tag, issue, mail, no_link, repository, starred, strong, struck, text, underscored,
    url,
};

/// The HTML of a line, and whom it mentions.
#[derive(Default)]
pub struct Rendered {
    /// The server's HTML.
    pub html: String,
    /// The names of people and groups that it mentions.
    pub called: Vec<String>,
}

/// Renders a line of inline text.
#[must_use]
pub fn render(line: &str) -> Rendered {
    let mut rendered = Rendered::default();
    rendered.line(line);
    rendered
}

/// What the app shows of HTML: without tags, and with a picture for each `:name:` that `emoji` replaces.
#[must_use]
pub fn shown(html: &str, emoji: fn(&str) -> String) -> String {
    let (mut out, mut verbatim) = (String::new(), 0_usize);
    for piece in html.split('<').enumerate() {
        let text = match piece {
            (0, text) => text,
            (_, piece) => {
                let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
                match tag {
                    "br" => out.push('\n'),
                    "/a" | "/code" => verbatim = verbatim.saturating_sub(1),
                    tag if tag == "code" || tag.starts_with("a ") => verbatim += 1,
                    _ => {}
                }
                text
            }
        };
        let text = decoded(text);
        out.push_str(&if verbatim > 0 { text } else { emoji(&text) });
    }
    out
}

fn decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let known = [
            ("lt;", '<'),
            ("gt;", '>'),
            ("quot;", '"'),
            ("#39;", '\''),
            ("amp;", '&'),
            ("ast;", '*'),
            ("vert;", '|'),
            ("lsqb;", '['),
            ("rsqb;", ']'),
            ("#92;", '\\'),
        ];
        let entity = known
            .iter()
            .find_map(|(name, meant)| Some((*meant, behind.strip_prefix(name)?)));
        let (meant, left) = entity.unwrap_or(('&', behind));
        out.push(meant);
        rest = left;
    }
    out + rest
}

/// `escape` of marked; entities stay unless `all`.
fn escaped(text: &str, all: bool) -> String {
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        match c {
            '&' if all || !is_entity(&text[at + 1..]) => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn is_entity(after: &str) -> bool {
    let name = after.strip_prefix('#').unwrap_or(after);
    let end = run(name, is_word);
    end > 0 && name[end..].starts_with(';')
}

/// JavaScript's `\w`.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// JavaScript's `\s`.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// The length of the run of such characters at the start.
fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

impl Rendered {
    fn line(&mut self, line: &str) {
        let (mut rest, mut in_brackets) = (line, false);
        while !rest.is_empty() {
            let (taken, opens) = self.piece(rest, in_brackets);
            in_brackets = opens;
            rest = &rest[taken..];
        }
    }

    fn tag(&mut self, name: &str, inner: &str) {
        write!(self.html, "<{name}>").unwrap();
        self.line(inner);
        write!(self.html, "</{name}>").unwrap();
    }

    /// Renders the next piece. Returns its length, and whether it leaves a bracket open.
    fn piece(&mut self, src: &str, in_brackets: bool) -> (usize, bool) {
        if let Some(c) = src
            .strip_prefix('\\')
            .and_then(|behind| behind.chars().next())
            && "\\`*{}[]()#+-.!_>~|".contains(c)
        {
            self.html.push(c);
            return (2, false);
        }
        for (mark, name) in [("__", "strong"), ("**", "strong")] {
            if let Some(end) = strong(src, mark) {
                self.tag(name, &src[2..end]);
                return (end + 2, false);
            }
        }
        if let Some(end) = underscored(src).or_else(|| starred(src)) {
            self.tag("em", &src[1..end]);
            return (end + 1, false);
        }
        if let Some((inner, length)) = code(src) {
            write!(self.html, "<code>{}</code>", escaped(inner, true)).unwrap();
            return (length, false);
        }
        if let Some(end) = src.strip_prefix("$$").and_then(|behind| behind.find("$$")) {
            self.html.push_str("<katex>");
            return (end + 4, false);
        }
        if let Some(length) = self.reference(src) {
            return (length, false);
        }
        if let Some(length) = url(src, in_brackets) {
            self.link(&src[..length]);
            return (length, false);
        }
        if let Some(length) = html_tag(src) {
            self.html.push_str(&escaped(&src[..length], false));
            return (length, false);
        }
        if (src.starts_with('[') || src.starts_with("![")) && src.contains("](") {
            self.html.push_str("<link>");
            return (src.len(), false);
        }
        if no_link(src) {
            self.html.push_str(&src[..1]);
            return (1, false);
        }
        let blanks = run(src, |c| c == ' ');
        if let Some(behind) = src[blanks..].strip_prefix('\n')
            && !behind.trim_start_matches(is_space).is_empty()
        {
            self.html.push_str("<br>");
            return (blanks + 1, false);
        }
        if let Some(end) = struck(src) {
            self.tag("del", &src[2..end]);
            return (end + 2, false);
        }
        let length = text(src);
        let escaped = escaped(&src[..length], false);
        let opens = escaped.matches('(').count() > escaped.matches(')').count();
        self.html.push_str(&escaped);
        (length, opens)
    }

    fn link(&mut self, url: &str) {
        let url = escaped(url, false);
        write!(self.html, "<a href=\"{url}\" rel=\"nofollow noopener noreferrer\" target=\"_blank\" class=\"link \">{url}</a>").unwrap();
    }

    /// The server encodes each letter as an entity, and drops what precedes a colon in the seventh place.
    fn mailbox(&mut self, address: &str) {
        let seventh = address.char_indices().nth(6).filter(|(_, c)| *c == ':');
        let address = seventh.map_or(address, |(at, _)| &address[at + 1..]);
        let address = escaped(address, true);
        write!(
            self.html,
            "<a href=\"http://mailto:{address}\" class=\"link link-tooltip\">{address}</a>"
        )
        .unwrap();
    }

    /// A mention, a commit, a mail address, an address in angle brackets, a group, an issue: in this order.
    fn reference(&mut self, src: &str) -> Option<usize> {
        if let Some(behind) = src.strip_prefix('@') {
            let name = &behind[..run(behind, |c| is_word(c) || "-.:[]".contains(c))];
            let name = name.trim_end_matches(['_', '-', '.', ':']);
            if !name.is_empty() {
                self.called.push(name.to_owned());
                write!(self.html, "<span data-link-type=\"mention\" data-screen-name=\"{name}\" class=\"mention\">@{name}</span>").unwrap();
                return Some(name.len() + 1);
            }
        }
        let repository = repository(src);
        if let Some(end) = repository
            && let Some(behind) = src[end..].strip_prefix('@')
        {
            let digits = run(behind, |c| matches!(c, '0'..='9' | 'a'..='f')).min(40);
            if digits >= 7 {
                self.html.push_str("<commit>");
                return Some(end + 1 + digits);
            }
        }
        if let Some(length) = mail(src) {
            let address = escaped(&src[..length], false);
            write!(
                self.html,
                "<a href=\"mailto:{address}\" rel=\"nofollow\">{address}</a>"
            )
            .unwrap();
            return Some(length);
        }
        if let Some(behind) = src.strip_prefix('<') {
            let inner = &behind[..run(behind, |c| c != ' ' && c != '>')];
            let is_marked = |mark: &str| {
                let found = inner.rfind(mark);
                found.is_some_and(|at| at > 0 && at + mark.len() < inner.len())
            };
            if behind[inner.len()..].starts_with('>') && (is_marked(":/") || is_marked("@")) {
                // The last mark decides.
                if inner.rfind('@') > inner.rfind(":/") {
                    self.mailbox(inner);
                } else {
                    self.link(inner);
                }
                return Some(inner.len() + 2);
            }
        }
        if let Some(behind) = src.strip_prefix("@/") {
            let name = &behind[..run(behind, |c| is_word(c) || c == '-')];
            if !name.is_empty() {
                self.called.push(name.to_owned());
                write!(self.html, "<span data-link-type=\"groupmention\" data-group-name=\"{name}\" class=\"groupmention\">@/{name}</span>").unwrap();
                return Some(name.len() + 2);
            }
        }
        let (length, digits) = issue(src, repository)?;
        let number = &src[length - digits..length];
        let repository = &src[..length - digits - 1];
        let named = if repository.is_empty() {
            String::new()
        } else {
            format!(" data-issue-repo=\"{repository}\"")
        };
        write!(self.html, "<a target=\"_blank\" data-link-type=\"issue\" data-issue=\"{number}\"{named} class=\"issue\">{}</a>",
            &src[..length]).unwrap();
        Some(length)
    }
}
