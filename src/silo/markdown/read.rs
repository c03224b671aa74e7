//! Markdown → neutral text. HTML in it is text, line ends are line ends, and shortcodes of emoji are emoji.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html::push_html};

use crate::text::{
    Block, Body,
    html::{Dialect, body_from_html},
    with_emoji,
};

/// Reads Markdown as chat apps show it.
#[must_use]
pub fn body_from_markdown(markdown: &str) -> Body {
    let (mut in_code, mut strikes) = (false, Vec::new());
    let events = Parser::new_ext(
        markdown,
        Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES,
    );
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
        Body::plain(markdown)
    } else {
        body
    }
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
