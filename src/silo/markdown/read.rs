//! Markdown → neutral text, as Mattermost's apps show it. HTML in it is text, line ends are kept, and shortcodes of
//! emoji become emoji.

use std::{borrow::Cow, ops::Range};

use footbridge_core::text::{
    Block, Body,
    html::{Dialect, body_from_html},
    with_emoji,
};
use pulldown_cmark::{
    CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, TextMergeWithOffset, html::push_html,
};
use url::Url;

use crate::mattermost;

/// The extensions of `CommonMark` that are read.
const OPTIONS: Options = Options::ENABLE_STRIKETHROUGH.union(Options::ENABLE_TABLES);

/// What a backslash escapes in Mattermost (its fork of marked, `inline.escape`); it also escapes another backslash, but
/// only before a character that is no letter, digit or underscore.
const ESCAPABLE: &str = "`*{}[]()#+-.!_>|~";

/// How far after the beginning of an image its size may follow, in bytes.
const MAX_SIZE_DISTANCE: usize = 2_048;

/// Reads Markdown as Mattermost's apps show it.
#[must_use]
pub fn body_from_markdown(markdown: &str) -> Body {
    body_from_markdown_of(markdown, None)
}

/// The same; addresses without a host are relative to this server.
#[must_use]
pub fn body_from_markdown_of(written: &str, server: Option<&Url>) -> Body {
    let markdown = &*for_commonmark(written);
    let mut reader = Reader {
        markdown,
        server,
        in_code: false,
        strikes: Vec::new(),
        links: Vec::new(),
        pictures: Vec::new(),
    };
    let events = Parser::new_ext(markdown, OPTIONS).into_offset_iter();
    let events =
        TextMergeWithOffset::new(events).flat_map(|(event, range)| reader.read(event, range));
    let mut html = String::new();
    push_html(&mut html, events);
    let mut body = body_from_html(&html, Dialect::Matrix);
    for block in &mut body.0 {
        // Apps that show formulas read them from code blocks in these languages.
        if let Block::Code {
            language: Some(language),
            text,
        } = block
            && matches!(language.as_str(), "latex" | "tex")
            // With several lines, each may end in a comment: they stay as they are.
            && !text.contains('\n')
        {
            *block = Block::Maths(std::mem::take(text));
        }
    }
    if body.is_empty() {
        Body::plain(written)
    } else {
        body
    }
}

/// The state of the reader at the parser's position.
struct Reader<'a> {
    markdown: &'a str,
    server: Option<&'a Url>,
    in_code: bool,
    /// For each open strikethrough, whether Mattermost shows it as one.
    strikes: Vec<bool>,
    /// For each open link and image, whether it is shown as a link.
    links: Vec<bool>,
    /// The addresses of the images inside a link: they follow the link.
    pictures: Vec<CowStr<'a>>,
}

impl<'a> Reader<'a> {
    /// Converts one event of the parser.
    fn read(&mut self, event: Event<'a>, range: Range<usize>) -> Vec<Event<'a>> {
        vec![match event {
            // In Mattermost one tilde strikes nothing out.
            Event::Start(Tag::Strikethrough) => {
                let text = self.markdown.get(range);
                let strikes_out = text.is_some_and(|text| text.starts_with("~~"));
                self.strikes.push(strikes_out);
                if strikes_out {
                    Event::Start(Tag::Strikethrough)
                } else {
                    Event::Text("~".into())
                }
            }
            Event::End(TagEnd::Strikethrough) if self.strikes.pop() == Some(false) => {
                Event::Text("~".into())
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                self.in_code = true;
                Event::Start(Tag::CodeBlock(kind))
            }
            Event::End(TagEnd::CodeBlock) => {
                self.in_code = false;
                Event::End(TagEnd::CodeBlock)
            }
            Event::Start(Tag::Link {
                link_type: LinkType::Email,
                dest_url,
                ..
            }) => return self.link_starts(format!("mailto:{dest_url}").into(), false),
            Event::Start(Tag::Link { dest_url, .. }) => return self.link_starts(dest_url, false),
            Event::Start(Tag::Image { dest_url, .. }) => return self.link_starts(dest_url, true),
            Event::End(TagEnd::Link | TagEnd::Image) => return self.link_ends(),
            Event::Text(text) if !self.in_code => {
                Event::Text(with_emoji(&text, mattermost::emoji::shown).into())
            }
            Event::SoftBreak => Event::HardBreak,
            Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
            other => other,
        }]
    }

    /// An image becomes a link to it. An image inside a link is no link of its own.
    fn link_starts(&mut self, address: CowStr<'a>, is_picture: bool) -> Vec<Event<'a>> {
        let address = resolved(&address, self.server).map_or(address, CowStr::from);
        let is_inner = !self.links.is_empty();
        self.links.push(!is_inner);
        if !is_inner {
            return vec![link(address)];
        }
        self.pictures.extend(is_picture.then_some(address));
        Vec::new()
    }

    fn link_ends(&mut self) -> Vec<Event<'a>> {
        if self.links.pop() != Some(true) {
            return Vec::new();
        }
        let mut events = vec![Event::End(TagEnd::Link)];
        for address in self.pictures.drain(..) {
            let label = Event::Text("image".into());
            let (start, end) = (Event::Text(" (".into()), Event::Text(")".into()));
            events.extend([start, link(address), label, Event::End(TagEnd::Link), end]);
        }
        events
    }
}

fn link(address: CowStr<'_>) -> Event<'_> {
    Event::Start(Tag::Link {
        link_type: LinkType::Inline,
        dest_url: address,
        title: CowStr::Borrowed(""),
        id: CowStr::Borrowed(""),
    })
}

/// Where an address without a scheme leads: a path leads to a page of the server, anything else to a host of that name.
/// `None` if the address is a URL already, or leads nowhere.
#[must_use]
pub fn resolved(address: &str, server: Option<&Url>) -> Option<String> {
    let address = address.trim();
    if Url::parse(address).is_ok() {
        return None;
    }
    if address.starts_with('/') {
        return Some(server?.join(address).ok()?.into());
    }
    let host = address.split(['/', '?', '#']).next()?;
    let is_host = host.contains('.') && !host.starts_with('.') && !host.contains('@');
    let url = is_host.then(|| Url::parse(&format!("http://{address}")).ok())?;
    url.map(String::from)
}

/// The same Markdown for a reader that follows `CommonMark`, in which a backslash escapes more than in Mattermost,
/// marks in an address are marks, and an image has no size after its address. Code and HTML are the same in both.
fn for_commonmark(markdown: &str) -> Cow<'_, str> {
    if !["\\", "://", " ="]
        .iter()
        .any(|mark| markdown.contains(mark))
    {
        return Cow::Borrowed(markdown);
    }
    let mut out = String::with_capacity(markdown.len() + 16);
    let mut at = 0;
    for range in verbatim(markdown) {
        // A range may contain another.
        if range.start >= at {
            let before = markdown.get(at..range.start).unwrap_or_default();
            running_text(before, &mut out);
            out.push_str(markdown.get(range.clone()).unwrap_or_default());
            at = range.end;
        }
    }
    running_text(markdown.get(at..).unwrap_or_default(), &mut out);
    Cow::Owned(out)
}

/// The ranges in which nothing is escaped, in order.
fn verbatim(markdown: &str) -> impl Iterator<Item = Range<usize>> {
    let events = Parser::new_ext(markdown, OPTIONS).into_offset_iter();
    events.filter_map(|(event, range)| match event {
        Event::Code(_)
        | Event::Html(_)
        | Event::InlineHtml(_)
        | Event::Start(
            Tag::CodeBlock(_)
            | Tag::Link {
                link_type: LinkType::Autolink | LinkType::Email,
                ..
            },
        ) => Some(range),
        _ => None,
    })
}

/// Copies text and escapes each backslash that Mattermost shows and `CommonMark` would take for an escape.
fn running_text(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let before = text.get(..text.len() - rest.len()).unwrap_or_default();
        let taken = match c {
            '\\' => backslash(rest, out),
            'h' if !before.ends_with(is_word) => address(rest, out),
            ' ' if rest.starts_with(" =") => size(before, rest),
            _ => None,
        };
        let taken = taken.unwrap_or_else(|| {
            out.push(c);
            c.len_utf8()
        });
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// How many bytes of the text this backslash takes.
fn backslash(rest: &str, out: &mut String) -> Option<usize> {
    let mut chars = rest.chars();
    chars.next()?;
    let c = chars.next()?;
    out.push('\\');
    if ESCAPABLE.contains(c) || (c == '\\' && !chars.as_str().starts_with(is_word)) {
        out.push(c);
        return Some(2);
    }
    if c.is_ascii_punctuation() || c == '\n' {
        out.push('\\');
    }
    Some(1)
}

/// Copies a bare address: marks in it are escaped, but a mark at its end may close what surrounds the address.
fn address(rest: &str, out: &mut String) -> Option<usize> {
    let scheme = ["https://", "http://"]
        .iter()
        .find(|scheme| rest.starts_with(**scheme))?;
    let ends = |c: char| c.is_whitespace() || "<>()[]\"'`|".contains(c);
    let end = rest.find(ends).unwrap_or(rest.len());
    let (start, behind) = rest.get(..end)?.split_at(scheme.len());
    out.push_str(start);
    let mut left = behind;
    while let Some(c) = left.chars().next() {
        let after = left.trim_start_matches(['*', '_', '~']);
        let (run, within) = match left.len() - after.len() {
            0 => (c.len_utf8(), c == '\\'),
            run => (run, after.starts_with(char::is_alphanumeric)),
        };
        let (run, after) = left.split_at(run);
        for c in run.chars() {
            out.extend(within.then_some('\\'));
            out.push(c);
        }
        left = after;
    }
    Some(end)
}

/// The length of the size after the address of an image: `![](https://… =100x50)`.
fn size(before: &str, rest: &str) -> Option<usize> {
    let mut near = before.len().saturating_sub(MAX_SIZE_DISTANCE);
    while !before.is_char_boundary(near) {
        near += 1;
    }
    let before = before.get(near..)?;
    let (label, address) = before.rsplit_once("](")?;
    let is_picture = label.contains("![") && !address.contains([' ', ')', '\n']);
    let size = rest.strip_prefix(" =").filter(|_| is_picture)?;
    let end = size.find(|c: char| !c.is_ascii_digit() && c != 'x')?;
    let ends = size.get(end..)?.starts_with([')', ' ']);
    (end > 0 && ends).then_some(end + 2)
}

/// What JavaScript's `\w` matches.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use footbridge_core::text::html_from_body;

    use super::*;

    #[test]
    fn markdown_is_read_as_apps_show_it() {
        let table = [
            (
                "a **b** *c* ~~d~~ `e`",
                "a <strong>b</strong> <em>c</em> <del>d</del> <code>e</code>",
            ),
            ("one\ntwo", "one<br>two"),
            ("a <b>x</b> & c", "a &lt;b&gt;x&lt;/b&gt; &amp; c"),
            (
                "```rust\nfn x() {}\n```",
                "<pre><code class=\"language-rust\">fn x() {}</code></pre>",
            ),
            (
                "```latex\nx^2\n```",
                "<div data-mx-maths=\"x^2\"><code>x^2</code></div>",
            ),
            (
                "```latex\na % b\nc\n```",
                "<pre><code class=\"language-latex\">a % b\nc</code></pre>",
            ),
            ("hi :tada: `:tada:`", "hi 🎉 <code>:tada:</code>"),
            (
                ":thinking_face: :+1_dark_skin_tone: :satellite: :blobcat:",
                "🤔 👍🏿 🛰\u{fe0f} :blobcat:",
            ),
            (
                "[a](https://example.org/)",
                "<a href=\"https://example.org/\">a</a>",
            ),
            ("[a](javascript:x)", "a"),
            (
                "![a cat](https://x.example/cat.gif) ![](https://x.example/b_c_)",
                "<a href=\"https://x.example/cat.gif\">a cat</a> <a href=\"https://x.example/b_c_\">https://x.example/b_c_</a>",
            ),
            (
                "![a](https://x.example/a.gif =100x50) ![b](https://x.example/b.gif =9 \"t\") `![c](d =1x1)`",
                "<a href=\"https://x.example/a.gif\">a</a> <a href=\"https://x.example/b.gif\">b</a> <code>![c](d =1x1)</code>",
            ),
            (
                "[![build](https://x.example/b.svg)](https://x.example/)",
                "<a href=\"https://x.example/\">build</a> (<a href=\"https://x.example/b.svg\">image</a>)",
            ),
            (
                "![a [b](https://x.example/b)](https://x.example/c)",
                "<a href=\"https://x.example/c\">a b</a>",
            ),
            ("![a](data:x) ![a](/x.png) [b](x)", "a a b"),
            ("[a](x.example/b)", "<a href=\"http://x.example/b\">a</a>"),
            (
                "https://x.example/__init__.py **https://x.example/a** _https://x.example/b_ https://x.example/a\\_b",
                "https://x.example/__init__.py <strong>https://x.example/a</strong> <em>https://x.example/b</em> https://x.example/a\\_b",
            ),
            (
                "https://x.example/a:smile:/:smile:b/:smile: a:x:b 12:100:30 x.example/:smile: :smile: :x::x:",
                "https://x.example/a:smile:/:smile:b/:smile: a:x:b 12:100:30 x.example/:smile: 😄 ❌❌",
            ),
            ("~a~ ~~b ~c~ d~~", "~a~ <del>b ~c~ d</del>"),
            (
                r"C:\Users\me \\server\share \d+ `\\x`",
                r"C:\Users\me \\server\share \d+ <code>\\x</code>",
            ),
            (
                r#"\"a\" \$1 \/b\/ \: \_c\_ \\ \\\\d \\_e_ f\"#,
                r"\&quot;a\&quot; \$1 \/b\/ \: _c_ \ \\\d \_e_ f\",
            ),
            ("a\\\nb \\`c`", "a\\<br>b `c`"),
            (r"\<b> \&amp; <b\_>", r"\&lt;b&gt; \&amp; &lt;b_&gt;"),
            (
                "@all ~town #tag snake_case_name",
                "@all ~town #tag snake_case_name",
            ),
        ];
        for (markdown, html) in table {
            assert_eq!(
                html_from_body(&body_from_markdown(markdown)),
                html,
                "{markdown}"
            );
        }
    }

    #[test]
    fn an_address_without_a_host_is_one_of_the_server() {
        let server: Url = "https://chat.example/mm/".parse().unwrap();
        for (markdown, html) in [
            (
                "![a](/api/v4/files/1)",
                "<a href=\"https://chat.example/api/v4/files/1\">a</a>",
            ),
            (
                "[a](/team/pl/1) [b](//x.example/c)",
                "<a href=\"https://chat.example/team/pl/1\">a</a> <a href=\"https://x.example/c\">b</a>",
            ),
            (
                "[a](#x) [b](mailto:a@b.example)",
                "a <a href=\"mailto:a@b.example\">b</a>",
            ),
            (
                "<a@b.example>",
                "<a href=\"mailto:a@b.example\">a@b.example</a>",
            ),
        ] {
            let body = body_from_markdown_of(markdown, Some(&server));
            assert_eq!(html_from_body(&body), html, "{markdown}");
        }
    }

    #[test]
    fn what_is_nothing_in_markdown_is_shown_as_it_was_written() {
        assert_eq!(
            body_from_markdown("[x]: https://example.org").to_plain(),
            "[x]: https://example.org"
        );
        assert!(body_from_markdown("  \n").is_empty());
    }
}
