//! Markdown → neutral text, as Mattermost's apps show it. HTML in it is text, line ends are line ends, and shortcodes of
//! emoji are emoji.

use std::{borrow::Cow, ops::Range};

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd, html::push_html};

use crate::text::{
    Block, Body,
    html::{Dialect, body_from_html},
    with_emoji,
};

/// What is read besides the Markdown of `CommonMark`.
const OPTIONS: Options = Options::ENABLE_STRIKETHROUGH.union(Options::ENABLE_TABLES);

/// What a backslash escapes in Mattermost (its fork of marked, `inline.escape`); another backslash only before what is
/// neither a letter nor a digit nor an underscore.
const ESCAPABLE: &str = "`*{}[]()#+-.!_>|~";

/// Reads Markdown as Mattermost's apps show it.
#[must_use]
pub fn body_from_markdown(written: &str) -> Body {
    let (mut in_code, mut strikes) = (false, Vec::new());
    let markdown = &*with_backslashes(written);
    let events = Parser::new_ext(markdown, OPTIONS);
    let events = events.into_offset_iter().map(|(event, range)| match event {
        // One tilde strikes nothing out there.
        Event::Start(Tag::Strikethrough) => {
            let strikes_out = markdown
                .get(range)
                .is_some_and(|text| text.starts_with("~~"));
            strikes.push(strikes_out);
            if strikes_out {
                Event::Start(Tag::Strikethrough)
            } else {
                Event::Text("~".into())
            }
        }
        Event::End(TagEnd::Strikethrough) if strikes.pop() == Some(false) => {
            Event::Text("~".into())
        }
        Event::Start(Tag::CodeBlock(kind)) => {
            in_code = true;
            Event::Start(Tag::CodeBlock(kind))
        }
        Event::End(TagEnd::CodeBlock) => {
            in_code = false;
            Event::End(TagEnd::CodeBlock)
        }
        Event::Text(text) if !in_code => Event::Text(with_emoji(&text).into()),
        Event::SoftBreak => Event::HardBreak,
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    });
    let mut html = String::new();
    push_html(&mut html, events);
    let mut body = body_from_html(&html, Dialect::Matrix);
    for block in &mut body.0 {
        // Apps that show formulas take them from blocks of code in these languages.
        if let Block::Code {
            language: Some(language),
            text,
        } = block
            && matches!(language.as_str(), "latex" | "tex")
            // Of several lines each may end in a comment: they stay as they are.
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

/// The same Markdown for a reader that follows `CommonMark`: there a backslash escapes more than it does in Mattermost, and
/// what people see would be lost. Code, HTML and addresses are the same in both.
fn with_backslashes(markdown: &str) -> Cow<'_, str> {
    if !markdown.contains('\\') {
        return Cow::Borrowed(markdown);
    }
    let mut out = String::with_capacity(markdown.len() + 16);
    let mut at = 0;
    for range in verbatim(markdown) {
        // One may contain another.
        if range.start >= at {
            let before = markdown.get(at..range.start).unwrap_or_default();
            backslashes(before, &mut out);
            out.push_str(markdown.get(range.clone()).unwrap_or_default());
            at = range.end;
        }
    }
    backslashes(markdown.get(at..).unwrap_or_default(), &mut out);
    Cow::Owned(out)
}

/// Where nothing is escaped, in order.
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

/// Running text in which each backslash that Mattermost shows is escaped where something would be escaped by it.
fn backslashes(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        out.push('\\');
        let mut chars = after.chars();
        rest = match chars.next() {
            Some(c)
                if ESCAPABLE.contains(c) || (c == '\\' && !chars.as_str().starts_with(is_word)) =>
            {
                out.push(c);
                chars.as_str()
            }
            Some(c) if c.is_ascii_punctuation() || c == '\n' => {
                out.push('\\');
                after
            }
            _ => after,
        };
    }
    out.push_str(rest);
}

/// What JavaScript's `\w` matches.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::html_from_body;

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
                "[a](https://example.org/)",
                "<a href=\"https://example.org/\">a</a>",
            ),
            ("[a](javascript:x)", "a"),
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
    fn what_is_nothing_in_markdown_is_shown_as_it_was_written() {
        assert_eq!(
            body_from_markdown("[x]: https://example.org").to_plain(),
            "[x]: https://example.org"
        );
        assert!(body_from_markdown("  \n").is_empty());
    }
}
